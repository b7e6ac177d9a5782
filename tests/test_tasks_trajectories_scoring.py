"""The evaluation half of the trajectory task: cases, checked answers, numbers, pictures of a clip."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowlib.clips import Clip, ClipList, ClipSample
from flowlib.geometry import cell_grid
from flowlib.metrics import displacement_metrics, epe_per_frame
from flowlib.models.protocols import TrajectoryPrediction
from flowlib.synthetic import synthetic_clip
from flowlib.tasks.protocol import Identity
from flowlib.tasks.trajectories import ScoringConfig, TrajectoryTask
from flowlib.tasks.trajectories.pictures import PATHS, difference_picture, draw_paths, spread

SIZE = (48, 64)
TASK = TrajectoryTask()


def sample_of(seed=0, grid=(12, 16)) -> ClipSample:
    frames, scene = synthetic_clip(8, SIZE, seed, motion="linear")
    truth = scene.tracks(np.insert(cell_grid(SIZE, *grid), 0, 0, axis=1))
    return ClipSample(Clip.named(f"scene_{seed}/0", frames, video=f"scene_{seed}"), frames, truth)


def moved_by(x: float, y: float, frames=tuple(range(8))) -> TrajectoryPrediction:
    """Everything is displaced by (x, y) in every later frame."""
    displacement = torch.zeros(1, len(frames), 2, *SIZE)
    displacement[:, :, 0], displacement[:, :, 1] = x, y
    displacement[:, [frame == 0 for frame in frames]] = 0
    return TrajectoryPrediction(displacement, torch.ones(1, len(frames), *SIZE), frames)


def numbers(prediction: TrajectoryPrediction, sample: ClipSample, task=TASK) -> dict[str, float]:
    answer = task.answer(prediction, task.case(sample))
    return {m.name: m.function(answer) for m in task.metrics if answer.available.issuperset(m.needs)}


def test_numbers_are_those_of_the_metrics():
    sample = sample_of()
    found = numbers(moved_by(2, -1), sample)
    moved = np.zeros_like(sample.truth.tracks) + np.array([2, -1], np.float32)
    moved[0] = 0
    expected = displacement_metrics(sample.truth.displacement, moved, sample.truth.visibility)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    (series,) = TASK.series
    ahead = series.function(TASK.answer(moved_by(2, -1), TASK.case(sample)))
    errors = epe_per_frame(sample.truth.displacement, moved, sample.truth.visibility)
    assert list(ahead) == list(range(1, 8)) and list(ahead.values()) == pytest.approx(errors.tolist(), rel=1e-5)
    assert found["visible"] == sample.truth.visibility[1:].mean() and found["roughness"] == -1
    assert (
        "lpips_all" not in found and series.at(3).function(TASK.answer(moved_by(2, -1), TASK.case(sample))) == ahead[3]
    )


def test_holes_are_what_nothing_is_moved_to():
    """All moves 16 px to the right of 64: the left quarter is empty."""
    found = numbers(moved_by(16, 0), sample_of())
    assert found["holes"] == pytest.approx(0.25)
    assert numbers(moved_by(0, 0), sample_of())["holes"] == 0


def test_an_exact_frame_has_a_finite_psnr():
    frames = np.repeat(sample_of().frames[:1], 8, axis=0)
    sample = sample_of()
    still = replace(sample, frames=frames)
    assert numbers(moved_by(0, 0), still)["psnr_all"] == 100.0


def test_what_moves_is_told_by_the_nearest_point():
    sample = sample_of()
    tracks = sample.truth.tracks[:1].repeat(8, axis=0)
    left = sample.truth.queries[:, 1] < 32
    tracks[-1, left] += [0, 5]
    case = TASK.case(replace(sample, truth=replace(sample.truth, tracks=tracks, visibility=np.ones((8, 192), bool))))
    moving = case.moving(7)
    assert moving[8:, :28].all() and not moving[:, 36:].any() and not case.moving(3).any()


def test_points_that_are_asked_for_later_need_shorter_clips(refuses):
    sample = sample_of()
    queries = sample.truth.queries.copy()
    queries[3, 0] = 4
    later = replace(sample, truth=replace(sample.truth, queries=queries))
    with refuses(r"scene_0/0: expected points queried in frame 0.*frame 4; ClipList\(samples, num_frames=…\)"):
        TASK.case(later)
    assert TASK.case(ClipList([later], num_frames=4)[0]).sample.clip.num_frames == 4


def test_identity_holds_all_that_decides_a_score():
    sample = sample_of()
    same = TASK.identify([sample], 0, dict(sample))
    one = TASK.identify([sample], 0, sample)
    assert one == same and (one.name, one.group, one.where) == ("scene_0/0", "scene_0", "")
    others = [
        replace(sample, occlusion_known=False),
        replace(sample, frames=sample.frames // 2),
        replace(sample, truth=replace(sample.truth, visibility=~sample.truth.visibility)),
        replace(sample, clip=replace(sample.clip, kept=(0, 1)), frames=sample.frames[:2]),
    ]
    assert len({one.content, *(TASK.identify([], 0, other).content for other in others)}) == 5
    shard = replace(sample, clip=replace(sample.clip, name="", first_frame=10, frame_step=2))
    assert TASK.identify([], 0, shard).where == "frames 10 to 24"


def test_settings_that_decide_scores():
    assert TASK.score_settings() == TrajectoryTask(scoring=ScoringConfig()).score_settings()
    assert TASK.score_settings() != TrajectoryTask(scoring=ScoringConfig(moving=2)).score_settings()
    near, far = (TrajectoryTask(scoring=ScoringConfig(lpips_weights=place)) for place in ("a.pth", "b.pth"))
    assert near.score_settings() == far.score_settings() != TASK.score_settings()


def test_a_strip_shows_truth_and_answers():
    sample = sample_of()
    case = TASK.case(sample)
    predictions = {"moved": moved_by(3, 0), "short": moved_by(0, 0, (0, 1, 2))}
    strip = TASK.strip("Best", Identity("scene_0/0", "scene_0", ""), case, predictions)
    assert strip.heads == ("Paths", "Rebuilt frame 7", "Off by") and all(strip.truth)
    whole, short = strip.rows
    assert whole.note.endswith(" dB") and whole.pictures[1].hover == strip.truth[1].jpeg
    assert short.pictures[1:] == (None, None) and "not predicted" in short.note
    assert strip.note.endswith("% of its points can be seen")
    decoded = cv2.imdecode(np.frombuffer(whole.pictures[0].jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == (300, 400, 3)


def test_paths_end_where_the_point_was_last_seen():
    frame = np.full((300, 400, 3), 100, np.uint8)
    track = np.array([[[20.0, 50.0]], [[120.0, 50.0]], [[300.0, 50.0]]])
    seen = np.array([[True], [True], [False]])
    drawn = draw_paths(frame, [(track, seen, (255, 0, 0))])
    red = (drawn[..., 0].astype(int) - drawn[..., 1]) > 60
    assert red[50, 20:120].all() and not red[:, 130:].any()


def test_a_difference_is_white_where_equal_and_dark_where_far_off():
    first = np.zeros((4, 4, 3), np.uint8)
    assert (difference_picture(first, first) == 255).all()
    assert (difference_picture(first, first + np.uint8(255)) == [90, 10, 0]).all()


@given(st.integers(1, 900), st.integers(0, 1000))
def test_few_points_are_drawn_and_they_lie_apart(count, seed):
    xy = np.random.default_rng(seed).uniform([0, 0], [63, 47], (count, 2)).astype(np.float32)
    chosen = spread(xy, SIZE)
    assert 1 <= len(chosen) <= min(count, PATHS * 1.1) and len(set(chosen)) == len(chosen)
    other = spread(xy[::-1], SIZE)
    assert len(other) == len(chosen), "whatever their order, as many cells hold a point"
