"""The files a dataset has open: few, each process its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

Reader = TypeVar("Reader")


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
