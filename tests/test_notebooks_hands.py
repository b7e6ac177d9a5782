"""Notebooks 06 to 08, hands: executed twice."""

from fixtures.notebooks import NAMES, Executed


class TestHands(Executed):
    names = NAMES[5:]
