"""The fake AWS: moto, and what moto lacks."""
