"""Progress: everything is passed on and counted, on standard output, and ever more rarely."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from flowlib import progress
from flowlib.progress import Progress


def test_items_pass_and_are_counted(capsys):
    assert list(Progress(range(7), "counting", unit="clip")) == list(range(7))
    shown = capsys.readouterr()
    assert "counting: 100%" in shown.out and "7/7" in shown.out and not shown.err


def test_disabled_shows_nothing(capsys):
    assert list(Progress(range(3), disable=True)) == [0, 1, 2]
    assert capsys.readouterr().out == ""


def test_twelve_hours_leave_hundreds_of_lines(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = Progress(title="long", total=12 * 3600)
    bar._time = lambda: now[0]
    bar.start_t = bar.last_print_t = bar.began = 0.0
    for _ in range(12 * 3600):
        now[0] += 1.0
        bar.update()
    bar.close()
    assert 100 < capsys.readouterr().out.count("\r") < 1000


@pytest.fixture
def clock(monkeypatch):
    """The time, which tests set."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "describe_load", lambda: "load 9.0 on 2 cores, so it will take longer")
    return now


def test_what_takes_long_says_so_once_and_beforehand(clock, capsys):
    with Progress(title="training", total=102) as bar:
        for _ in range(102):
            clock[0] += 10.0 if bar.n == 0 else 2.0  # the first warms up
            bar.update()
    said = [line for line in capsys.readouterr().out.replace("\r", "\n").splitlines() if "about" in line]
    assert said == ["training: about 3 min to go, load 9.0 on 2 cores, so it will take longer"]


def test_one_item_that_takes_long_is_enough_to_tell(clock, capsys):
    with Progress(title="", total=3) as bar:
        clock[0] += 60.0
        bar.update()
    assert "about 2 min to go, load 9.0" in capsys.readouterr().out.replace("120 s", "2 min")


@pytest.mark.parametrize("total, seconds", [(100, 0.1), (None, 5.0)])
def test_what_is_short_or_unknown_says_nothing_beforehand(clock, capsys, total, seconds):
    with Progress(total=total) as bar:
        for _ in range(100):
            clock[0] += seconds
            bar.update()
    assert "about" not in capsys.readouterr().out


def test_a_saved_notebook_keeps_one_line_a_bar(tmp_path):
    cell = "import time\nfrom flowlib.progress import Progress\n"
    cell += "for _ in Progress(range(4), 'counting', mininterval=0): time.sleep(1.1)\nprint('done')"
    new = nbformat.v4
    kernel = {"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
    nbformat.write(new.new_notebook(cells=[new.new_code_cell(cell)], metadata=kernel), tmp_path / "in.ipynb")
    environment = os.environ | {"JUPYTER_PREFER_ENV_PATH": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "papermill", "in.ipynb", "out.ipynb", "--no-progress-bar"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    [cell] = json.loads((tmp_path / "out.ipynb").read_text())["cells"]
    shown, said = cell["outputs"]
    assert "".join(shown["data"]["text/plain"]).startswith("counting: 100%|") and "".join(said["text"]) == "done\n"
