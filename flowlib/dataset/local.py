"""Keep copies of shards that lie on a mounted Drive, and unpacked ones, on the local disk.

Both are made once, by whichever process comes first, and each file is there whole or not at all. What belongs to shards
that are no more is removed. Knows files; knows nothing of samples.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flowlib.dataset.mmap_reader import MmapReader, unpack, unpacked_bytes
from flowlib.dataset.shard_reader import ShardReader
from flowlib.progress import Progress
from flowlib.shards import ShardError
from flowlib.workspace import DRIVE, clear_stale, publish

SPARE = 1_000_000_000  # bytes to leave free on the local disk, for checkpoints and the like


def on_drive(root: Path) -> bool:
    """Whether a dataset lies on a mounted Drive, where reading here and there is slow."""
    return root.resolve().is_relative_to(DRIVE.parent)


def local_folder(root: Path, base: str | Path = "") -> Path:
    """A folder of a dataset's own below `base`, the system's temporary folder if empty."""
    root = root.resolve()
    key = hashlib.sha256(str(root).encode()).hexdigest()[:12]
    return Path(base or tempfile.gettempdir()).expanduser() / f"flowlib-{root.name}-{key}"


def copy_shards(paths: Sequence[Path], folder: Path, *, progress: bool = True) -> dict[Path, Path]:
    """Copy shards to a local folder, compare the copies, and say where each is to be read.

    Copies that are there already are found by name, size and content hash. If the disk is too small or can't be
    written, a warning says so and the shards are read where they are.

    Args:
        paths: all shards of the dataset; other shards in `folder` are removed.
        folder: where to.
        progress: show a bar with the time left.
    """
    places = {path: folder / path.name for path in paths}
    try:
        with _alone(folder, r"[^.].*\.h5", keep=set(places.values())):
            missing = [path for path, copy in places.items() if not _is_copy(copy, path)]
            needed = sum(path.stat().st_size for path in missing)
            if reason := _lack(folder, needed):
                raise OSError(f"{folder} {reason}")
            with _bytes_bar("copying", needed, progress) as bar:
                for path in missing:
                    publish(path, places[path])
                    bar.update(path.stat().st_size)
    except OSError as error:
        warnings.warn(f"shards are read where they are, which may be slow: {error}", stacklevel=4)
        return {path: path for path in paths}
    return places


def unpack_shards(
    paths: Sequence[Path], folder: Path, *, others: Sequence[Path] = (), progress: bool = True
) -> dict[Path, Path]:
    """Unpack shards into a local folder, each once, and say where each is to be read.

    Args:
        paths: the shards.
        folder: where to.
        others: shards of the dataset whose unpacked files may stay; other unpacked ones in `folder` are removed.
        progress: show a bar with the time left.

    Raises:
        OSError: the disk is too small or can't be written. What is whole stays, and the next call goes on.
        ShardError: one of them is damaged.
    """
    places = {path: folder / f"{ShardReader(path).content_sha256[:32]}.unpacked" for path in {*paths, *others}}
    with _alone(folder, r"[0-9a-f]{32}\.unpacked", keep=set(places.values())):
        sizes = {path: _unpacked_size(path) for path in paths if not _is_unpacked(places[path])}
        if reason := _lack(folder, sum(sizes.values())):
            raise OSError(f"unpacked: {folder} {reason}; name a folder on a larger disk, or read the shards themselves")
        with _bytes_bar("unpacking", sum(sizes.values()), progress) as bar:
            for path in sizes:
                try:
                    unpack(path, places[path], advance=bar.update)
                except OSError as error:
                    if error.filename == str(path):
                        raise  # the shard's own
                    raise OSError(f"{folder}: can't be written ({error}); what is whole stays, run again") from error
    return {path: places[path] for path in paths}


@contextmanager
def _alone(folder: Path, made: str, keep: set[Path]) -> Iterator[None]:
    """Be the only process that fills `folder` with files of names like `made`.

    Begins by removing those that are not to be kept or were never finished, and nothing that somebody else put there.
    """
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(open(folder / ".lock", "w"))
            fcntl.flock(lock, fcntl.LOCK_EX)  # goes when its process does, however that ends
        except OSError as error:
            raise OSError(f"{folder} can't be written or locked ({error.strerror}); name a local folder") from error
        clear_stale(folder)
        for path in folder.iterdir():
            if path not in keep and re.fullmatch(made, path.name):
                path.unlink(missing_ok=True)
        yield


def _is_copy(copy: Path, path: Path) -> bool:
    if not copy.exists() or copy.stat().st_size != path.stat().st_size:
        return False
    try:
        return ShardReader(copy).content_sha256 == ShardReader(path).content_sha256
    except ShardError:
        return False


def _is_unpacked(path: Path) -> bool:
    try:
        return MmapReader(path).content_sha256.startswith(path.stem)
    except (FileNotFoundError, ValueError):
        return False


def _unpacked_size(path: Path) -> int:
    return unpacked_bytes(ShardReader(path))


def _lack(folder: Path, needed: int) -> str:
    """Why `needed` bytes more don't go into `folder`; empty if they do."""
    free = shutil.disk_usage(folder).free
    if needed == 0 or needed + SPARE <= free:
        return ""
    return f"needs {needed / 1e9:.2f} GB and {SPARE / 1e9:.0f} GB to spare, {free / 1e9:.2f} GB are free"


def _bytes_bar(title: str, total: int, progress: bool) -> Progress:
    return Progress(title=title, total=total, unit="B", unit_scale=True, disable=not progress or total == 0)
