"""Load an `AllTracker` from a checkpoint, wherever it is; every way this fails is one sentence."""

from __future__ import annotations

from pathlib import Path

from flowlib.downloads import fetch_weights
from flowlib.trackers.alltracker.network import AllTracker
from flowlib.weight_files import load_strictly, read_weights
from flowlib.workspace import sha256_file

PUBLISHED = {
    "tiny": "https://huggingface.co/aharley/alltracker/resolve/main/alltracker_tiny.pth",
    "full": "https://huggingface.co/aharley/alltracker/resolve/main/alltracker.pth",
}
SHA256 = ""  # the authors give none; the file's own is printed when it is fetched, and goes into the shards
# How the names of a network's tensors begin -> whose they are
KNOWN = {
    "delta_block.": "PIPs",
    "updateformer.": "CoTracker",
    "cnn.features.": "AllTracker full (variant='full', tracker alltracker-full)",
    "update_block.refine.": "AllTracker tiny (variant='tiny', tracker alltracker)",
}


def load_alltracker(source: str | Path = "", *, variant: str = "tiny", folder: Path | None = None) -> AllTracker:
    """The network with the weights of a checkpoint.

    Args:
        source: a path, a URL or a Google Drive id or link; "" for the published file (25 MB, or 66 MB for the full
            network, fetched once). A URL or an id may end in "#sha256=…" to have that checked.
        variant: "tiny" or "full".
        folder: the cache; `weights/` of the workspace if None.

    Returns:
        An `AllTracker` in float32 on the CPU; its `sha256` is that of the file.

    Raises:
        FileNotFoundError, DownloadError: as `fetch_weights`.
        ValueError: another variant, or a file that is no PyTorch checkpoint or holds another network's weights.
    """
    net = AllTracker(variant)
    path = fetch_weights(str(source), default_url=PUBLISHED[variant], sha256=SHA256, folder=folder)
    names = read_weights(path).keys()
    found = next((whose for start, whose in KNOWN.items() if any(name.startswith(start) for name in names)), "")
    if found and not found.startswith(f"AllTracker {variant}"):
        raise ValueError(f"{path}: expected the weights of AllTracker {variant}, got those of {found}")
    load_strictly(net, path, f"AllTracker {variant}")
    net.sha256 = sha256_file(path)  # pyright: ignore[reportArgumentType]
    return net.eval().requires_grad_(False)
