"""The workspace: where it is found, and that a file gets there whole or not at all."""

import os
import subprocess
import sys

import pytest

from flowlib import workspace
from flowlib.workspace import Workspace, atomic_write, publish, sha256_file


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A working folder outside any clone, without Drive or environment variable."""
    monkeypatch.delenv("FLOWLIB_ROOT", raising=False)
    monkeypatch.setattr(workspace, "DRIVE", tmp_path / "no drive" / "MyDrive")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_root_is_found_in_the_stated_order(nowhere, monkeypatch):
    assert Workspace().root == nowhere / "workspace"
    (nowhere / "no drive" / "MyDrive").mkdir(parents=True)
    assert Workspace().root == nowhere / "no drive" / "MyDrive" / "flowlib"
    monkeypatch.setenv("FLOWLIB_ROOT", str(nowhere / "mine"))
    assert Workspace().root == nowhere / "mine"
    assert Workspace(nowhere / "named").root == nowhere / "named"


def test_every_folder_of_a_clone_leads_to_the_same_root(nowhere, monkeypatch):
    (nowhere / "clone" / "flowlib").mkdir(parents=True)
    (nowhere / "clone" / "notebooks").mkdir()
    (nowhere / "clone" / "flowlib" / "workspace.py").touch()
    (nowhere / "clone" / "pyproject.toml").touch()
    roots = []
    for folder in ("clone", "clone/notebooks"):
        monkeypatch.chdir(nowhere / folder)
        roots.append(Workspace().root)
    assert roots == [nowhere / "clone" / "workspace"] * 2


def test_names_are_names_of_folders(tmp_path):
    assert Workspace(tmp_path).dataset("mine 2") == tmp_path / "datasets" / "mine 2"
    for bad in ("", " ", "a/b", "..", "/etc"):
        with pytest.raises(ValueError, match="report: expected the name of a folder"):
            Workspace(tmp_path).report(bad)


def test_scratch_is_local_when_the_root_is_a_drive(nowhere):
    on_drive = Workspace(workspace.DRIVE / "flowlib")
    assert not on_drive.scratch.is_relative_to(workspace.DRIVE.parent)
    assert Workspace(nowhere / "here").scratch.is_relative_to(nowhere / "here")


def test_a_root_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="expected a folder, got the file"):
        Workspace(tmp_path / "file")
    with pytest.raises(OSError, match="root: expected a folder that can be written, got /proc/flowlib"):
        Workspace("/proc/flowlib").writable()


def test_an_error_while_writing_leaves_the_old_file(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_a_kill_while_writing_leaves_the_old_file(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")
    code = (
        "import os, signal, sys; from flowlib.workspace import atomic_write\n"
        "with atomic_write(sys.argv[1]) as t: t.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(target)]).returncode == -9
    assert target.read_text() == "old"


def test_publish_copies_whole(tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.write_bytes(os.urandom(100_000))
    publish(source, tmp_path / "deep" / "target")
    assert sha256_file(tmp_path / "deep" / "target") == sha256_file(source)
    monkeypatch.setattr(workspace.shutil, "copyfile", lambda a, b: b.write_bytes(b"truncated"))
    with pytest.raises(OSError, match="differs from its source"):
        publish(source, tmp_path / "deep" / "target")
    assert sha256_file(tmp_path / "deep" / "target") == sha256_file(source)


@pytest.mark.parametrize("root", ["$SOMEWHERE/w", "${SOMEWHERE}/w", "~/w", "$SOMEWHERE/x/../w", "w", "./y/../w"])
def test_a_root_is_read_as_a_shell_reads_it(root, tmp_path, monkeypatch):
    monkeypatch.setenv("SOMEWHERE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert Workspace(root).root == tmp_path / "w"
    monkeypatch.setenv("FLOWLIB_ROOT", root)
    assert Workspace().root == tmp_path / "w"


def test_a_variable_that_is_not_set_is_named_unless_a_folder_is_called_so(tmp_path, monkeypatch):
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(ValueError, match=r"root: expected a folder, got '\$NOWHERE/x', .*no variable \$NOWHERE"):
        Workspace("$NOWHERE/x")
    (tmp_path / "$NOWHERE").mkdir()
    assert Workspace(tmp_path / "$NOWHERE").root == tmp_path / "$NOWHERE"
