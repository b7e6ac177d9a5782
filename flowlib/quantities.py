"""Numbers with what they count or measure, as a sentence has them: "1 clip", "12 min", "3.2 GB"."""

from __future__ import annotations

import math
from typing import SupportsIndex


def counted(number: SupportsIndex, noun: str, plural: str = "") -> str:
    """So many of a thing, in words.

    >>> counted(1, "video"), counted(2, "class", "classes")
    ('1 video', '2 classes')
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """How long, roughly.

    >>> duration(89), duration(600), duration(9000)
    ('89 s', '10 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def file_size(number: float) -> str:
    """How many bytes, to three digits.

    >>> file_size(1_234_567)
    '1.23 MB'
    """
    power = max(1, min(4, int(math.log10(max(number, 1)) // 3)))
    return f"{number / 1000**power:.3g} {('kB', 'MB', 'GB', 'TB')[power - 1]}"
