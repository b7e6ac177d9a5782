"""Find hands: the synthetic ones, or a published data set on one's own disk, as one `HandCollection`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from flowlib.hands.actions import ActionConfig
from flowlib.hands.fpha import Protocol, read_fpha
from flowlib.hands.icvl import read_icvl
from flowlib.hands.msra15 import read_msra15
from flowlib.hands.nyu import read_nyu
from flowlib.hands.sequences import HandCollection, Skipped
from flowlib.hands.synthetic import PROTOCOLS, SyntheticConfig, SyntheticHands
from flowlib.splits import SPLITS

SOURCES = ("synthetic", "fpha", "msra15", "icvl", "nyu")


def find_hands(
    source: str = "synthetic",
    folder: str | Path = "",
    *,
    protocol: str = "",
    subjects: int = 10,
    takes: int = 4,
    families: int = 6,
    seed: int = 0,
) -> HandCollection:
    """The hands of a source, with their splits.

    Args:
        source: one of `SOURCES`.
        folder: where a published data set lies; the synthetic hand has none.
        protocol: what is for testing; "" takes the source's first. synthetic: "cross-subject" or "within"; fpha: "1:1",
            "cross-subject" or "cross-object"; msra15: the subject that is left out of training, "P0" to "P8".
        subjects, takes, families, seed: of the synthetic hand: people, takes of each action, families of two actions.

    Raises:
        ValueError: an unknown source or protocol, a folder too many or none; as the readers.
        FileNotFoundError: as the readers.
    """
    if source not in SOURCES:
        raise ValueError(f"source: expected one of {', '.join(SOURCES)}, got {source!r}")
    if bool(str(folder)) == (source == "synthetic"):
        expected = "none with the synthetic hand" if source == "synthetic" else f"where {source} lies"
        raise ValueError(f"folder: expected {expected}, got {str(folder)!r}")
    known = {"synthetic": PROTOCOLS, "fpha": get_args(Protocol), "icvl": (), "nyu": ()}.get(source)
    if protocol and known is not None and protocol not in known:
        raise ValueError(
            f"protocol: expected {' or '.join(map(repr, known)) or 'none'} with {source}, got {protocol!r}"
        )
    if source == "synthetic":
        actions = ActionConfig(families=families)
        made = SyntheticConfig(seed, subjects, takes, protocol or PROTOCOLS[0], actions)
        return SyntheticHands(made)
    given: dict[str, Any] = (
        {{"fpha": "protocol", "msra15": "test_subject"}.get(source, ""): protocol} if protocol else {}
    )
    readers: dict[str, Any] = {"fpha": read_fpha, "msra15": read_msra15, "icvl": read_icvl, "nyu": read_nyu}
    return readers[source](folder, **given)


def describe_hands(collection: HandCollection, skipped: Sequence[Skipped] = (), *, shown: int = 5) -> str:
    """What a collection has in each split, whether its joints lie in its depth, and what is skipped, as lines of text.

    >>> hands = SyntheticHands(SyntheticConfig(subjects=3, takes=1, actions=ActionConfig(families=1)))
    >>> print(describe_hands(hands).splitlines()[-1])
    21 joints (FPHA_21) of right hands, 2 actions
    """
    lines = []
    for split in SPLITS:
        own = collection.split(split)
        subjects, frames = len({one.subject for one in own}), sum(map(len, own))
        people = f"{subjects} subject{'s' * (subjects != 1)}"
        lines.append(f"{split}: {len(own)} sequences of {people}, {frames} frames")
    skeletons = {sequence.skeleton for sequence in collection.sequences}
    for one in skeletons:
        side = {True: "right", False: "left", None: "left or right"}[one.right]
        lines.append(f"{one.num_joints} joints ({one.name}) of {side} hands, {len(collection.actions)} actions")
    lines += [str(collection.check)] if collection.check else []
    listed = list(skipped) or list(collection.skipped)
    if listed:
        lines.append(f"{len(listed)} skipped:")
        lines += [f"  {one.name}: {one.reason}" for one in listed[:shown]]
        lines += [f"  … and {len(listed) - shown} more"] if len(listed) > shown else []
    return "\n".join(lines)
