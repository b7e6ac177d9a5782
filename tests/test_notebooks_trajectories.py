"""Notebooks 01 to 05, from frames to an evaluation: executed twice."""

from fixtures.notebooks import NAMES, Executed


class TestTrajectories(Executed):
    names = NAMES[:5]
