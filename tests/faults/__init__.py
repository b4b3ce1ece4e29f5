"""The fault matrix: every fault, every fate of a job, both services, our operators beside the provider's.

`rows` says what is done and what is wanted, `steps` are its words, `stage` holds the real Airflow and the
fake AWS, `play` lets everything happen, `judge` turns what was seen into figures, `report` writes them down.
``tox run -e faults`` plays all of it; ``tests/system/test_faults.py`` a part that covers every row.
"""
