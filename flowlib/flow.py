"""Optical flow between two frames, behind one protocol: DIS, which needs no weights, and RAFT.

`flow(first, second)`, two pictures uint8 [H W 3], gives how far every pixel of the first moves on its way to the
second: float32 [2 H W], (x, y) in pixels. Knows nothing of tracks or models; torch is loaded by RAFT alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from flowlib.devices import pick_device
from flowlib.downloads import fetch_weights
from flowlib.geometry import Size, pixel_grid
from flowlib.weight_files import load_strictly
from flowlib.workspace import atomic_write, sha256_file

if TYPE_CHECKING:
    from torch import Tensor

PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
    "refined": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
    "wide": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}
# What "refined" and "wide" change of "medium", by the setters' names. Chosen on training videos (bench/flow.py).
REFINED = {
    "PatchStride": 2,
    "VariationalRefinementIterations": 40,
    "VariationalRefinementAlpha": 80.0,
    "VariationalRefinementDelta": 2.0,
    "VariationalRefinementGamma": 20.0,
}
# The search in pictures of a quarter of the side that "wide" begins with, and how it chooses; chosen in the same way.
COARSE = {
    "PatchSize": 6,
    "PatchStride": 1,
    "FinestScale": 0,
    "VariationalRefinementIterations": 20,
    "VariationalRefinementAlpha": 80.0,
    "VariationalRefinementDelta": 2.0,
    "VariationalRefinementGamma": 20.0,
}
REDUCTION = 4
SMALLEST_COARSE = 16  # pixels; smaller pictures are not searched coarsely
WINDOW = 3.0  # sigma in pixels of the window in which two flows are compared
WORST = 40.0  # grey levels: as far as two pictures may differ in a pixel
OUTSIDE = 12.0  # grey levels that a motion out of the picture counts as, at least
BETTER_BY = 1.0  # grey levels by which the coarse start has to explain the second picture better
SMALLEST_SIDE = 128  # below it the correlation pyramid of RAFT runs out of pixels


@runtime_checkable
class OpticalFlow(Protocol):
    """What every optical flow is: a call, and a name that differs where answers differ."""

    @property
    def name(self) -> str: ...

    def __call__(
        self, first: UInt8[np.ndarray, "H W 3"], second: UInt8[np.ndarray, "H W 3"]
    ) -> Float[np.ndarray, "2 H W"]:
        """How far every pixel of `first` moves on its way to `second`, in pixels."""
        ...


class DISFlow:
    """Dense inverse search (Kroeger et al. 2016), as OpenCV has it.

    Args:
        preset: "ultrafast", "fast" or "medium", as OpenCV has them; "refined": a denser search, and a longer and
            smoother refinement of what it finds; or "wide": "refined" twice, from nothing and from a search in small
            pictures, and once more from whichever of the two explains the second picture better in each place. On real
            videos "wide" is the most exact (bench/flow.py), above all where things move far; on rendered scenes with
            sharp edges "medium" is. "refined" takes four times as long as "medium", "wide" four times as long again.

    >>> from flowlib.synthetic import synthetic_clip
    >>> frames, _ = synthetic_clip(num_frames=4, size=(48, 64), seed=0)
    >>> DISFlow()(frames[0], frames[1]).shape
    (2, 48, 64)
    """

    def __init__(self, preset: Literal["ultrafast", "fast", "medium", "refined", "wide"] = "medium") -> None:
        if preset not in PRESETS:
            raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
        self.preset, self.name = preset, f"dis {preset}"

    def __call__(
        self, first: UInt8[np.ndarray, "H W 3"], second: UInt8[np.ndarray, "H W 3"]
    ) -> Float[np.ndarray, "2 H W"]:
        """How far every pixel of `first` moves on its way to `second`, in pixels."""
        grey = (cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in (first, second))
        return np.ascontiguousarray(self.between(*grey).transpose(2, 0, 1))

    def between(self, first: UInt8[np.ndarray, "H W"], second: UInt8[np.ndarray, "H W"]) -> Float[np.ndarray, "H W 2"]:
        """The same for pictures that are grey already, with the channels last, as OpenCV has them."""
        if self.preset == "wide":
            return _wide(first, second)
        return search(first, second, REFINED if self.preset == "refined" else {}, self.preset)


def search(
    first: UInt8[np.ndarray, "H W"],
    second: UInt8[np.ndarray, "H W"],
    settings: Mapping[str, float],
    preset: str = "medium",
    start: Float[np.ndarray, "H W 2"] | None = None,
) -> Float[np.ndarray, "H W 2"]:
    """One dense inverse search between grey pictures.

    Args:
        settings: what is changed of the preset, by the setters' names.
        start: flow in pixels to start from; None: from no motion.
    """
    # Made anew each time: a search that is kept starts from what it found last.
    made = cv2.DISOpticalFlow_create(PRESETS[preset])  # pyright: ignore[reportAttributeAccessIssue]
    for name, value in settings.items():
        getattr(made, f"set{name}")(value)
    return made.calc(first, second, None if start is None else start.copy())  # what it starts from it overwrites


def search_small(first: UInt8[np.ndarray, "H W"], second: UInt8[np.ndarray, "H W"]) -> Float[np.ndarray, "H W 2"]:
    """Flow in pixels, found in pictures of a quarter of the sides, where far is near; none in tiny pictures."""
    height, width = first.shape
    small = (width // REDUCTION, height // REDUCTION)
    if min(small) < SMALLEST_COARSE:
        return np.zeros((height, width, 2), np.float32)
    one, other = (cv2.resize(picture, small, interpolation=cv2.INTER_AREA) for picture in (first, second))
    found = cv2.resize(search(one, other, COARSE), (width, height), interpolation=cv2.INTER_LINEAR)
    return found * np.array([width / small[0], height / small[1]], np.float32)


def _wide(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[H W 2] "refined" from the better of two starts."""
    near = search(first, second, REFINED)
    far = search(first, second, REFINED, start=search_small(first, second))
    better = _unlike(first, second, far) + BETTER_BY < _unlike(first, second, near)
    return search(first, second, REFINED, start=np.where(better[..., None], far, near))


def _unlike(first: np.ndarray, second: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """[H W] Grey levels by which the second picture, taken from where a flow leads, differs from the first around."""
    at = flow + pixel_grid(first.shape)
    x, y = np.ascontiguousarray(at[..., 0]), np.ascontiguousarray(at[..., 1])
    there = cv2.remap(second.astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    differs = np.minimum(np.abs(first.astype(np.float32) - there), WORST)
    limit = np.array([first.shape[1] - 1, first.shape[0] - 1], np.float32)
    out = ((at < 0) | (at > limit)).any(axis=-1)
    return cv2.GaussianBlur(np.where(out, np.maximum(differs, OUTSIDE), differs), (0, 0), WINDOW)


class CachedFlow:
    """Another flow, each pair of pictures measured once; for training, which meets the same pairs over and over.

    Pairs are known by their content. A mirrored pair is answered by mirroring, so that flipping needs no new flow.
    Kept in memory as float16 (a hundredth of a pixel at 20 px of motion): 0.25 MB for a pair of 192×320.

    Args:
        flow: what measures.
        folder: where flows are kept as well, one file a pair; None: in memory alone.
    """

    def __init__(self, flow: OpticalFlow, folder: str | Path | None = None) -> None:
        self.flow, self.name = flow, flow.name
        self.folder = None if folder is None else Path(folder) / re.sub(r"[^\w.-]+", "_", flow.name)
        self._known: dict[str, np.ndarray] = {}

    def __call__(
        self, first: UInt8[np.ndarray, "H W 3"], second: UInt8[np.ndarray, "H W 3"]
    ) -> Float[np.ndarray, "2 H W"]:
        """How far every pixel of `first` moves on its way to `second`, in pixels."""
        key, mirrored = _pair_key(first, second), _pair_key(first[:, ::-1], second[:, ::-1])
        for name, sign in ((key, 1), (mirrored, -1)):
            found = self._find(name)
            if found is not None:
                flow = found.astype(np.float32)
                return (
                    flow if sign > 0 else np.ascontiguousarray(flow[..., ::-1]) * np.array([[[-1]], [[1]]], np.float32)
                )
        flow = np.asarray(self.flow(first, second), np.float32)
        self._known[key] = flow.astype(np.float16)
        if self.folder is not None:
            with atomic_write(self.folder / f"{key}.npy") as temporary, open(temporary, "wb") as file:
                np.save(file, self._known[key])
        return self._known[key].astype(np.float32)  # the same on the first call as on the others

    def _find(self, key: str) -> np.ndarray | None:
        if key not in self._known and self.folder is not None and (self.folder / f"{key}.npy").is_file():
            self._known[key] = np.load(self.folder / f"{key}.npy", allow_pickle=False)
        return self._known.get(key)


def _pair_key(first: np.ndarray, second: np.ndarray) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for picture in (first, second):
        digest.update(f"{picture.shape}".encode())
        digest.update(np.ascontiguousarray(picture).data)
    return digest.hexdigest()


class RAFTFlow:
    """RAFT (Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", ECCV 2020), as torchvision
    has it (`raft_large`).

    Args:
        weights: "" for torchvision's published file, else a path, a URL or a Google Drive id of a file of
            `raft_large`'s state dict.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", …
        iters: updates of the flow; RAFT was trained with 12, and more of them help a little.
        chunk: pairs of frames that pass through the network together. A pair of 360×640 takes about 0.2 GB.
        precision: "float32", or "bfloat16" for the convolutions: about half the time where a CPU or GPU has them.

    Raises:
        FileNotFoundError, DownloadError: the weights cannot be had.
        ValueError: they are not raft_large's, or another argument is out of range.
    """

    def __init__(
        self,
        weights: str | Path = "",
        *,
        device: str = "auto",
        iters: int = 12,
        chunk: int = 4,
        precision: str = "float32",
    ) -> None:
        from torchvision.models.optical_flow import Raft_Large_Weights, raft_large

        for name, number in (("iters", iters), ("chunk", chunk)):
            if number < 1:
                raise ValueError(f"{name}: expected at least 1, got {number}")
        if precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision: expected float32 or bfloat16, got {precision!r}")
        self.iters, self.chunk, self.precision, self.device = iters, chunk, precision, pick_device(device)
        url: str = Raft_Large_Weights.DEFAULT.url
        known_hash = re.search(r"-([0-9a-f]{8})\.pth$", url)
        assert known_hash, "torchvision's file names end in their hash"
        path = fetch_weights(str(weights), default_url=url, sha256=known_hash[1])
        self.weights_sha256 = sha256_file(path)  # first, as it says so when a file may not be read at all
        network = raft_large(weights=None, progress=False)
        load_strictly(network, path, "torchvision's raft_large")
        self.network = network.eval().requires_grad_(False).to(self.device)
        self.name = f"raft {self.weights_sha256[:12]}"
        self.name += f" iters {iters}" if iters != 12 else ""
        self.name += f" {precision}" if precision != "float32" else ""

    def __call__(
        self, first: UInt8[np.ndarray, "H W 3"], second: UInt8[np.ndarray, "H W 3"]
    ) -> Float[np.ndarray, "2 H W"]:
        """How far every pixel of `first` moves on its way to `second`, in pixels."""
        return self.pairs(first[None], second[None])[0].cpu().numpy()

    def pairs(self, first: np.ndarray, second: np.ndarray) -> Float[Tensor, "B 2 H W"]:
        """The flow from each picture of `first` [B H W 3] uint8 to the one of `second`, in pixels, on the device."""
        import torch

        if np.shape(first) != np.shape(second) or np.ndim(first) != 4 or np.shape(first)[-1] != 3:
            raise ValueError(f"flow: expected two of [B H W 3], got {np.shape(first)} and {np.shape(second)}")
        H, W = first.shape[1:3]
        flows = [torch.zeros((0, 2, H, W), device=self.device)]
        lower = torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")
        with torch.inference_mode(), lower:
            for i in range(0, len(first), self.chunk):
                images = (_to_input(part[i : i + self.chunk]).to(self.device) for part in (first, second))
                flow = self.network(*images, num_flow_updates=self.iters)[-1]
                left, top = (pad[0] for pad in _padding((H, W)))
                flows.append(flow.float()[..., top : top + H, left : left + W])
            return torch.cat(flows)


def _to_input(images: np.ndarray) -> Float[Tensor, "B 3 H W"]:
    """uint8 [B H W 3] as the network wants it: from -1 to 1, sides of at least 128 and multiples of 8."""
    import torch

    scaled = torch.from_numpy(np.array(images)).movedim(-1, 1).float() / 127.5 - 1
    (left, right), (top, bottom) = _padding((images.shape[1], images.shape[2]))
    return torch.nn.functional.pad(scaled, (left, right, top, bottom), mode="replicate")


def _padding(size: Size) -> list[tuple[int, int]]:
    """Border pixels to repeat on the left and right, and at the top and bottom: evenly, as RAFT was measured."""
    missing = [max(SMALLEST_SIDE, -(-side // 8) * 8) - side for side in (size[1], size[0])]
    return [(less // 2, less - less // 2) for less in missing]
