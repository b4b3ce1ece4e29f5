"""The kill matrix: real containers, a real Airflow, and what is killed around them.

Our operator stands beside the docker provider's, and beside the provider's with a fixed ``container_name``.
`cases` says what is done and what is wanted, `runner` lets it happen and observes, `report` writes the table.
``tox run -e kills`` plays all of it; ``tests/system/test_kills.py`` our part.
"""
