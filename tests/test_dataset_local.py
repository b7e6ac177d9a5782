"""Copies of shards on the local disk: made once, compared, given up with a warning where there is no room."""

import os
import shutil
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from fixtures.dataset_shards import assert_equal, write_dataset

from flowlib.dataset import TrajectoryDataset, local
from flowlib.hdf5 import OpenFiles


@pytest.fixture
def disk(tmp_path, monkeypatch) -> Path:
    """The folder that stands for the local disk."""
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "disk"))
    return tmp_path / "disk"


@pytest.fixture
def drive(tmp_path, monkeypatch) -> Path:
    """The folder that stands for a mounted Drive."""
    monkeypatch.setattr(local, "DRIVE", tmp_path / "drive" / "MyDrive")
    return tmp_path / "drive" / "MyDrive"


def copies(disk: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in disk.glob("*/shards/*.h5")}


def open_copied(root: Path, **options) -> TrajectoryDataset:
    return TrajectoryDataset(root, "all", local_copy=True, progress=False, **options)


def test_copies_are_made_once_and_give_the_same(tmp_path, disk):
    root = write_dataset(tmp_path / "data")
    assert_equal(TrajectoryDataset(root, "all"), open_copied(root))
    made = copies(disk)
    for shard in root.glob("shards/*.h5"):
        os.utime(shard)
    copied = open_copied(root)
    assert list(made) and copies(disk) == made and len(made) == 3
    kept = {path: path.rename(path.with_suffix(".away")) for path in root.glob("shards/*.h5")}
    assert_equal(copied, copied)  # nothing is read from where the shards were
    assert len(kept) == 3


def test_only_a_dataset_on_a_drive_is_copied_unasked(tmp_path, disk, drive):
    for root, expected in ((drive / "data", 3), (tmp_path / "data", 0)):
        write_dataset(root)
        dataset = TrajectoryDataset(root, "train", progress=False)
        assert_equal(dataset, TrajectoryDataset(root, "train", local_copy=False))
        assert len(copies(disk)) == expected
        shutil.rmtree(disk, ignore_errors=True)


def test_a_cache_for_a_drive_lies_on_the_disk_and_needs_no_copies(disk, drive):
    root = write_dataset(drive / "data")
    assert_equal(TrajectoryDataset(root, "all", local_copy=False), TrajectoryDataset(root, "all", unpacked=True))
    assert len(list(disk.glob("*/unpacked/*.unpacked"))) == 3 and copies(disk) == {}
    assert sorted(path.name for path in root.iterdir()) == ["shards"]


def test_too_small_a_disk_is_warned_about(tmp_path, disk, monkeypatch):
    root = write_dataset(tmp_path / "data")
    usage = shutil.disk_usage(root)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000_100))
    with pytest.warns(UserWarning, match="read where they are.*needs 0.00 GB and 1 GB to spare, 1.00 GB are free"):
        dataset = open_copied(root)
    assert copies(disk) == {}
    assert_equal(dataset, TrajectoryDataset(root, "all"))


def test_a_disk_that_fills_up_is_warned_about(tmp_path, disk, monkeypatch):
    root = write_dataset(tmp_path / "data")

    def publish(source, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(local, "publish", publish)
    with pytest.warns(UserWarning, match="read where they are.*No space left on device"):
        assert_equal(open_copied(root), TrajectoryDataset(root, "all"))


@pytest.mark.parametrize("damage", [lambda content: content[:100], lambda content: bytes(len(content))])
def test_a_damaged_copy_is_made_anew(tmp_path, disk, damage):
    root = write_dataset(tmp_path / "data", 2)
    open_copied(root)
    victim = min(disk.glob("*/shards/*.h5"))
    victim.write_bytes(damage(victim.read_bytes()))
    assert_equal(open_copied(root), TrajectoryDataset(root, "all"))


def test_changed_shards_are_copied_again_and_those_that_went_are_removed(tmp_path, disk):
    root = write_dataset(tmp_path / "data")
    open_copied(root)
    sizes = {path.name: path.stat().st_size for path in root.glob("shards/*.h5")}
    write_dataset(root, 1, seed=1)
    with open(root / "shards" / "000.h5", "ab") as file:  # HDF5 doesn't mind: same name and size, other content
        file.write(bytes(max(0, sizes["000.h5"] - (root / "shards" / "000.h5").stat().st_size)))
    (root / "shards" / "002.h5").unlink()
    assert_equal(open_copied(root), TrajectoryDataset(root, "all"))
    assert sorted(copies(disk)) == ["000.h5", "001.h5"]


def test_few_files_stay_open(tmp_path):
    root = write_dataset(tmp_path, 5)
    dataset = TrajectoryDataset(root, "all")
    dataset._files.limit = 2

    def handles() -> int:
        links = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
        return sum(link.startswith(str(root)) for link in links)

    for index in (*range(len(dataset)), 0, 14, 0):
        dataset[index]
        assert 1 <= handles() == len(dataset._files) <= 2


def test_the_files_used_last_stay_open():
    opened = []
    files = OpenFiles(lambda path: opened.append(path) or path.name, limit=2)
    for name in "abacab":
        assert files[Path(name)] == name
    assert [path.name for path in opened] == list("abcb")


@pytest.mark.parametrize("unpacked", [False, True])
def test_reading_on_and_on_takes_no_more_memory(tmp_path, unpacked):
    dataset = TrajectoryDataset(write_dataset(tmp_path, 2), "all", unpacked=unpacked, progress=False)
    tracemalloc.start()
    sizes = []
    for _ in range(2):
        for index in list(range(len(dataset))) * 8:
            dataset[index]
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert sizes[1] - sizes[0] < dataset[0]["frames"].nbytes, "of 48 samples not one stays"
