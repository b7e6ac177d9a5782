"""Reading shards: side by side or one by one the same, and damage in one sentence that says what to do."""

import numpy as np
import pytest
import torch
from fixtures.dataset_shards import SIZE, labelled, write_dataset

from flowlib.dataset import TrajectoryDataset
from flowlib.dataset.shard_reader import ShardReader
from flowlib.shards import Shard, ShardError, write_shard


@pytest.fixture(params=[1, 3])
def threads(request):
    """How many threads torch has, and with it the decoding of pictures."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_clips_are_the_shards_own(tmp_path, threads):
    write_dataset(tmp_path, 1)
    reader = ShardReader(tmp_path / "shards" / "000.h5")
    with Shard(tmp_path / "shards" / "000.h5") as shard:
        for clip in shard.clips * 5:
            one, other = reader.read(clip), shard.read(clip)
            np.testing.assert_array_equal(one.frames, other.frames)
            np.testing.assert_array_equal(one.truth.tracks, other.truth.tracks)
            np.testing.assert_array_equal(one.truth.visibility, other.truth.visibility)
        assert (reader.size, reader.content_sha256) == (SIZE, shard.file.attrs["content_sha256"])


def test_frames_of_another_size_are_refused(tmp_path, refuses, threads):
    path = tmp_path / "a.h5"
    write_shard(path, [labelled(0, 0)], tracker={}, config={"height": 24, "width": 30}, encoding="webp")
    reader = ShardReader(path)
    with refuses(
        r"a.h5: clip .* of v0 can't be read \(expected frames of \(24, 30\), got one of \(24, 32\)\)", ShardError
    ):
        reader.frames(reader.shard.clips[0])


def test_a_shard_that_went_is_named(tmp_path, refuses):
    root = write_dataset(tmp_path)
    dataset, reader = TrajectoryDataset(root, "all"), ShardReader(root / "shards" / "000.h5")
    (root / "shards" / "000.h5").unlink()
    with refuses("000.h5", FileNotFoundError):
        dataset[0]
    reader.shard.file.close()
    with refuses("No such file or directory: .*000.h5", FileNotFoundError):
        reader.tracks(reader.shard.clips[0])
