"""What can't be read is no damage: it is reported as it is, nothing is quarantined, and nothing is labelled again."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py
import pytest
from fixtures.labelling import CONFIG, DriftTracker, samples, write_videos

from flowlib.dataset import TrajectoryDataset
from flowlib.labelling import label, make_plan
from flowlib.labelling.store import Store
from flowlib.shards import Shard, ShardError, check_shard, find_shards, merge_shards, shard_paths, verify_shards
from flowlib.workspace import Workspace

TESTS = Path(__file__).parent
NOBODY = 65534
NUMBERS = [errno.EIO, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ENOTCONN, errno.ENOMEM]
NUMBERS += [errno.ETIMEDOUT, errno.ENOSPC, errno.EISDIR, errno.EBUSY]
# Fails reads of files whose path holds $FAIL_IN, from offset $FAIL_FROM on, with $FAIL_AS.
READS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
ssize_t pread64(int fd, void *buffer, size_t size, off_t offset) {
    char link[64], path[4096] = {0};
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const char *in = getenv("FAIL_IN");
    if (in && readlink(link, path, sizeof path - 1) > 0 && strstr(path, in) && offset >= atol(getenv("FAIL_FROM"))) {
        errno = atoi(getenv("FAIL_AS"));
        return -1;
    }
    ssize_t (*real)(int, void *, size_t, off_t) = dlsym(RTLD_NEXT, "pread64");
    return real(fd, buffer, size, offset);
}
ssize_t pread(int fd, void *buffer, size_t size, off_t offset) { return pread64(fd, buffer, size, offset); }
"""
JOBS = """
import json, os, sys
sys.path.insert(0, {tests!r})
from fixtures.labelling import CONFIG, DriftTracker
from flowlib.dataset import TrajectoryDataset
from flowlib.labelling import label, make_plan, store
from flowlib.workspace import Workspace

def suffer(fault):
    os.environ.update(fault.get("environment", {{}}))
    if "user" in fault:
        os.setuid(fault["user"])
    options = {{"tracker": DriftTracker(), "progress": False, "verify": fault.get("verify", False)}}
    for work in (
        lambda: label(plan, Workspace({root!r}), **options),
        lambda: [TrajectoryDataset({root!r}, "all")[i] for i in range(6)],
    ):
        try:
            work()
            print("fine", flush=True)
        except OSError as error:
            print(error.errno, error.filename, flush=True)

store.PAUSES = (0.01,)
plan = make_plan({videos!r}, CONFIG)
for fault in json.loads(sys.argv[1]):
    child = os.fork()  # which costs less than a process of its own
    if not child:
        suffer(fault)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.fixture(scope="module")
def made() -> Path:
    """A folder of videos and the workspace of their labels, open to every user, as pytest's own isn't."""
    folder = Path(tempfile.mkdtemp())
    workspace = Workspace(folder / "root")
    label(make_plan(write_videos(folder / "videos"), CONFIG), workspace, tracker=DriftTracker(), progress=False)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def shard(made) -> Path:
    (path,) = shard_paths(made / "root" / "datasets" / "default")
    return path


@pytest.fixture(scope="module")
def failing_reads(tmp_path_factory) -> Path:
    """A library that makes reads fail, for LD_PRELOAD."""
    folder = tmp_path_factory.mktemp("reads")
    (folder / "reads.c").write_text(READS)
    command = ["cc", "-shared", "-fPIC", "-o", str(folder / "reads.so"), str(folder / "reads.c"), "-ldl"]
    if not shutil.which("cc") or subprocess.run(command).returncode:
        pytest.skip("there is no C compiler here")
    return folder / "reads.so"


def suffer(made: Path, *faults: dict, preload: Path | str = "") -> list[list[str]]:
    """What a labelling of the workspace and then a reading of it end in: "fine", or the error's number and file."""
    given = {"tests": str(TESTS), "videos": str(made / "videos"), "root": str(made / "root")}
    environment = os.environ | {"PYTHONPATH": str(TESTS.parent), "OMP_NUM_THREADS": "1", "LD_PRELOAD": str(preload)}
    command = [sys.executable, "-c", JOBS.format(**given), json.dumps(faults)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    return [lines[i : i + 2] for i in range(0, len(lines), 2)]


def assert_untouched(made: Path, shard: Path, before: bytes) -> None:
    """The shard is what it was, nothing lies beside it, and the next job finds all of it."""
    assert list(shard.parent.iterdir()) == [shard] and shard.read_bytes() == before
    report = label(make_plan(made / "videos", CONFIG), Workspace(made / "root"), tracker=DriftTracker(), progress=False)
    assert (report.found, report.labelled, report.damaged) == (6, 0, [])


def test_no_permission(made, shard):
    before, user = shard.read_bytes(), NOBODY if os.geteuid() == 0 else os.geteuid()
    shard.chmod(0o600 if os.geteuid() == 0 else 0)
    said = suffer(made, {"user": user}, {"user": user, "verify": True})
    shard.chmod(0o777)
    shard.parent.chmod(0o700 if os.geteuid() == 0 else 0)
    said += suffer(made, {"user": user})
    shard.parent.chmod(0o777)
    assert said == [[f"{errno.EACCES} {shard}"] * 2] * 2 + [[f"{errno.EACCES} {shard.parent}"] * 2]
    assert_untouched(made, shard, before)


def test_reads_that_fail(made, shard, failing_reads):
    """At the beginning, so that the shard can't be opened, and in the clips alone."""
    before, faults = shard.read_bytes(), []
    for number in (errno.EIO, errno.ESTALE):
        for first, verify in ((0, False), (0, True), (3000, True)):
            fault = {"FAIL_IN": "/shards/", "FAIL_FROM": str(first), "FAIL_AS": str(number)}
            faults.append({"verify": verify, "environment": fault})
    said = suffer(made, *faults, preload=failing_reads)
    assert said == [[f"{number} {shard}"] * 2 for number in (errno.EIO, errno.ESTALE) for _ in range(3)]
    assert_untouched(made, shard, before)


@contextmanager
def no_descriptors_left():
    """While this lasts the process can't open another file."""
    limits, held = resource.getrlimit(resource.RLIMIT_NOFILE), []
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, limits[1]))
    try:
        with suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_too_few_file_descriptors(made, shard):
    before, tracker = shard.read_bytes(), DriftTracker().describe()
    store = Store(Workspace(made / "root"), "default", config=CONFIG.content(), tracker=tracker)
    everything = TrajectoryDataset(made / "root", "all")
    with no_descriptors_left():
        for work in (store.quarantine_damaged, store.keys, lambda: everything[0], lambda: find_shards(store.folder)):
            with pytest.raises(OSError, match="Too many open files") as caught:
                work()
            assert caught.value.errno == errno.EMFILE
            assert Path(caught.value.filename) in (shard, shard.parent)  # which can't be listed, either
    assert len(everything[0].frames) == 4
    assert_untouched(made, shard, before)


@pytest.mark.parametrize("number", NUMBERS, ids=errno.errorcode.get)
def test_every_error_of_the_system_keeps_its_number_and_names_the_file(made, shard, monkeypatch, number):
    def refuse(*_, **__):
        raise OSError(number, f"Unable to synchronously open file (errno = {number}, error message = 'x')")

    monkeypatch.setattr(h5py, "File", refuse)
    folder = shard.parents[1]
    for work in (Shard, check_shard, lambda _: find_shards(folder), lambda _: verify_shards(folder)):
        with pytest.raises(OSError, match="couldn't be read, so nothing is known to be wrong") as caught:
            work(shard)
        assert (caught.value.errno, caught.value.filename) == (number, str(shard))
        assert type(caught.value) is type(OSError(number, "x"))


def test_what_hdf5_says_in_text_alone_is_understood(made, shard, monkeypatch):
    with Shard(shard) as opened:
        clip = opened.clips[0]
        for kind in (KeyError, RuntimeError, OSError):

            def fail(*_, kind=kind):
                raise kind("can't open object (file read failed: errno = 5, error message = 'Input/output error')")

            monkeypatch.setattr(h5py.h5d, "open", fail)
            with pytest.raises(OSError, match="Input/output error") as caught:
                opened.tracks(clip)
            assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(shard))


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EMFILE])
def test_a_partial_shard_that_can_not_be_read_stays(made, tmp_path, monkeypatch, number):
    monkeypatch.setattr("flowlib.labelling.store.PAUSES", (0.01,))
    store = Store(Workspace(tmp_path), "default", config=CONFIG.content(), tracker=DriftTracker().describe())
    plan = make_plan(made / "videos", CONFIG)
    clip, partial = plan.clips[0], store.partial(plan.clips[0])
    with Shard(shard_paths(made / "root" / "datasets" / "default")[0]) as whole:
        store.write(clip, whole.read(whole.clips[0]))
    real = h5py.File

    def refuse(*_, **__):
        raise OSError(number, "no")

    monkeypatch.setattr(h5py, "File", refuse)
    with pytest.raises(OSError, match="couldn't be read") as caught:
        store.has(clip)
    assert caught.value.errno == number and partial.exists()
    once = iter([refuse])
    monkeypatch.setattr(h5py, "File", lambda *given, **options: next(once, real)(*given, **options))
    if number == errno.EIO:
        assert store.has(clip), "a single hiccup is waited for"


@pytest.mark.parametrize("kind", ["folder", "loop", "link to nothing"])
def test_what_is_no_file_is_told_not_passed_over(made, shard, kind):
    other = shard.with_name("other.h5")
    other.mkdir() if kind == "folder" else other.symlink_to("other.h5" if kind == "loop" else "nowhere.h5")
    try:
        for work in (find_shards, verify_shards, lambda folder: TrajectoryDataset(folder, "all")):
            with pytest.raises(OSError, match="other.h5"):
                work(shard.parents[1])
        assert other.is_symlink() or other.is_dir()
    finally:
        other.rmdir() if kind == "folder" else other.unlink()


def test_a_disk_that_is_full_while_merging_costs_nothing(made, shard, tmp_path):
    before, limits = samples(shard.parents[1]), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            merge_shards([shard], tmp_path / "merged.h5")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir()) and samples(shard.parents[1]) == before


def test_bytes_that_were_read_and_are_wrong_are_damage(made, shard, tmp_path):
    victim = tmp_path / "a.h5"
    victim.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(ShardError, match="truncated, damaged or none"):
        Shard(victim)
