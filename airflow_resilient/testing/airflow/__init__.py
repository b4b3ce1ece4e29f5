"""A real Airflow on this machine, for tests."""
