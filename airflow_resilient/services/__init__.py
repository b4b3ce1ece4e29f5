"""One folder for each service; the names of the folders stand in the registry."""
