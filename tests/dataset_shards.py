"""Datasets of random clips, shared by the tests of reading and the processes that they start."""

from pathlib import Path

import numpy as np
import torch

from flowlib.shards import Clip, LabelledClip, write_shard
from flowlib.tracks import Tracks
from flowlib.video import Video

SIZE = (24, 32)
S, CLIPS = 4, 3


def write_dataset(root: Path, shards: int = 3, *, step: int = 1, points: int = 7, seed: int = 0) -> Path:
    """A dataset's folder of shards with one video each; its clips begin every second frame, so they overlap."""
    for number in range(shards):
        path = root / "shards" / f"{number:03d}.h5"
        clips = [labelled(number, 2 * i, step=step, points=points, seed=seed) for i in range(CLIPS)]
        write_shard(path, clips, tracker={"name": "test"}, config=dict(zip(("height", "width"), SIZE)), encoding="webp")
    return root


def labelled(number: int, first: int, *, step: int = 1, points: int = 7, seed: int = 0) -> LabelledClip:
    """Clip of the video `number` that begins at frame `first`: noise, so that no two frames are the same."""
    video = Video(f"v{number}", "somewhere", SIZE, 25.0, 100, f"{number + 100 * seed:064x}"[::-1])
    clip = Clip.of(video, first, step, S)
    frames = np.random.default_rng((seed, number)).integers(0, 255, (20, *SIZE, 3), np.uint8)[clip.frame_numbers]
    rng = np.random.default_rng((seed, number, first))
    queries = np.insert(rng.uniform(0, 24, (points, 2)), 0, 0, axis=1)
    tracks = np.cumsum(rng.normal(0, 3, (S, points, 2)), axis=0) + queries[:, 1:]
    tracks[0] = queries[:, 1:]
    return LabelledClip(clip, frames, Tracks(tracks, rng.random((S, points)) > 0.3, queries))


def assert_equal(one, other) -> None:
    """Two datasets give the same samples, to the last bit and in the same types."""
    assert len(one) == len(other) > 0
    for i in range(len(one)):
        a, b = one[i], other[i]
        assert list(a) == list(b)
        for key, value in a.items():
            if isinstance(value, torch.Tensor):
                assert value.dtype == b[key].dtype and torch.equal(value, b[key]), key
            else:
                assert value == b[key]
