"""What the notebook of actions shows: poses by where they come from, tables, noise, three ways, drift, attention."""

import numpy as np
import pytest
import torch
from fixtures.actions import action_task, few_hands, test_poses, train_poses  # noqa: F401
from fixtures.hands import CROP, hand_frames, hand_store  # noqa: F401
from fixtures.pose import tiny_pose_net
from torch.utils.data import Subset

from flowlib import action_views
from flowlib.evaluation import evaluate
from flowlib.models.actions import MODES, ActionLSTM
from flowlib.sources import write_scene
from flowlib.synthetic import action_scene
from flowlib.tasks.action import ActionTask
from flowlib.tasks.hand_pose import PoseTask
from flowlib.training import TrainConfig, fit
from flowlib.workspace import write_json

CONFIG = TrainConfig(
    "small", 4, 4, optimizer="amsgrad", weight_decay=0.0, clip="none", device="cpu", num_workers=0, validate_every=2
)


def net(seed: int = 0, **options) -> ActionLSTM:
    torch.manual_seed(seed)
    return ActionLSTM(63, 4, hidden=12, **options).eval()


@pytest.fixture(scope="module")
def pose_runs(hand_store, tmp_path_factory):  # noqa: F811
    """A folder of runs with one pose network that was trained for a step."""
    from flowlib.hands.dataset import HandFrames

    runs, frames = tmp_path_factory.mktemp("runs"), Subset(HandFrames(hand_store, "train", CROP), range(20))
    config = TrainConfig("pose", 1, 4, device="cpu", num_workers=0)
    fit(tiny_pose_net(), PoseTask(pca_draws=100), frames, None, config, folder=runs / "20260101-000000_pose")
    return runs


def test_videos_in_folders_are_sequences_of_tracks(tmp_path, capsys, refuses):
    for seed in range(3):
        for action in ("left", "right"):
            scene = action_scene(action, 5, (48, 64), seed)
            write_scene(tmp_path / "videos" / action / f"scene_{seed}.mkv", scene)
    given = {"folder": tmp_path / "videos", "tracker": "exact"}
    parts = action_views.open_sequences("tracks", tmp_path / "store", **given)
    assert [one.split for one in parts] == ["train", "val", "test"] and [len(one) for one in parts] == [2, 2, 2]
    assert "left: 3 videos (1 train, 1 val, 1 test)" in capsys.readouterr().out
    train, _, test = action_views.open_sequences("tracks", tmp_path / "store", **given, max_frames=3)
    assert len(train[0]["vectors"]) == 3
    model = action_views.action_net(train, hidden=8)
    assert model.config["inputs"] == train.inputs == 160 and model.num_actions == 2
    task = ActionTask(actions=train.actions)
    assert action_views.noise_of(model, task, test, "0,5", tmp_path) is None
    assert "no joints to move" in capsys.readouterr().out
    with refuses("nowhere.pth", FileNotFoundError):
        given_raft = {"folder": tmp_path / "videos", "tracker": "raft", "weights": "/nowhere.pth"}
        action_views.open_sequences("tracks", tmp_path / "store", **given_raft)
    with refuses("scenes: expected 3 or more, one for each split, got 2"):
        action_views.open_sequences("tracks", tmp_path / "store", scenes=2)
    write_scene(tmp_path / "videos" / "up" / "scene_0.mkv", action_scene("up", 5, (48, 64)))
    action_views.open_sequences("tracks", tmp_path / "store", **given)
    told = capsys.readouterr().out
    assert "no sequence to test on of up: not counted" in told and "to learn from" not in told
    write_json(tmp_path / "store" / "sequences" / "up" / "splits.json", {"scene_0": "test"})
    action_views.open_sequences("tracks", tmp_path / "store", **given)
    assert "no sequence to learn from of up: never named right" in capsys.readouterr().out
    with refuses("source: expected one of hands, tracks, got 'videos'"):
        action_views.open_sequences("videos", tmp_path)


def test_the_built_in_motions_are_rendered_where_no_folder_is_given(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(action_views, "write_actions", lambda folder, **options: asked.append(options) or folder)
    with pytest.raises(FileNotFoundError, match="nothing at .*videos"):
        action_views.open_sequences("tracks", tmp_path, scenes=7)
    assert asked == [{"count": 7, "progress": action_views.Progress}]


def test_a_network_for_hands_knows_their_skeleton(hand_store):
    train, _, test = action_views.open_sequences("hands", hand_store, max_frames=5)
    model = action_views.action_net(train, hidden=8, features="root")
    assert model.config["inputs"] == 63 and model.config["skeleton"] == train.skeleton.name
    assert len(test[0]["pose"]) == 5


def test_true_poses_are_those_of_the_store(hand_store):
    train, validation, test = action_views.open_actions(hand_store, max_frames=5)
    assert [one.split for one in (train, validation, test)] == ["train", "val", "test"]
    assert all(len(sample["pose"]) == 5 for sample in train)


def test_found_poses_are_made_once_and_told_of(hand_store, pose_runs, capsys):
    parts = action_views.open_actions(hand_store, "pose", runs=pose_runs)
    told = capsys.readouterr().out
    assert told.count("mm from the truth") == 3 and parts[2].poses_from.startswith("joints that the run 'pose' found")
    kept = {path: path.stat().st_mtime_ns for path in (hand_store / "poses").iterdir()}
    again = action_views.open_actions(hand_store, "pose", runs=pose_runs)
    assert kept == {path: path.stat().st_mtime_ns for path in (hand_store / "poses").iterdir()} and len(kept) == 6
    assert torch.equal(parts[2][0]["pose"], again[2][0]["pose"]) and parts[2].config == CROP
    true = action_views.open_actions(hand_store)[2]
    error = action_views.joint_error(true, {sample["key"]: sample["pose"].numpy() for sample in parts[2]})
    assert f"test: joints {error:.1f} mm" in told
    with pytest.raises(FileNotFoundError, match="run: expected a run called 'other' with a checkpoint"):
        action_views.open_actions(hand_store, "other", runs=pose_runs)


def test_a_run_of_actions_gives_no_poses(hand_store, action_task, train_poses, tmp_path):
    fit(net(), action_task, train_poses, None, CONFIG, folder=tmp_path / "20260101-000000_action")
    with pytest.raises(ValueError, match="poses: expected a run trained on hands, got .*, of a ActionTask"):
        action_views.open_actions(hand_store, "action", runs=tmp_path)


def test_the_table_has_intervals_and_tests_against_the_main_method(action_task, train_poses, test_poses, tmp_path):
    methods = action_views.action_methods(net(), action_task, train_poses)
    assert list(methods) == ["model", "nearest sequence", "last frame", "majority"]
    report = evaluate(methods, action_task, test_poses, folder=tmp_path, progress=False)
    head, _, *rows = action_views.accuracy_table(report).splitlines()
    assert head.count("|") == rows[0].count("|") == 7 and len(rows) == 4
    assert "| majority | 25.0 [7.1, 59.1] | 25.0 |" in rows[3]
    right = {name: report.per_sample(name, "top1") == 1 for name in methods}
    ahead = int((right["model"] & ~right["majority"]).sum())
    assert f"| {ahead} : {int((right['majority'] & ~right['model']).sum())} |" in rows[3]


# --------------------------------------------------------------------------------------------------------------- noise


@pytest.mark.parametrize("lasting", [False, True])
def test_joints_are_moved_so_far_in_the_same_directions(lasting, test_poses):
    near, far, other = (
        action_views.noisy_poses(test_poses, mm, lasting=lasting, seed=seed) for mm, seed in ((5, 0), (20, 0), (5, 1))
    )
    for noisy, mm in ((near, 5), (far, 20)):
        error = action_views.joint_error(test_poses, {sample["key"]: sample["pose"].numpy() for sample in noisy})
        assert error == pytest.approx(mm, rel=0.1 if lasting else 0.02)
    true = test_poses[0]["pose"]
    assert torch.allclose(4 * (near[0]["pose"] - true), far[0]["pose"] - true, atol=1e-5)
    assert not torch.allclose(near[0]["pose"], other[0]["pose"], atol=1e-3)
    moved = near[0]["pose"] - true
    assert bool(torch.allclose(moved, moved[:1].expand_as(moved), atol=1e-6)) == lasting
    assert len({one.fingerprint for one in (near, far, other)}) == 3


def test_what_is_known_by_heart_is_told_less_the_farther_joints_are(action_task, train_poses, tmp_path):
    model, longer = net(), {"steps": 40, "batch_size": 8, "learning_rate": 0.03, "schedule": "constant"}
    fit(model, action_task, train_poses, None, TrainConfig(**CONFIG.to_json() | longer), folder=tmp_path / "run")
    twin = net()  # which doesn't tell what it was trained on
    twin.load_state_dict(model.state_dict())
    curve = action_views.noise_curve(twin, action_task, train_poses, "200,0", tmp_path)
    assert list(curve.levels) == list(action_views.KINDS)
    for levels in curve.levels.values():
        (none, first), (far, last) = levels.items()
        assert none == 0 and far == pytest.approx(200, rel=0.1)
        assert first == (8, 8) and last[1] == 8 and last[0] < 8
    assert curve.falls == dict.fromkeys(action_views.KINDS, True)
    assert len(curve.beside) == 7 and curve.beside[10.28] == 0.83
    lines = curve.figure().lines
    assert len(lines) == 3 and list(lines[2].get_xdata()) == sorted(curve.beside)
    assert curve._repr_markdown_().count("\n") == 5


def test_a_curve_that_rises_is_found_out():
    rising = action_views.NoiseCurve({"a": {0.0: (5, 100), 10.0: (90, 100)}, "b": {0.0: (50, 100), 5.0: (52, 100)}}, {})
    assert rising.falls == {"a": False, "b": True}


@pytest.mark.parametrize("text", ["", "many", "-1,2", "inf", "1;2"])
def test_levels_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match="noise: expected numbers of mm by comma like '0,5,10,20', got"):
        action_views.parse_levels(text)


# ---------------------------------------------------------------------------------------------------------- three ways


@pytest.mark.parametrize("attention", ["none", "logits_conv"])
def test_three_ways_are_compared_in_both_precisions(attention, action_task, test_poses):
    ways = action_views.three_ways(net(attention=attention), action_task, test_poses)
    assert [(row["dtype"], row["mode"]) for row in ways.rows] == [(d, m) for d in ("float32", "float64") for m in MODES]
    assert ways.h_n and all(row["changed"] == 0 for row in ways.rows)
    assert all(row["difference"] <= (1e-5 if row["dtype"] == "float32" else 1e-12) for row in ways.rows)
    assert "Packed is h_n bit for bit: yes." in ways._repr_markdown_()


def test_trainings_drift_apart_from_one_start(action_task, train_poses, test_poses, tmp_path):
    drift = action_views.training_drift(
        net(), action_task, train_poses, test_poses, CONFIG, epochs=2, runs=tmp_path
    )  # fmt: skip
    assert [row["mode"] for row in drift.rows] == ["padded", "unrolled"]
    for row in drift.rows:
        assert list(row["loss"]) == [1, 2] and 0 <= row["loss"][1] <= row["loss"][2] < 1e-4 and row["logits"] < 1e-3
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.pt")}
    again = action_views.training_drift(net(), action_task, train_poses, test_poses, CONFIG, epochs=2, runs=tmp_path)
    assert again == drift and before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.pt")}
    text = drift._repr_markdown_()
    assert "loss, 1 epoch |" in text and "1e-05 below 10" in text


def test_kinds_of_attention_are_compared_over_seeds(action_task, train_poses, test_poses, tmp_path, capsys):
    assert action_views.try_attention(net(), action_task, train_poses, test_poses, CONFIG, " ", runs=tmp_path) is None
    assert "no list to try" in capsys.readouterr().out
    table = action_views.try_attention(
        net(), action_task, train_poses, test_poses, CONFIG, "none, logits_relu", 2, runs=tmp_path
    )
    assert table is not None and [(row["attention"], row["runs"]) for row in table.rows] == [
        ("none", 2),
        ("logits_relu", 2),
    ]
    assert all(0 <= row["lowest"] <= row["mean_best_top1"] <= row["highest"] <= 1 for row in table.rows)
    with pytest.raises(ValueError, match="attention: expected one of none"):
        action_views.try_attention(net(), action_task, train_poses, test_poses, CONFIG, "v5", 1, runs=tmp_path)
    assert np.isfinite([row["mean_best_top1"] for row in table.rows]).all()
