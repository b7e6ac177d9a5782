"""The evaluation half of the trajectory task: cases, checked answers, numbers, pictures of a clip."""

import shutil
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
from flowlib.tracks import Tracks

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
    series = TASK.series[0]
    ahead = series.function(TASK.answer(moved_by(2, -1), TASK.case(sample)))
    errors = epe_per_frame(sample.truth.displacement, moved, sample.truth.visibility)
    assert list(ahead) == list(range(1, 8)) and list(ahead.values()) == pytest.approx(errors.tolist(), rel=1e-5)
    assert found["visible"] == sample.truth.visibility[1:].mean() and found["roughness"] == -1
    assert (
        "lpips_all" not in found and series.at(3).function(TASK.answer(moved_by(2, -1), TASK.case(sample))) == ahead[3]
    )


def test_only_the_frames_that_count_are_measured(refuses):
    """Right up to frame 3, from then on 2 px too far: the error of frames 4 to 7 is 2, of all 8/7."""
    sample = sample_of()
    truth = sample.truth
    tracks = truth.tracks[:1].repeat(8, axis=0) + np.array([1.0, 0]) * np.arange(8)[:, None, None]
    still = replace(sample, truth=replace(truth, tracks=tracks, visibility=np.ones_like(truth.visibility)))
    prediction = moved_by(0, 0)
    prediction.displacement[0, :, 0] = torch.tensor([0.0, 1, 2, 3, 6, 7, 8, 9])[:, None, None]
    all_of_them, later = (
        numbers(prediction, still, TrajectoryTask(scoring=ScoringConfig(frames=frames))) for frames in (None, (4, 7))
    )
    assert all_of_them["ade"] == pytest.approx(8 / 7, abs=1e-5) and later["ade"] == pytest.approx(2, abs=1e-5)
    assert later["ade_camera"] == pytest.approx(2, abs=1e-5) and np.isnan(later["ade_own"])
    with refuses("frames: expected a first and a last frame"):
        ScoringConfig(frames=(0, 7))
    with refuses(r"frames: expected some of those predicted of scene_0/0 \(8 frames\), got 9 to 12"):
        numbers(prediction, still, TrajectoryTask(scoring=ScoringConfig(frames=(9, 12))))


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


def alexnet(path, seed):
    """Random weights under the names that AlexNet's have."""
    shapes = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}
    torch.manual_seed(seed)
    weights = {f"features.{k}.weight": torch.randn(shape) * 0.1 for k, shape in shapes.items()}
    torch.save(weights | {f"features.{k}.bias": torch.zeros(shape[0]) for k, shape in shapes.items()}, path)
    return TrajectoryTask(scoring=ScoringConfig(lpips_weights=str(path)))


def test_the_network_of_lpips_is_known_by_its_bytes_wherever_they_lie(tmp_path, monkeypatch):
    near, other = alexnet(tmp_path / "a.pth", 1), alexnet(tmp_path / "c.pth", 2)
    copied = shutil.copy(tmp_path / "a.pth", tmp_path / "b.pth")
    same = TrajectoryTask(scoring=ScoringConfig(lpips_weights=str(copied)))
    assert near.score_settings() == same.score_settings() != other.score_settings()
    still = {**dict(sample_of()), "frames": sample_of().frames}
    before, known = numbers(moved_by(2, 0), ClipSample.of(still), near)["lpips_all"], near.score_settings()
    shutil.copy(tmp_path / "c.pth", tmp_path / "a.pth")
    after = numbers(moved_by(2, 0), ClipSample.of(still), near)["lpips_all"]
    assert near.score_settings() == other.score_settings() != known and after != before
    monkeypatch.setenv("HOME", str(tmp_path))
    home = TrajectoryTask(scoring=ScoringConfig(lpips_weights="~/a.pth"))
    assert home.score_settings() == near.score_settings() and home.case(sample_of()).lpips is not None


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 half", b"<html>", [1], {"a": 1}, {"features.0.weight": 1}, "shape"]
)
def test_other_files_are_no_weights_of_lpips(content, tmp_path, refuses):
    path = tmp_path / "w.pth"
    if content == "shape":
        alexnet(path, 0)
        content = torch.load(path, weights_only=True) | {"features.0.bias": torch.zeros(3)}
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with refuses(r"w\.pth: expected (AlexNet's weights|features|weights|a dictionary of weights)"):
        TrajectoryTask(scoring=ScoringConfig(lpips_weights=str(path))).case(sample_of())


class Says:
    """A predictor that gives what it was told to."""

    def __init__(self, answer, input_frames=(0,)):
        self.answer, self.input_frames = answer, input_frames

    def __call__(self, images):
        return self.answer


def shaped(displacement=(1, 8, 2, *SIZE), logits=(1, 8, *SIZE), frames=tuple(range(8)), dtype=torch.float32):
    return TrajectoryPrediction(torch.zeros(displacement, dtype=dtype), torch.zeros(logits, dtype=dtype), frames)


@pytest.mark.parametrize(
    "answer, message",
    [
        (lambda: None, "expected a TrajectoryPrediction, got NoneType"),
        (lambda: torch.zeros(1, 8, 2, *SIZE), "expected a TrajectoryPrediction, got Tensor"),
        (lambda: (torch.zeros(1), torch.zeros(1)), "expected a TrajectoryPrediction, got tuple"),
        (lambda: TrajectoryPrediction(np.zeros((1, 8, 2, *SIZE)), torch.zeros(1, 8, *SIZE), tuple(range(8))),
            "expected displacement as a tensor of real numbers, got ndarray"),
        (lambda: shaped(dtype=torch.complex64), "displacement as a tensor of real numbers, got torch.complex64"),
        (lambda: shaped(displacement=(8, 2, *SIZE)), r"displacement \[1, 8, 2, 48, 64\], got \[8, 2, 48, 64\]"),
        (lambda: shaped(displacement=(2, 8, 2, *SIZE)), r"expected displacement \[1, 8, 2, 48, 64\], got \[2, 8, 2"),
        (lambda: shaped(displacement=(1, 2, 8, *SIZE)), r"expected displacement \[1, 8, 2, 48, 64\], got \[1, 2, 8"),
        (lambda: shaped(displacement=(1, 8, *SIZE, 2)), r"expected displacement .* got \[1, 8, 48, 64, 2\]"),
        (lambda: shaped(displacement=(1, 8, 2, 64, 48)), r"expected displacement .* got \[1, 8, 2, 64, 48\]"),
        (lambda: shaped(displacement=(1, 7, 2, *SIZE)), r"expected displacement .* got \[1, 7, 2, 48, 64\]"),
        (lambda: shaped(logits=(1, 8, 1, *SIZE)), r"visibility_logits \[1, 8, 48, 64\], got \[1, 8, 1, 48, 64\]"),
        (lambda: shaped(logits=(1, 1, *SIZE)), r"expected visibility_logits \[1, 8, 48, 64\], got \[1, 1, 48, 64\]"),
        (lambda: shaped(frames=(0, 1)), r"expected displacement \[1, 2, 2, 48, 64\], got \[1, 8"),
        (lambda: shaped(frames=tuple(range(1, 9))), "expected frames below 8"),
        (lambda: shaped(frames=(-1, *range(7))), "expected frames below 8, the clip's length, ascending, got"),
        (lambda: shaped(frames=(0, 2, 1, 3, 4, 5, 6, 7)), "expected frames below 8, the clip's length, ascending, got"),
        (lambda: shaped(frames=(0, 1, 1, 3, 4, 5, 6, 7)), "expected frames below 8, the clip's length, ascending, got"),
        (lambda: shaped(frames=(0, 1.5)), "expected frames below 8, the clip's length, ascending, got"),
        (lambda: shaped(frames=()), "expected frames below 8"),
        (lambda: shaped(frames=None), "expected frames below 8"),
        (lambda: shaped((1, 1, 2, *SIZE), (1, 1, *SIZE), frames=(0,)), "expected a frame after frame 0, got"),
        (lambda: moved_by(float("inf"), 0), "expected finite displacement, got NaN or infinity"),
    ],
)  # fmt: skip
def test_an_answer_of_another_shape_is_told_by_method_and_clip(answer, message, refuses):
    with refuses("placeholder", KeyError):  # checks of types are off in here, as for a user
        made = answer()
        raise KeyError("placeholder")
    with refuses(f"method 'odd', clip 'scene_0/0': (expected )?{message}"):
        TASK.predict(Says(made), TASK.case(sample_of()), "odd")


def test_answers_in_other_types_of_numbers_are_fine():
    for dtype in (torch.float64, torch.float16):
        found = TASK.predict(Says(shaped(dtype=dtype)), TASK.case(sample_of()), "m")
        assert found.displacement.dtype == torch.float32 and found.frames == tuple(range(8))


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (5, 7), (6, 6), (7, 40), (30, 33)])
def test_tiny_pictures_are_measured_as_far_as_they_go(size, tmp_path):
    from flowlib.evaluation import evaluate
    from flowlib.models.baselines import ZeroMotion

    frames = np.random.default_rng(0).integers(0, 255, (4, *size, 3), np.uint8)
    truth = Tracks.still(np.zeros((3, 3)), 4)
    sample = ClipSample(Clip.named("tiny", frames, num_points=3), frames, truth)
    task = alexnet(tmp_path / "w.pth", 0)
    report = evaluate({"zero": ZeroMotion(4)}, task, ClipList(sample), folder=tmp_path, progress=False)
    assert report.has("ade") and report.has("psnr_all")
    assert (report.has("ssim_all"), report.has("lpips_all")) == (min(size) >= 6, min(size) >= 31)
    assert report.save(tmp_path).is_file()


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
