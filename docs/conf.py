"""The site: `make docs`. Pages are Markdown, as they are read in the repository too."""

from __future__ import annotations

from modeltiers import __version__ as release

project = "modeltiers"
author = "the modeltiers authors"
extensions = ["myst_parser", "sphinx_copybutton"]
highlight_language = "none"
html_theme = "furo"
html_title = f"modeltiers {release}"
html_show_copyright = html_show_sphinx = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
# Files of the repository that pages lead to are no pages; GitHub and the like show them.
myst_links_external_new_tab = True
exclude_patterns = ["_build"]
