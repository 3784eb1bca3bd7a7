"""The site: `make site` builds it into build/site, offline, with every warning an error."""

from __future__ import annotations

import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent / "tools")]

import tutorials  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402
from sphinx.errors import ConfigError  # noqa: E402

from crossent import __version__  # noqa: E402

project = "crossent"
author = "The crossent authors"
copyright = "The crossent authors"
version = release = __version__

extensions = ["myst_parser", "sphinx_copybutton", "sphinx_design", "api", "mathml"]
exclude_patterns = ["site"]
nitpicky = True

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
python_maximum_signature_line_length = 78
python_display_short_literal_types = True
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"crossent {release}"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
pygments_style = "friendly"
pygments_dark_style = "monokai"
copybutton_exclude = ".linenos, .gp, .go"


def as_pages(app: Sphinx, document: str, source: list[str]) -> None:
    """Links to files are links to pages: by their titles, and also to files beside docs/."""
    text = re.sub(r"\[([\w/-]+\.md)\]\((?=[\w./-]*\1)", "[](", source[0])
    for name in ("CONTRIBUTING", "CHANGELOG", "SECURITY"):
        text = text.replace(f"](../{name}.md", f"](project/{name.lower()}.md")
    source[0] = text


def setup(app: Sphinx) -> None:
    try:
        tutorials.check()
    except ValueError as error:
        raise ConfigError(str(error)) from error
    app.connect("source-read", as_pages)
    app.connect("include-read", lambda app, path, document, text: as_pages(app, document, text))
