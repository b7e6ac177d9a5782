"""The store: partial shards of one clip each, merged into the shards of a dataset, so that nothing closed is ever lost.

A finished clip is at once a small closed shard of its own, a partial shard, in `scratch/` of the workspace. These are
merged into a shard, which is copied into the dataset's folder, read back and compared; only then they are removed. Any
number of processes may work on one dataset, even on the same clips: what one has put in place another finds or replaces
by the same. Knows nothing of trackers.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from flowlib.clips import Clip, ClipSample, UnreadSample
from flowlib.progress import Progress
from flowlib.quantities import counted
from flowlib.shards import (
    Shard,
    ShardError,
    check_shard,
    find_shards,
    merge_shards,
    shard_paths,
    verify_shards,
    write_shard,
)
from flowlib.splits import register_videos
from flowlib.tracks import Tracks
from flowlib.video import Video
from flowlib.video.reading import printable
from flowlib.workspace import Workspace, clear_stale, publish, read_json, temporary_path, write_json

logger = logging.getLogger(__name__)
T = TypeVar("T")

SHARD_BYTES = 500_000_000
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before a write that failed is tried again
# What another try can't mend: no space or quota, a file too large, a read-only disk, no permission, too many open.
HOPELESS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE)


class Store:
    """Partial shards and shards of one dataset.

    Args:
        workspace: where the dataset's folder `datasets/<dataset>` is or will be.
        dataset: its name; one config and one tracker each.
        config: the settings that decide what a labelled clip looks like, JSON values.
        tracker: who labels them (`Tracker.describe()`), JSON values.

    Attributes:
        folder: the dataset's.
        stopping: set it to give up waiting for a disk that comes back.

    Raises:
        ValueError: the dataset was made with other settings.
        OSError: the workspace can't be written.
    """

    def __init__(self, workspace: Workspace, dataset: str, *, config: dict, tracker: dict) -> None:
        self.workspace, self.dataset = workspace.writable(), dataset
        self.folder = workspace.dataset(dataset)
        self.settings = {"config": config, "tracker": tracker}
        key = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:12]
        # Growing files belong on a local disk. Closed ones belong with the dataset: the next machine finds them.
        self.growing = workspace.scratch / dataset / key
        self.partials = workspace.root / "scratch" / dataset / key
        self.stopping = threading.Event()
        self.paths: list[Path] = []
        self.bytes = 0
        self._claim()
        for folder in (self.growing, self.partials, self.folder / "shards", self.folder, workspace.root):
            folder.mkdir(parents=True, exist_ok=True)
            clear_stale(folder)

    def keys(self) -> set[str]:
        """The clips that are in shards; while the root is away this waits, or nothing would seem to be there."""
        while True:
            found, _ = self._persist(lambda: find_shards(self.folder))
            if self._is_here():
                return {clip.key for clips in found.values() for clip in clips}

    def clear_merged(self) -> None:
        """Remove what is left of clips in shards: a kill may have come between publishing a shard and that."""
        there = self.keys()
        for path in (*self.partials.glob("[!.]*.h5"), *self.growing.glob("[!.]*.npz")):
            if path.stem in there:
                path.unlink(missing_ok=True)
        for folder in self.growing.glob("[!.]*/"):
            if folder.name in there:
                shutil.rmtree(folder, ignore_errors=True)

    def has(self, clip: Clip) -> bool:
        """Whether there is a whole partial shard of this clip; a damaged one is removed."""
        path = self.partial(clip)

        def check() -> bool:
            try:
                check_shard(path)
            except FileNotFoundError:
                return False
            except ShardError:
                path.unlink(missing_ok=True)
                return False
            return True

        return self._persist(check) if path.exists() else False

    def journal(self, clip: Clip, tracks: Tracks) -> None:
        """Put tracks where a kill can't reach them, at once; writing them comes beside the next clip's tracking.

        Not synced, so a power cut may take them; where it can't be done it isn't, for `write` says what is wrong.
        """
        path = temporary_path(self._journal_path(clip))
        try:
            with open(path, "wb") as file:
                np.savez(file, **tracks.arrays())  # pyright: ignore[reportArgumentType]
            path.replace(self._journal_path(clip))
        except OSError:
            path.unlink(missing_ok=True)

    def journaled(self, clip: Clip) -> Tracks | None:
        """The tracks that `journal` has kept; None if there are none, or their checksums tell of damage."""
        try:
            with np.load(self._journal_path(clip), allow_pickle=False) as content:
                return Tracks(**content)
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def working(self, clip: Clip) -> Path:
        """A folder for what is done of a clip that takes long; it goes once the clip is committed."""
        return self.growing / clip.key

    def write(self, clip: Clip, sample: ClipSample | UnreadSample | None) -> None:
        """Write a clip's partial shard: once this returns, the clip is committed. None: there is one already.

        Raises:
            OSError: the disk refuses, and still does after half a minute if it may come back.
            VideoError: the pictures of a long clip can't be read any more.
        """
        if sample is None:
            return
        path, encoding = self.partial(clip), self.settings["config"]["encoding"]
        options: dict[str, Any] = self.settings | {"encoding": encoding, "make_folder": False}
        if self.growing == self.partials:
            self._persist(lambda: write_shard(path, [sample], **options))
        else:
            growing = write_shard(self.growing / path.name, [sample], **options)
            self._persist(lambda: publish(growing, path, make_folder=False))
            growing.unlink()
        shutil.rmtree(self.working(clip), ignore_errors=True)

    def keep(self, clip: Clip, sample: ClipSample | UnreadSample | None) -> None:
        """`write` and `add`."""
        self.write(clip, sample)
        self.add(clip)

    def add(self, clip: Clip) -> None:
        """Count a clip's partial shard in; a full shard is merged at once."""
        self._persist(lambda: self._journal_path(clip).unlink(missing_ok=True))
        for path in self._there([self.partial(clip)]):
            self.paths.append(path)
            self.bytes += _size(path)
        if self.bytes >= SHARD_BYTES:
            self.merge()

    def merge(self) -> None:
        """Make one shard of the partial ones, put it into the dataset, compare it, and only then remove them."""
        paths = self.paths = self._there(self.paths)
        if paths:
            name = _digest(path.name for path in paths)
            try:
                merged = merge_shards(paths, temporary_path(self.growing / f"{name}.h5"), make_folder=False)
            except FileNotFoundError:
                return self.merge()  # another process has merged one of them since they were listed
            self._persist(lambda: publish(merged, self.folder / "shards" / f"{name}.h5", make_folder=False))
            for path in (merged, *paths):
                path.unlink(missing_ok=True)
        self.paths, self.bytes = [], 0

    def quarantine_damaged(self, *, verify: bool = False, progress: bool = False) -> list[str]:
        """Rename bad shards to `*.damaged`, so that their clips count as missing; a sentence for each.

        Only what was read and is wrong is bad; what can't be read is an `OSError`.

        Args:
            verify: read every shard to the last byte, not only its index.
            progress: show a bar meanwhile.
        """
        if verify:
            bad = verify_shards(self.folder, progress=lambda paths: _bar(paths, "verifying", progress))
        else:
            bad = self._persist(lambda: dict(_damaged(self.folder)))
        return [str(error) for path, error in bad.items() if _rename(path, ".damaged")]

    def register(self, videos: Iterable[Video], seed: int) -> tuple[dict[str, str], set[str]]:
        """Write down what each video is called in the dataset and which split it is in, once for all chunks.

        Returns:
            Name in the source -> name in the dataset; and the fingerprints of what lay in the videos' places before.
        """
        found = self._persist(lambda: find_shards(self.folder))[0].values()
        labelled = [(clip.fingerprint, clip.video) for clips in found for clip in clips]
        real, root = cache(os.path.realpath), Path(os.path.realpath(self.workspace.root))
        places = {}
        for video in videos:
            path = Path(real(os.path.dirname(video.path)), os.path.basename(video.path))
            # Within the workspace, whose own place may differ by machine, or anywhere.
            place = path.relative_to(root) if path.is_relative_to(root) else path
            places[video.fingerprint] = video.name, printable(place)
        register = partial(register_videos, self.folder, places, seed=seed, labelled=labelled)
        names, replaced = self._persist(register)
        return {name: names[fingerprint] for fingerprint, (name, _) in places.items()}, replaced

    def quarantine_stale(self, replaced: set[str]) -> list[str]:
        """Take clips out of the dataset whose video has another content now; a sentence for each shard.

        What else such a shard holds goes into a new one first; the old one is renamed to `*.stale`. Clips of videos
        that are no longer there stay: who has labels may throw videos away.

        Args:
            replaced: the fingerprints of what was in the videos' places before, see `register`.
        """
        sentences = []
        for path in shard_paths(self.folder) if replaced else ():
            try:
                stale = self._without(path, lambda clip: clip.fingerprint in replaced)
            except FileNotFoundError:
                if path.exists():
                    raise
                continue  # another process has done it
            except ShardError as error:
                sentences += [str(error)] if _rename(path, ".damaged") else []
                continue
            if stale:
                names = ", ".join(sorted({clip.video for clip in stale}))
                sentences.append(f"{path}: {counted(len(stale), 'clip')} of another content of {names}")
        return sentences

    def _without(self, path: Path, is_stale: Callable[[Clip], bool]) -> list[Clip]:
        """Put a shard without its stale clips in the place of one that has some; these clips."""
        with Shard(path) as shard:
            stale = [clip for clip in shard.clips if is_stale(clip)]
            kept = [clip.key for clip in shard.clips if not is_stale(clip)]
        if stale and kept:
            target = self.folder / "shards" / f"{_digest(kept)}.h5"
            growing = temporary_path(self.growing / target.name)
            merged = merge_shards([path], growing, keep=lambda clip: not is_stale(clip))
            self._persist(lambda: publish(merged, target, make_folder=False))
            merged.unlink()
        return stale if stale and _rename(path, ".stale") else []

    def _claim(self) -> None:
        """Write the dataset's config.json, or see that the one there says the same."""
        path = self.folder / "config.json"
        wanted = self.settings["config"] | {"tracker": self.settings["tracker"]}
        if not path.exists():
            write_json(path, wanted)
        try:
            there = ({"fit": "crop"} if "fit" in wanted else {}) | read_json(path)  # the first ones didn't say
        except ValueError as error:
            raise ValueError(f"{error}; delete it, and it is written anew") from error
        other = sorted(name for name in there.keys() | wanted.keys() if there.get(name) != wanted.get(name))
        if other:
            changes = ", ".join(f"{name}: {there.get(name)!r} there, {wanted.get(name)!r} now" for name in other)
            raise ValueError(
                f"dataset: {self.folder} was made with other settings ({changes}); choose another name for these"
            )

    def _persist(self, work: Callable[[], T]) -> T:
        """Call `work` until it succeeds: a Drive that hiccups or is mounted again must not end a long job."""
        for pause in (*PAUSES, None):
            try:
                # A Drive that is gone leaves an empty folder, and writing there would go to the local disk, unseen.
                if not self._is_here():
                    raise FileNotFoundError(errno.ENOENT, "root: the workspace has vanished", str(self.folder))
                return work()
            except OSError as error:
                logger.warning("%s: can't be read or written now (%s)", self.folder, error)
                if pause is None or error.errno in HOPELESS or self.stopping.wait(pause):
                    raise
        raise AssertionError("the last try returns or raises")

    def _is_here(self) -> bool:
        return (self.folder / "config.json").exists()

    def _there(self, paths: list[Path]) -> list[Path]:
        """Those that are there; the others another process has merged, if it isn't the root that is away."""
        if not all(path.exists() for path in paths):
            self._persist(lambda: None)
        return [path for path in paths if path.exists()]

    def _journal_path(self, clip: Clip) -> Path:
        return self.growing / f"{clip.key}.npz"

    def partial(self, clip: Clip) -> Path:
        """Where a clip's partial shard is, or will be."""
        return self.partials / f"{clip.key}.h5"


def _bar(paths, title: str, shown: bool) -> Progress:
    return Progress(paths, title, unit="shard", disable=not shown)


def _damaged(folder: Path):
    for path in shard_paths(folder):
        try:
            Shard(path).close()
        except FileNotFoundError:
            continue
        except ShardError as error:
            yield path, error


def _rename(path: Path, suffix: str) -> bool:
    """Quarantine a file; whether it was still there, and not quarantined by another process."""
    try:
        path.rename(path.with_name(path.name + suffix))
    except FileNotFoundError:
        return False
    return True


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0  # has just been merged by another process


def _digest(names) -> str:
    return hashlib.sha256(" ".join(names).encode()).hexdigest()[:16]
