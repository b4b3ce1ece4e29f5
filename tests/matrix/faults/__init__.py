"""The fault matrix: every fault, every fate of a job, both services, our operators beside the provider's.

`cases` says what is done and what is wanted, `steps` are its steps, `environment` holds the real Airflow and
the fake AWS, `runner` lets everything happen, `judge` turns what was seen into figures, `report` writes them
down, `mutants` are copies of the library in which a rule is broken.
``tox run -e faults`` plays all of it; ``tests/system/test_faults.py`` a part that covers every row.
"""
