"""What notebooks show: the right clip, the right numbers in the viewer, and figures that have something on them."""

import json

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest

from flowlib import notebook_views, sources
from flowlib.dataset import TrajectoryDataset
from flowlib.evaluation import evaluate
from flowlib.geometry import pixel_grid
from flowlib.labelling import LabelConfig, label, make_plan
from flowlib.models.baselines import ConstantVelocity, OracleTracks, ZeroMotion
from flowlib.synthetic import random_scene
from flowlib.tasks.trajectories import TrajectoryTask
from flowlib.tracks import Tracks
from flowlib.video import encode_image
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


def test_points_that_are_lost_count_as_still():
    """Clip 0 moves 50 px and is lost at the end; clip 1 moves 5 px, all seen; clip 2 stands still."""

    class Three(TrajectoryDataset):
        def __init__(self):
            self.entries = [None] * 3

        def tracks(self, index):
            still = Tracks.still(np.zeros((4, 3)), 5)
            moved = still.tracks + np.linspace(0, (50, 5, 0)[index], 5)[:, None, None].astype(np.float32)
            seen = np.ones((5, 4), bool)
            seen[-1] = index != 0
            return Tracks(moved, seen, still.queries)

    assert notebook_views.highest_motion(Three()) == 1
    assert notebook_views.highest_motion_clips(Three(), 1).indices == [1]


def test_curves_are_those_of_the_run(tmp_path):
    lines = [{"step": 1, "ade": 4.0}, {"step": 2, "ade": 3.0}, {"step": 2, "validation_ade": 5.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    drawn = {line.get_label(): list(line.get_ydata()) for line in notebook_views.curves(tmp_path).lines}
    assert drawn == {"training": [4.0, 3.0], "validation": [5.0]}


def test_a_viewer_is_saved_as_a_page(folder, tmp_path, capsys):
    path = notebook_views.save_viewer(notebook_views.label_viewer(folder), tmp_path, "labels")
    assert (
        path == tmp_path / "labels.html" and "<html" in path.read_text()[:500] and str(path) in capsys.readouterr().out
    )


def test_labels_are_shown(folder, tmp_path):
    viewer = notebook_views.label_viewer(folder)
    assert (viewer.num_frames, viewer.num_points) == (4, 36) and "v1, frame 0" in viewer._header["title"]
    figure = notebook_views.label_sheet(folder)
    assert [ax.get_title() for ax in figure.axes] == ["v0, frame 3", "v1, frame 3", "v2, frame 3"]


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


def test_the_figure_has_a_row_for_each_predictor(folder):
    dataset = TrajectoryDataset(folder, split="all")
    figure = notebook_views.prediction_figure({"zero": ZeroMotion(4), "oracle": OracleTracks()}, dataset)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[0].startswith("zero") and titles[3].startswith("oracle") and "PSNR" in titles[1]


def test_thinning_keeps_a_lattice():
    side = 100
    y, x = np.mgrid[:side, :side]
    tracks = Tracks.still(np.stack([0 * x, x, y], axis=-1).reshape(-1, 3).astype(float), 2)
    thin = notebook_views.thinned(tracks)
    assert thin.num_points <= notebook_views.MOST_POINTS and len(np.unique(thin.queries[:, 1])) ** 2 == thin.num_points
    odd = tracks.points(slice(0, 9_999))
    assert notebook_views.thinned(odd).num_points <= notebook_views.MOST_POINTS
    assert notebook_views.thinned(thin) is thin
    wide = Tracks.still(np.insert(pixel_grid((90, 160)).reshape(-1, 2), 0, 0, axis=1), 2)
    x, y = (np.unique(notebook_views.thinned(wide).queries[:, axis]) for axis in (1, 2))
    assert len(x) * len(y) == notebook_views.thinned(wide).num_points and {*np.diff(x), *np.diff(y)} == {4}


def test_own_pictures_are_predicted_on(folder, tmp_path, refuses):
    dataset = TrajectoryDataset(folder, split="all")
    (tmp_path / "a.png").write_bytes(encode_image(np.full((60, 90, 3), 80, np.uint8), "webp"))
    (tmp_path / "b.jpg").write_text("no picture")
    two_frames = ConstantVelocity(num_frames=4, input_frames=(0, 1))
    for pictures in ("", f"{tmp_path}/a.png", f"{tmp_path}/a.png, {tmp_path}/a.png"):
        figure = notebook_views.predict_pictures(two_frames, pictures, (48, 64), dataset=dataset)
        assert figure.axes[0].images[0].get_array().shape == (48, 64, 3)
    with refuses("b.jpg is none"):
        notebook_views.predict_pictures(two_frames, f"{tmp_path}/b.jpg", (48, 64))
    with refuses("found nothing at", FileNotFoundError):
        notebook_views.predict_pictures(two_frames, f"{tmp_path}/c.jpg", (48, 64))
    with refuses("expected 1, for frames .0,., got 2|expected 1 or 1"):
        notebook_views.predict_pictures(ZeroMotion(4), f"{tmp_path}/a.png,{tmp_path}/a.png", (48, 64))


def test_neither_pictures_nor_a_dataset_is_said_so(refuses):
    with refuses("pictures: expected files, or a dataset to take the frames of a clip from, got neither"):
        notebook_views.predict_pictures(ZeroMotion(4), "", (48, 64))


def test_errors_are_drawn_by_frames_ahead(folder, tmp_path):
    dataset = TrajectoryDataset(folder, split="all")
    report = evaluate(
        {"zero": ZeroMotion(4)}, TrajectoryTask(), dataset, folder=tmp_path, pictures=False, progress=False
    )
    (line,) = notebook_views.error_figure(report).lines
    np.testing.assert_allclose(line.get_ydata()[1:], [report.overall["zero"][f"epe_{i}"].mean for i in (1, 2, 3)])
