"""One page that opens everything in a workspace: reports, viewers, pictures, executed notebooks, runs and datasets.

Links are relative, so that the folder can be moved or packed. Executed notebooks become pages beside them, where
nbconvert is installed. Knows files by their names, and nothing of what made them.
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from flowlib.quantities import counted, file_size
from flowlib.video import decode_image, encode_image, resize_frame
from flowlib.workspace import Workspace, atomic_write, read_json

# What a report's folder may hold to be opened, and how it is called.
PAGES = {"report.html": "report", "viewer.html": "viewer", "prediction.html": "viewer", "table.md": "table"}
THUMBNAIL = 640  # pixels wide
WIDGET = "application/vnd.jupyter.widget-view+json"


@dataclass(frozen=True)
class Entry:
    """Something to open: what it is, what it says, links by their words, pictures by their addresses."""

    title: str
    text: str = ""
    links: dict[str, str] = field(default_factory=dict)
    pictures: list[str] = field(default_factory=list)


def write_contents(workspace: Workspace) -> Path:
    """Write `index.html` into a workspace, and a page beside each of its executed notebooks; returns the former.

    Raises:
        OSError: the workspace can't be written.

    >>> write_contents(Workspace("example")).name
    'index.html'
    """
    root = workspace.root
    sections = {
        "Reports": [_report(root, folder) for folder in _folders(workspace.reports)],
        "Notebooks": [_notebook(root, path) for path in sorted(root.glob("notebooks/*.ipynb"))],
        "Training runs": [_run(root, folder) for folder in _folders(workspace.runs)],
        "Datasets": [_dataset(root, folder) for folder in _folders(workspace.datasets)],
    }
    page = root / "index.html"
    _write(page, _template("contents.html.jinja").render(sections=sections, root=str(root)))
    return page


def _report(root: Path, folder: Path) -> Entry:
    links = {}
    for name, word in PAGES.items():
        if (folder / name).is_file():
            links[word] = _link(root, folder / name)
    said = _json(folder / "report.json").get("summary", [])
    pictures = [_link(root, path) for path in (folder / "prediction.png",) if path.is_file()]
    text = " ".join(map(str, said[:2])) if isinstance(said, list) else ""
    return Entry(folder.name, text, links | _folder_link(root, folder), pictures)


def _run(root: Path, folder: Path) -> Entry:
    about, last = _json(folder / "config.json"), {}
    for line in _lines(folder / "metrics.jsonl"):
        last |= line
    config, name = about.get("config"), str((about.get("score") or {}).get("name", ""))
    steps = config.get("steps") if isinstance(config, dict) else None
    told = [f"{last.get('step', 0)} of {counted(steps, 'step')}"] if isinstance(steps, int) else []
    for word, key in (("training", name), ("validation", f"validation_{name}")):
        if isinstance(last.get(key), float):
            told.append(f"{word} {name.upper()} {last[key]:.3g}")
    pictures = [_link(root, path) for path in sorted(folder.glob("pictures/*.png"))[-1:]]
    return Entry(folder.name, ", ".join(told), _folder_link(root, folder), pictures)


def _dataset(root: Path, folder: Path) -> Entry:
    shards = list(folder.glob("shards/*.h5"))
    splits = Counter(map(str, _json(folder / "splits.json").values()))
    told = [f"{counted(number, 'video')} to {word}" for word, number in splits.items()]
    told.append(f"{counted(len(shards), 'shard')}, {file_size(sum(path.stat().st_size for path in shards))}")
    return Entry(folder.name, "; ".join(told).replace("to val", "to validate"), _folder_link(root, folder))


def _notebook(root: Path, path: Path) -> Entry:
    content = _json(path)
    cells = [cell for cell in content.get("cells", []) if isinstance(cell, dict)]
    told = next((_text(cell) for cell in cells if cell.get("cell_type") == "markdown"), "")
    found = re.search(r"^# (.*)", told, re.M)
    links, page = {"notebook": _link(root, path)}, path.with_suffix(".html")
    if not page.exists() or page.stat().st_mtime < path.stat().st_mtime:
        text = notebook_page(path)
        if text:
            _write(page, text)
    if page.exists():
        links = {"read": _link(root, page)} | links
    failed = any(output.get("output_type") == "error" for cell in cells for output in cell.get("outputs", []))
    return Entry(found[1] if found else path.stem, "It ended with an error." * failed, links, _picture(cells))


def notebook_page(path: Path) -> str:
    """An executed notebook as a page that stands alone, light or dark; "" if it is none, or without nbconvert.

    Cells that only set up are left out, and so are widgets, which need a kernel: their still picture stays.
    """
    try:
        import nbformat
        from nbconvert import HTMLExporter
        from pygments.formatters import HtmlFormatter
    except ImportError:
        return ""
    try:
        notebook = nbformat.read(path, as_version=4)
    except (ValueError, KeyError, AttributeError, TypeError):  # one that papermill is writing, say
        return ""
    notebook.cells = [cell for cell in notebook.cells if "setup" not in cell.metadata.get("tags", [])]
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.metadata["image/png"] = {"alt": "what the cell draws"}
    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)
    body, _ = exporter.from_notebook_node(notebook)
    code = {style: HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("default", "github-dark")}
    return _template("notebook.html.jinja").render(
        title=path.stem, body=Markup(body), light=Markup(code["default"]), dark=Markup(code["github-dark"])
    )


def _picture(cells: list[dict[str, Any]]) -> list[str]:
    """The last picture of a notebook's outputs, made small, as an address that holds it."""
    data = [output.get("data") or {} for cell in cells for output in cell.get("outputs", [])]
    found = [one["image/png"] for one in data if "image/png" in one]
    if not found:
        return []
    image = decode_image(base64.b64decode("".join(found[-1])))
    height, width = image.shape[:2]
    small = resize_frame(image, (max(1, height * THUMBNAIL // width), THUMBNAIL)) if width > THUMBNAIL else image
    return [f"data:image/jpeg;base64,{base64.b64encode(encode_image(small, 'jpeg')).decode()}"]


def _text(cell: dict[str, Any]) -> str:
    return "".join(cell.get("source", ""))


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is none, or none that can be read: the page shows what is there."""
    try:
        return read_json(path)
    except (OSError, ValueError):
        return {}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a run's metrics; a last one cut short by a kill is left out."""
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict):
                yield found


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.is_dir() and not path.name.startswith("."))


def _link(root: Path, path: Path) -> str:
    return quote(path.relative_to(root).as_posix())


def _folder_link(root: Path, folder: Path) -> dict[str, str]:
    return {"folder": f"{_link(root, folder)}/"}


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@cache
def _template(name: str) -> Template:
    loader = PackageLoader("flowlib", "pages")
    return Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template(name)
