"""colab_setup.sh and .ci/run, run for real: real virtual environments and a real pip, but tiny packages.

Every library that pyproject.toml names is stood in for by a wheel of one empty module, so an installation takes
seconds and no network. The PATH holds the tools that the script may use and nothing else.
"""

import importlib.metadata
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

import papermill
import pytest

import flowlib

CLONE = Path(__file__).parents[1]
TOOLS = "awk bash cat cp dirname find grep id mkdir mktemp rm sed sort tail tee uname"
PYTHON = os.path.realpath(sys.executable)
MODULES = {"opencv-python-headless": "cv2"}
# A module that runs with `python -m`: says what it was asked for, and copies the notebook as papermill would.
RUNNABLE = {
    "mkdocs": "import sys; print('mkdocs', sys.argv[1:])",
    "pytest": "import sys; print('pytest', sys.argv[1:])",
    "papermill": "import shutil, sys; print('papermill', sys.argv[1:]); shutil.copy(*sys.argv[1:3])",
}


def stub_wheel(folder: Path, name: str, version: str, requires: str = "") -> Path:
    """A wheel with one module that does nothing, of the given name, version and requirement."""
    stem, module = f"{name.replace('-', '_')}-{version}", MODULES.get(name, name.replace("-", "_"))
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{module}/__init__.py": "",
        f"{module}/__main__.py": RUNNABLE.get(name, ""),
        f"{stem}.dist-info/METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: stub\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{stem}.dist-info/RECORD"] = "".join(f"{path},,\n" for path in files) + f"{stem}.dist-info/RECORD,,\n"
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return path


def requirements(*extras: str) -> dict[str, str]:
    """The libraries of pyproject.toml with their lower bounds, those of the extras included (default: of all)."""
    project = tomllib.loads((CLONE / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    lines = [*project["dependencies"], *sum((optional[extra] for extra in extras or optional), [])]
    return dict(line.split(">=") for line in lines if ">=" in line)


def pack_setuptools(folder: Path) -> None:
    """The installed setuptools as a wheel again: flowlib itself is built for real."""
    distribution = importlib.metadata.distribution("setuptools")
    wanted = [f for f in distribution.files if ".." not in f.parts and "__pycache__" not in f.parts]
    with zipfile.ZipFile(folder / f"setuptools-{distribution.version}-py3-none-any.whl", "w") as wheel:
        for file in wanted:
            wheel.write(file.locate(), str(file))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> Path:
    """A folder that serves as package index: every library in a version far above its lower bound."""
    folder = tmp_path_factory.mktemp("wheels")
    for name in requirements():
        stub_wheel(folder, name, "99.0")
    pack_setuptools(folder)
    return folder


class Machine:
    """A clone, a PATH and an index: where colab_setup.sh runs."""

    def __init__(self, folder: Path, wheels: Path):
        self.clone, self.path = folder / "the clone's copy é", folder / "bin"
        self.path.mkdir()
        for tool in TOOLS.split():
            (self.path / tool).symlink_to(shutil.which(tool))
        self.add("python3", f'exec "{PYTHON}" "$@"')
        self.free_space(100)  # whatever the disk these tests run on has
        ignored = shutil.ignore_patterns("__pycache__")
        for name in ("flowlib", "notebooks", ".ci"):
            shutil.copytree(CLONE / name, self.clone / name, ignore=ignored)
        for name in ("colab_setup.sh", "pyproject.toml", "LICENSE"):
            shutil.copy(CLONE / name, self.clone)
        (self.clone / "README.md").write_text("A copy for tests.")
        kept = {k: v for k, v in os.environ.items() if not re.match("PIP_|COLAB_|PYTHON|VIRTUAL_ENV|FLOWLIB_", k)}
        self.env = kept | {"PATH": str(self.path), "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"}
        self.env |= {"PIP_FIND_LINKS": str(wheels), "HOME": str(folder)}

    def add(self, command: str, script: str) -> None:
        """Put a command of this name on the PATH, before or instead of the true one."""
        (self.path / command).unlink(missing_ok=True)
        (self.path / command).write_text(f"#!{self.path}/bash\n{script}\n")
        (self.path / command).chmod(0o755)

    def free_space(self, gigabytes: float) -> None:
        """Let df report that much free space."""
        available = round(gigabytes * 1e6)
        self.add("df", f"printf 'Filesystem 1024-blocks Used Available\\n/dev/x 9 9 {available} 1%% /\\n'")

    def command(self, *arguments: str) -> list[str]:
        return [str(self.path / "bash"), str(self.clone / "colab_setup.sh"), *arguments]

    def run(self, *arguments: str, cwd: Path | None = None, script: str = "") -> subprocess.CompletedProcess:
        command = [str(self.path / "bash"), str(self.clone / script)] if script else self.command(*arguments)
        where = cwd or self.path.parent
        return subprocess.run(command, cwd=where, env=self.env, capture_output=True, text=True, timeout=600)

    def python(self, code: str, python: str = ".venv/bin/python") -> str:
        command = [str(self.clone / python), "-c", code]
        return subprocess.run(command, cwd="/", env=self.env, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def machine(tmp_path, wheels) -> Machine:
    return Machine(tmp_path, wheels)


@pytest.fixture(scope="module")
def settled(tmp_path_factory, wheels) -> Machine:
    """A machine on which the set-up has run once; tests leave it in that state, wherever its clone then is."""
    machine = Machine(tmp_path_factory.mktemp("settled"), wheels)
    machine.first = machine.run()
    assert machine.first.returncode == 0, machine.first.stderr
    return machine


def one_sentence(result: subprocess.CompletedProcess, pattern: str) -> None:
    """The script gave up: exit code 1, and one line on stderr that says why."""
    assert result.returncode == 1, result.stdout + result.stderr
    assert re.fullmatch(rf"colab_setup\.sh: .*({pattern}).*\n", result.stderr), result.stderr


def test_the_scripts_are_clean():
    for script in ("colab_setup.sh", ".ci/run"):
        subprocess.run(["bash", "-n", CLONE / script], check=True)
        if shutil.which("shellcheck"):
            subprocess.run(["shellcheck", CLONE / script], check=True)


def test_the_first_run_makes_an_environment(settled):
    assert "making .venv" in settled.first.stdout and "ready" in settled.first.stdout
    assert settled.first.stderr == ""
    assert settled.python("import flowlib; print(flowlib.__file__)") == str(settled.clone / "flowlib/__init__.py")
    installed = settled.python("import importlib.metadata as m; print(*[d.name for d in m.distributions()])")
    assert set(requirements(*re.search('EXTRAS="(.*)"', (CLONE / "colab_setup.sh").read_text())[1].split(","))) <= set(
        installed.split()
    )
    assert not (settled.clone / ".venv/setup").exists()


def test_from_the_folder_above_the_clone_flowlib_is_the_package_too(settled):
    above = settled.path.parent / "above"
    above.mkdir()
    (above / "flowlib").symlink_to(settled.clone)  # a folder without __init__.py, where Python looks first
    script = above / "script.py"
    script.write_text("import flowlib\nprint(flowlib.__version__)")
    for arguments in (["-c", script.read_text()], [script], ["-m", "flowlib", "--version"]):
        command = [settled.clone / ".venv/bin/python", *arguments]
        done = subprocess.run(command, cwd=above, env=settled.env, capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.split()[-1] == flowlib.__version__, done.stderr
    (above / "flowlib").unlink()


def test_the_second_run_is_quiet_and_quick(settled, tmp_path):
    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = spent()
    again = settled.run(cwd=tmp_path)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert spent() - before < 2, "expected no work where there is nothing to do"


def test_a_new_dependency_is_installed(settled, wheels):
    stub_wheel(wheels, "newcomer", "1.0")
    project = settled.clone / "pyproject.toml"
    project.write_text(project.read_text().replace('"tqdm', '"newcomer>=1",\n    "tqdm'))
    result = settled.run()
    assert result.returncode == 0 and "making" not in result.stdout
    settled.python("import newcomer")


def test_what_was_being_unpacked_when_killed_is_installed_again(settled):
    packages = Path(settled.python("import sysconfig; print(sysconfig.get_path('purelib'))"))
    (packages / "flowlib_setup.stamp").unlink()
    shutil.rmtree(packages / "av")
    next(packages.glob("av-*.dist-info/INSTALLER")).unlink()
    assert settled.run().returncode == 0
    settled.python("import av")


def test_a_clone_that_was_moved_gets_a_new_environment(settled):
    settled.clone = settled.clone.rename(settled.clone.with_name("moved"))
    result = settled.run()
    assert result.returncode == 0 and "anew" in result.stdout
    assert settled.run().stdout == ""
    assert str(settled.clone) in settled.python("import flowlib; print(flowlib.__file__)")


def test_test_hands_its_arguments_to_pytest(settled):
    assert settled.run("test", "-k", "some name").stdout.endswith(", '-k', 'some name']\n")


def test_docs_builds_the_documentation_strictly_and_says_where_it_is(settled):
    said = settled.run("docs").stdout
    built = "mkdocs ['build', '--strict']\n"
    assert said == f"{built}flowlib: the documentation, to look at in a browser: {settled.clone}/site/index.html\n"


@pytest.fixture
def command_line(settled):
    """In the place of the true one, which needs true libraries: it writes the page of contents' name."""
    main = settled.clone / "flowlib/__main__.py"
    true = main.read_text()
    main.write_text("import pathlib, sys; pathlib.Path(sys.argv[sys.argv.index('--root') + 1], 'index.html').touch()")
    yield
    main.write_text(true)


def test_demo_runs_the_five_notebooks_and_says_where_they_are(settled, command_line):
    root = settled.clone.parent / "work space"
    settled.env["FLOWLIB_ROOT"] = str(root)
    (root / "reports/demo").mkdir(parents=True)
    for name in ("table.md", "report.html", "scores.jsonl"):
        (root / "reports/demo" / name).touch()
    result = settled.run("demo")
    del settled.env["FLOWLIB_ROOT"]
    assert result.returncode == 0, result.stderr
    ran = re.findall(r"papermill \['notebooks/(\w+)\.ipynb', '([^']+)'", result.stdout)
    assert [name for name, _ in ran] == sorted(path.stem for path in (CLONE / "notebooks").glob("0[1-5]_*.ipynb"))
    folder = Path(re.search(r"executed notebooks: (.*)", result.stdout)[1])
    assert folder.is_relative_to(root) and all((folder / Path(out).name).is_file() for _, out in ran)
    assert f"table of metrics: {root}/reports/demo/table.md\n" in result.stdout
    assert f"to look at in a browser: {root}/index.html\n" in result.stdout and (root / "index.html").is_file()


def test_the_demo_of_hands_runs_their_notebooks_alone(settled, command_line):
    settled.env["FLOWLIB_ROOT"] = str(settled.clone.parent / "hands")
    result = settled.run("demo", "hands")
    del settled.env["FLOWLIB_ROOT"]
    assert result.returncode == 0, result.stderr
    names = ["06_hand_pose", "07_action", "08_pose_and_action"]
    assert re.findall(r"papermill \['notebooks/(\w+)\.ipynb'", result.stdout) == names


@pytest.mark.parametrize("demo", ["demo", "demo_hands"])
def test_the_parameters_of_the_demo_exist(demo):
    body = re.search(rf"^{demo}\(\) \{{\n(.*?)^\}}", (CLONE / "colab_setup.sh").read_text(), re.M | re.S)[1]
    calls = [line.split() for line in body.replace("\\\n", " ").splitlines()]
    for _, name, *options in calls:
        declared = papermill.inspect_notebook(CLONE / f"notebooks/{name}.ipynb")
        assert options[::3] == ["-p"] * (len(options) // 3)
        assert set(options[1::3]) <= set(declared) - {"root"}, f"{name} has no {set(options[1::3]) - set(declared)}"


def test_demo_stops_where_a_notebook_fails(settled):
    notebook = settled.clone / "notebooks/03_overfit_single_batch.ipynb"
    text = notebook.read_bytes()
    notebook.unlink()
    result = settled.run("demo")
    notebook.write_bytes(text)
    assert result.returncode != 0 and "04_two_frame" not in result.stdout


@pytest.mark.parametrize("outcome", ["exit 0", "echo no mirror answers >&2; exit 100"])
def test_ci_runs_the_suite_with_or_without_a_browser(settled, outcome):
    settled.add("apt-get", f'echo "$*" >> "{settled.path}/apt.log"; {outcome}')
    settled.add("id", "echo 0")
    result = settled.run(script=".ci/run")
    assert result.returncode == 0 and re.search(r"pytest \[[^\n]*\]\n$", result.stdout)
    assert ("browser" in result.stdout) == (outcome != "exit 0")
    log = settled.path / "apt.log"
    assert log.read_text().startswith("update") and ("chromium" in log.read_text()) == (outcome == "exit 0")
    log.unlink()


def test_killed_at_any_moment_the_same_command_goes_on(machine):
    environment = machine.clone / ".venv"
    for moment in (environment / "pyvenv.cfg", environment / "setup/log"):
        process = subprocess.Popen(
            machine.command(), env=machine.env, stdout=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + 300
        while not moment.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL and moment.exists()
    result = machine.run()
    assert result.returncode == 0, result.stderr
    assert (machine.run().stdout, machine.python("import flowlib, torch")) == ("", "")


FAKE = 'shift\nexec "{python}" -c \'import sys; {change}; exec(sys.argv[1])\' "$1"'
OLD = FAKE.format(python=PYTHON, change='sys.version_info = (3, 9, 18, "final", 0)')
WITHOUT_VENV = 'sys.version_info = (3, 12, 4, "final", 0); sys.modules["ensurepip"] = None'
BARE = FAKE.format(python=PYTHON, change=WITHOUT_VENV)


def test_too_old_a_python_is_named(machine):
    machine.add("python3", OLD)
    one_sentence(machine.run(), r"expected Python 3\.11 or later, found only Python 3\.9\.18")
    (machine.path / "python3").unlink()
    one_sentence(machine.run(), "expected Python 3.11 or later, found none of: python3.13")


def test_a_missing_venv_module_is_named_with_its_remedy(machine):
    machine.add("python3", BARE)
    one_sentence(machine.run(), r"Python 3\.12\.4 has no venv module; .* apt-get install python3\.12-venv")


def test_a_python_that_serves_is_found_behind_those_that_do_not(machine):
    machine.add("python3.13", 'echo "python3.13: command not found" >&2; exit 127')
    machine.add("python3.12", BARE)
    machine.add("python3.11", OLD)
    making = 'case "$*" in *venv*--clear*) echo "the right one"; exit 3 ;; esac'
    machine.add("python3", f'{making}\nexec "{PYTHON}" "$@"')
    one_sentence(machine.run(), "the right one")


def test_too_little_space_is_said_before_anything_is_made(machine):
    machine.free_space(3.4)
    one_sentence(machine.run(), r"expected about \d+ GB of free space in .*, got 3 GB")
    assert not (machine.clone / ".venv").exists()


@pytest.mark.parametrize(
    "output, sentence",
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "no space left"),
        ("OSError: [Errno 122] Disk quota exceeded", "no space left"),
        ("ERROR: Operation cancelled by user", "interrupted; the same command goes on"),
        ("ERROR: No matching distribution found for av>=14\nmore", "installing failed: .*matching .* for av>=14"),
        ("Killed", "installing failed: Killed"),
    ],
)
def test_what_pip_stumbles_over_becomes_one_sentence(machine, output, sentence):
    binaries = machine.clone / ".venv/bin"
    binaries.mkdir(parents=True)
    (binaries / "pip").write_text(f"#!{binaries}/python")
    script = f'case "$*" in "-m pip"*) printf "{output}\n"; exit 1 ;; esac\nexec "{PYTHON}" "$@"'
    machine.add("failing", script)
    (machine.path / "failing").rename(binaries / "python")
    one_sentence(machine.run(), sentence)


def test_while_pip_unpacks_without_a_word_what_is_there_is_said(machine):
    script = machine.clone / "colab_setup.sh"
    script.write_text(re.sub("(?m)^TELL_EVERY=.*", "TELL_EVERY=1", script.read_text()))
    binaries, packages = machine.clone / ".venv/bin", machine.path.parent / "packages"
    (packages / "old.dist-info").mkdir(parents=True)
    (packages / "old.dist-info/INSTALLER").touch()
    binaries.mkdir(parents=True)
    (binaries / "pip").write_text(f"#!{binaries}/python")
    unpack = f"import pathlib as p, time; a = p.Path('{packages}/a.dist-info'); a.mkdir(); (a / 'INSTALLER').touch()"
    pip = f"""printf "Installing collected packages: a, b-c, d\n"; "{PYTHON}" -c "{unpack}; time.sleep(2.5)"; exit 1"""
    where = f'case "$*" in *purelib*) echo "{packages}"; exit ;; "-m pip"*) {pip} ;; esac'
    machine.add("unpacking", f'{where}\nexec "{PYTHON}" "$@"')
    (machine.path / "unpacking").rename(binaries / "python")
    result = machine.run()
    said = [line for line in result.stdout.splitlines() if "npacking" in line]
    assert said[0] == "  Unpacking 3 packages", result.stderr
    assert set(said[1:]) == {"  Unpacking: 1 of 3 packages"}, result.stdout + result.stderr


def test_without_a_network_it_says_so_and_later_goes_on(machine):
    lonely = {"PIP_NO_INDEX": "0", "PIP_FIND_LINKS": "", "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "1"}
    online, machine.env = machine.env, machine.env | lonely
    one_sentence(machine.run(), "no network: the package index can't be reached")
    machine.env = online
    assert machine.run().returncode == 0


def test_an_unknown_job_is_refused(machine):
    one_sentence(machine.run("tset"), "expected nothing, demo, docs or test, got: tset")
    one_sentence(machine.run("demo", "now"), 'expected nothing or hands after "demo", got: now')


# ------------------------------------------------------------------------------------------------------------ Colab

COLAB = {  # what a runtime of November 2026 holds of ours
    **{"torch": "2.11.0+cu128", "torchvision": "0.26.0+cu128", "numpy": "2.1.3", "ipywidgets": "7.7.1"},
    **{"ipykernel": "6.17.1", "anywidget": "0.9.21", "h5py": "3.16.0", "opencv-python-headless": "5.0.0"},
    **{"accelerate": "1.14.0", "jupytext": "1.19.1", "gdown": "5.2.2", "pytest": "8.4.2"},
    **dict.fromkeys("matplotlib scipy tqdm requests tensorboard nbconvert".split(), "99.0"),
}
VERSIONS = "import importlib.metadata as m; print(*sorted(f'{d.name}=={d.version}' for d in m.distributions()))"


@pytest.fixture(scope="module")
def colab(tmp_path_factory, wheels) -> Machine:
    """A machine that takes itself for Colab, its python3 with Colab's versions."""
    machine = Machine(tmp_path_factory.mktemp("colab"), wheels)
    runtime = machine.path.parent / "runtime"
    subprocess.run([PYTHON, "-m", "venv", runtime], check=True)
    packages = next(runtime.glob("lib/python*/site-packages"))
    (packages / "google/colab").mkdir(parents=True)
    (packages / "google/colab/__init__.py").touch()
    for name, version in COLAB.items():
        zipfile.ZipFile(stub_wheel(machine.path, name, version)).extractall(packages)
    machine.add("python3", f'exec "{runtime}/bin/python" "$@"')
    machine.env["COLAB_RELEASE_TAG"] = "release-colab-external_20261101"
    machine.before = colab_versions(machine)
    machine.packages = packages
    return machine


def colab_versions(machine: Machine) -> set[str]:
    return set(machine.python(VERSIONS, "../runtime/bin/python").split())


def test_colab_keeps_what_it_has_when_something_wants_it_changed(colab, wheels):
    greedy = stub_wheel(wheels, "papermill", "99.1", requires="ipywidgets>=8")
    plain = (wheels / "papermill-99.0-py3-none-any.whl").rename(wheels / "aside")
    result = colab.run()
    plain.rename(wheels / "papermill-99.0-py3-none-any.whl")
    greedy.unlink()
    one_sentence(result, "installing failed: .*conflicting dependencies")
    assert colab_versions(colab) == colab.before


def test_colab_gets_only_what_it_lacks_and_a_plain_copy_of_flowlib(colab):
    assert not colab.run().stderr
    after = colab_versions(colab)
    assert colab.before <= after
    lacking = {line.split("==")[0] for line in after - colab.before}
    assert lacking == set(requirements("notebooks")) - set(COLAB) | {"flowlib"}
    assert (colab.packages / "flowlib/__init__.py").is_file()
    found = "from flowlib.notebook_files import find_notebooks; print(*[path.name for path in find_notebooks()])"
    brought = colab.python(found, "../runtime/bin/python").split()
    assert brought == sorted(path.name for path in (CLONE / "notebooks").glob("*.ipynb"))
    assert not [name for name in (".venv", "build", "flowlib.egg-info") if (colab.clone / name).exists()]
    assert (lambda again: (again.returncode, again.stdout + again.stderr))(colab.run()) == (0, "")


def test_colab_follows_changes_in_the_clone(colab):
    module = colab.clone / "flowlib/passing.py"
    module.write_text("value = 1")
    assert colab.run().returncode == 0
    assert (colab.packages / "flowlib/passing.py").read_text() == "value = 1"
    module.unlink()
    assert colab.run().returncode == 0
    assert not (colab.packages / "flowlib/passing.py").exists()
