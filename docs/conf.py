"""Configuration of the documentation site; `make docs` builds it."""

import tomllib
from pathlib import Path

with (Path(__file__).parent.parent / "pyproject.toml").open("rb") as file:
    metadata = tomllib.load(file)["project"]

project = metadata["name"]
release = metadata["version"]
copyright = "the turnwise contributors, Apache-2.0"

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# Docstrings and pages speak of tags such as <think>; as HTML they would vanish from the page.
myst_disable_syntax = ["html_inline", "html_block"]
# A type name in a signature may exist in several modules; the link is then left out. Headings in docstrings start anywhere.
suppress_warnings = ["ref.python", "myst.header"]

html_theme = "furo"
html_title = f"turnwise {release}"
html_show_sphinx = False
add_module_names = False
maximum_signature_line_length = 88
python_use_unqualified_type_names = True
