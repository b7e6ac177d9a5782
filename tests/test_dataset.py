"""The dataset: whole videos to one split, the shards' own numbers, the same in every worker."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.dataset_shards import assert_equal, write_dataset
from torch.utils.data import ConcatDataset, DataLoader

from flowlib import sources
from flowlib.clips import ClipSample
from flowlib.dataset import TrajectoryDataset, describe_splits, open_splits
from flowlib.labelling import LabelConfig, label, make_plan
from flowlib.shards import Shard, ShardError, find_shards, merge_shards
from flowlib.synthetic import random_scene
from flowlib.workspace import Workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    """Four rendered videos in two shards, 2 clips each."""
    root = tmp_path_factory.mktemp("workspace")
    for number in range(4):
        sources.write_scene(root / "videos" / f"v{number}.mkv", random_scene(8, (48, 64), seed=number))
    config = LabelConfig(frames=4, grid=3, height=48, width=64, tracker="exact", encoding="webp")
    for chunk in range(2):
        plan = make_plan(root / "videos", config)
        label(plan, Workspace(root), chunk=chunk, num_chunks=2, progress=False)
    return Workspace(root)


def test_a_sample_is_what_the_docstring_says(workspace):
    dataset = TrajectoryDataset(workspace.root, split="all")
    sample = dataset[1]
    assert len(dataset) == 8 and (dataset.num_frames, dataset.size) == (4, (48, 64))
    assert sample["frames"].shape == (4, 48, 64, 3) and sample["frames"].dtype == torch.uint8
    assert sample["tracks"].shape == (4, 9, 2) and sample["tracks"].dtype == torch.float32
    assert sample["visibility"].shape == (4, 9) and sample["visibility"].dtype == torch.bool
    assert sample["queries"].shape == (9, 3) and (sample["video"], sample["clip"]) == ("v0", dataset.clips[1].key)
    scene = sources.read_scene(workspace.videos / "v0.mkv")
    np.testing.assert_array_equal(sample["frames"], scene.clip(4, first_frame=4))
    exact = scene.tracks(sample["queries"].numpy(), 4, first_frame=4)
    np.testing.assert_allclose(sample["tracks"], exact.tracks, atol=1 / 64)


def test_no_video_is_in_two_splits(workspace):
    videos = [set(TrajectoryDataset(workspace.root, split=split).videos) for split in ("train", "val", "test")]
    assert sum(map(len, videos)) == 4 and set.union(*videos) == {"v0", "v1", "v2", "v3"}


def test_workers_give_what_the_process_itself_gives(workspace):
    dataset = TrajectoryDataset(workspace.root, split="all")
    dataset[0]  # opens a shard before the workers are forked
    alone = list(DataLoader(dataset, batch_size=2))
    workers = list(DataLoader(dataset, batch_size=2, num_workers=2))
    assert len(alone) == 4
    for a, b in zip(alone, workers):
        assert a["clip"] == b["clip"] and all(torch.equal(a[k], b[k]) for k in ("frames", "tracks", "visibility"))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_every_kind_read_the_cache_and_the_shards(tmp_path, start):
    root = write_dataset(tmp_path, 2)
    datasets = [TrajectoryDataset(root, "all", unpacked=unpacked, progress=False) for unpacked in (False, True)]
    for dataset in datasets:
        assert_equal(dataset, dataset)  # opens files that must not travel
    both = ConcatDataset(datasets)  # the shards' first, so a worker has to open both kinds
    loader = DataLoader(both, batch_size=None, num_workers=1, multiprocessing_context=start)
    assert_equal(both, list(loader))


def test_a_worker_that_meets_damage_says_which_file_and_what_to_do(tmp_path):
    root = write_dataset(tmp_path, 2)
    dataset = TrajectoryDataset(root, "all")
    with Shard(root / "shards" / "001.h5") as shard:
        place = shard.file[f"clips/{shard.clips[1].key}/steps"].id.get_chunk_info(0)
    with open(root / "shards" / "001.h5", "r+b") as file:
        file.seek(place.byte_offset + place.size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 4]))
    advice = f"001.h5: clip {dataset.clips[4].key} of v1 can't be read .*run labelling again with verify=True"
    with pytest.raises(ShardError, match=advice):
        list(DataLoader(dataset, batch_size=None, num_workers=1))
    with pytest.raises(ShardError, match=advice):
        dataset[4]
    assert [dataset[i]["video"] for i in (0, 3, 5)] == ["v0", "v1", "v1"]  # the others are as before


def test_fingerprint_tells_data_apart(workspace):
    one, same = (TrajectoryDataset(workspace.root, split="all").fingerprint for _ in range(2))
    assert one == same != TrajectoryDataset(workspace.root, split="train").fingerprint


def test_transform_is_applied(workspace):
    dataset = TrajectoryDataset(workspace.root, split="all", transform=lambda sample: sample.cut(1, 2))
    assert dataset[0]["frames"].shape[0] == 2 and dataset.read(0)["frames"].shape[0] == 4
    np.testing.assert_array_equal(dataset[0].truth.queries[:, 1:], dataset[0].truth.tracks[0])


@pytest.mark.parametrize("unpacked", [False, True])
def test_a_loader_puts_samples_together_by_itself(workspace, unpacked):
    dataset = TrajectoryDataset(workspace.root, split="all", unpacked=unpacked, progress=False)
    batch = next(iter(DataLoader(dataset, batch_size=2)))
    assert isinstance(dataset[0], ClipSample) and sorted(batch) == sorted(dataset[0])
    assert batch["clip"] == [clip.key for clip in dataset.clips[:2]] and batch["video"] == ["v0", "v0"]
    for i in (0, 1):
        for key in ("frames", "tracks", "visibility", "queries"):
            assert torch.equal(batch[key][i], dataset[i][key])


def test_datasets_of_earlier_versions_are_read(tmp_path):
    with tarfile.open(Path(__file__).parent / "data" / "before_tasks.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    root = tmp_path / "datasets" / "old"
    plain, unpacked = (TrajectoryDataset(root, "all", unpacked=unpacked, progress=False) for unpacked in (False, True))
    assert_equal(plain, unpacked)
    sample = plain[0]
    assert sample.clip.labelled(sample.truth.num_points) == sample.clip == plain.clips[0]
    assert sample.clip.fingerprint and sample.clip.name == "" and len(sample.frames) == plain.num_frames
    (old,) = find_shards(root)[0]
    again = merge_shards([old], tmp_path / "again.h5")
    with Shard(old) as one, Shard(again) as other:  # the index is written as it was, to the last byte
        assert one.file["index"][()].tobytes() == other.file["index"][()].tobytes()
        assert one.file.attrs["content_sha256"] == other.file.attrs["content_sha256"]


def test_videos_of_one_name_are_told_apart(tmp_path):
    """Shards of two datasets put into one folder: one reads both, and no video is in two splits."""
    write_dataset(tmp_path, 2)
    write_dataset(tmp_path / "b", 2, seed=1)
    for path in (tmp_path / "b" / "shards").iterdir():
        path.rename(tmp_path / "shards" / f"other-{path.name}")
    everything = TrajectoryDataset(tmp_path, "all")
    assert len(everything) == 12 and len(everything.videos) == len(set(everything.fingerprints)) == 4
    assert everything.videos[0::2] == ["v0", "v1"] and all(
        "v" in name and "(" in name for name in everything.videos[1::2]
    )
    splits = open_splits(tmp_path)
    fingerprints = [set(split.fingerprints) for split in splits.values()]
    assert sum(map(len, fingerprints)) == 4 == len(set.union(*fingerprints))


def test_a_damaged_shard_is_named_and_skipped(workspace, tmp_path):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(workspace.datasets / "default", folder)
    victim = next(iter(find_shards(folder)[0]))
    victim.write_bytes(b"")
    with pytest.warns(UserWarning, match=victim.name):
        assert len(TrajectoryDataset(folder, split="all")) == 4


def test_what_is_missing_is_named(workspace, tmp_path, refuses):
    with refuses("expected one of train, val, test, calibration, all; got 'dev'"):
        TrajectoryDataset(workspace.root, split="dev")
    with refuses("expected a dataset's folder", FileNotFoundError):
        TrajectoryDataset(tmp_path)
    for name in ("a", "b"):
        (tmp_path / "datasets" / name / "shards").mkdir(parents=True)
    with refuses("found a, b; name one"):
        TrajectoryDataset(tmp_path)
    with refuses("found none; label some first", FileNotFoundError):
        TrajectoryDataset(tmp_path / "datasets" / "a")
    with refuses(r"dataset: expected one that is labelled in .*datasets \(a, b\), got 'nope'", FileNotFoundError):
        TrajectoryDataset(Workspace(tmp_path).dataset("nope"))
    with refuses(
        r"dataset: .*\(none\), got 'nope': run 02_pips_dataset first, or `flowlib label sample --dataset nope`",
        FileNotFoundError,
    ):
        TrajectoryDataset(Workspace(tmp_path / "new").dataset("nope"))


@pytest.mark.parametrize("split, videos", [("test", 1), ("val", 1), ("val", 2)])
def test_with_one_or_two_videos_it_is_said_what_to_do(split, videos, tmp_path, refuses):
    write_dataset(tmp_path, videos)
    with refuses(f"split: '{split}' has no clips in .*: label more of them, or choose another split .* allow_leak"):
        TrajectoryDataset(tmp_path, split)


def test_clips_are_read_as_arrays_too(workspace):
    dataset = TrajectoryDataset(workspace.root, split="all")
    one, sample = dataset.read(3), dataset[3]
    np.testing.assert_array_equal(one.frames, sample["frames"])
    np.testing.assert_array_equal(one.truth.tracks, sample["tracks"])
    np.testing.assert_array_equal(dataset.tracks(3).tracks, sample["tracks"])
    assert one.clip.key == sample["clip"]


def test_splits_without_clips_are_skipped(workspace, tmp_path):
    import shutil

    assert list(open_splits(workspace.root)) == ["train", "val", "test"]
    folder = shutil.copytree(workspace.datasets / "default", tmp_path / "copy")
    (folder / "splits.json").write_text('{"v0": "train", "v1": "train", "v2": "train", "v3": "test"}')
    splits = open_splits(folder)
    assert list(splits) == ["train", "test"]
    assert describe_splits(splits).splitlines() == [
        "train: 6 clips of 3 videos (v0, v1, v2)",
        "test: 2 clips of 1 video (v3)",
        "val: none; label more videos, or edit splits.json",
    ]
