"""Looking after Airflow and its remote jobs from outside: one file for each tool."""
