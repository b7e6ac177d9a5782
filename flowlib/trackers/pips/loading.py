"""Load a `PIPs` from a checkpoint, wherever it is; every way this fails is one sentence.

Opens what the authors publish: `model-*.pth`, or the archive `reference_model.tar.gz` with it inside.
"""

from __future__ import annotations

from pathlib import Path

from flowlib.downloads import fetch_weights
from flowlib.trackers.pips.network import PIPs
from flowlib.weight_files import load_strictly
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
    load_strictly(net, path, "PIPs")
    net.sha256 = sha256_file(path)  # pyright: ignore[reportArgumentType]
    return net.eval().requires_grad_(False)
