"""RAFT as a tracker: dense optical flow from each frame to the next, and points carried along by it.

RAFT: Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", ECCV 2020; the network is
torchvision's `raft_large`. Takes a clip and queries, gives `Tracks`. Knows nothing of videos or shards.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torchvision.models.optical_flow import Raft_Large_Weights, raft_large

from flowlib.devices import pick_device
from flowlib.downloads import fetch_weights
from flowlib.geometry import Size, bilinear_sample
from flowlib.trackers import Tracker
from flowlib.trackers.chaining import chain
from flowlib.tracks import Tracks, check_clip
from flowlib.workspace import sha256_file

DEFAULT_URL = Raft_Large_Weights.DEFAULT.url
SMALLEST_SIDE = 128  # below it the network's correlation pyramid runs out of pixels

# Forward and backward flow disagree at an occlusion: Sundaram, Brox and Keutzer, "Dense point trajectories by
# GPU-accelerated large displacement optical flow", ECCV 2010, equation (5).
MOTION_SHARE = 0.01
SQUARED_SLACK = 0.5  # px²


class RAFTTracker:
    """Follows points through RAFT's flow from frame to frame, forwards and backwards in time from each query.

    A point is visible while it lies inside the frame and the flow there and back agrees; once lost it stays invisible,
    and stays where it was seen last. Points queried outside the frame are
    invisible and stay where they are. Nothing re-finds a point: errors add up from frame to frame.

    Args:
        weights: "" for torchvision's published file, else a path, a URL or a Google Drive id of a file of
            `raft_large`'s state dict.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", …
        iters: updates of the flow; RAFT was trained with 12, and more of them help a little.
        chunk: pairs of frames that pass through the network together. A pair of 360×640 takes about 0.2 GB.

    Raises:
        FileNotFoundError, DownloadError: the weights cannot be had.
        ValueError: they are not raft_large's, or another argument is out of range.

    >>> tracker = RAFTTracker()                                                   # doctest: +SKIP
    >>> tracker(frames, np.array([[0, 40.0, 30.0]])).tracks.shape                 # doctest: +SKIP
    (8, 1, 2)
    """

    def __init__(self, weights: str | Path = "", *, device: str = "auto", iters: int = 12, chunk: int = 4) -> None:
        for name, number in (("iters", iters), ("chunk", chunk)):
            if number < 1:
                raise ValueError(f"{name}: expected at least 1, got {number}")
        self.iters, self.chunk, self.device = iters, chunk, pick_device(device)
        known_hash = re.search(r"-([0-9a-f]{8})\.pth$", DEFAULT_URL)[1]
        path = fetch_weights(str(weights), default_url=DEFAULT_URL, sha256=known_hash)
        self.weights_sha256 = sha256_file(path)  # first, as it says so when a file may not be read at all
        self.network = _load(path).to(self.device)

    def __call__(self, frames: np.ndarray, queries: np.ndarray) -> Tracks:
        """Follow `queries` [N 3] (t, x, y) through `frames` [S H W 3] uint8 of any size.

        Raises:
            ValueError: as `flowlib.tracks.check_clip`.
        """
        frames, queries = check_clip(frames, queries)
        # one frame, or no points: no step will be asked for, and no flow is needed
        pairs = len(frames) - 1 if len(queries) else 0
        first, second = frames[:pairs], frames[1 : pairs + 1]
        forward, backward = self.flow(first, second), self.flow(second, first)

        def step(here: int, there: int, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            flow, back = forward[min(here, there)], backward[min(here, there)]
            return _step(flow, back, xy) if there > here else _step(back, flow, xy)

        return chain(queries, len(frames), frames.shape[1:3], step)

    @torch.inference_mode()
    def flow(self, first: np.ndarray, second: np.ndarray) -> Float[Tensor, "B 2 H W"]:
        """How far every pixel of `first` [B H W 3] uint8 moves on its way to `second`, in pixels, on the device."""
        if np.shape(first) != np.shape(second) or np.ndim(first) != 4 or np.shape(first)[-1] != 3:
            raise ValueError(f"flow: expected two of [B H W 3], got {np.shape(first)} and {np.shape(second)}")
        H, W = first.shape[1:3]
        flows = [torch.zeros((0, 2, H, W), device=self.device)]
        for i in range(0, len(first), self.chunk):
            images = (_to_input(part[i : i + self.chunk]).to(self.device) for part in (first, second))
            flow = self.network(*images, num_flow_updates=self.iters)[-1]
            left, top = (pad[0] for pad in _padding((H, W)))
            flows.append(flow[..., top : top + H, left : left + W])
        return torch.cat(flows)

    def describe(self) -> dict:
        """Name, settings and the SHA-256 of the weights."""
        return {"name": "raft", "iters": self.iters, "weights_sha256": self.weights_sha256}


def _step(flow: Tensor, back: Tensor, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a flow [2 H W] carries points [M 2], and for which of them the flow `back` agrees."""
    there = _read(flow, xy)
    return xy + there, _agree(there, _read(back, xy + there))


def _read(flow: Tensor, xy: np.ndarray) -> np.ndarray:
    """The flow [2 H W] at positions xy [N 2], read bilinearly; beyond the border, the border's."""
    at = torch.from_numpy(np.ascontiguousarray(xy)).to(flow)
    return bilinear_sample(flow[None], at[None])[0].T.cpu().numpy()


def _agree(there: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Whether displacements there and back [N 2] cancel, up to a slack that grows with the motion."""
    squared = (there**2).sum(-1) + (back**2).sum(-1)
    return ((there + back) ** 2).sum(-1) <= MOTION_SHARE * squared + SQUARED_SLACK


def _to_input(images: np.ndarray) -> Float[Tensor, "B 3 H W"]:
    """uint8 [B H W 3] as the network wants it: from -1 to 1, sides of at least 128 and multiples of 8."""
    scaled = torch.from_numpy(np.array(images)).movedim(-1, 1).float() / 127.5 - 1
    (left, right), (top, bottom) = _padding(images.shape[1:3])
    return F.pad(scaled, (left, right, top, bottom), mode="replicate")


def _padding(size: Size) -> tuple[tuple[int, int], tuple[int, int]]:
    """Border pixels to repeat on the left and right, and at the top and bottom: evenly, as RAFT was measured."""
    missing = [max(SMALLEST_SIDE, -(-side // 8) * 8) - side for side in (size[1], size[0])]
    return tuple((less // 2, less - less // 2) for less in missing)


def _load(path: Path) -> torch.nn.Module:
    """torchvision's raft_large with the weights of a file, ready to use."""
    network = raft_large(weights=None, progress=False)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path}: expected a PyTorch file of raft_large's weights, got one that is not") from error
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    entries = state.items() if isinstance(state, dict) else ()
    got = {name: tuple(getattr(tensor, "shape", ())) for name, tensor in entries}
    if got != expected:
        raise ValueError(f"{path}: expected the weights of torchvision's raft_large, {_difference(expected, got)}")
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def _difference(expected: dict[str, tuple], got: dict[str, tuple]) -> str:
    """What is wrong with a file's entries, name -> shape, in words."""
    missing, foreign = [name for name in expected if name not in got], [name for name in got if name not in expected]
    if missing or foreign:
        example = f"without {missing[0]!r}" if missing else f"with {foreign[0]!r}"
        return f"got a file of {len(got)} entries {example}: {len(missing)} are missing and {len(foreign)} foreign"
    name = next(name for name in expected if got[name] != expected[name])
    return f"got {name!r} of shape {list(got[name])} instead of {list(expected[name])}"


def make(weights: str, device: str) -> Tracker:
    """For `make_tracker`."""
    return RAFTTracker(weights, device=device)
