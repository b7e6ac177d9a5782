"""What the notebooks of hands show: sheets, tables, priors, lists of settings, the cost of a centre, viewers."""

from dataclasses import replace

import numpy as np
import pytest
from fixtures.hands import CROP, hand_frames, hand_sequences, hand_store  # noqa: F401
from fixtures.pose import tiny_pose_net

from flowlib import hand_views
from flowlib.hands import HandCollection
from flowlib.hands.actions import ActionConfig
from flowlib.hands.augment import HandAugment
from flowlib.hands.crop import CropConfig, pixels_of
from flowlib.hands.dataset import HandSequences
from flowlib.hands.synthetic import SyntheticConfig, SyntheticHands
from flowlib.tasks.hand_pose import PoseTask
from flowlib.training import TrainConfig

TASK = PoseTask(pca_draws=500)


@pytest.fixture
def model(hand_frames):
    net = tiny_pose_net()
    TASK.prepare(net, hand_frames)
    return net.eval()


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", None),
        ("none", None),
        (" rot ,trans", HandAugment(modes=("rot", "trans"))),
        ("none,rot 30, scale 0.1", HandAugment(modes=("none", "rot", "scale"), angle=30, scale=0.1)),
    ],
)
def test_augmentation_is_read_from_text(text, expected):
    assert hand_views.parse_augment(text) == expected


@pytest.mark.parametrize("text", ["none 3", "rot 30 40", "rot far", "rot 1.2.3", "turn", "none,turn"])
def test_a_strength_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="augment: expected modes like 'none,rot 30,scale 0.1,trans 5', got"):
        hand_views.parse_augment(text)


def test_cubes_are_read_from_text():
    assert hand_views.parse_cubes("180, 200.5,") == (180.0, 200.5) and hand_views.parse_cubes("") == ()
    with pytest.raises(ValueError, match="cubes: expected numbers by comma like '180,200', got '180;200'"):
        hand_views.parse_cubes("180;200")


def test_joints_are_drawn_where_they_are_seen(hand_frames):
    for index in (0, 20):
        sample = hand_frames[index]
        seen = pixels_of(*(sample[name].numpy() for name in ("joints", "rotation", "intrinsics")))
        seen = seen[sample["visible"].numpy()]
        x, y = np.round(seen.clip(0, 31)).astype(int).T
        inside = ((seen >= 0) & (seen <= 31)).all(axis=1)
        assert (sample["crop"][0].numpy()[y, x] < 1)[inside].mean() > 0.9, "a seen joint lies on the hand"


def test_the_sheet_has_a_picture_for_each_moment(hand_frames):
    ax = hand_views.hand_sheet(hand_frames, 5)
    assert len(ax.images) == 5


def test_the_share_outside_falls_with_the_cube(hand_frames):
    with pytest.warns(UserWarning, match="of joints lie outside a cube of 100 mm"):
        table = hand_views.outside_table(hand_frames, (100.0, 250.0))
    lines = table.splitlines()
    first, last = (float(line.split("|")[2].strip().rstrip("%")) for line in lines[2:])
    assert first > 20 and last < first


def test_the_prior_leaves_the_less_the_more_components_it_has(hand_frames, capsys):
    ax = hand_views.prior_figure(hand_frames, 10)
    floors = ax.lines[0].get_ydata()
    assert floors[-1] < 0.1 and all(a >= b - 0.2 for a, b in zip(floors, floors[1:])) and floors[0] > 10
    assert f"{floors[10]:.2f} mm" in capsys.readouterr().out


def test_lists_are_tried_with_every_seed_and_found_done(hand_store, tmp_path):
    config = TrainConfig("list", steps=1, batch_size=4, optimizer="adam", num_workers=0, device="cpu")
    options = {"cubes": "200,210", "augments": "none;rot", "seeds": 2, "runs": tmp_path}
    shape = {key: value for key, value in tiny_pose_net().config.items()}
    table = hand_views.try_settings(hand_store, CROP, shape, TASK, config, **options)
    assert len(table) == 8 and {row["status"] for row in table.rows} == {"done"}
    spread = table.spread("cube", "augment")
    assert [(row["cube"], row["augment"], row["runs"]) for row in spread.rows] == [
        (200, "none", 2), (200, "rot", 2), (210, "none", 2), (210, "rot", 2)
    ]  # fmt: skip
    for row in spread.rows:
        assert row["lowest"] <= row["mean_best_mpjpe"] <= row["highest"]
    changed = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("last.pt")}
    hand_views.try_settings(hand_store, CROP, shape, TASK, config, **options)
    assert changed == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("last.pt")} and len(changed) == 8


def test_without_a_list_nothing_is_tried(hand_store, tmp_path, capsys):
    assert hand_views.try_settings(hand_store, CROP, {}, TASK, TrainConfig(), runs=tmp_path) is None
    assert "no list to try" in capsys.readouterr().out and not list(tmp_path.iterdir())


def test_the_cost_of_a_centre_is_paired_by_sequence(model, hand_store, tmp_path):
    cost = hand_views.centre_cost(model, TASK, hand_store, CROP, tmp_path)
    truth, estimated = (cost.reports[name] for name in ("truth", "estimated"))
    expected = np.mean(estimated.values("model", "mpjpe") - truth.values("model", "mpjpe"))
    assert cost.extra.mean == pytest.approx(expected) and cost.extra.has_interval
    assert f"{expected:+.1f}" in repr(cost) and "no truth" in estimated.summary()[-1]


def test_a_stored_sequence_is_the_one_that_was_read(hand_store):
    sequences = HandSequences(hand_store, "test", replace(CropConfig(), size=32))
    take, sample = sequences.sequence(0), sequences[0]
    assert take.key == sample["key"] and np.array_equal(take.joints, sample["joints"]) and take.visible is not None
    depth = take.depth(3)
    x, y, _ = np.round(take.camera.project(take.joints[3][take.visible[3]])).astype(int).T
    measured = depth[y, x]
    assert (measured > 0).mean() > 0.8 and abs(np.median(measured) - np.median(take.joints[3][:, 2])) < 60


def test_a_viewer_shows_the_truth_and_every_method(model, hand_sequences):
    viewer = hand_views.hand_viewer({"model": model}, hand_sequences, 1, TASK)
    assert viewer.num_sets == 2 and viewer.num_frames == len(hand_sequences[1]["joints"])


def test_it_is_said_how_far_hidden_joints_can_be_known():
    hands = SyntheticHands(SyntheticConfig(subjects=3, takes=1, actions=ActionConfig(families=1)))
    known = hands.expected_gain("test")
    assert f"{known.without:.1f} mm off without the action, {known.action:.1f} mm" in hand_views.hidden_limit(hands)
    others = HandCollection(hands.sequences, hands.splits, hands.actions)
    assert "not known of these hands" in hand_views.hidden_limit(others)
