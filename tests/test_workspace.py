"""The workspace: where it is found, and that a file gets there whole or not at all."""

import os
import pickle
import select
import struct
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fixtures.dataset_shards import labelled, write_dataset
from fixtures.viewer_example import example

from flowlib import workspace
from flowlib.clips import ClipList, ClipSample
from flowlib.dataset import TrajectoryDataset
from flowlib.dataset.benchmarks import load_arrays, read_flo, read_flow_pair
from flowlib.downloads import fetch_weights
from flowlib.evaluation import evaluate
from flowlib.models.baselines import ZeroMotion
from flowlib.notebook_views import label_sheet, label_viewer, save_viewer
from flowlib.own_pictures import own_clip
from flowlib.sources import find_source, write_synthetic
from flowlib.tasks.trajectories import TrajectoryTask
from flowlib.video import encode_image, find_videos, fingerprint, probe, read_frames, write_frames, write_video
from flowlib.viewer import TrajectoryViewer
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


@pytest.fixture
def home(nowhere, monkeypatch):
    """A home with a video, a dataset, a network's weights and a benchmark's file in it."""
    folder = nowhere / "home"
    frames = np.random.default_rng(0).integers(0, 255, (9, 48, 64, 3), np.uint8)
    write_dataset(folder / "data")
    write_video(folder / "videos" / "a.mkv", frames, fps=10)
    (folder / "w.pth").write_bytes(b"weights")
    (folder / "a.flo").write_bytes(struct.pack("<fii2f", 202021.25, 1, 1, 2.0, 3.0))
    (folder / "a.pkl").write_bytes(pickle.dumps({"a": np.zeros(3)}))
    for number in range(2):
        (folder / f"{number}.png").write_bytes(encode_image(frames[0, :1, :1], "png"))
    monkeypatch.setenv("HOME", str(folder))
    return folder


def viewed():
    return TrajectoryViewer(*example()[:2])


def evaluated(folder):
    one = ClipSample.of(labelled(0, 0))
    return evaluate({"zero": ZeroMotion(4)}, TrajectoryTask(), ClipList(one), folder=folder, progress=False)


READERS = {
    "workspace": lambda: Workspace("~/w").root.parent == Path(os.environ["HOME"]),
    "$HOME": lambda: Workspace("$HOME/w").root.parent == Path(os.environ["HOME"]),
    "source": lambda: list(find_videos(find_source("~/videos", Workspace("~")))),
    "videos": lambda: list(find_videos("~/videos")),
    "probe": lambda: probe("~/videos/a.mkv").num_frames == 9,
    "fingerprint": lambda: fingerprint("~/videos/a.mkv"),
    "frames": lambda: len(read_frames("~/videos/a.mkv", range(2))) == 2,
    "weights": lambda: fetch_weights("~/w.pth").is_file(),
    "dataset": lambda: len(TrajectoryDataset("~/data", "all")),
    "unpacked": lambda: len(TrajectoryDataset("~/data", "all", unpacked="~/cache", progress=False)),
    "labels": lambda: label_viewer("~/data", 0),
    "sheet": lambda: label_sheet("~/data"),
    "flow": lambda: read_flo("~/a.flo")[1].all(),
    "pair": lambda: read_flow_pair("~/0.png", "~/1.png", "~/a.flo").truth.num_points,
    "arrays": lambda: load_arrays("~/a.pkl"),
    "pictures": lambda: own_clip([Path("~/0.png")], (0,), (32, 32)),
}
WRITERS = {
    "report": lambda: evaluated("~/scores").save("~/report"),
    "scores": lambda: (evaluated("~/scores"), Path.home() / "scores" / "scores")[1],
    "video": lambda: write_video("~/b.mp4", example()[0]),
    "rendered": lambda: write_synthetic("~/synthetic", count=1, num_frames=2, size=(32, 32)),
    "page": lambda: viewed().to_html("~/a.html"),
    "animation": lambda: viewed().to_video("~/a.gif", progress=False),
    "viewer": lambda: save_viewer(viewed(), "~/report", "page"),
    "pictures": lambda: write_frames([probe("~/videos/a.mkv")], "~/frames")[0],
}


@pytest.mark.parametrize("name", READERS)
def test_a_tilde_is_ones_home_wherever_something_is_read(name, home):
    assert READERS[name]() and not Path("~").exists()


@pytest.mark.parametrize("name", WRITERS)
def test_a_tilde_is_ones_home_wherever_something_is_written(name, home):
    written = WRITERS[name]()
    assert written.exists() and written.is_relative_to(home) and not Path("~").exists()


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


OTHERS = [
    "film.mp4.part",
    ".film.part",
    ".a.2024.12.part",
    "a.1.part",
    ".part",
    ".a.flowlib-0.1.part",
    ".a.host.1.part",
]


@pytest.mark.parametrize("name", OTHERS)
def test_what_others_call_part_is_not_ours(tmp_path, name):
    (tmp_path / name).touch()
    os.utime(tmp_path / name, (0, 0))
    workspace.clear_stale(tmp_path)
    assert (tmp_path / name).exists()


def test_files_of_the_dead_go_and_those_of_the_living_stay(tmp_path):
    path = workspace.temporary_path(tmp_path / "a.h5")
    dead = subprocess.Popen(["true"])
    dead.wait()
    theirs = path.with_name(path.name.replace(f".{os.getpid()}.", f".{dead.pid}."))
    for file in (path, theirs):
        file.touch()
        os.utime(file, (0, 0))
    workspace.clear_stale(tmp_path)
    assert path.exists() and not theirs.exists()


def test_files_of_another_machine_go_after_a_day_by_the_disks_clock(tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 4e9)  # a clock that can't be trusted
    numbering = workspace._numbering()
    other = f"flowlib-{int(numbering[-1] == '0')}{'0' * 11}"
    files = [tmp_path / f".{name}.h5.{other}.1.part" for name in ("new", "old")]
    for file in files:
        file.touch()
    yesterday = files[1].stat().st_mtime - 25 * 3600
    os.utime(files[1], (yesterday, yesterday))
    workspace.clear_stale(tmp_path)
    assert [file.exists() for file in files] == [True, False]


def test_a_job_in_another_container_keeps_its_file(tmp_path):
    """It has numbers of its own for its processes, and the same name for the machine."""
    code = (
        "import sys; from flowlib.workspace import atomic_write\n"
        "with atomic_write(sys.argv[1]) as t: t.write_text('half'); print('half', flush=True); sys.stdin.readline()"
    )
    command = ["unshare", "--pid", "--fork", sys.executable, "-c", code, str(tmp_path / "a")]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **streams) as job:
        if job.stdout.readline() != "half\n":
            pytest.skip("containers aren't permitted here")
        workspace.clear_stale(tmp_path)
        assert len(list(tmp_path.glob(".a.*.part"))) == 1
        job.communicate("go on\n")
    assert os.listdir(tmp_path) == ["a"]


def test_json_is_an_object_or_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "a.json"
    workspace.write_json(path, {"é": [1, {"b": None}]})
    assert workspace.read_json(path) == {"é": [1, {"b": None}]}
    for content in (b"[1]", b"{", b'{"a": 1, "a": 2}', b"\xff", b"[" * 100_000, b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="a.json: expected JSON, "):
            workspace.read_json(path)


def test_only_one_holds_a_lock_and_a_lock_of_another_user_will_do(tmp_path, monkeypatch):
    code = (
        "import sys; from flowlib.workspace import locked\n"
        "with locked(sys.argv[1]): print('held', flush=True); sys.stdin.readline(); print('done', flush=True)"
    )
    command, streams = [sys.executable, "-c", code, str(tmp_path / "lock")], {"stdin": -1, "stdout": -1, "text": True}
    with subprocess.Popen(command, **streams) as first:
        assert first.stdout.readline() == "held\n"
        with subprocess.Popen(command, **streams) as second:
            waited = not select.select([second.stdout], [], [], 0.5)[0]
            assert first.communicate("\n")[0] == "done\n" and waited
            assert second.communicate("\n")[0] == "held\ndone\n"
    real = os.open

    def of_another_user(path, flags, *mode):
        if flags & os.O_RDWR:
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *mode)

    monkeypatch.setattr(os, "open", of_another_user)
    with workspace.locked(tmp_path / "lock"):
        pass


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


def test_without_a_drive_colab_is_warned_once_that_results_vanish(nowhere, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Workspace().writable()  # not in Colab
        monkeypatch.setitem(sys.modules, "google.colab", sys)
        (nowhere / "no drive" / "MyDrive").mkdir(parents=True)
        Workspace().writable()  # on the Drive
    with pytest.warns(
        UserWarning, match=r"vanishes with this session. Mount your Drive .* or call workspace.archive\(\)"
    ) as told:
        for _ in range(2):
            Workspace(nowhere / "content").writable()
    assert len(told) == 1


def test_an_archive_is_a_workspace_again_without_what_can_be_had_again(tmp_path):
    found = Workspace(tmp_path / "a workspace é").writable()
    kept = {
        "runs/1_a/last.pt": b"1" * 5000,
        "datasets/d/shards/x.h5": b"2",
        "runs/1_a/weights/w": b"3",
        "index.html": b"4",
    }
    for name, data in kept.items() | {("weights/raft.pth", b"5"), ("scratch/x", b"6"), ("runs/.x.part", b"7")}:
        (found.root / name).parent.mkdir(parents=True, exist_ok=True)
        (found.root / name).write_bytes(data)
    for path in (found.archive(), found.archive(found.root / "inside.zip"), found.archive(found.root / "inside.zip")):
        with zipfile.ZipFile(path) as packed:
            assert {name: packed.read(name) for name in packed.namelist()} == kept
    assert found.archive() == tmp_path / "a workspace é_results.zip"
    with pytest.raises(FileNotFoundError, match="expected a workspace to pack"):
        Workspace(tmp_path / "nothing").archive()
