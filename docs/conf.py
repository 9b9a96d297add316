"""The documentation site: the Markdown of this folder, a page for every room, a page for the command line.

The pages below `reference/generated/` are written here at every build: the rooms in the order of the table in
`design.md` with their public modules, and the commands as typer describes them.
"""

import re
from importlib.metadata import version as installed
from pathlib import Path

import typer
from sphinx.application import Sphinx
from typer.cli import get_docs_for_click

from catalign.cli.main import app as commands

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "src" / "catalign"
GENERATED = HERE / "reference" / "generated"

project = "catalign"
author = copyright = "the catalign authors"
release = installed("catalign")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}
html_theme = "furo"
html_title = f"catalign {release}"
html_copy_source = False
html_static_path, html_css_files = ["_static"], ["wide.css"]
smartquotes = False  # it makes one dash of the two before an option
suppress_warnings = ["ref.python"]  # a link to an attribute called `bytes` or `model`, where a type is meant
default_role = "code"  # docstrings mark code with single backticks
highlight_language = "text"
myst_heading_anchors = 3
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_ivar = napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    "exclude-members": "model_config, OutsideName, ScoreMode",
}
autodoc_preserve_defaults = True
WORKERS = "baselines/workers"  # runs in environments of its own

IN_BACKTICKS = re.compile(r"(`[^`]*`)")


def write_reference(sphinx: Sphinx) -> None:
    """Write the generated pages."""
    GENERATED.mkdir(exist_ok=True)
    table = (HERE / "design.md").read_text(encoding="utf-8")
    rooms = re.findall(r"^\| `(\w+)/` \| (.+?) \|", table, flags=re.MULTILINE)
    faces = [("catalign", "the package's face and what belongs to every room", sorted(PACKAGE.glob("[a-z]*.py")))]
    pages = [(room, holds, sorted((PACKAGE / room).rglob("[a-z]*.py"))) for room, holds in rooms if room != "cli"]
    for name, holds, modules in [*faces, *pages]:
        kept = [path for path in modules if WORKERS not in path.as_posix()]
        parts = [f"# {name}", f"{holds[0].upper()}{holds[1:]}.", *map(_module, kept)]
        _write(GENERATED / f"{name}.md", "\n\n".join(parts) + "\n")
    command = typer.main.get_command(commands)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="catalign", title="Commands")
    _write(GENERATED / "commands.md", text)


def _module(path: Path) -> str:
    """The section of one module."""
    name = "catalign." + path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")
    return f"## {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n```"


def _write(path: Path, text: str) -> None:
    """Write a page where it has changed, so that the next build is short."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def as_text(sphinx: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Docstrings are text: indented formulas, trees and examples stay as they are, and no sign is markup."""
    told: list[str] = []
    literal, above = False, ""  # whether the block goes on, and the last line that is not empty
    for number, line in enumerate(lines):
        indented, after_blank = line.startswith("    "), number > 0 and not lines[number - 1].strip()
        if line.strip() and not (indented and literal):
            literal = indented and after_blank and not above.startswith(" ")
            if literal:
                told += ["::", ""]
        told.append(line if literal or not line.strip() else _escaped(line))
        above = line if line.strip() else above
    lines[:] = told


def _escaped(line: str) -> str:
    """A line of text without markup outside backticks."""
    parts = IN_BACKTICKS.split(line)
    parts[::2] = [re.sub(r"[*|\\]|(?<=\w)_(?=\W|$)", lambda sign: "\\" + sign.group(), part) for part in parts[::2]]
    return "".join(parts)


def setup(sphinx: Sphinx) -> None:
    """Write the pages first; take docstrings as text before napoleon reads their sections."""
    sphinx.connect("builder-inited", write_reference)
    sphinx.connect("autodoc-process-docstring", as_text, priority=400)
