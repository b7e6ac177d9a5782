"""Docstrings as Markdown (an extension of griffe): their examples become code, their shapes no links.

An example (`>>> …`) would be a quotation in Markdown, and two shapes one after the other, `[S N 2] [S N]`, a link.
Arguments that are described together (`height, width: in pixels`) become one each, and the comments behind a
dataclass's fields, which the command line shows as help, a list of its attributes.
"""

from __future__ import annotations

import linecache
import re
from collections.abc import Iterator
from typing import Any

import griffe

EXAMPLE = re.compile(r"^(?P<indent> *)>>> .*\n(?:(?P=indent)\S.*\n)*", re.M)
BRACKET = re.compile(r"(`[^`]*`)|\[(?=[^\]`]*\])")
TOGETHER = re.compile(r"^(?P<indent> +)(?P<names>\w+(?:, \w+)+)(?P<text>: .*\n(?:(?P=indent) +\S.*\n)*)", re.M)


class Docstrings(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of whatever was read."""
        if isinstance(obj, griffe.Class) and any("dataclass" in str(one.value) for one in obj.decorators):
            told = dict(_fields(obj))
            if told and obj.docstring and "\nAttributes:\n" not in obj.docstring.value:
                listed = "".join(f"    {name}: {text}\n" for name, text in told.items())
                obj.docstring.value = f"{obj.docstring.value.rstrip()}\n\nAttributes:\n{listed}"
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)


def _fields(dataclass: griffe.Class) -> Iterator[tuple[str, str]]:
    """The fields of a dataclass that have a comment behind them, and the comment."""
    for name, member in dataclass.members.items():
        if isinstance(member, griffe.Attribute) and member.lineno and not name.startswith("_"):
            line = linecache.getline(str(member.filepath), member.endlineno or member.lineno)
            found = re.search(r"\s# (?!fmt:|noqa|pyright|type:)(.+)", line)
            if found:
                yield name, found[1].strip()


def as_markdown(docstring: str) -> str:
    """A docstring whose examples are fenced, whose brackets stand for themselves, and with one line an argument.

    >>> print(as_markdown("From xy [N 2] [N]:" + chr(10) * 2 + ">>> 1 + 1" + chr(10) + "2"))
    From xy \\[N 2] \\[N]:
    <BLANKLINE>
    ```pycon
    >>> 1 + 1
    2
    ```
    """
    pieces, at, text = [], 0, docstring.rstrip("\n") + "\n"
    for found in EXAMPLE.finditer(text):
        pieces += [_plain(text[at : found.start()]), f"{found['indent']}```pycon\n{found[0]}{found['indent']}```\n"]
        at = found.end()
    return ("".join(pieces) + _plain(text[at:])).rstrip("\n")


def _plain(text: str) -> str:
    """Without links, and with one line an argument."""
    text = TOGETHER.sub(
        lambda one: "".join(one["indent"] + name + one["text"] for name in one["names"].split(", ")), text
    )
    return BRACKET.sub(lambda found: found[1] or "\\[", text)
