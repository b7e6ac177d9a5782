"""The eight notebooks: text and pair in step, no logic in them, and all run, twice, from wherever one stands."""

import ast
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import jupytext
import nbformat
import papermill
import pytest

from flowlib import notebook_files

CLONE = Path(__file__).parents[1]
FOLDER = CLONE / "notebooks"
NAMES = ["01_frames", "02_pips_dataset", "03_overfit_single_batch", "04_two_frame_model", "05_evaluate"]
NAMES += ["06_hand_pose", "07_action", "08_pose_and_action"]

each = pytest.mark.parametrize("name", NAMES)


@cache
def pair(name: str) -> tuple[nbformat.NotebookNode, nbformat.NotebookNode]:
    """The notebook as its text says it, and as its .ipynb has it."""
    return jupytext.read(FOLDER / f"{name}.py"), nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def code_cells(name: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in pair(name)[0].cells if cell.cell_type == "code"]


def parameters(name: str) -> dict[str, tuple[str, object, str]]:
    """Name -> (type, default, help) of a notebook's parameters, as papermill itself reads them."""
    found = papermill.inspect_notebook(FOLDER / f"{name}.ipynb")
    return {key: (p["inferred_type_name"], ast.literal_eval(p["default"]), p["help"]) for key, p in found.items()}


# ---------------------------------------------------------------------------------------------------------- as text


def test_there_are_eight_and_each_has_its_pair():
    assert sorted(path.stem for path in FOLDER.glob("*.py")) == NAMES
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@each
def test_the_pair_is_in_step(name):
    text, notebook = pair(name)
    assert [(cell.cell_type, tags(cell), cell.source) for cell in notebook.cells] == [
        (cell.cell_type, tags(cell), cell.source) for cell in text.cells
    ], f"run: jupytext --to ipynb --update notebooks/{name}.py"


@each
def test_the_pair_carries_no_results(name):
    nbformat.validate(pair(name)[1])
    assert all(not cell.outputs and cell.execution_count is None for cell in pair(name)[1].cells if "outputs" in cell)
    assert pair(name)[1].metadata.kernelspec.name == "python3"


DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
LOGIC = (*DEFINITIONS, ast.For, ast.AsyncFor, ast.While, ast.If, ast.IfExp, ast.Match, ast.Try)


def joins_paths(node: ast.AST) -> bool:
    """Whether a node puts a path together: folder / "name", join(…), or f"{folder}/name"."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        sides = (node.left, node.right)
        return any(isinstance(side, (ast.JoinedStr, ast.Constant)) and not is_number(side) for side in sides)
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
        return bool(re.search(r"\{\}/\w|\w/\{\}|\{\}/\{\}", "".join(parts)))
    return isinstance(node, ast.Attribute) and node.attr in ("joinpath", "path") or names_paths(node)


def is_number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, (int, float))


def names_paths(node: ast.AST) -> bool:
    """Whether a node imports what paths are put together with."""
    modules = {alias.name for alias in node.names} if isinstance(node, ast.Import) else {getattr(node, "module", None)}
    return isinstance(node, (ast.Import, ast.ImportFrom)) and bool(modules & {"os", "os.path", "pathlib"})


@each
def test_it_holds_no_logic(name):
    for cell in code_cells(name):
        if "setup" in tags(cell):
            continue
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, LOGIC), f"{name}: logic belongs in flowlib:\n{ast.unparse(node)}"
            assert not joins_paths(node), f"{name}: paths are flowlib.workspace's business:\n{ast.unparse(node)}"


@pytest.mark.parametrize(
    "code, found",
    [
        ("run.folder / 'model.pt'", True),
        ("f'{root}/frames'", True),
        ("import os.path", True),
        ("from pathlib import Path", True),
        ("total / 2", False),
        ("seconds / clips", False),
        ("f'{done} of {total}'", False),
    ],
)
def test_joined_paths_are_recognised(code, found):
    assert any(joins_paths(node) for node in ast.walk(ast.parse(code))) == found


@each
def test_it_begins_with_a_title_a_badge_and_the_colab_cell(name):
    title, setup, given, check = pair(name)[0].cells[:4]
    assert re.match(rf"# {int(name[:2])} · ", title.source)
    assert "**In:**" in title.source and "**Out:**" in title.source
    address = re.search('^repository = "(.*)"', setup.source, re.M)[1]  # of a copy whose owner has written it there
    link = notebook_files.colab_link(address, "main", f"notebooks/{name}.ipynb")
    assert (link or notebook_files.UPLOAD) in title.source
    assert tags(setup) == ["setup"] and tags(given) == ["parameters"] and not tags(check)
    assert "check_parameters(globals())" in check.source
    guard = ast.parse(setup.source).body[-1]
    assert isinstance(guard, ast.If) and "google.colab" in ast.unparse(guard.test), "expected a guard for Colab"
    assert "colab_setup.sh" in setup.source
    assert setup.source == code_cells(NAMES[0])[0].source, "expected the same set-up cell in all eight"


@each
def test_its_parameters_are_typed_literals_with_help(name):
    [cell] = [cell for cell in pair(name)[0].cells if "parameters" in tags(cell)]
    for line in cell.source.splitlines():
        assert re.fullmatch(r"\w+: (int|float|str|bool) = [^#]+  # \S.*", line), f"{name}: {line}"
    kinds = {"int": int, "float": (int, float), "str": str, "bool": bool}
    for parameter, (kind, default, meaning) in parameters(name).items():
        assert isinstance(default, kinds[kind]) and meaning, f"{name}: {parameter}"
    assert len(parameters(name)) == len(cell.source.splitlines())


def test_the_expected_parameters_are_there():
    expected = "source root chunk num_chunks tracker weights grid frames steps seed device".split()
    assert not set(expected) - {parameter for name in NAMES for parameter in parameters(name)}
    assert all("root" in parameters(name) for name in NAMES)


def test_what_has_one_name_has_one_type():
    kinds = [(key, kind) for name in NAMES for key, (kind, _, _) in parameters(name).items()]
    assert len(set(kinds)) == len({key for key, _ in kinds}), f"one name, several types: {sorted(set(kinds))}"


# -------------------------------------------------------------------------------------------------------- executed

SIZE = {"height": 96, "width": 128}
SMALL = {  # as little work as leaves something to look at
    "01_frames": {"source": "sample", **SIZE, "layout": "both"},
    "02_pips_dataset": {"source": "sample", **SIZE, "grid": 8, "frames": 4, "max_clips": 2},
    "03_overfit_single_batch": {"model": "guided", "weights": "none", "steps": 2, "look_every": 2},
    "04_two_frame_model": {"weights": "none", "steps": 2, "batch_size": 2, "validate_every": 2, "check_steps": 1}
    | {"flip_x": 0.5},
    "05_evaluate": {"runs": "two_frames,overfit"},
    "06_hand_pose": {
        **{"subjects": 3, "takes": 1, "families": 1, "size": 32, "steps": 4, "batch_size": 4, "validate_every": 4},
        **{"cubes": "200,220", "list_steps": 1, "seeds": 1},
    },
    "07_action": {
        **{"hidden": 8, "steps": 4, "batch_size": 2, "validate_every": 2, "noise": "0,20", "drift_epochs": 1},
        **{"attentions": "none,logits_sigmoid", "seeds": 1},
    },
    "08_pose_and_action": {
        **{"frame_step": 4, "steps": 2, "told_steps": 2, "folds": 2, "fold_steps": 1, "batch_size": 2, "components": 5},
        **{"attention": "none", "action_steps": 2, "loops": "chain,two_pass", "tune_steps": 1, "lists": "trained"},
        **{"list_steps": 1, "unpacked": False},
    },
}


def execute(name: str, out: Path, cwd: Path = CLONE, **given) -> subprocess.CompletedProcess:
    """Run a notebook as a user would: papermill in a shell that stands in `cwd`."""
    options = [text for key, value in given.items() for text in ("-p", key, str(value))]
    source = os.path.relpath(FOLDER / f"{name}.ipynb", cwd)
    command = [sys.executable, "-m", "papermill", source, str(out), "--no-progress-bar", *options]
    environment = {key: value for key, value in os.environ.items() if key not in ("FLOWLIB_ROOT", "MPLBACKEND")}
    environment |= {"JUPYTER_PREFER_ENV_PATH": "1", "OMP_NUM_THREADS": "1"}  # so small that threads only get in the way
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file under a folder with its size and time of change."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def execute_all(folder: Path, round_name: str, cwds: dict[str, Path]) -> dict:
    """The eight in order into one workspace: name -> (executed notebook, seconds)."""
    results = {}
    for name in NAMES:
        start, out = time.monotonic(), folder / f"{round_name}_{name}.ipynb"
        done = execute(name, out, cwds.get(name, CLONE), root=folder / "work space é", **SMALL[name])
        assert done.returncode == 0, f"{name}, {round_name} run: {done.stderr[-3000:]}"
        results[name] = nbformat.read(out, as_version=4), time.monotonic() - start
    return results


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> dict:
    """All eight run twice in one workspace, with what the workspace held after each round."""
    folder = tmp_path_factory.mktemp("notebooks")
    root, before = folder / "work space é", snapshot(FOLDER)
    first = execute_all(folder, "first", {})
    made = {part: snapshot(root / part) for part in ("datasets", "runs")}
    second = execute_all(folder, "second", {name: FOLDER for name in NAMES})
    again = {part: snapshot(root / part) for part in ("datasets", "runs")}
    return {
        **{"root": root, "first": first, "second": second, "made": made, "again": again},
        "littered": snapshot(FOLDER).keys() - before.keys(),
    }


def printed(notebook: nbformat.NotebookNode, cells: slice = slice(None)) -> str:
    """What the code cells of an executed notebook printed."""
    outputs = [out for cell in notebook.cells[cells] for out in cell.get("outputs", [])]
    return "".join(out.get("text", "") for out in outputs if out.output_type == "stream")


@each
def test_it_runs_and_shows_something(name, executed):
    notebook, _ = executed["first"][name]
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    assert not [out for out in outputs if out.output_type == "error"]
    assert [out for out in outputs if "image/png" in out.get("data", {})], "expected at least one picture"
    assert [cell for cell in notebook.cells if "injected-parameters" in tags(cell)]


@each
def test_it_ends_with_what_it_wrote_and_what_comes_next(name, executed):
    for turn in ("first", "second"):
        end = printed(executed[turn][name][0], slice(-1, None))
        assert str(executed["root"]) in end, f"expected the folder it wrote to, got: {end}"
        following = NAMES[NAMES.index(name) + 1 :]
        assert not following or following[0] in end, f"expected {following[0]} to be named, got: {end}"


def test_a_second_time_the_work_is_found_done(executed):
    assert executed["made"]["datasets"] and executed["made"]["runs"]
    assert executed["again"] == executed["made"], "the second time, from another folder, something was written again"


def test_nothing_is_left_beside_the_notebooks(executed):
    assert not executed["littered"]


# ------------------------------------------------------------------------------------------------------- bad input

REFUSED = [
    *((name, {"gird": 8}, "parameter gird: unknown, expected one of .*") for name in NAMES),
    ("02_pips_dataset", {"grid": "many"}, "parameter grid: expected int, got str 'many'.*"),
    ("02_pips_dataset", SMALL["02_pips_dataset"] | {"chunk": 3, "num_chunks": 3}, "chunk: expected .*0.*2.*got 3"),
]


@pytest.fixture(scope="module")
def refusals(tmp_path_factory) -> list[subprocess.CompletedProcess]:
    """What came of each of `REFUSED`; two at a time, since most of it is a kernel starting."""
    folder = tmp_path_factory.mktemp("refused")

    def refuse(index: int) -> subprocess.CompletedProcess:
        name, given, _ = REFUSED[index]
        return execute(name, folder / f"{index}.ipynb", root=folder / str(index), **given)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(refuse, range(len(REFUSED))))


@pytest.mark.parametrize("index", range(len(REFUSED)), ids=lambda i: f"{REFUSED[i][0]}-{list(REFUSED[i][1])[-1]}")
def test_bad_parameters_end_in_one_clear_sentence(index, refusals):
    result = refusals[index]
    assert result.returncode != 0
    sentences = re.findall(r"^ValueError: (.*)$", result.stderr, re.M)
    assert len(set(sentences)) == 1, result.stderr[-2000:]
    assert re.fullmatch(REFUSED[index][2], sentences[0]), sentences[0]


def test_the_refused_leave_nothing_behind(refusals, tmp_path_factory):
    assert len(refusals) == len(REFUSED)
    folders = Path(refusals[0].args[4]).parent.glob("*/datasets/*")
    assert not list(folders)
