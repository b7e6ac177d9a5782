"""The laws of the layout, read from the syntax: who may import whom, and what loads torch."""

import ast
import doctest
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CLONE = Path(__file__).parents[1]
PACKAGE = CLONE / "flowlib"

# Every room of the package, from the ground up: a module imports only from lines above its own.
# Modules that share a folder may import each other.
LAYERS = (
    "quantities geometry workspace notebook weight_files",
    "devices",
    "progress",
    "camera downloads hdf5 notebook_files tracks colours video splits",
    "clips contents flow metrics",
    "shards shots warp plots augmentation synthetic",
    "hands",
    "viewer",
    "sources",
    "trackers",
    "labelling dataset",
    "models",
    "tasks",
    "training evaluation own_pictures",
    "second_frame",
    "notebook_views hand_views action_views hand_loops",
    "options",
    "hand_commands",
    "__main__",
)
RANK = {room: rank for rank, line in enumerate(LAYERS) for room in line.split()}

# What a script that only labels, reads or measures imports: none of it may load these two.
LIGHT = "geometry workspace weight_files downloads notebook tracks video trackers trackers.lucas_kanade synthetic"
LIGHT += " shards metrics sources shots labelling camera hands hands.skeleton hands.sequences hands.crop hands.pca"
LIGHT += " hands.store hands.synthetic hands.fpha hands.msra15 hands.icvl hands.nyu"
HEAVY = ("torch", "matplotlib")

MODULES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(), str(path)) for path in MODULES}
WRITTEN = [*MODULES, *(path for folder in ("tests", "bench", "notebooks") for path in (CLONE / folder).glob("*.py"))]


def room(path: Path) -> str:
    """The part of the package a file belongs to: "tracks" for tracks.py, "viewer" for viewer/page.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import anywhere in a file: in functions and under TYPE_CHECKING, too."""
    package = ("flowlib", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (base, node.module) if part)
            yield node.lineno, base
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def called(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """Every call and the last part of what it calls: "load" for torch.load(…)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, getattr(node.func, "attr", getattr(node.func, "id", ""))


def test_every_module_has_its_place():
    rooms = {room(path) for path in MODULES} - {"__init__"}
    assert rooms == set(RANK), f"without a layer: {rooms - set(RANK)}; without a module: {set(RANK) - rooms}"
    strays = {path.stem for path in MODULES} & {"utils", "util", "common", "helpers", "misc", "tools"}
    assert not strays, f"a homeless function names a missing room: {strays}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_go_down(path):
    here = room(path)
    upward = [
        f"line {line}: {name}"
        for line, name in imported(path, TREES[path])
        if name.startswith("flowlib.") and (target := name.split(".")[1]) in RANK and target != here
        if RANK[target] >= RANK.get(here, -1)
    ]
    assert not upward, f"{path.relative_to(CLONE)} imports from its own layer or a higher one: {upward}"


def test_training_and_evaluation_know_no_task_and_no_model_by_name():
    allowed = {"flowlib.tasks": "flowlib.tasks.protocol", "flowlib.models": "flowlib.models.protocols"}
    found = []
    for path in (path for path in MODULES if room(path) in ("training", "evaluation")):
        for line, name in imported(path, TREES[path]):
            known = next((only for base, only in allowed.items() if f"{name}.".startswith(f"{base}.")), None)
            if known and not f"{name}.".startswith(f"{known}."):
                found.append(f"{path.relative_to(CLONE)}:{line} imports {name}")
    assert not found


def test_no_import_hides_from_the_test_above():
    by_name = ("import_module", "__import__")
    found = {p.relative_to(PACKAGE).as_posix() for p, t in TREES.items() for _, name in called(t) if name in by_name}
    # A checkpoint names the class of its model, and a tracker's name its module, which is loaded when it is asked for.
    assert found <= {"training/checkpoints.py", "trackers/__init__.py"}


def run_python(code: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(CLONE)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def test_what_is_light_loads_neither_torch_nor_matplotlib():
    code = f"""
import importlib, sys
for name in ["flowlib", *("flowlib." + name for name in {LIGHT.split()})]:
    importlib.import_module(name)
    loaded = [heavy for heavy in {HEAVY} if heavy in sys.modules]
    assert not loaded, f"{{name}} loads {{loaded}}"
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr


def test_tracking_without_weights_works_where_torch_does_not():
    code = """
import sys
sys.modules["torch"] = None  # any import of it raises
import flowlib.labelling
import numpy as np
from flowlib.trackers import make_tracker
frames = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), np.uint8)
tracks = make_tracker("lucas_kanade")(frames, np.array([[0, 30.0, 30.0]]))
assert tracks.tracks.shape == (3, 1, 2)
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "library, homes",
    [("av", {"video"}), ("gdown", {"downloads"}), ("matplotlib", {"plots", "viewer"}), ("anywidget", {"viewer"})],
)
def test_a_library_is_known_to_one_module(library, homes):
    users = {room(p) for p, t in TREES.items() for _, name in imported(p, t) if name.split(".")[0] == library}
    assert users <= homes


def test_only_geometry_samples_between_pixels_and_every_resize_keeps_pixel_centres():
    for path, tree in TREES.items():
        if path.parent.name == "pips":  # the published weights were trained with corners aligned, on cells of features
            continue
        for call, name in called(tree):
            given, where = {k.arg: ast.unparse(k.value) for k in call.keywords}, f"{path.name}:{call.lineno}"
            assert name != "grid_sample" or path.name == "geometry.py", f"{where} samples by itself"
            if name == "interpolate" and "linear" in given.get("mode", "nearest"):
                assert given.get("align_corners") == "False", f"{where}: expected align_corners=False"


def test_only_video_encodes_and_decodes():
    codec = ("imencode", "imdecode", "imread", "imwrite", "VideoCapture", "VideoWriter")
    found = {path.relative_to(PACKAGE) for path, tree in TREES.items() for _, name in called(tree) if name in codec}
    # A benchmark's PNG holds flow or labels in its 16 bits, not a picture.
    assert {room(PACKAGE / path) for path in found - {Path("dataset/benchmarks.py")}} == {"video"}


def test_nothing_is_unpickled():
    for path, tree in TREES.items():
        for call, name in called(tree):
            given = {k.arg: getattr(k.value, "value", None) for k in call.keywords}
            where, source = f"{path.name}:{call.lineno}", ast.unparse(call.func)
            assert source != "torch.load" or given.get("weights_only") is True, f"{where}: weights_only=True is missing"
            assert given.get("allow_pickle", False) is False, f"{where}: allow_pickle"
            assert not re.match(r"pickle\.(loads?|Unpickler)", source), f"{where}: unpickles"
            assert name != "extractall" or "filter" in given, f"{where}: extracts without a filter"


def test_no_error_is_caught_blindly():
    for path in WRITTEN:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else "everything"
                cleans_up = caught == "BaseException" and isinstance(node.body[-1], ast.Raise) and not node.body[-1].exc
                blind = re.search(r"everything|\b(Base)?Exception\b", caught) and not cleans_up
                assert not blind, f"{path.relative_to(CLONE)}:{node.lineno} catches {caught}"


def test_every_module_says_what_it_is():
    assert not [str(path.relative_to(CLONE)) for path, tree in TREES.items() if not ast.get_docstring(tree)]


# What the field calls otherwise: methods and baselines, oracle, figure cache, summary, predict, highest motion,
# payload, quarantined, compared with, pool and spawn, notebook views.
FOREIGN = (
    r"participant|\brivals?\b|ceiling|\balbum\b|verdict|foresee|livel?iest|luggage|currency|set.aside|held against"
)
FOREIGN += r"|\bcrew\b|\bhire\(|\bdismiss\(|judged_model|StatisticsWatch|OwnTracks|FitConfig|\bgallery\b"


def test_names_and_sentences_use_the_fields_words():
    found = {path.name: re.findall(FOREIGN, path.read_text(), re.IGNORECASE) for path in MODULES}
    assert {name: words for name, words in found.items() if words} == {}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_the_examples_in_docstrings_hold(path, tmp_path, monkeypatch):
    name = ".".join(path.relative_to(CLONE).with_suffix("").parts).removesuffix(".__init__")
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(importlib.import_module(name))
    written = len(re.findall(r"^ *>>> (?!.*# doctest: \+SKIP)", path.read_text(), re.M))  # without weights to fetch
    assert (found.failed, found.attempted) == (0, written)
