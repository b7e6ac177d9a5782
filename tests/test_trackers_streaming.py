"""Tracking piece by piece: the same tracks as in one go, and few frames in memory."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlib.synthetic import synthetic_clip
from flowlib.trackers import FrameToFrame, Streams, Stretch
from flowlib.trackers.alltracker import AllTracker, AllTrackerTracker
from flowlib.trackers.benchmark import StillTracker
from flowlib.trackers.confidence import ConfidentTracker
from flowlib.trackers.lucas_kanade import LucasKanadeTracker
from flowlib.trackers.pips import PIPs, PIPsTracker
from flowlib.trackers.streaming import Kept, track_stream, track_video
from flowlib.video import probe, write_video

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


@settings(max_examples=3)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.integers(1, 12))
def test_confidence_is_the_same_piece_by_piece(seed, length, piece):
    """Whatever the clip's length, against the way back of 7 frames, and the pieces."""
    frames = FRAMES[np.abs(np.arange(length) % (2 * S - 2) - S + 1)]
    tracker, queries = ConfidentTracker(LucasKanadeTracker()), queries_of(seed, 12)
    queries[:, 0] %= length
    whole, done = tracker(frames, queries), []
    parts = track_stream(tracker, reader(frames), length, queries, piece=piece, advance=done.append)
    for key, values in whole.arrays().items():
        np.testing.assert_array_equal(parts.arrays()[key], values, err_msg=key)
    assert sum(done) == length and len(np.unique(whole.confidence)) > 2


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

    point = np.array([[0, 20.0, 20.0]])
    track_stream(LucasKanadeTracker(), read, 60, point, piece=5)
    assert Frame.most <= 2 * (5 + 2) + 2
    track_stream(ConfidentTracker(LucasKanadeTracker()), read, 60, point, piece=5)
    assert Frame.most <= 2 * (8 + 7) + 2


def test_one_frame_and_no_points_are_no_matter():
    tracker = LucasKanadeTracker()
    alone = track_stream(tracker, reader(FRAMES), 1, np.array([[0, 3.0, 4.0]]))
    assert alone.tracks.tolist() == [[[3, 4]]] and alone.visibility.all()
    assert track_stream(tracker, reader(FRAMES), S, np.zeros((0, 3))).num_points == 0


def test_a_tracker_that_sees_the_whole_video_gets_it(monkeypatch, refuses):
    tracker = StillTracker()
    assert not isinstance(tracker, FrameToFrame | Streams) and isinstance(LucasKanadeTracker(), FrameToFrame)
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


def killed(tracker: Any, left: int) -> Any:
    """The same tracker, killed after so many calls, or stretches."""
    if isinstance(tracker, ConfidentTracker):
        return ConfidentTracker(killed(tracker.tracker, left), tracker.curve)

    class Killed(type(tracker)):
        def __call__(self, *given):
            self.count()
            return super().__call__(*given)

        def stream(self, *given):
            for stretch in super().stream(*given):
                self.count()
                yield stretch

        def count(self):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt

    doomed = copy.copy(tracker)
    doomed.__class__, doomed.left = Killed, left
    return doomed


def small_pips() -> PIPsTracker:
    torch.manual_seed(0)
    return PIPsTracker(PIPs(), iters=1, block=4, device="cpu")


def small_alltracker() -> AllTrackerTracker:
    torch.manual_seed(0)
    net = AllTracker("tiny")
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return AllTrackerTracker(net, iters=1, device="cpu", visible_above=0.2)


STREAMED = {
    "lucas_kanade": (LucasKanadeTracker, 30, (48, 64), 3),
    "confidence": (lambda: ConfidentTracker(LucasKanadeTracker()), 26, (48, 64), 3),
    "pips": (small_pips, 42, (64, 64), 2),
    "alltracker": (small_alltracker, 26, (72, 72), 2),
}


@pytest.mark.parametrize("name", STREAMED)
def test_killed_and_taken_up_again_gives_what_one_go_gives(tmp_path, name):
    """Killed once in every so many pieces, backwards and forwards; each piece is done but once."""
    make, length, size, steps = STREAMED[name]
    frames, _ = synthetic_clip(length, size, seed=5, motion="wander", camera="wander", num_sprites=3)
    queries = np.array([[0, 20.0, 20.0], [0, 30.5, 10.25], [length - 3, 12.0, 30.0], [length - 3, 9.0, 9.0]])
    tracker = make()
    whole = tracker(frames, queries)
    about, piece = {"video": "v"}, 5
    runs = 0
    while True:
        runs += 1
        kept = Kept.open(tmp_path, tracker, queries, length, about)
        try:
            done = []
            found = track_stream(
                killed(tracker, steps), reader(frames), length, queries, piece=piece, kept=kept, advance=done.append
            )
            break
        except KeyboardInterrupt:
            assert runs < 30
    assert runs > 2 and sum(done) == length
    for key, values in whole.arrays().items():
        np.testing.assert_array_equal(found.arrays()[key], values, err_msg=key)
    assert set(found.arrays()) == set(whole.arrays()) and np.abs(whole.displacement).max() > 0.1
    states = [path for path in kept.folder.glob("*-state-*")]
    assert len(states) == {"pips": 2, "alltracker": 2}.get(name, 0)  # one for each way, the last
    other = Kept.open(tmp_path, tracker, queries + [0, 1, 0], length, about)
    assert not any(other.folder.iterdir()) and not kept.folder.exists()


def test_a_damaged_piece_is_done_again(tmp_path):
    tracker, queries = LucasKanadeTracker(), queries_of(1)
    kept = Kept.open(tmp_path, tracker, queries, S, {})
    first = track_stream(tracker, reader(FRAMES), S, queries, piece=4, kept=kept)
    for path, content in zip(sorted(kept.folder.iterdir()), (b"", b"PK no archive", None)):
        path.write_bytes(content if content is not None else path.read_bytes()[:-40])
    again = track_stream(tracker, reader(FRAMES), S, queries, piece=4, kept=kept)
    np.testing.assert_array_equal(again.tracks, first.tracks)
    np.testing.assert_array_equal(again.visibility, first.visibility)


class Forgetful:
    """Streams; points go right by a pixel a frame, and are seen for six frames from the one they are asked for in."""

    def __call__(self, frames, queries):
        raise AssertionError("it is to stream")

    def describe(self):
        return {"name": "forgetful"}

    def load_state(self, path):
        raise ValueError(path)

    def stream(self, frames, xy, state=None):
        for start, _ in enumerate(frames):
            sure = np.full((1, len(xy)), 1 / (1 + start), np.float32)
            yield Stretch(
                start, (xy + [start, 0]).astype(np.float32)[None], np.full((1, len(xy)), start < 6), sure, None
            )


def test_points_that_are_lost_for_good_are_asked_for_again(tmp_path, refuses):
    """In the frame they were seen last in, again and again; only those lost for so long, and only after it."""
    frames = np.zeros((20, 8, 8, 3), np.uint8)
    queries = np.array([[0, 1.5, 2.0], [3, 4.0, 5.0], [14, 1.0, 1.0]])
    once = track_stream(Forgetful(), reader(frames), 20, queries)
    assert once.visibility.sum(axis=0).tolist() == [6, 6 + 3, 6 + 5]
    kept = Kept.open(tmp_path, Forgetful(), queries, 20, {})
    again = track_stream(Forgetful(), reader(frames), 20, queries, reanchor=3, kept=kept)
    assert again.visibility[0:18, 0].all() and again.visibility[:, 1].sum() == 3 + 6 + 5 + 5
    right = np.arange(20)[:, None] - queries[:, 0]
    np.testing.assert_array_equal(again.tracks[:, :2, 0] - queries[:2, 1], np.abs(right[:, :2]))
    np.testing.assert_array_equal(again.visibility[:, 2], once.visibility[:, 2])
    assert again.confidence[6, 0] == np.float32(1 / 2) and again.confidence[5, 0] == np.float32(1 / 6)
    patient = track_stream(Forgetful(), reader(frames), 20, queries, reanchor=15)
    np.testing.assert_array_equal(patient.visibility, once.visibility)
    with refuses("reanchor: expected 0, or a number of frames for a tracker that streams"):
        track_stream(LucasKanadeTracker(), reader(FRAMES), S, queries_of(0), reanchor=3)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "clip.mkv"
    return probe(write_video(path, FRAMES, fps=12, lossless=True))


def test_a_videos_points_are_followed_in_its_own_pixels(video):
    queries = queries_of(3)[:10]
    queries[:, 1:] = queries[:, 1:].clip(0, 47)
    tracker = LucasKanadeTracker()
    found = track_video(tracker, video, queries)
    whole = tracker(FRAMES, queries)
    np.testing.assert_array_equal(found.tracks, whole.tracks)
    part = track_video(tracker, video, queries * [0, 1, 1], num_frames=5)
    assert part.num_frames == 5


def test_tracking_at_another_size_keeps_pixel_centres(video):
    """A still point at half the size: its place in the video's own pixels doesn't move by half a pixel."""
    queries = np.array([[0, 0.0, 0.0], [3, 63.0, 47.0], [2, 10.25, 20.5]])
    found = track_video(StillTracker(), video, queries, longest=32)
    np.testing.assert_allclose(found.tracks, np.broadcast_to(queries[:, 1:], found.tracks.shape), atol=1e-5)
    assert (found.tracks[[0, 3, 2], [0, 1, 2]] == queries[:, 1:].astype(np.float32)).all()
    assert [f.shape for f in _seen_by(video, 32)] == [(24, 32, 3)] * S


def _seen_by(video, longest):
    seen = []

    class Spy(StillTracker):
        def __call__(self, frames, queries):
            seen.extend(frames)
            return super().__call__(frames, queries)

    track_video(Spy(), video, np.array([[0, 1.0, 1.0]]), longest=longest)
    return seen


def test_what_a_video_does_not_have_is_refused(video, refuses):
    point = np.array([[0, 1.0, 1.0]])
    with refuses(f"num_frames: expected up to {S}, as clip has, got 99"):
        track_video(StillTracker(), video, point, num_frames=99)
    with refuses("points: expected places on frames of 64×48, got 70,1"):
        track_video(StillTracker(), video, point * 70 + [[0, 0, -69]])
    with refuses("longest: expected a number of pixels"):
        track_video(StillTracker(), video, point, longest=-1)
    with refuses("frame from 0 to 4"):
        track_video(StillTracker(), video, point + [[7, 0, 0]], num_frames=5)
