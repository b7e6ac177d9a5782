"""Pages of the documentation that are made of other files of the clone, and links that lead there (hooks of MkDocs).

README becomes the overview, each notebook a page, each part of the package a page of its docstrings, the command line
the text of its `--help`. Pages link as files do in the repository; here each link finds the page made of its target,
or the file in the repository whose address pyproject.toml names, or is left as plain words.
"""

from __future__ import annotations

import io
import os
import posixpath
import re
import tomllib
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import jupytext
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

CLONE = Path(__file__).parents[1]
INCLUDED = {  # page -> the file it is made of
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "weights.md": "flowlib/weights/README.md",
    "sample.md": "flowlib/sample/README.md",
}
NOTEBOOKS = sorted(CLONE.glob("notebooks/*.py"))
ROOMS = sorted(
    path
    for path in (CLONE / "flowlib").iterdir()
    if not path.name.startswith("_") and (path.suffix == ".py" or (path / "__init__.py").is_file())
)
PICTURE = re.compile(r'<picture>\s*<source [^>]*srcset="([^"]+)">\s*<img src="([^"]+)" alt="([^"]+)">\s*</picture>')
LINK = re.compile(r"(?P<image>!?)\[(?P<words>[^\]]*)\]\((?P<target>[^)\s]+)\)")
RAW = re.compile(r"https://raw\.githubusercontent\.com/[^/]+/[^/]+/[^/]+/docs/")  # see flowlib.notebook_files
FENCE = re.compile(r"^```.*?^```", re.M | re.S)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Name the notebooks and the parts of the package in the navigation."""
    made = {
        "notebooks/": [f"notebooks/{path.stem}.md" for path in NOTEBOOKS],
        "reference/": [{_dotted(path): f"reference/{path.stem}.md"} for path in ROOMS],
    }
    config.nav = _filled(config.nav, made)
    return config


def _filled(nav: Any, made: dict[str, list[Any]]) -> Any:
    """The navigation, each folder of `made` that it names replaced by its pages."""
    if isinstance(nav, dict):
        return {title: _filled(entry, made) for title, entry in nav.items()}
    if isinstance(nav, list):
        return [one for entry in nav for one in (made[entry] if entry in list(made) else [_filled(entry, made)])]
    return made.get(nav, nav)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of other files, and the notebooks to download."""
    contents = {page: RAW.sub("docs/", (CLONE / source).read_text()) for page, source in INCLUDED.items()}
    contents |= {f"notebooks/{path.stem}.md": notebook(path) for path in NOTEBOOKS}
    contents |= {f"reference/{path.stem}.md": reference(path) for path in ROOMS}
    contents["reference/command_line.md"] = command_line()
    for page, content in contents.items():
        files.append(File.generated(config, page, content=content))
    for path in NOTEBOOKS:
        files.append(
            File.generated(config, f"notebooks/{path.stem}.ipynb", abs_src_path=str(path.with_suffix(".ipynb")))
        )
    return files


def notebook(path: Path) -> str:
    """A notebook as Markdown; the cell that sets Colab up is left out."""
    read = jupytext.read(path)
    cells = [cell for cell in read.cells if "setup" not in cell.metadata.get("tags", [])]
    told = [cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```" for cell in cells]
    told.insert(1, f"[Download the notebook]({path.stem}.ipynb){{ .md-button download }}")
    return "\n\n".join(told)


def reference(path: Path) -> str:
    """The docstrings of a module, or of a package and the modules in it."""
    top = f"# {_dotted(path)}\n\n"
    if path.suffix:
        return top + f"::: {_dotted(path)}\n    options: {{show_root_heading: false}}\n"
    modules = sorted(inner for inner in path.rglob("*.py") if not inner.name.startswith("_"))
    own = f"::: {_dotted(path)}\n    options: {{show_root_heading: false, members: false}}\n\n"
    return top + own + "".join(f"::: {_dotted(inner)}\n\n" for inner in modules)


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(CLONE).with_suffix("").parts)


def command_line() -> str:
    """What `--help` says of every command."""
    from flowlib.__main__ import COMMANDS, main

    os.environ["COLUMNS"] = "100"
    told = ["# Command line", "What `flowlib COMMAND --help` says of each command; `flowlib --help` lists them."]
    for name in COMMANDS:
        with redirect_stdout(io.StringIO()) as said, suppress(SystemExit):
            main([*name.split(), "--help"])
        told.append(f"## flowlib {name}\n\n```console\n{said.getvalue().strip()}\n```")
    return "\n\n".join(told)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let pictures follow the light, and links lead to pages."""
    source = INCLUDED.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    source = source.removeprefix("docs/") if source.startswith("docs/notebooks/") else source
    text = PICTURE.sub(r"![\3](\2#only-light)![\3](\1#only-dark)", markdown)
    pieces, at = [], 0
    for fence in [*FENCE.finditer(text), None]:
        end = fence.start() if fence else len(text)
        pieces.append(LINK.sub(lambda found: _linked(found, source, page.file.src_uri, files), text[at:end]))
        pieces.append(fence[0] if fence else "")
        at = fence.end() if fence else end
    return "".join(pieces)


def _linked(found: re.Match[str], source: str, page: str, files: Files) -> str:
    """A link of the file `source`, as it has to be on a page."""
    target, _, anchor = found["target"].partition("#")
    if "://" in target or not target:
        return found[0]
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    there = next((made for made, original in INCLUDED.items() if original == path), "")
    if path.startswith("notebooks/") and page != f"{path.removesuffix('.ipynb')}.md":
        there = path.replace(".ipynb", ".md")
    if path.startswith("flowlib/") and path.endswith(".py"):
        there = f"reference/{Path(path).parts[1].removesuffix('.py')}.md"
    there = there or (path.removeprefix("docs/") if files.get_file_from_path(path.removeprefix("docs/")) else "")
    if there:
        relative = posixpath.relpath(there, posixpath.dirname(page) or ".")
        return f"{found['image']}[{found['words']}]({relative}{'#' + anchor if anchor else ''})"
    address = tomllib.loads((CLONE / "pyproject.toml").read_text())["project"].get("urls", {}).get("Repository", "")
    if not (CLONE / path).exists():
        return found[0]  # MkDocs says that it leads nowhere
    return f"[{found['words']}]({address}/blob/main/{path})" if address else found["words"]
