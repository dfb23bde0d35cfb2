"""How Sphinx builds the documentation."""

from __future__ import annotations

import tanksend

project = "tanksend"
author = "the tanksend authors"
copyright = "2026, the tanksend authors"
release = version = tanksend.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"tanksend {release}"
exclude_patterns = ["_build"]

default_role = "code"
myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_attr_annotations = True
napoleon_custom_sections = [("Source", "notes_style")]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
