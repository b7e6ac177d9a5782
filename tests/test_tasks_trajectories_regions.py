"""Regions: what they promise holds on fresh videos, and what they can't promise is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from fixtures.dataset_shards import write_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlib.clips import Clip, ClipList, ClipSample
from flowlib.dataset import TrajectoryDataset
from flowlib.dataset.consensus import open_calibration
from flowlib.evaluation import evaluate
from flowlib.geometry import cell_grid, inside
from flowlib.models.baselines import ConstantVelocity, ZeroMotion
from flowlib.models.guided import GuidedTrajectories
from flowlib.models.protocols import TrajectoryPrediction
from flowlib.splits import PARTS, load_splits, reserve_calibration, save_splits
from flowlib.tasks.trajectories import ScoringConfig, TrajectoryTask
from flowlib.tasks.trajectories.regions import (
    Conformal,
    VideoErrors,
    WithRegions,
    hierarchical_quantile,
    least_videos,
    measure_errors,
    with_regions,
)
from flowlib.tracks import Tracks

SIZE, FRAMES = (32, 48), (1, 2, 3)


class Guess:
    """Says that everything moves by 1 px a frame to the right, and how sure it is: `unsure` px a frame."""

    input_frames = (0,)

    def __init__(self, unsure: float | None = 0.5, trained_on: tuple[str, ...] = ()) -> None:
        self.unsure, self.trained_on = unsure, trained_on

    def describe(self):
        return {"name": "guess", "summary": "All moves.", "unsure": self.unsure}

    def __call__(self, images):
        B, _, _, H, W = images.shape
        moved = torch.zeros(B, 4, 2, H, W)
        moved[:, :, 0] = torch.arange(4.0)[:, None, None]
        ahead = torch.arange(4.0).clamp(min=0.1)[:, None, None].expand(B, 4, H, W)
        scale = None if self.unsure is None else (self.unsure * ahead).log()
        return TrajectoryPrediction(moved, torch.ones(B, 4, H, W), (0, 1, 2, 3), scale)


class Held(list):
    """Clips that say they are to test on."""

    split = "test"


def sample_of(seed: int, clip: int = 0) -> ClipSample:
    """Noise that moves steadily, in another way in each video: cheap, and known exactly."""
    rng = np.random.default_rng(seed)
    velocity = rng.normal(size=2) * 1.5
    frames = rng.integers(0, 255, (4, *SIZE, 3), np.uint8)
    queries = np.insert(cell_grid(SIZE, 6, 9), 0, 0, axis=1)
    tracks = (queries[None, :, 1:] + velocity * np.arange(4)[:, None, None]).astype(np.float32)
    truth = Tracks(tracks, inside(tracks, SIZE), queries)
    return ClipSample(Clip.named(f"video_{seed}/{clip}", frames, video=f"video_{seed}"), frames, truth)


@pytest.fixture(scope="module")
def clips():
    return ClipList([sample_of(seed) for seed in range(24)], num_frames=4)


def errors_of(rng: np.random.Generator, spread: float, scaled: bool = True) -> VideoErrors:
    """A video of two clips; its errors are larger by a factor of its own."""
    factor = np.exp(spread * rng.normal())
    scale = np.exp(0.3 * rng.normal(size=(90, 3))) * np.array(FRAMES)
    error = factor * scale * np.abs(rng.normal(size=(90, 3)))
    error[rng.random(error.shape) < 0.1] = np.nan
    return VideoErrors(error, scale if scaled else None, np.repeat([0, 1], [30, 60]))


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.5])
def test_fresh_videos_have_as_many_points_inside_as_promised(spread):
    """Whether videos are alike or as unlike as can be: 90 % of points and of paths, by scale and with one radius."""
    rng, shares, wide = np.random.default_rng(0), [], []
    for _ in range(30):
        videos = [errors_of(rng, spread) for _ in range(32)]
        made = Conformal.of(videos[:20], FRAMES)
        shares.append([[np.mean([made.covered(v, scaled=s) for v in videos[20:]], axis=0)] for s in (True, False)])
        wide.append(np.mean([made.widths(v)[:3] < made.widths(v, scaled=False)[:3] for v in videos]))
    found = np.mean(shares, axis=0)
    assert found == pytest.approx(0.9, abs=0.03) and np.mean(wide) > 0.3


def test_the_strict_quantile_is_never_below_in_the_mean():
    rng, shares = np.random.default_rng(1), []
    for _ in range(60):
        videos = [errors_of(rng, 0.8) for _ in range(40)]
        made = Conformal.of(videos[:12], FRAMES, strict=True)
        shares.append(np.mean([made.covered(video) for video in videos[12:]], axis=0))
    assert (np.mean(shares, axis=0) > 0.9).all() and (np.mean(shares, axis=0) < 0.9 + 2 / 13).all()


@given(st.integers(1, 60), st.integers(0, 5))
def test_of_one_score_each_it_is_the_order_statistic(count, seed):
    """With one point a video this is plain split conformal prediction: rank (K + 1) · level."""
    scores = np.random.default_rng(seed).permutation(count).astype(float)
    groups = [(scores[k : k + 1], np.ones(1)) for k in range(count)]
    level = count / (count + 1)
    assert hierarchical_quantile(groups, level) == hierarchical_quantile(groups, level, strict=True) == count - 1
    assert hierarchical_quantile(groups, min(0.999, level + 0.01)) == np.inf


@settings(max_examples=25)
@given(
    st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=12), min_size=1, max_size=30),
    st.integers(1, 99),
    st.booleans(),
)
def test_a_quantile_of_few_and_equal_scores(groups, percent, strict):
    """Ties and low levels, too: a score that is there, larger for a higher level; the share of all scores that lies at
    or below it is as promised, and not so for the score before it."""
    level = percent / 100
    kept = [(np.array(scores, float), np.full(len(scores), 1 / len(scores))) for scores in groups]
    found = hierarchical_quantile(kept, level, strict=strict)
    K = len(groups)
    assert np.isinf(found) == (K < least_videos(level))
    if np.isinf(found):
        return
    share = lambda score: np.mean([(values <= score).mean() for values, _ in kept])  # noqa: E731
    assert any(found in scores for scores in groups)
    assert found >= hierarchical_quantile(kept, level / 2, strict=strict)
    if strict:
        assert share(found) >= (K + 1) * level / K - 1e-6
        assert share(found - 1) < (K + 1) * level / K
    if all(len(set(scores)) == 1 for scores in groups):  # as plain split conformal prediction
        ordered, rank = sorted(scores[0] for scores in groups), (K + 1) * level
        assert ordered[max(int(rank + 1e-9) - 1, 0)] <= found <= ordered[min(int(np.ceil(rank - 1e-9)), K) - 1]


def test_a_low_level_is_no_high_one():
    """Rank 0 lies below every score, and is not the last one."""
    groups = [(np.arange(10.0) + k, np.full(10, 0.1)) for k in range(9)]
    found = [hierarchical_quantile(groups, level) for level in (0.01, 0.05, 0.1, 0.2)]
    assert found == sorted(found) and found[0] <= 2 and found[-1] <= 6


def test_what_does_not_count_changes_nothing():
    rng = np.random.default_rng(0)
    groups = [(rng.random(50), np.full(50, 1 / 50)) for _ in range(20)]
    more = [(np.append(values, np.inf), np.append(counts, 0.0)) for values, counts in groups]
    for strict in (False, True):
        assert hierarchical_quantile(groups, 0.9, strict=strict) == hierarchical_quantile(more, 0.9, strict=strict)


def test_every_clip_of_a_video_counts_alike():
    """One clip all inside, one all outside: half of the video is inside, however many points each has."""
    errors = np.concatenate([np.full((10, 3), 0.1), np.full((90, 3), 99.0)]) * np.array(FRAMES)
    video = VideoErrors(errors, None, np.repeat([0, 1], [10, 90]))
    made = Conformal.of([errors_of(np.random.default_rng(k), 0) for k in range(10)], FRAMES)
    assert made.covered(video, scaled=False) == pytest.approx(0.5)
    hidden = replace(video, errors=np.full_like(errors, np.nan))
    assert np.isnan(made.covered(hidden, scaled=False)).all()


def test_how_many_videos_a_level_needs(clips, refuses):
    assert [least_videos(level) for level in (0.5, 0.8, 0.9, 0.95, 0.99)] == [1, 4, 9, 19, 99]
    three = ClipList([clips[index] for index in range(3)], num_frames=4)
    with refuses("calibration: expected 9 videos or more, which regions of 90% need .* got 3, which can promise 75%"):
        Conformal.fit(Guess(), three, "all")
    with refuses("expected 9 or more, got 8 of 20 videos have points that can be seen in frame 2"):
        blind = [errors_of(np.random.default_rng(k), 0) for k in range(20)]
        for one in blind[8:]:
            one.errors[:, 1] = np.nan
        Conformal.of(blind, FRAMES)
    for level in (0, 1, 1.5):
        with refuses("level of regions: expected a share"):
            Conformal.of([], FRAMES, level)


def test_a_video_that_was_trained_on_is_refused(clips, refuses):
    seen = Guess(trained_on=("video_3", "elsewhere"))
    with refuses(r"calibration: expected videos that the model was not trained on, got 1 that it was \(video_3\)"):
        Conformal.fit(seen, clips, "all")
    silent = [dict(clips[0])]
    for sample in silent:
        sample.pop("video"), sample.pop("clip")
    with refuses("expected clips that say which video they are of"):
        Conformal.fit(seen, silent, "all")


def test_fitted_saved_and_loaded_beside_a_checkpoint(clips, tmp_path, refuses):
    guess = Guess()
    made = Conformal.fit(guess, clips, "all")
    assert set(made.videos) == {f"video_{k}" for k in range(24)} and made.size == SIZE and made.frames == FRAMES
    path = made.save(Conformal.beside(tmp_path / "best.pt"))
    assert path == tmp_path / "best.regions.json" and Conformal.load(path) == made
    images = clips[0].images((0,))
    with_regions = WithRegions(guess, Conformal.load(path))
    found = with_regions(images)
    assert found.radius is not None and not found.radius[:, 0].any() and not found.path_radius[:, 0].any()
    assert made.scaled is not None
    assert found.radius[0, :, 5, 5].tolist() == pytest.approx(
        [0, *(0.5 * f * r for f, r in zip(FRAMES, made.scaled.frames))]
    )
    one = WithRegions(guess, made, scaled=False)(images)
    assert one.radius[0, 2, 0, 0] == pytest.approx(2 * made.constant.frames[1])
    assert one.path_radius[0, 3, 0, 0] == pytest.approx(3 * made.constant.path)
    for spoilt in (
        {"format": "x"},
        {"frames": [1]},
        {"level": 2},
        {"constant": None},
        {"videos": 3},
        {"model": None, "size": "a"},
    ):
        path.write_text(json.dumps(json.loads(path.read_text()) | spoilt) if "format" not in spoilt else "{}")
        with refuses("best.regions.json: expected regions as"):
            Conformal.load(path)
        made.save(path)
    with refuses("expected those of this model"):
        WithRegions(Guess(unsure=0.7), made)
    with refuses(r"expected pictures of \(32, 48\)"):
        made.on(guess(torch.zeros(1, 1, 3, 16, 16)))
    with refuses("expected False for a predictor that gives no scale"):
        Conformal.fit(Guess(None), clips, "all").on(Guess(None)(images), scaled=True)
    with refuses("expected a prediction with log_scale"):
        made.on(Guess(None)(images))
    with refuses("expected frames among"):
        replace(made, frames=(1, 2), scaled=None, constant=replace(made.constant, frames=(1.0, 1.0))).on(guess(images))
    with refuses("split: expected clips of the split 'calibration', got those of 'test'"):
        Conformal.fit(guess, Held(clips))


def test_a_report_says_how_many_points_are_inside(clips, tmp_path, refuses):
    """What the report measures on the videos calibrated on is about what was promised; it refuses to, unless asked."""
    made = Conformal.fit(Guess(), clips, "all")
    methods = {"guess": WithRegions(Guess(), made), "still": ZeroMotion(4)}
    task = TrajectoryTask(scoring=ScoringConfig(rebuild=()))
    options = {"folder": tmp_path, "pictures": False, "progress": False}
    with refuses("'guess' was calibrated on 24 of the 24 videos"):
        evaluate(methods, task, clips, **options)
    report = evaluate(methods, task, clips, allow_leak=True, **options)
    errors, _ = measure_errors(Guess(), clips)
    inside = np.nanmean([made.covered(one)[:-1] for one in errors.values()])
    assert report.estimate("guess", "inside").mean == pytest.approx(inside, abs=0.03)
    assert 0.8 < report.estimate("guess", "path_inside").mean <= 1 and np.isnan(report.estimate("still", "inside").mean)
    assert report.estimate("guess", "expected_1").mean == pytest.approx(0.5 * 6**0.5)
    assert "Regions" in report.markdown()


def test_spread_adds_up_what_is_within_futures_and_between_them():
    moved = torch.zeros(1, 2, 1, 2, 4, 4)
    moved[:, 0, :, 0], moved[:, 1, :, 0] = 3.0, -1.0
    weights = torch.tensor([[0.25, 0.75]])
    found = TrajectoryPrediction.of_futures(moved, weights, torch.ones(1, 1, 4, 4), (1,), torch.zeros(1, 1, 4, 4))
    within, between = found.spread()
    assert within == pytest.approx(6**0.5) and between == pytest.approx((0.25 * 3**2 + 0.75 * 1) ** 0.5)
    assert not replace(found, futures=None, weights=None).spread()[1].any()


def test_guided_and_constant_velocity_are_calibrated(clips):
    for model in (GuidedTrajectories(num_frames=4, input_frames=(0, 1)).eval(), ConstantVelocity(num_frames=4)):
        made = Conformal.fit(model, clips, "all", level=0.8)
        assert (made.scaled is None) == isinstance(model, ConstantVelocity) and made.level == 0.8
        found = WithRegions(model, made)(clips[0].images((0, 1)))
        assert found.radius is not None and (found.path_radius >= found.radius - 1e-4).all()


def test_videos_are_kept_for_calibration(tmp_path, refuses):
    names = [f"v{k}" for k in range(30)]
    before = save_splits(tmp_path, names)
    kept = reserve_calibration(tmp_path, 9)
    after = load_splits(tmp_path, names)
    assert len(kept) == 9 and {name for name in names if after[name] == "calibration"} == set(kept)
    assert all(before[name] == "train" for name in kept) and "calibration" in PARTS
    assert {name: split for name, split in after.items() if name not in kept}.items() <= before.items()
    assert (
        reserve_calibration(tmp_path, 9) == reserve_calibration(tmp_path, 0) == reserve_calibration(tmp_path, 4) == kept
    )
    assert set(kept) < set(reserve_calibration(tmp_path, 12))
    more = load_splits(tmp_path, [*names, "new"])
    assert {name: more[name] for name in kept} == dict.fromkeys(kept, "calibration") and more["new"] != "calibration"
    with refuses("expected more than 18 videos for training, to keep 30 for calibration"):
        reserve_calibration(tmp_path, 30)
    with refuses("count: expected a number of videos"):
        reserve_calibration(tmp_path, -1)


def test_regions_of_a_dataset_lie_beside_the_checkpoint_and_are_made_once(tmp_path, refuses, capsys):
    """Without videos for calibration nothing changes; too few are refused; then they are made, kept and shown."""
    from flowlib.models.baselines import OracleTracks
    from flowlib.notebook_views import predictors_viewer, spread_figure

    root = write_dataset(tmp_path / "data", shards=14)
    TrajectoryDataset(root, "train")
    methods = {"model": Guess(), "sure": Guess(0.1), "oracle": OracleTracks()}
    options = {"folder": tmp_path / "report", "about": {"model": {"path": str(tmp_path / "best.pt")}}}
    same, sentence = with_regions(methods, open_calibration(root), 0.8, **options)
    assert same == methods and "80% needs 4 or more" in sentence
    assert with_regions(methods, open_calibration(root), 0, **options) == (methods, "No regions were asked for.")
    with refuses("level of regions: expected a share between 0 and 1, such as 0.9, got 90"):
        with_regions(methods, open_calibration(root), 90, **options)
    reserve_calibration(root, 3)
    with refuses("model: calibration: expected 4 videos or more, which regions of 80% need .*regions = 0"):
        with_regions(methods, open_calibration(root), 0.8, **options)
    reserve_calibration(root, 5)
    made, sentence = with_regions(methods, open_calibration(root), 0.8, **options)
    assert "calibrated on 5 videos" in sentence and made["oracle"] is methods["oracle"]
    paths = [tmp_path / "best.regions.json", tmp_path / "report" / "sure.regions.json"]
    before = [path.stat().st_mtime_ns for path in paths]
    assert list(made["model"].regions.videos) == list(Conformal.load(paths[0]).videos)
    assert set(made["model"].regions.videos) == set(TrajectoryDataset(root, "calibration").videos)
    with_regions(methods, open_calibration(root), 0.8, **options)
    assert [path.stat().st_mtime_ns for path in paths] == before
    with_regions(methods | {"sure": Guess(0.2)}, open_calibration(root), 0.8, **options)
    assert [path.stat().st_mtime_ns for path in paths] != before, "another model has regions of its own"
    test = TrajectoryDataset(root, "test")
    figure = spread_figure(made, test, 0)
    assert figure is not None
    titles = " ".join(ax.get_title() for ax in figure.axes)
    assert "of the doubt" not in titles, "the two see the same frame: nothing goes with a second one"
    two = Guess(0.1)
    two.input_frames = (0, 1)
    figure = spread_figure({"model": Guess(), "two": two}, test, 0)
    assert figure is not None
    titles = [ax.get_title() for ax in figure.axes]
    assert "80 % of the doubt of “model” goes" in titles and "two\nsees frames 0 and 1" in " ".join(titles)
    viewer = predictors_viewer(made, test, [0])
    radii = [one.radii for one in viewer._scene.sets]
    assert radii[0] is None and radii[3] is None and (radii[1][0] == 0).all() and (radii[1][3] > 0).all()
    assert spread_figure({"still": ZeroMotion(4)}, test, 0) is None and "None of these" in capsys.readouterr().out


def test_regions_are_made_anew_for_other_labels_and_another_model(tmp_path, refuses):
    """What was kept beside a checkpoint is used for the same weights and the same labels only."""
    root, again = (write_dataset(tmp_path / name, shards=14, seed=seed) for name, seed in (("data", 0), ("more", 0)))
    for one in (root, again):
        TrajectoryDataset(one, "train")
        reserve_calibration(one, 5)
    path = tmp_path / "best.regions.json"
    options = {"folder": tmp_path / "report", "about": {"model": {"path": str(tmp_path / "best.pt")}}}

    class Network(torch.nn.Module):
        input_frames = (0,)

        def __init__(self) -> None:
            super().__init__()
            self.sure = torch.nn.Parameter(torch.tensor(0.5))

        def forward(self, images):
            return Guess(float(self.sure))(images)

    model = Network()
    first = with_regions({"model": model}, open_calibration(root), 0.8, **options)[0]["model"].regions
    assert first.labels and first == Conformal.load(path)
    seen = path.stat().st_mtime_ns
    with_regions({"model": model}, open_calibration(root), 0.8, **options)
    assert path.stat().st_mtime_ns == seen
    agreed = open_calibration(root, again, tolerance=1.0)  # the same videos and clips, other labels
    assert dict(first.videos) == with_regions({"model": model}, agreed, 0.8, **options)[0]["model"].regions.videos
    second = Conformal.load(path)
    assert second.labels != first.labels
    with torch.no_grad():
        model.sure += 0.25  # trained further
    with refuses("expected those of this model"):
        WithRegions(model, second)
    assert with_regions({"model": model}, agreed, 0.8, **options)[0]["model"].regions.model != second.model
    old = json.loads(path.read_text())
    del old["labels"]  # as the first ones were saved
    path.write_text(json.dumps(old))
    assert not Conformal.load(path).labels
    with_regions({"model": model}, agreed, 0.8, **options)
    assert Conformal.load(path).labels
    path.write_text("{}")
    with refuses("best.regions.json: expected regions as .* delete them to calibrate anew"):
        with_regions({"model": model}, agreed, 0.8, **options)


def test_a_copy_of_a_calibration_video_is_found(tmp_path, refuses):
    """Under another name and fingerprint, darker: in the test part or in the training part."""
    copy = sample_of(3)
    copy = replace(copy, clip=replace(copy.clip, video="renamed", fingerprint="f" * 64), frames=copy.frames // 2)
    own = [sample_of(seed) for seed in range(10)]
    made = WithRegions(Guess(), Conformal.fit(Guess(), ClipList(own), "all"))
    task = TrajectoryTask(scoring=ScoringConfig(rebuild=()))
    options = {"folder": tmp_path, "pictures": False, "progress": False, "calibration": ClipList(own)}
    test, train = ClipList([sample_of(seed) for seed in (20, 21)]), ClipList([sample_of(seed) for seed in (22, 23)])
    report = evaluate({"guess": made}, task, test, train=train, **options)
    assert not report.warnings
    with refuses("1 clips to test on have a near-duplicate among those to calibrate on: renamed .* looks like video_3"):
        evaluate({"guess": made}, task, ClipList([sample_of(20), copy]), train=train, **options)
    with refuses(
        "1 clips to calibrate on have a near-duplicate among those to train on: video_3 .* looks like renamed"
    ):
        evaluate({"guess": made}, task, test, train=ClipList([sample_of(22), copy]), **options)


def test_a_method_that_predicts_some_frames_only_has_regions_of_these(clips, refuses):
    """And one that takes an action is told the same as without regions."""

    class Some(Guess):
        num_actions = 2

        def __call__(self, images, actions=None):
            assert actions is not None and actions.shape == (1, 2)
            whole = super().__call__(images)
            later = [0, 2, 3]
            parts = {"displacement": whole.displacement[:, later], "log_scale": whole.log_scale[:, later]}
            return TrajectoryPrediction(parts["displacement"], torch.ones(1, 3, *SIZE), (0, 2, 3), parts["log_scale"])

    acted = ClipList(
        [replace(clips[index], action=np.eye(2, dtype=np.float32)[index % 2]) for index in range(10)], num_frames=4
    )
    made = Conformal.fit(Some(), acted, "all")
    assert made.frames == (2, 3) and made.scaled is not None and len(made.scaled.frames) == 2
    found = WithRegions(Some(), made)(clips[0].images((0,)), torch.full((1, 2), 0.5))
    assert found.radius is not None and found.radius.shape == (1, 3, *SIZE)
