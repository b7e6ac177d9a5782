"""pyproject.toml, environment.yml and colab_setup.sh agree; the bounds leave Colab's own versions as they are."""

import ast
import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

CLONE = Path(__file__).parents[1]
PROJECT = tomllib.loads((CLONE / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
SETUP = (CLONE / "colab_setup.sh").read_text()
INSTALLED = re.search('EXTRAS="(.*)"', SETUP)[1]
CONDA = yaml.safe_load((CLONE / "environment.yml").read_text())

# Colab's runtime of November 2026, and the older one that can still be chosen.
COLAB = {
    **{"torch": "2.11.0", "torchvision": "0.26.0", "ipywidgets": "7.7.1", "anywidget": "0.9.21", "ipykernel": "6.17.1"},
    **{"numpy": "2.1.0", "h5py": "3.16.0", "opencv-python-headless": "5.0.0", "accelerate": "1.14.0"},
    **{"jupytext": "1.19.0", "gdown": "5.2.2"},
}
# What a distribution is imported as, where that isn't its name.
IMPORTED_AS = {"opencv-python-headless": "cv2", "scenedetect-headless": "scenedetect"}
# Comes with another of the list, which couldn't do without it: traitlets and ipython with ipywidgets, Pillow with
# matplotlib and torchvision, nbformat and PyYAML with papermill, jupyter_client with ipykernel, packaging with pytest,
# markupsafe with jinja2, pygments with nbconvert, griffe with mkdocstrings-python.
BROUGHT_ALONG = {"traitlets", "IPython", "PIL", "nbformat", "yaml", "jupyter_client", "packaging"}
BROUGHT_ALONG |= {"markupsafe", "pygments", "griffe"}


def lines(*extras: str) -> list[Requirement]:
    """The requirements of flowlib and of the extras named."""
    return [Requirement(line) for line in sum((EXTRAS[extra] for extra in extras), PROJECT["dependencies"])]


@pytest.mark.parametrize("requirement", lines(*EXTRAS), ids=lambda requirement: requirement.name)
def test_bounds_are_lower_bounds_alone(requirement):
    bounds = list(requirement.specifier)
    assert [bound.operator for bound in bounds] == [">="], "expected one lower bound: what is installed may stay"
    if requirement.name in COLAB:
        assert requirement.specifier.contains(COLAB[requirement.name]), "Colab's own version would be replaced"


def test_every_library_is_listed_once():
    names = [requirement.name for requirement in lines(*EXTRAS)]
    assert len(names) == len(set(names))


def test_conda_takes_python_as_pyproject_says_and_the_libraries_from_there():
    plain = {Requirement(entry).name: Requirement(entry) for entry in CONDA["dependencies"] if isinstance(entry, str)}
    assert plain["python"].specifier == SpecifierSet(PROJECT["requires-python"])
    ours = {requirement.name: requirement for requirement in lines(*EXTRAS)}
    both = {name: (plain[name], ours[name]) for name in plain.keys() & ours.keys()}
    assert all(conda.specifier == pip.specifier for conda, pip in both.values())
    assert plain.keys() - ours.keys() == {"python", "pip"}, "a library that pyproject.toml doesn't know"
    [pip] = [entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict)]
    assert pip == [f"--editable .[{INSTALLED}]"]


def test_the_script_installs_extras_that_exist_and_looks_for_pythons_that_serve():
    assert set(INSTALLED.split(",")) <= set(EXTRAS)
    *numbered, plain = re.search('CANDIDATES="(.*)"', SETUP)[1].split()
    assert plain == "python3"
    assert all(name.removeprefix("python") in SpecifierSet(PROJECT["requires-python"]) for name in numbered)
    floor = re.search(r"\d+\.\d+", PROJECT["requires-python"])[0]
    assert f"expected Python {floor} or later" in SETUP and f">= ({floor.replace('.', ', ')})" in SETUP


def third_party(folder: str) -> set[str]:
    """Top-level names that the files of a folder import from outside the standard library and the clone.

    A benchmark may fetch what it compares with inside a function: that is no dependency.
    """
    found = set()
    for path in (CLONE / folder).rglob("*.py"):
        tree = ast.parse(re.sub(r"^[!%].*$", "", path.read_text(), flags=re.M))
        for node in tree.body if folder == "bench" else ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.split(".")[0])
    own = {"flowlib", "fixtures", *(path.stem for place in (folder, "tests") for path in (CLONE / place).glob("*.py"))}
    return found - set(sys.stdlib_module_names) - own


@pytest.mark.parametrize(
    "folder, extras",
    [
        ("flowlib", ("ray", "timm", "notebooks", "parquet")),
        ("bench", ("test",)),
        ("notebooks", ("notebooks",)),
        ("docs", ("docs", "notebooks")),
        ("tests", tuple(EXTRAS)),
    ],
)
def test_what_is_imported_is_declared(folder, extras):
    declared = {IMPORTED_AS.get(r.name, r.name.replace("-", "_")) for r in lines(*extras)}
    assert third_party(folder) - declared - BROUGHT_ALONG == set()


@pytest.mark.parametrize("path", sorted((CLONE / "bench").glob("*.py")), ids=lambda path: path.stem)
def test_what_a_benchmark_imports_is_there(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("flowlib"):
            module = importlib.import_module(node.module)
            for name in node.names:
                assert hasattr(module, name.name) or importlib.import_module(f"{node.module}.{name.name}")


def test_what_is_declared_is_used():
    """A library that nothing imports is one more that can break."""
    # tensorboard is reached through torch; ipywidgets through anywidget, named because its version matters in Colab.
    used = third_party("flowlib") | {"tensorboard", "ipywidgets"}
    declared = {IMPORTED_AS.get(r.name, r.name.replace("-", "_")) for r in lines()}
    assert declared - used == set()
