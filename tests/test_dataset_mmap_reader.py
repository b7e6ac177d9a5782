"""The unpacked cache: the shards' samples to the last bit, made once, and never half a file taken for a whole one."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.dataset_shards import CLIPS, SIZE, S, assert_equal, labelled, write_dataset
from torch.utils.data import DataLoader, Subset

from flowlib.dataset import TrajectoryDataset, open_splits
from flowlib.dataset.local import local_folder
from flowlib.dataset.mmap_reader import MmapReader, unpack, unpacked_bytes
from flowlib.dataset.shard_reader import ShardReader
from flowlib.shards import Shard, ShardError, write_shard

BUILD = """
import os, resource, signal, sys
sys.path.insert(0, {tests!r})
from flowlib.dataset import TrajectoryDataset, local
whole, kill_after, limit = local.unpack, {kill_after}, {limit}
done = 0
def count(written):
    global done
    done += written
    if kill_after and done >= kill_after:
        os.kill(os.getpid(), signal.SIGKILL)
local.unpack = lambda path, target, advance: whole(path, target, advance=count)
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
dataset = TrajectoryDataset({root!r}, "all", unpacked=True, progress=False)
print(len(dataset), dataset[len(dataset) - 1]["tracks"].shape)
"""


def start_build(root: Path, kill_after: int = 0, limit: int = 0) -> subprocess.Popen:
    """A process that opens the dataset unpacked: killed after so many bytes, or with a limit to a file's bytes."""
    tests = str(Path(__file__).parent)
    code = BUILD.format(tests=tests, root=str(root), kill_after=kill_after, limit=limit)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def cached(root: Path) -> dict[str, tuple[int, int]]:
    """The unpacked files of a dataset, with what tells a file from one that was written later."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in root.glob("unpacked/*.unpacked")}


def open_both(root: Path, **options) -> tuple[TrajectoryDataset, TrajectoryDataset]:
    plain = TrajectoryDataset(root, "all")
    return plain, TrajectoryDataset(root, "all", progress=False, **({"unpacked": True} | options))


@pytest.mark.parametrize("step, points", [(1, 7), (2, 1), (1, 0)])
def test_samples_are_the_shards_to_the_last_bit(tmp_path, step, points):
    plain, unpacked = open_both(write_dataset(tmp_path, step=step, points=points))
    assert_equal(plain, unpacked)
    assert (unpacked.fingerprint, unpacked.size) == (plain.fingerprint, plain.size)
    for i in range(len(plain)):
        np.testing.assert_array_equal(unpacked.tracks(i).tracks, plain.tracks(i).tracks)


def test_wide_steps_and_the_lack_of_frames_are_kept(tmp_path):
    wide, some = labelled(0, 0), labelled(0, 4)
    wide.truth.tracks[2:] += 5000
    object.__setattr__(some.clip, "kept", (0, 3))
    object.__setattr__(some, "frames", some.frames[[0, 3]])
    config = {"height": SIZE[0], "width": SIZE[1]}
    write_shard(tmp_path / "shards" / "a.h5", [wide, some], tracker={}, config=config, encoding="webp")
    plain, unpacked = open_both(tmp_path)
    assert_equal(plain, unpacked)
    assert len(unpacked[1]["frames"]) == 2 and unpacked[0]["tracks"].max() > 4000


def test_confidence_is_unpacked_where_there_is_one(tmp_path):
    sure, other = labelled(0, 0), labelled(0, 8)
    confidence = np.random.default_rng(0).random(sure.truth.visibility.shape)
    sure = replace(sure, truth=replace(sure.truth, confidence=confidence))
    config = {"height": SIZE[0], "width": SIZE[1]}
    path = write_shard(tmp_path / "shards" / "a.h5", [sure, other], tracker={}, config=config)
    plain, unpacked = open_both(tmp_path)
    assert_equal(plain, unpacked)
    assert "confidence" in unpacked[0] and "confidence" not in unpacked[1]
    assert unpacked[0]["confidence"].dtype == torch.float32 and unpacked[1].truth.confidence is None
    (file,) = tmp_path.glob("unpacked/*.unpacked")
    assert 0 <= file.stat().st_size - unpacked_bytes(ShardReader(path)) < 800
    batch = next(iter(DataLoader(Subset(unpacked, [0, 0]), batch_size=2)))
    assert batch["confidence"].shape == (2, *confidence.shape)


def test_a_frame_of_many_clips_is_there_once(tmp_path):
    open_both(write_dataset(tmp_path, 1))
    (file,) = tmp_path.glob("unpacked/*.unpacked")
    frames = S + 2 * (CLIPS - 1)
    per_clip = 7 * (S * 9 + 12)
    with Shard(tmp_path / "shards" / "000.h5") as shard:
        assert unpacked_bytes(ShardReader(shard.path)) == frames * SIZE[0] * SIZE[1] * 3 + CLIPS * per_clip
        assert 0 <= file.stat().st_size - unpacked_bytes(ShardReader(shard.path)) < 800  # the index, and gaps


def test_samples_are_copies(tmp_path):
    _, dataset = open_both(write_dataset(tmp_path, 1))
    before = {key: value.clone() for key, value in dataset[1].items() if isinstance(value, torch.Tensor)}
    for value in dataset[1].values():
        if isinstance(value, torch.Tensor):
            value.zero_()
    assert all(torch.equal(value, dataset[1][key]) for key, value in before.items())
    assert torch.equal(before["frames"][:2], dataset[0]["frames"][2:])  # the frames both clips have


def test_the_cache_is_made_once_and_serves_every_split(tmp_path):
    root = write_dataset(tmp_path)
    open_both(root)
    made = cached(root)
    splits = open_splits(root, unpacked=True)
    assert len(made) == 3 and cached(root) == made and set(splits) == {"train", "val", "test"}
    for name, split in splits.items():
        assert split.split == name
        assert_equal(split, TrajectoryDataset(root, name))


def test_killed_at_any_moment_the_next_run_goes_on(tmp_path):
    root = write_dataset(tmp_path)
    with Shard(root / "shards" / "000.h5") as shard:
        shard_bytes = unpacked_bytes(ShardReader(shard.path))
    for kill_after in (1, shard_bytes):  # all but the index is written; each run begins anew with the first shard
        process = start_build(root, kill_after=kill_after)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert cached(root) == {} and len(list(root.glob("unpacked/.*.part"))) == 1
    process = start_build(root, kill_after=shard_bytes + 1)  # in the second shard: the first is done by then
    process.communicate()
    assert len(cached(root)) == 1
    first = cached(root)
    assert_equal(*open_both(root))
    assert first.items() <= cached(root).items() and len(cached(root)) == 3
    assert not list(root.glob("unpacked/.*.part"))


def test_a_full_disk_is_told_before_and_while_it_fills(tmp_path, refuses, monkeypatch):
    root = write_dataset(tmp_path)
    process = start_build(root, limit=10_000)
    _, complaint = process.communicate()
    assert process.returncode == 1 and "can't be written" in complaint and "run again" in complaint
    assert cached(root) == {} and not list(root.glob("unpacked/.*.part"))
    usage = shutil.disk_usage(root)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_050_000))
    with refuses(r"unpacked needs 0.00 GB and 1 GB to spare, 1.00 GB are free; name a folder", OSError):
        open_both(root)
    monkeypatch.undo()
    assert_equal(*open_both(root))


def test_a_cache_that_cannot_be_made_names_its_folder(tmp_path, refuses):
    (tmp_path / "file").touch()
    with refuses(r"file/.* can't be written or locked \(Not a directory\); name a local folder", OSError):
        open_both(write_dataset(tmp_path / "data"), unpacked=tmp_path / "file")


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:-1], lambda content: bytes(10_000)])
def test_what_is_no_whole_file_is_made_anew(tmp_path, refuses, damage):
    root = write_dataset(tmp_path, 2)
    open_both(root)
    victim = min(root.glob("unpacked/*.unpacked"))
    victim.write_bytes(damage(victim.read_bytes()))
    with refuses(f"{victim.name}: expected an unpacked shard"):
        MmapReader(victim)
    assert_equal(*open_both(root))


def test_a_flip_in_the_index_is_noticed(tmp_path):
    """Each bit of each byte behind the clips, that is of index and tail, in turns."""
    root = write_dataset(tmp_path, 1)
    plain, unpacked = open_both(root)
    (victim,) = root.glob("unpacked/*.unpacked")
    whole = victim.read_bytes()
    begin = whole.rindex(b'{"content_sha256"')
    for place in range(begin, len(whole)):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        victim.write_bytes(content)
        with pytest.raises(ValueError, match="expected an unpacked shard"):
            MmapReader(victim)
    assert_equal(*open_both(root))
    assert victim.read_bytes() == whole, "it was made anew"


def test_a_cache_of_an_earlier_version_is_made_anew(tmp_path, refuses):
    root = write_dataset(tmp_path, 1)
    open_both(root)
    (victim,) = root.glob("unpacked/*.unpacked")
    victim.write_bytes(victim.read_bytes()[:-1] + b"1")
    with refuses("expected an unpacked shard"):
        MmapReader(victim)
    assert_equal(*open_both(root))


def test_what_somebody_else_put_beside_the_cache_stays(tmp_path, monkeypatch):
    root = write_dataset(tmp_path / "data", 1)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "disk"))
    (tmp_path / "disk").mkdir()
    names = ["film.mp4.part", ".film.part", "mine.h5", "mine.unpacked", "notes.txt", ".a.2024.12.part", "x.1.part"]
    folder, copies = root / "unpacked", local_folder(root) / "shards"
    for place in (folder, copies):
        place.mkdir(parents=True)
        for name in names:
            (place / name).write_bytes(b"mine")
    (copies / "mine.h5").unlink()  # there shards are copied to under their own names
    ours = f"{'0' * 32}.unpacked"
    (folder / ours).write_bytes(b"of a shard that is no more")
    open_both(root)
    TrajectoryDataset(root, "all", local_copy=True, progress=False)
    assert {name for name in names if (folder / name).exists()} == set(names) and not (folder / ours).exists()
    assert {name for name in names if (copies / name).exists()} == set(names) - {"mine.h5"}


def test_relabelled_shards_are_unpacked_anew_and_the_old_ones_removed(tmp_path):
    root = write_dataset(tmp_path)
    old, before = open_both(root)[1].fingerprint, cached(root)
    write_dataset(root, 2, seed=1)  # the third stays as it is
    plain, new = open_both(root)
    assert_equal(plain, new)
    assert new.fingerprint != old
    assert len(cached(root)) == 3 and len(cached(root).items() & before.items()) == 1


def test_two_processes_share_the_work(tmp_path):
    root = write_dataset(tmp_path, 6)
    processes = [start_build(root) for _ in range(2)]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0] == f"18 torch.Size([{S}, 7, 2])\n"
    assert len(cached(root)) == 6 and not list(root.glob("unpacked/.*.part"))


def test_another_folder_is_shared_by_datasets(tmp_path):
    roots = [write_dataset(tmp_path / name / "default", 1, seed=seed) for seed, name in enumerate("ab")]
    for root in (*roots, *roots):
        assert_equal(*open_both(root, unpacked=tmp_path / "cache"))
    assert len(list((tmp_path / "cache").glob("*/unpacked/*.unpacked"))) == 2
    assert not any((root / "unpacked").exists() for root in roots)


def test_damage_is_met_while_unpacking(tmp_path, refuses):
    root = write_dataset(tmp_path, 1)
    path = root / "shards" / "000.h5"
    with Shard(path) as shard:
        picture = shard.picture(shard.clips[0], 0).tobytes()
    content = path.read_bytes()
    assert content.count(picture) == 1
    path.write_bytes(content.replace(picture, picture[:50] + bytes([picture[50] ^ 1]) + picture[51:]))
    with refuses(r"000.h5: clip .* of v0 can't be read .* run labelling again with verify=True", ShardError):
        unpack(path, tmp_path / "a.unpacked")
    assert not (tmp_path / "a.unpacked").exists()
