"""Pretrained weights for a backbone: torchvision's from ImageNet or COCO, a file, or none at all.

Takes a torchvision segmentation network and a word or place, fills the network, and says in one phrase what it did.
Knows nothing of trajectories.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from torch import Tensor, nn

from flowlib.downloads import fetch_weights
from flowlib.weight_files import read_weights
from flowlib.workspace import Workspace

WORDS = ("auto", "none", "imagenet", "coco")
PROBE_SECONDS = 3.0  # how long "auto" waits for the server to answer before it goes on without


def fill_backbone(network: nn.Module, weights: str, *, imagenet: str, coco: str) -> str:
    """Load pretrained weights into a torchvision segmentation network.

    Args:
        network: has `.backbone` and `.classifier`.
        weights: "auto" (ImageNet if it can be had at once, else none, said in one printed sentence), "none",
            "imagenet", "coco", or a path, a URL or a Google Drive id of a backbone's or a segmentation network's file.
        imagenet, coco: the addresses that these words stand for.

    Returns:
        What was loaded, for the config: "imagenet", "coco", "none", "none (no ImageNet weights: …)" or the source.

    Raises:
        FileNotFoundError, DownloadError: the file cannot be had.
        ValueError: it is not a file of weights, or of another network.
    """
    if weights == "none":
        return "none"
    if weights == "auto":
        return _fill_if_reachable(network, imagenet)
    url = {"imagenet": imagenet, "coco": coco}.get(weights, "")
    path = fetch_weights(url or str(weights), sha256=_hash_in_name(url))
    load_into(network, read_weights(path), path)
    return str(weights)


def _fill_if_reachable(network: nn.Module, url: str) -> str:
    try:
        _probe(url)
        path = fetch_weights(url, sha256=_hash_in_name(url))
    except OSError as error:  # as all of requests' errors and DownloadError are
        reason = f"{urlsplit(url).hostname} gave no answer ({type(error).__name__})"
        # printed, as log entries of a library do not show in a notebook
        print(f"No ImageNet weights: {reason}; the backbone starts from random numbers, and learns more slowly.")
        return f"none (no ImageNet weights: {reason})"
    load_into(network, read_weights(path), path)
    return "imagenet"


def _probe(url: str) -> None:
    """Raise `OSError` unless the weights are in the cache or their server answers within a moment."""
    import requests

    cached = Workspace().weights.glob(f"{Path(urlsplit(url).path).stem}-*.pth")
    if not any(cached):  # by requests, which knows the proxies of a cluster
        requests.head(url, timeout=PROBE_SECONDS, allow_redirects=True).raise_for_status()


def _hash_in_name(url: str) -> str:
    """torchvision's file names end in the first digits of the SHA-256: resnet50-0676ba61.pth."""
    found = re.search(r"-([0-9a-f]{8,})\.pth$", url)
    return found.group(1) if found else ""


def load_into(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Fill `network` from a segmentation network's or a backbone's tensors; what classifies is left out.

    A backbone's names may lack the prefix, MobileNet's have `features.` in its place.

    Raises:
        ValueError: a tensor of the backbone is missing or has another shape.
    """
    if not any(key.startswith("backbone.") for key in state):
        state = {f"backbone.{key.removeprefix('features.')}": value for key, value in state.items()}
    wanted = network.state_dict()
    found = {key: value for key, value in state.items() if key in wanted and value.shape == wanted[key].shape}
    counters = (key for key in wanted if key.endswith("num_batches_tracked"))  # old files lack them; nothing reads them
    missing = {key for key in wanted if key.startswith("backbone.")} - found.keys() - set(counters)
    if missing:
        first = min(missing, key=list(wanted).index)
        got = list(state[first].shape) if first in state else "none"
        expected = list(wanted[first].shape)
        raise ValueError(f"{path}: expected weights of this backbone, with {first} of shape {expected}, got {got}")
    network.load_state_dict(found, strict=False)
