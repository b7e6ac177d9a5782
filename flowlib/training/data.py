"""What a dataset must be to be trained on, and its description for the checkpoint."""

from __future__ import annotations

import hashlib

from torch.utils.data import Subset


def check_data(dataset, name: str, num_frames: int) -> None:
    """Raise `ValueError` unless `dataset` has clips of `num_frames` frames, with points asked for in frame 0."""
    if len(dataset) == 0:
        hint = "; validation=None trains without" if name == "validation" else ""
        raise ValueError(f"{name}: expected at least one clip, got an empty split{hint}")
    sample = dataset[0]
    S, K = len(sample["tracks"]), len(sample["frames"])
    if num_frames != S:
        raise ValueError(f"{name}: expected clips of {num_frames} frames, as the model predicts, got {S}")
    if K != S:
        raise ValueError(f"{name}: expected clips with the pictures of all {S} frames, got {K} of them")
    if (sample["queries"][:, 0] != 0).any():
        raise ValueError(f"{name}: expected points that are asked for in frame 0, got other frames, too")


def describe_data(dataset) -> dict:
    """Length, clip, fingerprint and videos' fingerprints of a dataset, as JSON; a `Subset` adds what it holds."""
    if isinstance(dataset, Subset):
        whole = describe_data(dataset.dataset)
        chosen = hashlib.sha256(repr([int(i) for i in dataset.indices]).encode()).hexdigest()[:16]
        return whole | {"clips": len(dataset), "fingerprint": f"{whole['fingerprint']}[{chosen}]"}
    shape = dataset[0]["frames"].shape
    return {
        "clips": len(dataset),
        "num_frames": shape[0],
        "size": [shape[1], shape[2]],
        "fingerprint": str(getattr(dataset, "fingerprint", "")),
        "videos": list(getattr(dataset, "fingerprints", [])),
    }
