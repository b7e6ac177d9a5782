"""Progress with the time left, one way everywhere: in a terminal, a live notebook, and one that runs unattended.

Plain text on standard output, so a saved notebook keeps it and shows it without anything to load. Updates come every
second at first and ever more rarely, so that a job of twelve hours leaves hundreds of lines in its notebook, not
tens of thousands. Knows nothing of what is counted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator

from tqdm import tqdm


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
        self, items: Iterable | None = None, title: str = "", total: int | None = None, unit: str = "it", **options
    ) -> None:
        fixed = {"file": sys.stdout, "mininterval": 1.0, "miniters": 1, "ncols": 100}
        super().__init__(items, title or None, total, unit=unit, **(fixed | options))
        self.began = time.monotonic()

    def __iter__(self) -> Iterator:
        with self:
            for item in self.iterable:
                yield item
                self.update()

    def update(self, n: float | None = 1) -> bool | None:
        """Count `n` more; the next update on screen is due after a second or a fiftieth of the time spent."""
        self.mininterval = 0.0 if self.disable else max(1.0, 0.02 * (time.monotonic() - self.began))
        return super().update(n)
