"""Local time in templates, and the gate for old runs. Nothing here knows of remote jobs."""
