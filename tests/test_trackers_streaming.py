"""Tracking piece by piece: the same tracks as in one go, and few frames in memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlib.synthetic import synthetic_clip
from flowlib.trackers import FrameToFrame
from flowlib.trackers.benchmark import StillTracker
from flowlib.trackers.lucas_kanade import LucasKanadeTracker
from flowlib.trackers.streaming import track_stream

S, SIZE = 14, (48, 64)
FRAMES, _ = synthetic_clip(S, SIZE, seed=5, motion="wander", camera="wander", num_sprites=6)


def reader(frames, log=None):
    def read(start, stop):
        if log is not None:
            log.append((start, stop))
        return iter(frames[start:stop])

    return read


def queries_of(seed: int, count: int = 40) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t, x, y = rng.integers(0, S, count), rng.uniform(-2, 65, count), rng.uniform(-2, 49, count)
    return np.column_stack([t, x, y]).astype(np.float32)


@settings(max_examples=4)
@given(st.integers(0, 2**32 - 1), st.integers(1, S + 2))
def test_piece_by_piece_gives_what_one_go_gives(seed, piece):
    tracker, queries = LucasKanadeTracker(), queries_of(seed)
    whole = tracker(FRAMES, queries)
    parts = track_stream(tracker, reader(FRAMES), S, queries, piece=piece)
    np.testing.assert_array_equal(parts.visibility, whole.visibility)
    np.testing.assert_array_equal(parts.tracks, whole.tracks)
    assert 0.05 < 1 - whole.visibility.mean() < 0.95  # some are lost on the way


def test_frames_before_a_query_are_read_again_only_where_there_is_one():
    log, done = [], []
    late = np.array([[9, 20.0, 20.0]])
    track_stream(LucasKanadeTracker(), reader(FRAMES, log), S, late, piece=4, advance=done.append)
    assert log == [(0, S), (4, 10), (0, 6)] and sum(done) == S
    log.clear()
    track_stream(LucasKanadeTracker(), reader(FRAMES, log), S, late * [0, 1, 1], piece=4)
    assert log == [(0, S)]


def test_no_more_than_a_piece_is_in_memory():
    class Frame(np.ndarray):
        alive = 0
        most = 0

        def __array_finalize__(self, parent):
            Frame.alive += 1
            Frame.most = max(Frame.most, Frame.alive)

        def __del__(self):
            Frame.alive -= 1

    def read(start, stop):
        return (np.array(FRAMES[i % S]).view(Frame) for i in range(start, stop))

    track_stream(LucasKanadeTracker(), read, 60, np.array([[0, 20.0, 20.0]]), piece=5)
    assert Frame.most <= 2 * (5 + 2) + 2


def test_one_frame_and_no_points_are_no_matter():
    tracker = LucasKanadeTracker()
    alone = track_stream(tracker, reader(FRAMES), 1, np.array([[0, 3.0, 4.0]]))
    assert alone.tracks.tolist() == [[[3, 4]]] and alone.visibility.all()
    assert track_stream(tracker, reader(FRAMES), S, np.zeros((0, 3))).num_points == 0


def test_a_tracker_that_sees_the_whole_video_gets_it(monkeypatch, refuses):
    tracker = StillTracker()
    assert not isinstance(tracker, FrameToFrame) and isinstance(LucasKanadeTracker(), FrameToFrame)
    assert track_stream(tracker, reader(FRAMES), S, queries_of(0)).num_frames == S
    monkeypatch.setattr("flowlib.trackers.streaming.MOST_BYTES", FRAMES.nbytes - 1)
    with refuses(f"zero motion sees all frames at once: expected up to {S - 1} of this size, got {S}; take fewer"):
        track_stream(tracker, reader(FRAMES), S, queries_of(0))


@pytest.mark.parametrize("tracker", [StillTracker(), LucasKanadeTracker()])
def test_a_video_that_ends_early_and_wrong_queries_are_refused(tracker, refuses):
    with refuses(f"expected {S + 3} frames, the video ends after {S}"):
        track_stream(tracker, reader(FRAMES), S + 3, queries_of(0), piece=5)
    with refuses("frame from 0 to 13"):
        track_stream(tracker, reader(FRAMES), S, np.array([[S, 0.0, 0.0]]))
