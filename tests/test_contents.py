"""The page that opens everything: every link leads somewhere, nothing comes from elsewhere, on screens of any width."""

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import nbformat
import numpy as np
import pytest
from fixtures.browser import CHROMIUM, Watched, chromium
from fixtures.toy_eval import SignTask, Summing, Vectors

from flowlib import contents
from flowlib.__main__ import main
from flowlib.contents import WIDGET, notebook_page, write_contents
from flowlib.evaluation import EvalConfig, evaluate
from flowlib.video import encode_image
from flowlib.workspace import Workspace, write_json

LONG = "a_name_that_is_far_too_long_for_the_width_of_a_phone_and_has_no_place_to_break"


def picture(width: int) -> str:
    import base64

    return base64.b64encode(encode_image(np.full((width // 2, width, 3), 90, np.uint8), "png")).decode()


def notebook(path: Path, title: str = "# 3 · A title", error: bool = False) -> None:
    new, show = nbformat.v4, nbformat.v4.new_output
    outputs = [
        show("stream", text="said\n" + "wide " * 80),
        show("display_data", {"image/png": picture(1500)}),
        show("display_data", {"text/html": "<b>a still</b>"}),
        show("display_data", {WIDGET: {"model_id": "x"}, "text/plain": "Viewer()"}),
    ]
    outputs += [show("error", ename="ValueError", evalue="no", traceback=["no"])] * error
    setup = new.new_code_cell("secret = 1", metadata={"tags": ["setup"]})
    cells = [new.new_markdown_cell(f"{title}\ntext"), setup, new.new_code_cell("print(1)", outputs=outputs)]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new.new_notebook(cells=cells), path)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    found = Workspace(tmp_path_factory.mktemp("a workspace é #1"))
    notebook(found.root / "notebooks" / "03 ü #2?.ipynb")
    notebook(found.root / "notebooks" / "04.ipynb", f"# {LONG}", error=True)
    (found.root / "notebooks" / "05.ipynb").write_text('{"cells": [')
    torch_model = Summing()
    report = evaluate(
        {LONG: torch_model, "other": torch_model}, SignTask(), Vectors(), folder=found.report(LONG),
        config=EvalConfig(resamples=50), progress=False,
    )  # fmt: skip
    report.save(found.report(LONG), links={"the viewer <b>": "viewer.html", "all": "../../index.html"})
    (found.report(LONG) / "viewer.html").write_text("<!doctype html><title>viewer</title>")
    found.report("prediction").mkdir()
    (found.report("prediction") / "prediction.html").touch()
    (found.report("prediction") / "prediction.png").write_bytes(encode_image(np.zeros((9, 9, 3), np.uint8), "png"))
    run = found.runs / "20260101-000000_mine"
    write_json(run / "config.json", {"config": {"steps": 80}, "score": {"name": "ade"}})
    (run / "metrics.jsonl").write_text(
        '{"step": 79, "ade": 3.0}\n{"step": 80, "ade": 2.5}\n{"step": 80, "validation_ade": 3.25}\n{"st'
    )
    (found.runs / "empty").mkdir()
    write_json(found.dataset("mine") / "splits.json", {"a": "train", "b": "train", "c": "val"})
    write_contents(found)
    return found


class Links(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("href", "src") and value]


def test_every_link_leads_somewhere_and_stays_in_the_folder(workspace):
    pages = [path for path in workspace.root.rglob("*.html") if path.name != "viewer.html"]
    assert len(pages) == 5
    for page in pages:
        for link in Links(page.read_text()).found:
            if not link.startswith(("data:", "#")):
                assert (page.parent / unquote(link)).exists(), f"{page.name}: {link}"
                assert (page.parent / unquote(link)).resolve().is_relative_to(workspace.root.resolve())


def test_it_says_what_is_there(workspace):
    page = re.sub(r"<[^>]*>", " ", (workspace.root / "index.html").read_text())
    for text in ("80 of 80 steps, training ADE 2.5, validation ADE 3.25", "2 videos to train; 1 video to validate"):
        assert text in page
    assert "3 · A title" in page and "It ended with an error." in page and "05" in page
    summary = json.loads((workspace.report(LONG) / "report.json").read_text())["summary"]
    assert summary[0].split(":")[0] in page.replace("&#39;", "'")


def test_a_notebook_is_read_without_its_set_up_and_widgets(workspace):
    text = (workspace.root / "notebooks" / "03 ü #2?.html").read_text()
    assert "a still" in text and "said" in text and "secret" not in text and "Viewer()" not in text
    assert not (workspace.root / "notebooks" / "05.html").exists()


def test_pages_of_notebooks_are_made_once_and_anew_when_they_change(workspace, monkeypatch):
    made = []
    monkeypatch.setattr(contents, "notebook_page", lambda path: made.append(path.name) or notebook_page(path))
    write_contents(workspace)
    assert made == ["05.ipynb"]
    path = workspace.root / "notebooks" / "04.ipynb"
    later = path.with_suffix(".html").stat().st_mtime + 5
    os.utime(path, (later, later))
    assert main(["contents", "--root", str(workspace.root)]) == 0 and made[1:] == ["04.ipynb", "05.ipynb"]


def test_without_nbconvert_the_notebooks_themselves_are_linked(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "nbconvert", None)
    notebook(tmp_path / "notebooks" / "03.ipynb")
    text = write_contents(Workspace(tmp_path)).read_text()
    assert Links(text).found.count("notebooks/03.ipynb") == 2 and not list(tmp_path.glob("notebooks/*.html"))


def test_an_empty_workspace_says_what_to_do(tmp_path):
    assert "flowlib label sample" in write_contents(Workspace(tmp_path)).read_text()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_nothing_overflows_on_a_phone_and_nothing_comes_from_elsewhere(workspace, tmp_path):
    with chromium(tmp_path / "profile") as browser:
        for path in workspace.root.rglob("*.html"):
            page = browser.new_page()
            page.set_viewport_size({"width": 400, "height": 800})
            watched = Watched(page, "file:")
            page.goto(path.as_uri())
            wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                assert page.evaluate(wider) == 0, f"{path.name} is wider than the screen"
            watched.assert_clean()
            page.close()
