"""Synthetic clips as a dataset, shared by the tests of training and the processes that they start."""

import numpy as np
import torch

from flowlib.synthetic import synthetic_clip

SIZE = (32, 48)
TINY = {"num_frames": 4, "backbone": "lraspp_mobilenet_v3_large", "weights": "none"}


class Clips(list):
    """Samples as `TrajectoryDataset` gives them."""

    num_frames, size = 4, SIZE

    def __init__(self, samples, fingerprint="synthetic"):
        super().__init__(samples)
        self.fingerprint = fingerprint


def make_clip(seed: int, num_frames: int = 4) -> dict:
    frames, scene = synthetic_clip(num_frames, SIZE, seed, num_sprites=2, motion="linear", camera="linear")
    x, y = np.meshgrid(np.arange(1.5, SIZE[1] - 1, 4), np.arange(1.25, SIZE[0] - 1, 4))  # between the pixels
    queries = np.stack([np.zeros(x.size), x.ravel(), y.ravel()], axis=1).astype(np.float32)
    tracks = scene.tracks(queries, num_frames)
    arrays = {"frames": frames, "tracks": tracks.tracks, "visibility": tracks.visibility, "queries": queries}
    tensors = {key: torch.from_numpy(np.array(value)) for key, value in arrays.items()}
    return tensors | {"video": f"v{seed}", "clip": f"c{seed}"}


def make_clips(count: int = 6, first: int = 0) -> Clips:
    return Clips([make_clip(seed) for seed in range(first, first + count)], f"synthetic {first}+{count}")
