"""Closed HDF5 files: written whole, read with every claim checked, and the few that are kept open.

What shards and stores of hands have in common. Readable by anything that reads HDF5; nothing is pickled, and what holds
data carries HDF5's checksum. Knows no format of its own.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import h5py
import numpy as np

from flowlib.workspace import ForgivingFile

CHECKED = {"fletcher32": True}
PACKED = {"compression": "gzip", "compression_opts": 4, "shuffle": True} | CHECKED
DAMAGE = (OSError, RuntimeError, ValueError, KeyError, TypeError)  # what reading a damaged HDF5 file may end in
DEFLATED = 1032  # bytes that one byte of gzip holds at most

Reader = TypeVar("Reader")


@contextmanager
def new_file(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file to be written; a disk that refuses is an `OSError` at the end. Format 1.10 checks metadata, too."""
    with closing(ForgivingFile(path)) as file, h5py.File(file, "w", libver="v110") as content:
        yield content


def read_array(file: h5py.File, name: str, types: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """The whole of an array in a file, if it is of one of the types ("u1 i2") and the shape (None: one axis).

    Refused before it is read, since a header may claim terabytes. The low level of h5py takes half the time.
    """
    item = h5py.h5d.open(file.id, name.encode())
    there, dtype, packed = item.shape, item.dtype, 1 if shape is None else DEFLATED
    fits = len(there) == 1 if shape is None else there == shape
    if not fits or dtype.str[1:] not in types or math.prod(there) * dtype.itemsize > packed * item.get_storage_size():
        raise ValueError(f"{name}: expected {types}{list(shape or [-1])}, got {dtype}{list(there)}, stored or claimed")
    array = np.empty(there, dtype)
    if array.size:
        item.read(h5py.h5s.ALL, h5py.h5s.ALL, array)
    return array


def read_attribute(file: h5py.File, name: str) -> Any:
    """An attribute that is a single value."""
    if shape := file.attrs.get_id(name).shape:
        raise ValueError(f"{name}: expected a single value, got {shape}")
    return file.attrs[name]


def content_sha256(file: h5py.File, *texts: str) -> str:
    """SHA-256 of everything a reader gets to see, whatever the layout of the file: its numbers, and `texts`."""
    digest = hashlib.sha256("".join(texts).encode())

    def add(name: str, item: h5py.HLObject) -> None:
        if isinstance(item, h5py.Dataset):
            if item.dtype.kind not in "uif" or item.nbytes > DEFLATED * item.id.get_storage_size():
                raise ValueError(f"{name}: expected numbers, as many as are stored, got {item}")
            digest.update(f"{name} {item.dtype} {item.shape}\n".encode() + item[()].tobytes())

    file.visititems(add)
    return digest.hexdigest()


def system_error(path: Path, error: BaseException) -> OSError | None:
    """What kept a file from being read, as an `OSError` that names it; None where it was read and found wrong.

    HDF5 tells its errors by text alone once a file is open.
    """
    said = re.search(r"errno = (\d+), error message", str(error))
    number = (error.errno if isinstance(error, OSError) else None) or (int(said[1]) if said else None)
    if not os.path.lexists(path):  # HDF5 takes two looks at a file, which may be removed between them
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    if number in (None, errno.EINVAL):  # the latter is what damaged offsets may end in
        return None
    if number == errno.ENOENT:  # no FileNotFoundError, which says that the file was removed
        return OSError(f"{path}: expected a file, got a link that leads nowhere")
    advice = "it couldn't be read, so nothing is known to be wrong with it; see to that and run again"
    return OSError(number, f"{os.strerror(number)}; {advice}", str(path))


class OpenFiles(Generic[Reader]):
    """Opens files when they are asked for and keeps the last few open.

    A forked process starts with none, because it must not read through its parent's handles, and so does one that got
    this object sent. What falls out is dropped, not closed, so that a thread that is just reading it can finish.

    Args:
        open_file: path -> reader; the reader closes its file when it is dropped.
        limit: how many to keep: 64 shards are up to 32 GB, and far from the 1,024 files a process may have.
    """

    def __init__(self, open_file: Callable[[Path], Reader], limit: int = 64) -> None:
        self.open_file, self.limit = open_file, limit
        self._owner, self._readers = os.getpid(), {}

    def __getitem__(self, path: Path) -> Reader:
        if self._owner != os.getpid():
            self._owner, self._readers = os.getpid(), {}
        reader = self._readers.pop(path, None) or self.open_file(path)
        self._readers[path] = reader  # the last one is the one used last
        while len(self._readers) > self.limit:
            self._readers.pop(next(iter(self._readers)), None)
        return reader

    def __len__(self) -> int:
        return len(self._readers) if self._owner == os.getpid() else 0

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_owner": 0, "_readers": {}}
