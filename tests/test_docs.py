"""The documentation: it builds without a warning, leads nowhere wrong, and what it quotes is what flowlib says."""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from fixtures.browser import CHROMIUM, PATIENCE, chromium
from safetensors import safe_open

from flowlib.video import fingerprint, read_frames

CLONE = Path(__file__).parents[1]
DOCS = CLONE / "docs"


# ------------------------------------------------------------------------------------------------------ what is quoted


@cache
def said() -> list[str]:
    """Every text of the package, of the set-up and of the notebooks' first cell, "…" for what is filled in."""
    texts = []
    for path in (CLONE / "flowlib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    for path in (CLONE / "colab_setup.sh", CLONE / "notebooks/01_frames.py"):
        texts.append(re.sub(r"\$\(\([^)]*\)\)|\$\{[^}]*\}|\$\w+", "…", path.read_text()))
    return texts


def quoted() -> list[str]:
    """The messages that the page of errors quotes, one a line."""
    blocks = re.findall(r"^```text\n(.*?)^```", (DOCS / "errors.md").read_text(), re.M | re.S)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("message", quoted())
def test_a_quoted_error_is_what_the_code_says(message):
    assert any(message in text for text in said()), "no such message any more: put right docs/errors.md"


def test_an_error_that_nobody_says_is_found_out():
    assert len(quoted()) > 30
    assert not any("dataset: … was made with quite other settings" in text for text in said())


# -------------------------------------------------------------------------------------------------------- what is built


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built; strict, so that any warning fails it."""
    for name in ("mkdocs", "material", "mkdocstrings_handlers"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"the documentation's extra isn't installed: no {name}")
    folder = tmp_path_factory.mktemp("site")
    environment = os.environ | {"PYTHONPATH": str(CLONE), "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    result = subprocess.run(command, cwd=CLONE, env=environment, capture_output=True, text=True)
    assert result.returncode == 0 and "WARNING" not in result.stderr, result.stderr[-4000:]
    return folder


def test_every_notebook_and_every_part_of_the_package_has_a_page(site):
    for path in (CLONE / "notebooks").glob("*.py"):
        page = (site / f"notebooks/{path.stem}.html").read_text()
        assert "check_parameters" in page and "google.colab" not in page
        assert (site / f"notebooks/{path.stem}.ipynb").read_bytes() == path.with_suffix(".ipynb").read_bytes()
    for path in (CLONE / "flowlib").iterdir():
        if not path.name.startswith("_") and (path.suffix == ".py" or (path / "__init__.py").is_file()):
            assert f"flowlib.{path.stem}" in (site / f"reference/{path.stem}.html").read_text()


def test_settings_examples_and_shapes_are_in_the_reference(site):
    labelling, geometry = ((site / f"reference/{name}.html").read_text() for name in ("labelling", "geometry"))
    assert "points a side: grid × grid" in labelling, "the comments of a dataclass's fields are missing"
    assert "&gt;&gt;&gt;" in geometry and "<blockquote>" not in geometry
    assert "[B N 2] (x, y) in pixels" in re.sub(r"<[^>]*>", "", geometry)


def test_the_command_line_is_told_whole(site):
    from flowlib.__main__ import COMMANDS

    page = (site / "reference/command_line.html").read_text()
    assert not [name for name in COMMANDS if f"usage: flowlib {name} " not in page]
    assert "--dataset" in page


class Links(HTMLParser):
    """The addresses in a page, and the names that an address may lead to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.names: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.names |= {str(found[key]) for key in ("id", "name") if found.get(key)}
        self.links += [str(found[key]) for key in ("href", "src") if found.get(key)]


def test_every_link_leads_to_a_file_and_a_place_in_it(site):
    pages = {page: Links(page) for page in site.rglob("*.html") if page.name != "404.html"}
    wrong = []
    for page, found in pages.items():
        for link in found.links:
            target, _, anchor = unquote(link).partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            there = (page.parent / target).resolve() if target else page
            there = there / "index.html" if there.is_dir() else there
            if not there.is_file() or (
                anchor and there in pages and anchor not in pages[there].names | {"only-light", "only-dark"}
            ):
                wrong.append(f"{page.relative_to(site)}: {link}")
    assert len(pages) > 40 and not wrong


def test_nothing_is_fetched_from_elsewhere(site):
    for page in site.rglob("*.html"):
        fetched = re.findall(
            r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="?(https?:[^" >]*)', page.read_text()
        )
        assert not fetched, f"{page.relative_to(site)} needs {fetched}"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_pages_fit_a_telephone(site, tmp_path):
    with chromium(tmp_path) as context:
        tab = context.new_page()
        tab.set_viewport_size({"width": 400, "height": 800})
        for page in [
            *sorted(site.glob("*.html")),
            *sorted(site.glob("howto/*.html")),
            site / "reference/geometry.html",
        ]:
            tab.goto(page.as_uri(), timeout=1000 * PATIENCE)
            wide = tab.evaluate("document.documentElement.scrollWidth")
            assert wide <= 400, f"{page.relative_to(site)} is {wide} pixels wide"


# -------------------------------------------------------------------------------------------------------- the figures


def figures() -> list[str]:
    """The names of the figures that docs/figures.py draws."""
    tree = ast.parse((DOCS / "figures.py").read_text())
    [table] = [
        one.value for one in tree.body if isinstance(one, ast.AnnAssign) and ast.unparse(one.target) == "FIGURES"
    ]
    return [ast.literal_eval(key) for key in table.keys]


def test_every_figure_is_there_in_both_lights_and_shown():
    text = "".join(path.read_text() for path in (CLONE / "README.md", *DOCS.rglob("*.md")))
    wanted = {f"{name}_{theme}.webp" for name in figures() for theme in ("light", "dark")}
    assert {path.name for path in DOCS.glob("figures/*.webp")} == wanted
    assert not [name for name in wanted if f"figures/{name}" not in text]


def test_a_figure_is_drawn_again(tmp_path):
    command = [sys.executable, str(DOCS / "figures.py"), "pixels", "--folder", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(CLONE)}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pixels_dark.webp", "pixels_light.webp"]


def trained_on() -> set[str]:
    """The fingerprints of the videos that the shipped predictor was trained on, as its file says."""
    with safe_open(CLONE / "flowlib/weights/guided_2f.safetensors", framework="numpy") as file:
        return set(json.loads(file.metadata()["about"])["trained_on"])


def test_the_samples_videos_were_not_trained_on():
    assert len(trained_on()) > 50
    assert not {fingerprint(path) for path in (CLONE / "flowlib/sample").glob("*.mp4")} & trained_on()


def test_the_clip_of_readmes_picture_was_not_trained_on(shared):
    whole = shared / "data/clips/test/mp_thumb.mp4"
    assert fingerprint(whole) not in trained_on()
    shown, cut = read_frames(whole, range(60, 75)), read_frames(DOCS / "figures/thumb.mp4", range(15))
    assert np.abs(shown.astype(int) - cut).mean() < 3, "expected docs/figures/thumb.mp4 to be frames 60 to 74 of it"
