"""What README.md and the pages of docs/ say is so: commands and files exist, links lead somewhere, Python runs."""

import ast
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import papermill
import pytest

from flowlib.__main__ import COMMANDS, main
from flowlib.notebook_files import COLAB

CLONE = Path(__file__).parents[1]
PROJECT = tomllib.loads((CLONE / "pyproject.toml").read_text())["project"]
REPOSITORY = PROJECT.get("urls", {}).get("Repository", "$FLOWLIB_REPO")  # of a copy whose owner has written it there


PAGES = ["README.md", *sorted(path.relative_to(CLONE).as_posix() for path in (CLONE / "docs").rglob("*.md"))]


@pytest.fixture(scope="module")
def readme() -> str:
    return (CLONE / "README.md").read_text()


@pytest.fixture(scope="module", params=PAGES)
def page(request) -> Path:
    """README or a page of the documentation. Python that can run only elsewhere is in blocks of "py"."""
    return CLONE / request.param


def blocks(text: str, *languages: str) -> list[str]:
    """The fenced blocks of the given languages."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)
    return [body for language, body in fenced if language in languages]


def prose(text: str) -> str:
    """The text without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def commands(text: str) -> list[list[str]]:
    """Every shell command of a README, as words; comments, prompts and settings before a command taken off."""
    found = []
    for block in blocks(text, "bash", "sh", "shell", "console"):
        for line in block.replace("\\\n", " ").splitlines():
            for piece in re.split(r"&&|\|\||;|\|", line.removeprefix("$ ")):
                words = shlex.split(piece, comments=True)
                while words and re.match(r"[A-Z_]+=", words[0]):
                    words.pop(0)
                found += [words] if words else []
    return found


def check_script(words: list[str]) -> None:
    """bash colab_setup.sh, with a job that it knows."""
    assert (CLONE / words[1]).is_file() and words[1] == "colab_setup.sh"
    assert words[2:] in ([], ["demo"], ["demo", "hands"], ["docs"]) or words[2] == "test", f"no such job: {words}"


def check_papermill(words: list[str]) -> None:
    """papermill notebooks/x.ipynb out.ipynb -p name value, with names that the notebook has."""
    declared = papermill.inspect_notebook(CLONE / words[1])
    assert declared, f"{words[1]}: no parameters"
    for option, name, value in zip(words[3:], words[4:], words[5:]):
        if option in ("-p", "-r"):
            assert name in declared, f"{words[1]} has no parameter {name}"
            kind = declared[name]["inferred_type_name"]
            assert kind == "str" or "$" in value or type(ast.literal_eval(value)).__name__ == kind, f"{name}: {value}"


def check_python(words: list[str]) -> None:
    """python -m module, or python script.py --option …, with options that the script names."""
    if words[1] == "-m":
        module = CLONE / words[2].replace(".", "/")
        known = words[2] in ("pip", "pytest", "papermill", "venv", "jupytext")
        own = module.with_suffix(".py").is_file() or (module / "__main__.py").is_file()
        assert known or own, f"no such module: {words}"
        return
    script = (CLONE / words[1]).read_text()
    unknown = [word for word in words[2:] if word.startswith("--") and word.split("=")[0] not in script]
    assert not unknown, f"{words[1]} has no {unknown}"


def check_pip(words: list[str]) -> None:
    """pip install of this project, with extras that exist."""
    assert words[1] == "install"
    for word in (word for word in words[2:] if not word.startswith("-")):
        target, _, extras = word.rstrip("]").partition("[")
        assert target in (".", PROJECT["name"]) or target.split("@")[-1].strip().startswith(f"git+{REPOSITORY}"), word
        assert set(filter(None, extras.split(","))) <= set(PROJECT["optional-dependencies"]), f"no such extra: {word}"


def check_clone(words: list[str]) -> None:
    assert words[1:3] == ["clone", REPOSITORY], f"another source: {words}"


def check_conda(words: list[str]) -> None:
    environment = (CLONE / "environment.yml").read_text()
    if words[1] == "activate":
        assert f"name: {words[2]}\n" in environment
    else:
        assert words == ["conda", "env", "create", "-f", "environment.yml"]


def check_cd(words: list[str]) -> None:
    assert words[1] == PROJECT["name"] or (CLONE / words[1]).is_dir(), f"no such folder: {words}"


def check_files(words: list[str]) -> None:
    """Any command whose arguments are files of the project: jupytext, tensorboard, pytest, accelerate launch."""
    for word in words[1:]:
        if re.search(r"\.(py|ipynb|sh)$", word):
            assert list(CLONE.glob(word)), f"no such file: {word}"


def check_flowlib(words: list[str]) -> None:
    """flowlib command --option …, with a command and options that the command line's source or dataclasses name."""
    name = words[1:3] if " ".join(words[1:3]) in COMMANDS else words[1:2]
    assert " ".join(name) in COMMANDS, f"no such command: {words}"
    options = told(" ".join(name))
    listed = set(re.findall(r"--[\w-]+", options))
    unknown = [word for word in words[1:] if word.startswith("--") and word not in listed]
    assert options and not unknown, f"flowlib {' '.join(name)} has no {unknown}"


@cache
def told(command: str) -> str:
    """What the help of a command says; "" if that fails."""
    with redirect_stdout(io.StringIO()) as said, pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    return "" if ended.value.code else said.getvalue()


def check_accelerate(words: list[str]) -> None:
    assert words[1:4] == ["launch", "-m", "flowlib"], words
    check_flowlib(words[3:])


CHECKS = {
    **{"bash": check_script, "papermill": check_papermill, "python": check_python, "pip": check_pip, "cd": check_cd},
    **{"git": check_clone, "conda": check_conda, "flowlib": check_flowlib, "accelerate": check_accelerate},
    **dict.fromkeys(("jupytext", "pytest", "tensorboard"), check_files),
}


def test_every_command_exists(page):
    for words in commands(page.read_text()):
        program = words[0].removeprefix(".venv/bin/")
        if words == ["source", ".venv/bin/activate"]:
            continue
        assert program in CHECKS, f"{page.name}'s {words[0]!r} isn't known to this test; teach it what to check"
        CHECKS[program](words)


def test_the_two_commands_and_the_papermill_line_are_there(readme):
    found = commands(readme)
    assert ["bash", "colab_setup.sh", "demo"] in found and ["bash", "colab_setup.sh", "test"] in found
    assert [words for words in found if words[0] in ("papermill", ".venv/bin/papermill")]


def test_a_command_that_does_not_exist_is_found_out():
    wrong = "bash colab_setup.sh dmeo|python bench/nothing.py|git clone https://github.com/other/project"
    wrong += "|conda activate x|papermill notebooks/01_frames.ipynb out.ipynb -p gird 8|pip install .[nothing]"
    for line in wrong.split("|"):
        [words] = commands(f"```bash\n{line}\n```\n")
        with pytest.raises((AssertionError, FileNotFoundError)):
            CHECKS[words[0]](words)


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_every_link_leads_somewhere(page):
    text = prose(page.read_text())
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset|href)="([^"]+)"', text)
    assert targets or page.name != "README.md"
    for target in targets:
        if target.startswith((f"{COLAB}/github", "https://raw.githubusercontent.com")):
            owner, path = re.search(r"com(?:/github)?(/.*?/.*?)(?:/blob)?/main/(.*)", target).groups()
            assert REPOSITORY.endswith(owner) and (CLONE / path).is_file(), f"no such file: {target}"
        elif "://" not in target:
            file, _, anchor = target.partition("#")
            there = page.parent / file if file else page
            assert there.exists(), f"no such file: {target}"
            headings = re.findall(r"^#+ (.*)$", prose(there.read_text()), re.M) if anchor else []
            assert not anchor or anchor in map(slug, headings), f"no such heading: {target}"


def test_every_notebook_has_its_link(readme):
    for path in sorted((CLONE / "notebooks").glob("*.ipynb")):
        assert f"notebooks/{path.name})" in readme, f"no link to {path.name}"


def tracked() -> list[str]:
    """Every file of the clone that could be meant: not what an environment or a workspace holds."""
    skipped = {".git", ".venv", "workspace", "build", "site", "__pycache__"}
    paths = []
    for folder, folders, files in os.walk(CLONE):
        folders[:] = [name for name in folders if name not in skipped]
        paths += [str(Path(folder, name).relative_to(CLONE)) for name in files]
    return paths


def test_every_file_named_is_there(page):
    text = re.sub(r"https?://\S+", "", page.read_text())
    named = set(re.findall(r"(?<![\w/.*<-])((?:[\w-]+/)*[\w-]+\.(?:py|sh|yml|toml|md|js|css))\b", text))
    missing = [name for name in named if not any(path == name or path.endswith("/" + name) for path in tracked())]
    assert not missing, f"{page.name} names files that aren't there: {missing}"


def test_the_map_has_a_line_for_every_module(readme):
    rooms = {path.name for path in (CLONE / "flowlib").glob("*.py")} - {"__init__.py"}
    rooms |= {f"{path.parent.name}/" for path in (CLONE / "flowlib").glob("*/__init__.py")}
    missing = [name for name in rooms if not re.search(rf"^\W*{re.escape(name)}\s+\S", readme, re.M)]
    assert not missing, f"README's map of files lacks a line for: {sorted(missing)}"


def names(module: ast.Module) -> set[str]:
    """What stands at the top of a module: its own classes, functions and constants, and what it imports."""
    imported = {
        alias.asname or alias.name
        for node in ast.walk(module)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assigned = {
        target.id
        for node in module.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return (
        imported | assigned | {node.name for node in module.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    )


def resolves(dotted: str) -> bool:
    """Whether flowlib.a.b is a module, or a name at the top of one."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        path = CLONE / "/".join(parts[:cut])
        module = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
        if module.is_file():
            return cut == len(parts) or parts[cut] in names(ast.parse(module.read_text()))
    return False


def test_every_name_of_the_package_exists(page):
    text = page.read_text()
    dotted = set(re.findall(r"\bflowlib(?:\.[A-Za-z_]\w*)+", re.sub(r"https?://\S+", "", text)))
    imported = re.findall(r"from (flowlib[\w.]*) import ([\w, ]+)", text)
    dotted |= {f"{module}.{name.strip()}" for module, names in imported for name in names.split(",")}
    assert dotted or page.name != "README.md"
    unknown = [name for name in dotted - {"flowlib.git"} if not resolves(name)]
    assert not unknown, f"{page.name} names what the package hasn't got: {unknown}"


def promised(code: str) -> list[str]:
    """What each `print(…)  # result` says that it prints; "" for a print that promises nothing."""
    lines = code.splitlines()
    prints = [node for node in ast.parse(code).body if ast.unparse(node).startswith("print(")]
    tails = [lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode() for node in prints]
    return [tail.partition("#")[2].strip() for tail in tails]


@pytest.mark.parametrize("page", [name for name in PAGES if blocks((CLONE / name).read_text(), "python")])
def test_the_python_runs_and_prints_what_it_says(page, tmp_path):
    code = "\n".join(blocks((CLONE / page).read_text(), "python"))
    assert any(promised(code)), "expected prints in Python that say what comes: print(…)  # (8, 360, 640, 3)"
    environment = os.environ | {"FLOWLIB_ROOT": str(tmp_path / "workspace"), "PYTHONPATH": str(CLONE)}
    environment["MPLBACKEND"] = "agg"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    got = result.stdout.splitlines()
    for text in filter(None, promised(code)):  # in this order; on a busy machine, what takes long says so between them
        assert text in got, f"promised {text!r}, and then printed: {got}"
        got = got[got.index(text) + 1 :]
