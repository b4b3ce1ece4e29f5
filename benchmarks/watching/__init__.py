"""Watching at scale: our trigger beside the amazon provider's, on the same fake endpoint, in one run.

`endpoint` is the fake AWS, `one` a process that measures one case, `cases` what is measured, `figures` and
`report` are pure. ``tox run -e benchmarks-watch`` runs it all; ``docs/benchmarks.md`` says how to read it.
"""
