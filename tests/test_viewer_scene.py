"""The viewer's sets: tracks bring their own confidence, and another may be given."""

from dataclasses import replace

import numpy as np

from flowlib.tracks import Tracks
from flowlib.viewer.scene import ViewerSet


def test_the_confidence_of_tracks_is_shown_unless_another_is_given():
    plain = Tracks.still(np.array([[0, 1.0, 2]]), 3)
    sure = replace(plain, confidence=np.array([[1.0], [0.5], [0.25]]))
    np.testing.assert_array_equal(ViewerSet(sure).confidence, sure.confidence)
    assert ViewerSet(plain).confidence is None
    other = np.zeros((3, 1), np.float32)
    assert ViewerSet(sure, confidence=other).confidence is other
