"""Progress with the time left, one way everywhere: in a terminal, a live notebook, and one that runs unattended.

Plain text: on standard output, or in a notebook as one output that is replaced, so that a saved notebook keeps the last
state, with nothing to load. Updates come every second at first and ever more rarely. What takes long says so once at
its beginning, with what else the machine has to do. Knows nothing of what is counted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

from flowlib.devices import describe_load
from flowlib.quantities import duration

LONG = 60.0  # seconds; what takes longer says so beforehand


class Progress(tqdm):
    """A bar over `items`, or one that is moved by `update(n)`; everything else is tqdm's.

    Args:
        items: what is worked off; None if the bar is moved by hand.
        title: stands before the bar.
        total: how many; the length of `items` by default.
        unit: what is counted.
        **options: tqdm's own, for example `disable`, `initial`.

    >>> list(Progress(range(3), "counting", disable=True))
    [0, 1, 2]
    """

    def __init__(
        self, items: Iterable | None = None, title: str = "", total: int | None = None, unit: str = "it", **options: Any
    ) -> None:
        fixed = {"file": _output(), "mininterval": 1.0, "miniters": 1, "ncols": 100}
        super().__init__(items, title or None, total, unit=unit, **(fixed | options))
        self.began = time.monotonic()
        self.warm: tuple[float, float] | None = None  # when the first was done, and how many that was
        self.told = bool(self.disable)

    def __iter__(self) -> Iterator:
        with self:
            for item in self.iterable:
                yield item
                self.update()

    def update(self, n: float | None = 1) -> bool | None:
        """Count `n` more; the next update on screen is due after a second or a fiftieth of the time spent."""
        self.mininterval = 0.0 if self.disable else max(1.0, 0.02 * (time.monotonic() - self.began))
        shown = super().update(n)
        if not self.told:
            self._tell()
        return shown

    def _tell(self) -> None:
        """Say once, after some seconds, how long the rest will take if that is long; the first item only warms up."""
        now = time.monotonic()
        if self.warm is None:
            self.warm = now, self.n
        since, before = (self.began, self.initial) if self.n == self.warm[1] else self.warm
        if now - self.began < (20.0 if self.n == self.warm[1] else 3.0) or not self.total or self.n <= before:
            return
        self.told = True
        left = (self.total - self.n) * (now - since) / (self.n - before)
        if left > LONG:
            name = str(self.desc or "").removesuffix(": ")
            text = ", ".join(filter(None, [f"about {duration(left)} to go", describe_load()]))
            self.write(f"{name}: {text}" if name else text, file=sys.stdout)


class _Cell:
    """Where a bar writes in a notebook: an output of its own, replaced by every update."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.handle: Any = None

    def write(self, text: str) -> None:
        """Show the text, unless it is only there to wipe or to end a line."""
        from IPython.display import DisplayHandle

        if line := text.strip():
            show = {"text/plain": line}
            if self.handle is None:
                self.handle = DisplayHandle()
                self.handle.display(show, raw=True)
            else:
                self.handle.update(show, raw=True)

    def flush(self) -> None:
        """Nothing waits."""


def _output() -> Any:
    """Where bars go: a notebook's output, else standard output."""
    if "ipykernel" in sys.modules:
        from ipykernel.zmqshell import ZMQInteractiveShell
        from IPython import get_ipython

        if isinstance(get_ipython(), ZMQInteractiveShell):
            return _Cell()
    return sys.stdout
