"""What others have published of hand poses and actions, for a table beside one's own figures on the same data set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("published.json")
NAMES = {"fpha": "FPHA", "msra15": "MSRA15", "icvl": "ICVL", "nyu": "NYU"}


def published(source: str, topic: str = "pose") -> list[dict[str, Any]]:
    """The entries on a data set: name, dataset, setting, figures (each `of` something), source, caveat, unchecked.

    Args:
        source: as of `find_hands`; the synthetic hand has none.
        topic: "pose", "action", …

    >>> [entry["name"] for entry in published("nyu")][0]
    'DeepPrior (Oberweger et al. 2015)'
    """
    name = NAMES.get(source, "–")
    return [entry for entry in _entries() if entry["topic"] == topic and name in entry["dataset"]]


def published_table(source: str, own: Mapping[str, float], topic: str = "pose", metric: str = "mm") -> str:
    """One's own numbers and the published ones of a metric, as a Markdown table with every caveat.

    Args:
        source: the data set, as of `find_hands`.
        own: name -> number.
        topic, metric: which of the published figures.
    """
    rows = [f"| **{name}** | here | {value:.2f} | |" for name, value in own.items()]
    for entry in published(source, topic):
        for figure in entry["figures"]:
            if metric in figure:
                about = f"{entry['setting']}; {figure['of']}"
                doubt = "from memory, unchecked; " if entry["unchecked"] else ""
                rows.append(f"| {entry['name']} | {about} | {figure[metric]:.2f} | {doubt}{entry['caveat']} |")
    if len(rows) == len(own):
        return f"Nothing published on {source} to compare with."
    return "\n".join([f"| method | setting | {metric} | caveat |", "| --- | --- | ---: | --- |", *rows])


@cache
def _entries() -> tuple[dict[str, Any], ...]:
    return tuple(json.loads(FILE.read_text(encoding="utf-8"))["entries"])
