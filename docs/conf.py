"""Sphinx settings: ``tox run -e docs`` builds with warnings as errors."""

from __future__ import annotations

from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Any

from docutils import nodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "airflow-resilient"
author = "The airflow-resilient authors"
copyright = "2026, the airflow-resilient authors"  # noqa: A001 - Sphinx's name
release = version = version_of(project)

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = [  # parts of pages
    "_build",
    "_generated/faults-in-short.md",
    "_generated/metrics.md",
    "_generated/options.md",
]
html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
default_role = "code"  # `decide` in a docstring is code

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

maximum_signature_line_length = 88  # a longer one has a line for each parameter
toc_object_entries_show_parents = "hide"

autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True

WIDE = {"index", "_generated/demo", "_generated/faults", "_generated/kills"}
"""Pages without a table of contents at the side, because their tables and pictures are wide."""


def _without_contents(
    _app: Sphinx, page: str, _template: str, context: dict[str, Any], _tree: object
) -> None:
    if page in WIDE:
        context["furo_hide_toc"] = True


def _without_empty_last_lines(_app: Sphinx, doctree: nodes.document) -> None:
    """Remove the empty lines at the end of a code block: a region of a recipe may end with some."""
    for block in doctree.findall(nodes.literal_block):
        if block.rawsource == block.astext():  # otherwise it is no code to be highlighted
            block.rawsource = block.rawsource.rstrip()
            block[:] = [nodes.Text(block.rawsource)]


def setup(app: Sphinx) -> None:
    """Sphinx calls this; Furo decides at the usual priority, so ours comes later."""
    app.connect("doctree-read", _without_empty_last_lines)
    app.connect("html-page-context", _without_contents, priority=900)
