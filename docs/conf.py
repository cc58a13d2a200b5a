"""The site: `make docs`. Pages are Markdown, as they are read in the repository too."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]

project = "modeltiers"
author = "the modeltiers authors"
release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
extensions = ["myst_parser", "sphinx_copybutton"]
html_theme = "furo"
html_title = f"modeltiers {release}"
html_show_copyright = html_show_sphinx = False
html_copy_source = False
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
# Files of the repository that pages lead to are no pages; GitHub and the like show them.
myst_links_external_new_tab = True
exclude_patterns = ["_build"]
