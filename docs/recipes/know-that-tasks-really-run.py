"""A canary: a small task on each queue, and one through the triggerer, every ten minutes."""

# START canary
from airflow_resilient import canary_dag

dag = canary_dag(every="10m", beat_url_variable="canary_url_secret")
# END canary
