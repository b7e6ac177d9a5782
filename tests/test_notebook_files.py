"""The notebooks' files: copied, given and rid of an address; and what their set-up cell says in Colab, cell by cell."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest

from flowlib import notebook_files
from flowlib.__main__ import main
from flowlib.notebook_files import copy_notebooks, find_notebooks, remote_address, web_address, write_address

CLONE = Path(__file__).parents[1]
ADDRESS = "https://github.com/someone/a-fork"
PLACES = ("README.md", "pyproject.toml", "CITATION.cff")


@pytest.fixture
def clone(tmp_path) -> Path:
    """A copy of what names addresses, as a git repository without a remote."""
    folder = tmp_path / "clone é"
    shutil.copytree(CLONE / "notebooks", folder / "notebooks")
    (folder / "flowlib").mkdir()
    (folder / "flowlib" / "workspace.py").touch()
    for name in PLACES:
        shutil.copy(CLONE / name, folder)
    git("init", "-q", cwd=folder)
    return folder


def git(*words: str, cwd: Path) -> None:
    settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *settings, *words], cwd=cwd, check=True)


def texts(folder: Path) -> dict[str, str]:
    paths = [*(folder / name for name in PLACES), *sorted(folder.glob("notebooks/*"))]
    return {path.name: path.read_text() for path in paths}


def test_no_address_is_there_by_default():
    for name, text in texts(CLONE).items():
        assert not re.search(r"github\.com/(?!python-poetry)|colab\.research\.google\.com/github", text), name


@pytest.mark.parametrize(
    "remote",
    [
        "https://github.com/someone/a-fork",
        "https://github.com/someone/a-fork.git/",
        "https://me:token@github.com/someone/a-fork.git",
        "git@github.com:someone/a-fork.git",
        "ssh://git@github.com:22/someone/a-fork.git",
        "git://github.com/someone/a-fork",
    ],
)
def test_every_form_of_a_remote_is_one_address(remote):
    assert web_address(remote) == ADDRESS


@pytest.mark.parametrize(
    "remote", ["/srv/flowlib.git", "../flowlib", "file:///srv/flowlib", "C:\\flowlib", "flowlib", ""]
)
def test_what_nobody_else_can_fetch_from_is_refused(remote):
    with pytest.raises(ValueError, match="repository: expected an address such as https"):
        web_address(remote)


def test_the_command_takes_the_address_of_the_remote_and_takes_it_out_again(clone, monkeypatch, capsys):
    monkeypatch.chdir(clone / "notebooks")
    before = texts(clone)
    assert remote_address(clone) == "" and main(["badges"]) == 2
    assert "has no remote called origin" in capsys.readouterr().err and texts(clone) == before
    git("remote", "add", "origin", "git@github.com:someone/a-fork.git", cwd=clone)
    assert main(["badges", "--ref", "v1"]) == 0
    assert f"{3 + len(list(clone.glob('notebooks/*')))} files changed" in capsys.readouterr().out
    after = texts(clone)
    for name in ("01_frames", "05_evaluate"):
        link = f"https://colab.research.google.com/github/someone/a-fork/blob/v1/notebooks/{name}.ipynb"
        for kind in ("py", "ipynb"):
            assert after[f"{name}.{kind}"].count(f"]({link})") == 1
        [setup] = [
            cell for cell in nbformat.reads(after[f"{name}.ipynb"], 4).cells if "setup" in cell.metadata.get("tags", [])
        ]
        assert setup.source.splitlines()[1].startswith(f'repository = "{ADDRESS}"  #')
        assert setup.source in after[f"{name}.py"], "expected the pair to stay in step"
        assert f"[{name}]({link})" in after["README.md"]
    assert f"git clone {ADDRESS} flowlib" in after["README.md"]
    beside = "https://raw.githubusercontent.com/someone/a-fork/v1/docs/"
    shown = (f"]({beside}viewer_light.png)", f'srcset="{beside}figures/prediction_dark.webp"', f'src="{beside}figures/')
    assert all(address in after["README.md"] for address in shown)
    assert f'[project.urls]\nRepository = "{ADDRESS}"\n\n[tool.' in after["pyproject.toml"]
    assert after["CITATION.cff"].endswith(f"repository-code: {ADDRESS}\n")
    assert main(["badges", "--ref", "v1"]) == 0 and texts(clone) == after
    assert main(["badges", "--remove"]) == 0 and texts(clone) == before


def test_another_host_gets_no_badge_but_the_cell_knows_it(clone):
    write_address(clone, "https://example.org/lab/flowlib")
    text = (clone / "notebooks" / "01_frames.py").read_text()
    assert 'repository = "https://example.org/lab/flowlib"' in text and notebook_files.UPLOAD in text
    assert "](docs/viewer_light.png)" in (clone / "README.md").read_text()


def test_badges_outside_a_clone_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["badges"]) == 1 and "expected to be called in a clone" in capsys.readouterr().err


def test_notebooks_are_copied_and_never_overwritten(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "03_overfit_single_batch.ipynb").write_text("my own")
    assert main(["notebooks", str(tmp_path / "mine")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if "stays" in line] == [
        f"{tmp_path}/mine/03_overfit_single_batch.ipynb is there already, and stays"
    ]
    assert (tmp_path / "mine" / "03_overfit_single_batch.ipynb").read_text() == "my own"
    assert (tmp_path / "mine" / "01_frames.ipynb").read_bytes() == (
        CLONE / "notebooks" / "01_frames.ipynb"
    ).read_bytes()
    assert not any(copy_notebooks(tmp_path / "mine").values())


def test_without_a_clone_the_installed_ones_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(notebook_files, "__file__", str(tmp_path / "flowlib" / "notebook_files.py"))
    monkeypatch.setattr(notebook_files, "files", lambda name: None)
    with pytest.raises(FileNotFoundError, match="notebooks: expected them in"):
        find_notebooks()


# ------------------------------------------------------------------------------------------- the set-up cell, in Colab

COLAB = """
import sys, types
sys.modules["google"], sys.modules["google.colab"] = types.ModuleType("google"), types.ModuleType("google.colab")
try:
    exec(open("cell.py").read())
except Exception as error:
    print(*error._render_traceback_(), file=sys.stderr)
    raise SystemExit(1)
"""


class Runtime:
    """Colab's /content in a folder, with the cell in it."""

    def __init__(self, folder: Path) -> None:
        self.content, self.drive = folder / "content", folder / "content" / "drive" / "MyDrive"
        self.content.mkdir()
        source = (CLONE / "notebooks" / "03_overfit_single_batch.py").read_text()
        self.cell = re.search(r'"setup"\]\n(.*?)\n\n# %%', source, re.S)[1].replace("/content", str(self.content))

    def source(self, folder: Path, word: str) -> Path:
        """A clone whose set-up says a word."""
        folder.mkdir(parents=True)
        (folder / "colab_setup.sh").write_text(f"echo set up: {word}\n")
        return folder

    def run(self, **given: str) -> tuple[int, str]:
        """(exit status, all that is read) of the cell; upper-case names are environment variables."""
        cell = self.cell
        for name in ("repository", "ref"):
            cell = cell.replace(f'{name} = ""', f"{name} = {given.pop(name, '')!r}")
        (self.content / "cell.py").write_text(cell)
        environment = {key: text for key, text in os.environ.items() if not key.startswith("FLOWLIB_")} | given
        command = [sys.executable, "-c", COLAB]
        done = subprocess.run(command, cwd=self.content, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def runtime(tmp_path) -> Runtime:
    return Runtime(tmp_path)


def repository(folder: Path, word: str) -> str:
    """The address of a git repository whose set-up says a word, on main, and "tagged" at the tag v1."""
    folder.mkdir()
    git("init", "-q", cwd=folder)
    for said, command in (("tagged", ("tag", "v1")), (word, ("branch", "-f", "spare"))):
        (folder / "colab_setup.sh").write_text(f"echo set up: {said}\n")
        git("add", ".", cwd=folder)
        git("commit", "-qm", said, cwd=folder)
        git(*command, cwd=folder)
    return f"file://{folder}"


def test_with_nothing_set_one_sentence_says_what_to_set(runtime):
    status, said = runtime.run()
    assert status == 1 and len(said.splitlines()) == 1
    assert said.startswith("flowlib is not set up: set repository in this cell to the address of flowlib's repository")


def test_the_address_comes_from_the_cell_or_the_environment_with_a_ref(runtime, tmp_path):
    first, second = repository(tmp_path / "first", "first"), repository(tmp_path / "second", "second")
    assert runtime.run(repository=first) == (0, f"flowlib comes from {first}\nset up: first\n")
    assert runtime.run(repository=first, ref="v1")[1].endswith("set up: tagged\n")
    assert runtime.run(repository=first, FLOWLIB_REPO=second)[1].endswith("set up: second\n")
    assert runtime.run(FLOWLIB_REPO=second, FLOWLIB_REF="v1")[1].endswith("set up: tagged\n")
    assert runtime.run()[1].endswith("set up: tagged\n"), "expected what was fetched before to be found"


@pytest.mark.parametrize("address", ["file:///nowhere/flowlib", "https://127.0.0.1:9/me/flowlib"])
def test_a_clone_that_fails_is_one_sentence_with_its_reason(runtime, address):
    status, said = runtime.run(repository=address)
    assert status == 1 and len(said.splitlines()) == 1
    assert re.match(rf"flowlib is not set up: {address} can't be fetched \(fatal: .*\)", said)


def test_a_ref_that_is_not_there_is_named(runtime, tmp_path):
    address = repository(tmp_path / "first", "first")
    status, said = runtime.run(repository=address, ref="v9")
    assert status == 1 and re.match(rf"flowlib is not set up: {address}, v9, can't be fetched \(.*v9\)", said)


def test_a_folder_or_a_zip_on_the_drive_is_found_or_named(runtime):
    (runtime.drive / "flowlib").mkdir(parents=True)  # the workspace
    results = zipfile.ZipFile(runtime.drive / "flowlib-results.zip", "w")
    results.writestr("runs/x", "")
    results.close()
    assert runtime.run()[0] == 1
    with zipfile.ZipFile(runtime.drive / "flowlib-main.zip", "w") as packed:
        packed.writestr("flowlib-main/colab_setup.sh", "echo set up: zip\n")
    assert runtime.run() == (0, f"flowlib comes from {runtime.drive}/flowlib-main.zip\nset up: zip\n")
    folder = runtime.source(runtime.drive / "code", "folder")
    assert runtime.run(repository=str(folder)) == (0, f"flowlib comes from {folder}\nset up: folder\n")
    for missing in ("nothing.zip", "nothing"):
        status, said = runtime.run(repository=f"{runtime.drive}/{missing}")
        assert status == 1 and f"{runtime.drive}/{missing}" in said and "is your Drive mounted?" in said
        assert len(said.splitlines()) == 1


def test_a_set_up_that_fails_is_one_sentence(runtime):
    folder = runtime.source(runtime.content / "flowlib", "x")
    (folder / "colab_setup.sh").write_text("echo working\necho 'colab_setup.sh: no network' >&2\nexit 1\n")
    assert runtime.run() == (
        1,
        f"flowlib comes from {folder}\nworking\nflowlib is not set up: colab_setup.sh: no network\n",
    )


def test_elsewhere_the_cell_does_nothing(runtime):
    done = subprocess.run([sys.executable, "-c", runtime.cell], cwd=runtime.content, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert not list(runtime.content.iterdir())
