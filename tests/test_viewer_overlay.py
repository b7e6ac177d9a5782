"""Points drawn on frames: where they are, which of them are seen, and no more than the picture around them changes."""

import numpy as np

from flowlib.tracks import Tracks
from flowlib.viewer.overlay import draw_points

S, H, W = 6, 60, 80
BLACK = np.zeros((S, H, W, 3), np.uint8)


def still(x: float, y: float, visible: bool = True) -> Tracks:
    tracks = Tracks.still(np.array([[0, x, y]]), S)
    return Tracks(tracks.tracks, np.full((S, 1), visible), tracks.queries)


def bright(picture: np.ndarray) -> np.ndarray:
    """(row, column) of the pixels that are brighter than the ink around points."""
    return np.argwhere(picture.max(axis=-1) > 100)


def test_a_disc_is_centred_on_its_point_to_a_fraction_of_a_pixel():
    for x, y in ((40.0, 30.0), (40.25, 29.5)):
        drawn = next(draw_points(BLACK, still(x, y)))
        weight = drawn[:, :42].max(axis=-1).astype(float) * (drawn[:, :42].max(axis=-1) > 40)
        rows, columns = np.indices(weight.shape)
        near = (abs(rows - y) < 3.2) & (abs(columns - x) < 3.2)  # the number stands further off
        weight = weight * near
        assert abs((weight * rows).sum() / weight.sum() - y) < 0.3
        assert drawn[round(y), round(x)].max() > 100
    assert not BLACK.any()  # the frames given are left alone


def test_a_hidden_point_is_a_ring():
    seen, hidden = (next(draw_points(BLACK, still(20, 40, visible))) for visible in (True, False))
    assert seen[40, 20].max() > 100 > hidden[40, 20].max() and len(bright(hidden)) > 4


def test_the_way_of_a_point_stays_for_some_frames_where_it_was_seen():
    queries = np.array([[0, 10.0, 50.0]])
    tracks = Tracks.still(queries, S).tracks + np.array([10.0, 0])[None, None] * np.arange(S)[:, None, None]
    visible = np.ones((S, 1), bool)
    last = list(draw_points(BLACK, Tracks(tracks, visible, queries), trail=2))[-1]
    assert last[50, 45].max() > 100 and last[50, 15].max() == 0
    visible[3:5] = False
    last = list(draw_points(BLACK, Tracks(tracks, visible, queries), trail=5))[-1]
    assert last[50, 25].max() > 100 and last[50, 45].max() == 0


def test_points_far_off_and_many_points_are_no_matter():
    far = Tracks.still(np.array([[0, 1e9, -1e9], [0, 5, 5]]), S)
    assert len(list(draw_points(BLACK, far))) == S
    many = Tracks.still(np.column_stack([np.zeros(31), np.full(31, 40), np.full(31, 30)]), 1)
    few = many.points(slice(30))
    counts = [len(bright(next(draw_points(BLACK, tracks)))) for tracks in (many, few)]
    assert counts[0] < counts[1]  # no numbers on many
    assert not next(draw_points(BLACK, many.points([]))).any()
