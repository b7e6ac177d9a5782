"""Docstrings as Markdown (an extension of griffe): their examples become code, their shapes no links.

An example (`>>> …`) would be a quotation in Markdown, and two shapes one after the other, `[S N 2] [S N]`, a link.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^(?P<indent> *)>>> .*\n(?:(?P=indent)\S.*(?:\n|$))*", re.M)
SHAPE = re.compile(r"(`[^`]*`)|\[(?=[^\]`]*\])")


class Docstrings(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of whatever was read."""
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(docstring: str) -> str:
    """A docstring whose examples are fenced and whose brackets stand for themselves.

    >>> print(as_markdown("From xy [N 2] [N]:" + chr(10) * 2 + ">>> 1 + 1" + chr(10) + "2" + chr(10)))
    From xy \\[N 2] \\[N]:
    <BLANKLINE>
    ```pycon
    >>> 1 + 1
    2
    ```
    <BLANKLINE>
    """
    pieces, at = [], 0
    for found in EXAMPLE.finditer(docstring + "\n"):
        pieces.append(_without_links(docstring[at : found.start()]))
        indent = found["indent"]
        pieces.append(f"{indent}```pycon\n{found[0].rstrip()}\n{indent}```\n")
        at = found.end()
    return "".join(pieces) + _without_links(docstring[at:])


def _without_links(text: str) -> str:
    return SHAPE.sub(lambda found: found[1] or "\\[", text)
