"""The parameter check, on namespaces as IPython makes them."""

import subprocess
import sys
from pathlib import Path

import pytest

from flowlib.notebook import check_parameters, parse_frames, parse_parameters, parse_size

CELL = """steps: int = 100  # how long
rate: float = 0.1  # how fast
name: str = ""  # of the run
slow: bool = False  # or not"""


def namespace(**passed) -> dict:
    injected = "# Parameters\n" + "\n".join(f"{name} = {value!r}" for name, value in passed.items()) + "\n"
    cells = (
        ["", "get_ipython().system('true')", CELL] + ([injected] if passed else []) + ["check_parameters(globals())"]
    )
    return {"steps": 100, "rate": 0.1, "name": "", "slow": False} | passed | {"In": cells}


def test_the_cell_is_read():
    steps, rate, _, slow = parse_parameters(CELL)
    assert (steps.name, steps.kind, steps.default, steps.help) == ("steps", "int", 100, "how long")
    assert (rate.default, slow.default, slow.help) == (0.1, False, "or not")


@pytest.mark.parametrize("cell", ["", "x = 1", "x: int = 1\nprint(x)", "x: list = []", "import os", "%magic", "x: int"])
def test_other_cells_are_not(cell):
    assert parse_parameters(cell) == []


def test_good_values_pass_and_are_shown_with_their_meaning(capsys):
    check_parameters(namespace(steps=5, rate=1, slow=True))
    shown = capsys.readouterr().out
    assert "steps = 5" in shown and "how long" in shown and "slow = True" in shown
    check_parameters(namespace())


@pytest.mark.parametrize(
    "passed, message",
    [
        ({"stps": 3}, "parameter stps: unknown, expected one of steps, rate, name, slow; did you mean steps"),
        ({"steps": "many"}, "parameter steps: expected int, got str 'many'"),
        ({"steps": True}, "parameter steps: expected int, got bool"),
        ({"steps": 1.5}, "parameter steps: expected int, got float 1.5"),
        ({"slow": "true"}, "expected bool, got str 'true'; papermill takes True or False"),
        ({"name": 7}, "expected str, got int 7; papermill's -r name 7"),
        ({"steps": "5"}, "expected int, got str '5'; papermill's -p steps 5 passes it as a number"),
        ({"rate": "1e-3"}, "expected float, got str '1e-3'; papermill's -p rate 1e-3 passes it as a number"),
        ({"rate": None}, "expected float, got NoneType"),
    ],
)
def test_bad_ones_are_named(passed, message, refuses):
    with refuses(message):
        check_parameters(namespace(**passed))


def test_a_missing_parameters_cell_is_noticed(refuses):
    with refuses("expected a cell of lines like"):
        check_parameters({"In": ["", "x = 1"]})


def test_texts_become_numbers(refuses):
    assert parse_frames("0") == (0,) and parse_frames(" 0,3 ") == (0, 3)
    assert parse_size("") is None and parse_size("360 × 640") == (360, 640)
    for bad in ("", "a", "0,", "-1"):
        with refuses("expected frame numbers like"):
            parse_frames(bad)
    for bad in ("120", "axb", "1x2x3"):
        with refuses("expected a size like '120x240'"):
            parse_size(bad)


@pytest.mark.parametrize(
    "flag, text, value",
    [
        ("-p", "007", 7),
        ("-p", "1e3", 1000.0),
        ("--parameters", "1_000", 1000),
        ("-p", "True", True),
        ("-p", "None", None),
        ("-p", "0.10", 0.1),
        ("-p", "+5", 5),
    ],
)
def test_the_hint_names_the_text_that_was_given_and_not_the_number_made_of_it(flag, text, value, tmp_path):
    """As papermill starts a kernel: a child of the process whose words hold the text."""
    child = (
        "from flowlib.notebook import check_type, Parameter\n"
        f"try: check_type(Parameter('name', 'str', '', ''), {value!r})\n"
        "except ValueError as error: print(error)"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    words = [sys.executable, "-c", parent, "in.ipynb", "out.ipynb", "-p", "other", "3", flag, "name", text]
    shown = subprocess.check_output(words, cwd=Path(__file__).parents[1], text=True)
    assert shown.endswith(f"; papermill's -r name {text} passes it as text\n")


def test_a_hint_can_be_pasted_into_a_shell(refuses):
    with refuses(r"papermill's -r name '\[1, 2\]' passes it as text"):
        check_parameters(namespace(name=[1, 2]))
