"""What has to be settled before a test imports Airflow."""

import os
from pathlib import Path

# Airflow makes its home, and on demand a database in it, where this says when it is imported: one for each
# of the processes that pytest-xdist runs tests in.
if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and (home := os.environ.get("AIRFLOW_HOME")):
    os.environ["AIRFLOW_HOME"] = str(Path(home) / worker)
