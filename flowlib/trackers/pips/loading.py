"""Load a `PIPs` from a checkpoint, wherever it is; every way this fails is one sentence.

Opens what the authors publish: `model-*.pth`, or the archive `reference_model.tar.gz` with it inside.
Nothing is unpickled but tensors and plain containers.
"""

from __future__ import annotations

import pickle
import tarfile
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from flowlib.downloads import fetch_weights
from flowlib.trackers.pips.network import PIPs
from flowlib.workspace import sha256_file

PUBLISHED = "https://huggingface.co/aharley/pips/resolve/main/model-000200000.pth"
SHA256 = ""  # the authors give none; the file's own is printed when it is fetched, and goes into the shards


def load_pips(source: str | Path = "", *, stride: int = 4, folder: Path | None = None) -> PIPs:
    """The network with the weights of a checkpoint.

    Args:
        source: a path, a URL or a Google Drive id or link; "" for the published file (344 MB, fetched once). A URL or
            an id may end in "#sha256=…" to have that checked.
        stride: pixels to a cell of the feature map; not in the checkpoint, 4 in the authors' demos.
        folder: the cache; `weights/` of the workspace if None.

    Returns:
        A `PIPs` in float32 on the CPU; its `sha256` is that of the file.

    Raises:
        FileNotFoundError, DownloadError: as `fetch_weights`.
        ValueError: the file is no PyTorch checkpoint, holds an optimizer alone, or another network's weights.
    """
    path = fetch_weights(str(source), default_url=PUBLISHED, sha256=SHA256, folder=folder)
    net = PIPs(stride)
    state = _weights(_read(path), path)
    _check_fits(state, net.state_dict(), path)
    net.load_state_dict(state)
    net.sha256 = sha256_file(path)  # pyright: ignore[reportArgumentType]
    return net.eval().requires_grad_(False)


def _read(path: Path) -> object:
    """What is in a checkpoint, or in the newest one of a tar archive."""
    if not tarfile.is_tarfile(path):
        return _read_checkpoint(path, path)
    with tarfile.open(path) as archive, tempfile.TemporaryDirectory() as folder:
        members = [m for m in archive.getmembers() if m.isfile() and Path(m.name).match("model-*.pth")]
        if not members:
            raise ValueError(f"{path}: expected a model-*.pth in the archive, got {archive.getnames()[:5]}")
        newest = max(members, key=lambda member: Path(member.name).name)
        archive.extract(newest, folder, filter="data")
        return _read_checkpoint(Path(folder) / newest.name, path)


def _read_checkpoint(path: Path, named: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{named}: expected a PyTorch checkpoint that holds only tensors, got: {reason}") from error


def _weights(content: object, path: Path) -> dict[str, Tensor]:
    """The network's weights out of a checkpoint, or the checkpoint itself where that is all it is."""
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a dictionary of weights, got {type(content).__name__}")
    state = content.get("model_state_dict", content)
    if "optimizer_state_dict" in state or set(state) == {"state", "param_groups"}:
        raise ValueError(f"{path}: expected the weights in 'model_state_dict', got an optimizer's state alone")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _check_fits(state: dict[str, Tensor], wanted: dict[str, Tensor], path: Path) -> None:
    missing, unknown = sorted(wanted.keys() - state.keys()), sorted(map(str, state.keys() - wanted.keys()))
    if missing or unknown:
        raise ValueError(
            f"{path}: expected the {len(wanted)} tensors of PIPs, got a file without {_some(missing)} "
            f"and with unknown {_some(unknown)}"
        )
    for name, tensor in wanted.items():
        got = state[name]
        if not isinstance(got, Tensor) or got.shape != tensor.shape:
            shape = list(got.shape) if isinstance(got, Tensor) else type(got).__name__
            raise ValueError(f"{path}: expected {name} of shape {list(tensor.shape)}, got {shape}")
        if not got.isfinite().all():
            raise ValueError(f"{path}: expected finite weights, got NaN or infinity in {name}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + f" and {len(names) - 3} more" * (len(names) > 3) if names else "none"
