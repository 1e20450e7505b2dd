"""The docs as a site: `make docs` builds it into build/docs, offline, with search."""

import redistrib

project = "redistrib"
release = redistrib.__version__
extensions = ["myst_parser"]
myst_heading_anchors = 3
exclude_patterns = ["quick"]
html_theme = "furo"
html_title = "redistrib"
html_copy_source = False
