"""What notebooks show: the right clip, the right numbers in the viewer, and figures that have something on them."""

import json

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from torch.utils.data import Subset

from flowlib import notebook_views, sources
from flowlib.clips import Clip, ClipSample
from flowlib.colours import mark_holes
from flowlib.dataset import TrajectoryDataset
from flowlib.evaluation import evaluate
from flowlib.labelling import LabelConfig, label, make_plan
from flowlib.models.baselines import ConstantVelocity, ManyGains, OracleTracks, ZeroMotion, all_baselines
from flowlib.models.guided import GuidedTrajectories
from flowlib.synthetic import random_scene
from flowlib.tasks.trajectories import TrajectoryTask
from flowlib.tracks import Tracks
from flowlib.workspace import Workspace


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("views")
    for number, motion in enumerate(("still", "linear", "still")):
        scene = random_scene(4, (48, 64), seed=number, motion="still", camera=motion)
        sources.write_scene(root / "videos" / f"v{number}.mkv", scene)
    size = {"height": 48, "width": 64}
    config = LabelConfig(frames=4, grid=6, **size, tracker="exact", encoding="webp", skip_still=False)
    return label(make_plan(root / "videos", config), Workspace(root), progress=False).folder


def test_the_clip_with_the_highest_motion_is_the_one_that_moves(folder):
    dataset = TrajectoryDataset(folder, split="all")
    assert dataset.clips[notebook_views.highest_motion(dataset)].video == "v1"
    assert [one["video"] for one in notebook_views.highest_motion_clips(dataset, 2)][0] == "v1"


class Clips(TrajectoryDataset):
    """Clips of given motion (px), share of points that stay in sight, and blur (px) of two thirds of their pictures."""

    def __init__(self, *clips: tuple[float, float, float]):
        self.kinds, self.entries = clips, [None] * len(clips)

    def tracks(self, index):
        motion, share, _ = self.kinds[index]
        still = Tracks.still(np.zeros((20, 3)), 5)
        moved = still.tracks + np.linspace(0, motion, 5)[:, None, None].astype(np.float32)
        seen = np.ones((5, 20), bool)
        seen[-1] = np.arange(20) < 20 * share
        return Tracks(moved, seen, still.queries)

    def __getitem__(self, index):
        frame, blur = np.random.default_rng(0).integers(0, 256, (32, 48, 3)).astype(float), self.kinds[index][2]
        frame[:, :32] = gaussian_filter(frame[:, :32], (blur, blur, 0))
        frames = np.stack([np.pad(frame.astype(np.uint8), ((16, 16), (0, 0), (0, 0)))] * 5)  # with black bars
        return ClipSample(Clip.named(str(index), frames), frames, self.tracks(index))


def test_points_that_are_lost_count_as_still():
    clips = Clips((50, 0, 0), (5, 1, 0), (0, 1, 0))
    assert notebook_views.highest_motion(clips) == 1
    assert notebook_views.highest_motion_clips(clips, 1).indices == [1]


def test_a_clip_that_can_be_judged_goes_before_one_that_moves_more():
    lost, blurred, clear, calm = (90, 0.5, 0), (30, 1, 3), (20, 0.9, 0), (2, 1, 0)
    assert notebook_views.highest_motion_clips(Clips(lost, blurred, clear, calm), 3).indices == [2, 3, 0]
    assert notebook_views.highest_motion(Clips(lost, (80, 0.5, 0))) == 0, "where none can be judged, the motion decides"
    assert notebook_views.highest_motion(Clips((10, 1, 3), (20, 1, 3))) == 1, "of a dataset all of whose clips are soft"


def test_all_clips_are_taken_if_all_are_asked_for():
    assert list(notebook_views.highest_motion_clips(Clips(*[(1, 1, 0)] * 150), 150).indices) == list(range(150))
    assert len(notebook_views.highest_motion_clips(Clips(*[(1, 1, 0)] * 150), 149)) == 149


def test_curves_are_those_of_the_run(tmp_path):
    lines = [{"step": 1, "ade": 4.0}, {"step": 2, "ade": 3.0}, {"step": 2, "validation_ade": 5.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    drawn = {line.get_label(): list(line.get_ydata()) for line in notebook_views.curves(tmp_path).lines}
    assert drawn == {"training": [4.0, 3.0], "validation": [5.0]}


def test_the_error_of_saying_that_nothing_moves_is_a_line(folder, tmp_path):
    dataset = TrajectoryDataset(folder, split="all")
    report = evaluate(
        {"zero": ZeroMotion(4)}, TrajectoryTask(), Subset(dataset, [1]), folder=tmp_path, pictures=False, progress=False
    )
    error = notebook_views.motionless_error(Subset(dataset, [1]))
    assert error == pytest.approx(report.estimate("zero", "ade").mean, rel=1e-5) and error > 0.5
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "ade": 4.0}\n')
    *_, level = notebook_views.curves(tmp_path, compared=Subset(dataset, [1])).lines
    assert level.get_label() == "zero motion" and set(level.get_ydata()) == {error}


def test_a_viewer_is_saved_as_a_page(folder, tmp_path, capsys):
    path = notebook_views.save_viewer(notebook_views.label_viewer(folder), tmp_path, "labels")
    assert (
        path == tmp_path / "labels.html" and "<html" in path.read_text()[:500] and str(path) in capsys.readouterr().out
    )


def test_labels_are_shown(folder, tmp_path):
    viewer = notebook_views.label_viewer(folder)
    assert (viewer.num_frames, viewer.num_points) == (4, 36) and "v1, frame 0" in viewer._header["title"]
    figure = notebook_views.label_sheet(folder)
    assert [ax.get_title() for ax in figure.axes[:3]] == [f"v{i}, frames 0 to 3" for i in range(3)]
    assert figure.axes[-1].get_ylabel() == "how far a point went, px"
    still, moving = (ax.collections[1].get_facecolors() for ax in figure.axes[:2])
    assert len(np.unique(still, axis=0)) == 1 and np.abs(moving - still[0]).max() > 0.3, "coloured by how far"


def test_nothing_labelled_is_said_not_raised(tmp_path, capsys):
    assert notebook_views.label_viewer(tmp_path) is None and notebook_views.label_sheet(tmp_path) is None
    assert "nothing is labelled yet" in capsys.readouterr().out


def test_the_viewer_shows_truth_prediction_and_rebuilt_frames(folder):
    dataset = TrajectoryDataset(folder, split="all")
    viewer = notebook_views.prediction_viewer(ZeroMotion(4), dataset, name="zero motion")
    scene = viewer._scene
    np.testing.assert_array_equal(scene.truth.tracks, dataset.tracks(1).tracks)
    np.testing.assert_array_equal(scene.prediction.displacement, 0)
    assert tuple(scene.names) == ("labels", "zero motion") and len(scene.rebuilt) == 4


def test_one_viewer_shows_several_clips_and_predictors(folder):
    dataset = TrajectoryDataset(folder, split="all")
    methods = {"zero": ZeroMotion(4), "oracle": OracleTracks()}
    viewer = notebook_views.predictors_viewer(methods, dataset, [1, 0])
    assert viewer._scene.names == ("labels", "zero", "oracle") and len(viewer._header["clips"]) == 2
    np.testing.assert_array_equal(viewer._scene.truth.tracks, dataset.tracks(1).tracks)
    zero, oracle = (one.tracks for one in viewer._scene.sets[1:])
    np.testing.assert_array_equal(zero.displacement, 0)
    seen = viewer._scene.truth.visibility
    assert np.abs(oracle.tracks - viewer._scene.truth.tracks)[seen].max() < 0.1
    assert all(one.rebuilt is not None and len(one.rebuilt) == 4 for one in viewer._scene.sets[1:])
    named = notebook_views.predictors_viewer(methods, dataset, {"Best": 1, "Median": 0, "Most motion": 1})
    titles = [clip["title"] for clip in named._header["clips"]]
    assert [title.partition(":")[0] for title in titles] == ["Best", "Median"], "each clip once"
    assert titles[0].endswith(viewer._header["clips"][0]["title"])


def test_viewers_play_the_futures_of_methods_that_give_several(folder):
    dataset = TrajectoryDataset(folder, split="all")
    several = ManyGains(ConstantVelocity(num_frames=4, input_frames=(0, 1)), (1.0, 0.5, 0.0), [0.5, 0.3, 0.2])
    both = notebook_views.predictors_viewer({"several": several, "zero": ZeroMotion(4)}, dataset, [0])
    one = notebook_views.prediction_viewer(several, dataset, 0)
    for viewer in (both, one):
        shown = viewer._scene.sets[1]
        assert len(shown.futures) == 3 and shown.weights == pytest.approx([0.5, 0.3, 0.2])
        moved, half, still = (future.displacement for future in shown.futures)
        np.testing.assert_allclose(half, moved / 2, atol=1e-3)
        np.testing.assert_array_equal(still, 0)
        np.testing.assert_allclose(shown.tracks.displacement, moved, atol=1e-3)
        viewer.future = "weighted"
    assert both._scene.sets[2].futures == ()


def test_a_viewer_has_methods_that_look_at_the_clip(folder):
    train = TrajectoryDataset(folder, split="all")
    model = GuidedTrajectories(num_frames=4)
    chosen = notebook_views.of_the_clip({"mine": model} | all_baselines(train, num_frames=4, input_frames=(0, 3)))
    assert list(chosen) == ["mine", "constant velocity (DIS)", "the tracks themselves"]


def test_the_figure_has_a_row_for_each_predictor(folder):
    dataset = TrajectoryDataset(folder, split="all")
    figure = notebook_views.prediction_figure({"zero": ZeroMotion(4), "oracle": OracleTracks()}, dataset)
    titles = [ax.get_title() for ax in figure.axes]
    assert "the labels" in titles[0] and titles[3].startswith("zero: ") and titles[6].startswith("oracle: 0.0 px")
    assert "dB where covered" in titles[4]
    assert [bool(ax.get_legend()) for ax in figure.axes[::3]] == [False, True, False]
    answer = TrajectoryTask().ask(OracleTracks(), dataset[notebook_views.highest_motion(dataset)], "oracle")
    rebuilt = answer.case.rebuild(answer.prediction, 3, "frame")
    assert not rebuilt.covered.all()
    np.testing.assert_array_equal(figure.axes[7].images[0].get_array(), mark_holes(rebuilt.frame, rebuilt.covered))


def test_errors_are_drawn_by_frames_ahead(folder, tmp_path):
    dataset = TrajectoryDataset(folder, split="all")
    report = evaluate(
        {"zero": ZeroMotion(4)}, TrajectoryTask(), dataset, folder=tmp_path, pictures=False, progress=False
    )
    (line,) = notebook_views.error_figure(report).lines
    np.testing.assert_allclose(line.get_ydata()[1:], [report.overall["zero"][f"epe_{i}"].mean for i in (1, 2, 3)])
