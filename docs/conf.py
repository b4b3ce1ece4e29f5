"""Sphinx settings: ``tox run -e docs`` builds with warnings as errors."""

from importlib.metadata import version as version_of

project = "airflow-resilient"
author = "The airflow-resilient authors"
copyright = "2026, the airflow-resilient authors"  # noqa: A001 - Sphinx's name
release = version = version_of(project)

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"{project} {release}"
html_static_path: list[str] = []
default_role = "code"  # docstrings say `decide` and mean code

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
