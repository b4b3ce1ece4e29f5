"""Steps of an Amazon EMR cluster."""
