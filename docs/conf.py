"""How the documentation is built: ``make docs``."""

from feedline import __version__

project = "Feedline"
author = "The Feedline developers"
copyright = "2026, The Feedline developers"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

default_role = "py:obj"  # `DataLoader` in a docstring links to it
maximum_signature_line_length = 72
_SEAMS = ("parents", "name", "order", "is_there", "thread_safe", "uses_global_rng", "apply", "draw", "word_count")
autodoc_default_options = {"members": True, "exclude-members": ", ".join(_SEAMS)}  # users of a class need none of them
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "none"  # the docstrings say what each argument takes, in words
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"Feedline {__version__}"
html_static_path = ["_static"]
html_css_files = ["feedline.css"]
html_show_sphinx = False
