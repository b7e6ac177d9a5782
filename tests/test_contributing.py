"""Each recipe of CONTRIBUTING.md, followed to the letter in a copy of the package; the files it touches are counted."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CLONE = Path(__file__).parents[1]
TEXT = (CLONE / "CONTRIBUTING.md").read_text()
# recipe -> files touched
RECIPES = {"A tracker": 2, "A metric": 1, "A baseline": 1, "A backbone": 1, "A data reader": 1, "A task": 1}
STEP = re.compile(
    r"^(?:New file `(?P<new>[^`]+)`|In `(?P<old>[^`]+)`, (?P<where>after|before) `(?P<anchor>[^`]+)`|Try it):\n\n"
    r"```python\n(?P<code>.*?)^```",
    re.M | re.S,
)


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def follow(step: re.Match, folder: Path) -> str:
    """Do what a step says; the file that it touches."""
    if step["new"]:
        path = folder / step["new"]
        assert not path.exists(), f"{step['new']} is there already"
        path.parent.mkdir(exist_ok=True)
        path.write_text(step["code"])
        return step["new"]
    path, line = folder / step["old"], step["anchor"] + "\n"
    source = path.read_text()
    anchor = line if step["where"] == "after" else step["anchor"]
    assert source.count(anchor) == 1, f"{step['old']}: expected once: {step['anchor']}"
    added = anchor + step["code"] if step["where"] == "after" else step["code"] + anchor
    path.write_text(source.replace(anchor, added))
    return step["old"]


def test_every_recipe_is_tested():
    assert re.findall(r"^## (.+)$", TEXT, re.M) == list(RECIPES)


@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_works_and_touches_as_few_files_as_it_says(title, tmp_path):
    shutil.copytree(CLONE / "flowlib", tmp_path / "flowlib", ignore=shutil.ignore_patterns("__pycache__", "sample"))
    steps = list(STEP.finditer(section(title)))
    *edits, trial = steps
    assert edits and not trial["new"] and not trial["old"]
    touched = {follow(step, tmp_path) for step in edits}
    assert len(touched) == RECIPES[title], touched
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    code = [sys.executable, "-c", trial["code"]]
    result = subprocess.run(code, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
