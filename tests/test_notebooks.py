"""The eight notebooks: text and pair in step, no logic in them, and bad parameters refused."""

import ast
import re
from functools import cache
from pathlib import Path

import jupytext
import nbformat
import papermill
import pytest
from fixtures.notebooks import CLONE, FOLDER, NAMES, SMALL, execute, one_kernel, tags

from flowlib import notebook_files

each = pytest.mark.parametrize("name", NAMES)


@cache
def pair(name: str) -> tuple[nbformat.NotebookNode, nbformat.NotebookNode]:
    """The notebook as its text says it, and as its .ipynb has it."""
    return jupytext.read(FOLDER / f"{name}.py"), nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


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


# ------------------------------------------------------------------------------------------------------- bad input

REFUSED = [
    *((name, {"gird": 8}, "parameter gird: unknown, expected one of .*") for name in NAMES),
    ("02_pips_dataset", {"grid": "many"}, "parameter grid: expected int, got str 'many'.*"),
    ("02_pips_dataset", SMALL["02_pips_dataset"] | {"chunk": 3, "num_chunks": 3}, "chunk: expected .*0.*2.*got 3"),
]


@pytest.fixture(scope="module")
def refused(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("refused")


@pytest.fixture(scope="module")
def refusals(refused) -> list[str]:
    """How each of `REFUSED` ended: all but the last in one kernel, since most of it is a kernel starting."""

    def given(index: int) -> dict:
        return {"root": str(refused / str(index))} | REFUSED[index][1]

    def refuse(index: int) -> str:
        with pytest.raises(papermill.PapermillExecutionError) as ended:
            run(REFUSED[index][0], refused / f"{index}.ipynb", **given(index))
        return str(ended.value)

    with one_kernel(CLONE) as run:
        said = [refuse(index) for index in range(len(REFUSED) - 1)]
    in_a_shell = execute(REFUSED[-1][0], refused / "last.ipynb", **given(-1))
    assert in_a_shell.returncode != 0
    return [*said, in_a_shell.stderr]


@pytest.mark.parametrize("index", range(len(REFUSED)), ids=lambda i: f"{REFUSED[i][0]}-{list(REFUSED[i][1])[-1]}")
def test_bad_parameters_end_in_one_clear_sentence(index, refusals):
    sentences = re.findall(r"^ValueError: (.*)$", refusals[index], re.M)
    assert len(set(sentences)) == 1, refusals[index][-2000:]
    assert re.fullmatch(REFUSED[index][2], sentences[0]), sentences[0]


def test_the_refused_leave_nothing_behind(refusals, refused):
    assert len(refusals) == len(REFUSED)
    assert len(list(refused.glob("*.ipynb"))) == len(REFUSED) and not list(refused.glob("*/datasets/*"))
