"""Read clips from a shard: every picture is decoded straight to its place, damage is told in one sentence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from flowlib.clips import Clip, ClipSample
from flowlib.geometry import Box, Size, fit_frame
from flowlib.shards import DAMAGE, Shard, ShardError, system_error
from flowlib.tracks import Tracks
from flowlib.video import decode_image


class ShardReader:
    """An open shard. Dropping it closes the file.

    Attributes:
        shard: the shard itself.
        size: (H, W) of its frames.
        content_sha256: of everything in it.

    Raises:
        ShardError: what is asked for is damaged; the message names the file and what to do.
        FileNotFoundError: the file is gone.
        OSError: it can't be read, see `Shard`.
    """

    def __init__(self, path: str | Path) -> None:
        self.shard = Shard(path)
        self.content_sha256 = self.shard.content_sha256
        size = tuple(self.shard.config.get(name) for name in ("height", "width"))
        if not all(type(side) is int and 0 < side < 2**16 for side in size):
            raise ShardError(f"{self.shard.path}: expected height and width of its frames in its config, got {size}")
        self.size: Size = size
        self.fit = str(self.shard.config.get("fit", "crop"))

    def read(self, clip: Clip) -> ClipSample:
        """One of its clips, whole."""
        frames, tracks = self.frames(clip), self.tracks(clip)
        return ClipSample(clip, frames, tracks, box=picture_box(clip, self.size, self.fit))

    def tracks(self, clip: Clip) -> Tracks:
        """The tracks of one of its clips."""
        with self._damage_named(clip):
            return self.shard.tracks(clip)

    def frames(self, clip: Clip) -> UInt8[np.ndarray, "K H W 3"]:
        """The stored frames of one of its clips."""
        # Each straight to its place: a list and np.stack go through fresh memory twice more, 11 instead of 6.8 ms.
        try:
            frames = np.empty((len(clip.kept), *self.size, 3), np.uint8)
        except MemoryError:
            self.frame(clip, clip.kept[0])  # tells if they aren't as large as the config says
            raise

        def place(number: int) -> None:
            frames[number] = self.frame(clip, clip.kept[number])

        threads = _threads(os.getpid(), torch.get_num_threads())
        for _ in (threads.map if threads else map)(place, range(len(frames))):
            pass
        return frames

    def frame(self, clip: Clip, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """Frame `index` of one of its clips."""
        with self._damage_named(clip):
            frame = decode_image(self.shard.picture(clip, index))
            if frame.shape != (*self.size, 3):
                raise ShardError(f"expected frames of {self.size}, got one of {frame.shape[:2]}")
        return frame

    @contextmanager
    def _damage_named(self, clip: Clip) -> Iterator[None]:
        try:
            yield
        except DAMAGE as error:
            if fault := system_error(self.shard.path, error):
                raise fault from error
            reason = str(error.__cause__ or error).removeprefix(f"{self.shard.path}: ")
            raise ShardError(
                f"{self.shard.path}: clip {clip.key} of {clip.video} can't be read ({reason}); "
                "run labelling again with verify=True, which finds what is damaged and makes it anew"
            ) from error


def picture_box(clip: Clip, size: Size, fit: str) -> Box | None:
    """Where a clip's picture is in frames of this size, if fit="auto" left bars beside it (those of "pad" count)."""
    box = fit_frame(clip.source_size, size, "auto").target_box if fit == "auto" else None
    return None if box == (0, 0, *size) else box


@lru_cache(maxsize=1)
def _threads(process: int, count: int) -> ThreadPoolExecutor | None:
    """Threads to decode a clip's pictures side by side, each process its own; none where torch is to use one.

    So a loader's workers, of which torch asks that, leave the cores to one another.
    """
    return ThreadPoolExecutor(count) if count > 1 else None
