"""What notebook 08 trains and shows: folds, shares of passes, controls, tables, lists, and runs that don't fit."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from fixtures.hands import CROP, hand_frames, hand_sequences, hand_store  # noqa: F401
from fixtures.pose import tiny_pose_net

from flowlib import hand_loops
from flowlib.evaluation import evaluate
from flowlib.hand_loops import LoopConfig, LoopHands, Nets, glue, weigh_passes
from flowlib.hands.dataset import HandSequences
from flowlib.hands.skeleton import MSRA_21
from flowlib.models import pose
from flowlib.models.actions import ActionLSTM
from flowlib.models.loops import Told, TwoPass
from flowlib.tasks.action import ActionTask
from flowlib.tasks.hand_pose import PoseTask
from flowlib.training import TrainConfig, fit

TINY = {"stages": (8, 8, 16, 16, 16), "blocks": 1, "head": 24}
CONFIG = LoopConfig(
    size=32, net="tiny", components=5, steps=2, told_steps=2, folds=2, fold_steps=1, batch_size=4, hidden=8,
    action_steps=2, tune_steps=2, tune_rate=1e-2, sequences=2, validations=1, device="cpu",
)  # fmt: skip


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(pose.SHAPES, "tiny", TINY)


@pytest.fixture
def hands(hand_store) -> LoopHands:
    return LoopHands.open(hand_store, CROP, step=2, max_frames=6)


@pytest.fixture
def nets(hand_frames) -> Nets:
    told = {"num_actions": 2, "film": ("linear",), "components": 5}
    made = [tiny_pose_net(0), tiny_pose_net(1), tiny_pose_net(0, **told)]
    torch.nn.init.normal_(made[2].film_linear[0].layer.weight, std=0.3)
    for net in made:
        PoseTask(pca_draws=200).prepare(net, hand_frames)
        net.eval()
    torch.manual_seed(0)
    actions = [ActionLSTM(63, 2, hidden=8) for _ in range(3)]
    attentive = ActionLSTM(63, 2, hidden=8, attention="logits_relu")
    return Nets(*made, actions[0], "out of fold", attentive, {"true": actions[2]})


def test_everything_is_trained_once_and_compared(hands, tmp_path, monkeypatch):
    given = []

    def remember(model, task, train, validation, *rest, **options):
        assert not {*train.videos} & {*hands.validation.videos, *hands.test.videos}
        given.append((train.split, validation and validation.split))
        return fit(model, task, train, validation, *rest, **options)

    monkeypatch.setattr(hand_loops, "fit", remember)
    first = hand_loops.train_nets(hands, CONFIG, tmp_path)
    states = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.pt")}
    nets = hand_loops.train_nets(hands, CONFIG, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.pt")} == states
    assert all(torch.equal(a, b) for a, b in zip(first.second.state_dict().values(), nets.second.state_dict().values()))
    names = {path.parent.name.partition("_")[2] for path in states}
    assert {"loops_first", "loops_other", "loops_second", "loops_fold_fold0", "loops_fold_fold1"} <= names
    taken = nets.learned_from.replace(" ", "_")
    kinds = ("out_of_fold", "in_the_fold", "true", f"attention_{taken}")
    assert {f"loops_action_{kind}" for kind in kinds} <= names
    assert nets.accuracy[nets.learned_from] == max(
        nets.accuracy[kind] for kind in ("out of fold", "in the fold", "true")
    )
    assert set(nets.others) == {"out of fold", "in the fold", "true"} - {nets.learned_from}
    assert f"taken: {nets.learned_from}" in repr(nets) and "actions of validation people" in repr(nets)
    assert not torch.equal(nets.first.stem.weight, nets.other.stem.weight) and nets.second.num_actions == 2
    untrained = glue(nets, ("chain", "two_pass"))
    assert all(p.requires_grad for p in untrained["chain"].pose.last.parameters()), "held by the two-pass alone"
    trained = hand_loops.fine_tune(untrained, hands, CONFIG, tmp_path)
    assert not torch.equal(trained["chain"].pose.last.weight, untrained["chain"].pose.last.weight)
    assert torch.equal(untrained["chain"].pose.last.weight, nets.first.last.weight), "copies are trained"
    assert set(given) == {("train", "val"), ("train", None)}, "checkpoints are chosen on validation people"
    methods = hand_loops.compared(trained, untrained, nets)
    report = evaluate(methods, CONFIG.joint_task, hands.test, folder=tmp_path / "report", pictures=False)
    assert report.main == "two-pass" and len(report.methods) == len(methods)
    table = hand_loops.paired_table(report)
    rows = [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[2:]]
    assert rows[0] == "two-pass − two-pass, uniform action" and "chain − chain (untrained)" in rows
    assert "two-pass − two plain nets" in rows and len(set(rows)) == len(rows)
    assert not report.estimate("chain", "mpjpe").mean == report.estimate("chain (untrained)", "mpjpe").mean
    own = report.difference("two-pass", "two plain nets", "mpjpe").mean
    [line] = [line for line in table.splitlines() if line.startswith("| two-pass − two plain nets")]
    assert f"{own:+.1f}" in line
    lines = hand_loops.over_time_figure(report, ["two-pass", "chain"]).get_lines()
    assert [line.get_label() for line in lines] == ["two-pass", "chain"]
    viewer = hand_loops.loop_viewer(
        {name: trained[name] for name in ("chain", "two-pass")}, hands, 1, CONFIG.joint_task
    )
    assert viewer.sequence == 0


def test_poses_out_of_fold_are_of_nets_that_have_not_seen_the_sequence(hands, tmp_path, monkeypatch):
    seen, fold_of = [], {}

    def remember(model, task, train, validation, config, runs):
        seen.append(set(train.videos))
        return model

    def predict(model, sequences, folder, keys):
        fold_of.update(dict.fromkeys(keys, len(seen) - 1))
        return {key: np.zeros((len(sequences[sequences.videos.index(key)]["frame"]), 21, 3)) for key in keys}

    monkeypatch.setattr(hand_loops, "train_net", remember)
    monkeypatch.setattr(hand_loops, "predict_poses", predict)
    steps = CONFIG.training("fold", 1, 4)
    given = CONFIG.pose_net, PoseTask(), steps, tmp_path, tmp_path
    poses = hand_loops.out_of_fold(hands, 2, *given)
    assert set(poses) == set(hands.train.videos) and len(seen) == 2
    assert all(key not in seen[fold] for key, fold in fold_of.items())
    assert all(seen[fold] | {k for k, f in fold_of.items() if f == fold} == set(poses) for fold in (0, 1))
    for folds in (1, 3):
        with pytest.raises(
            ValueError, match=f"folds: expected 2 or more, up to the 2 sequences for training, got {folds}"
        ):
            hand_loops.out_of_fold(hands, folds, *given)


@pytest.mark.parametrize("smoothing", [0.0, 0.6])
def test_shares_are_those_of_whole_evaluations(nets, hands, smoothing):
    weights = weigh_passes(nets, replace(CONFIG, smoothing=smoothing), hands, shares=(0.0, 0.4, 1.0))
    task = CONFIG.joint_task
    for eta, zeta in ((0.0, 0.0), (0.4, 1.0)):
        loop = TwoPass(nets.first, nets.second, nets.action, eta=eta, zeta=zeta, smoothing=smoothing).eval()
        answers = [task.answer(task.predict(loop, case, "a"), case) for case in map(task.case, hands.validation)]
        row, column = weights.shares.index(eta), weights.shares.index(zeta)
        assert weights.scores[row, column] == pytest.approx(np.mean([a.score for a in answers]), rel=1e-4)
        assert weights.mm[row] == pytest.approx(np.mean([a.errors.mean() for a in answers]), rel=1e-4)
        assert weights.accuracy[column] == np.mean([a.rank == 0 for a in answers])
    place = np.unravel_index(weights.scores.argmin(), (3, 3))
    assert (weights.eta, weights.zeta) == (weights.shares[place[0]], weights.shares[place[1]])
    given = weigh_passes(nets, CONFIG, hands, eta=0.3, shares=(0.0, 1.0))
    assert given.eta == 0.3 and given.zeta in (0.0, 1.0) and "η=0.3" in repr(given)
    axes = weights.figure()
    assert len(axes.texts) == 9 and axes.get_ylabel() == "η, poses"


def test_controls_stand_beside_what_is_told_an_action(nets):
    loops = glue(nets, eta=0.3, zeta=0.4)
    assert set(loops) == {"chain", "feedback", "two-pass", "two plain nets", "two-pass, attention"}
    assert loops["two-pass"].eta == 0.3 and loops["two-pass"].zeta == 0.4
    control = loops["two plain nets"]
    assert control.eta == control.zeta == 0.5, "with the shares of the two-pass it may be one net alone"
    with_oracle, without = hand_loops.with_controls(loops), hand_loops.with_controls(loops, oracle=False, note=" (new)")
    assert next(iter(with_oracle)) == "two-pass"
    told = {name: method.telling for name, method in with_oracle.items() if isinstance(method, Told)}
    assert told["feedback, partner's action"] == "wrong" and told["two-pass, true action"] == "true"
    assert not [name for name in told if name.startswith(("chain", "two plain"))]
    assert "feedback, uniform action (new)" in without and not [name for name in without if "true action" in name]
    with pytest.raises(ValueError, match="loops: expected kinds among chain, feedback, two_pass, got 'both'"):
        glue(nets, ["both"])


def test_lists_of_settings_are_run(nets, hands, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(hand_loops, "CONDITIONINGS", {"none": {}, "FiLM linear": {"film": ("linear",)}})
    table = hand_loops.try_lists(("conditioning", "trained"), nets, hands, CONFIG, 1, tmp_path)
    rows = {row["run"]: row for row in table.rows}
    assert len(rows) == 7 and all(row["status"] == "done" for row in rows.values())
    plain, told = (rows[f"loops_told-{name}"] for name in ("none", "FiLM-linear"))
    assert plain["true_mm"] == plain["uniform_mm"] and told["true_mm"] != told["uniform_mm"]
    assert hand_loops.try_lists((), nets, hands, CONFIG, 1, tmp_path) is None and "no list" in capsys.readouterr().out
    with pytest.raises(ValueError, match="list: expected one of alpha, norm, rate, trained, got 'norms'"):
        hand_loops.try_lists(("norms",), nets, hands, CONFIG, 1, tmp_path)


def test_a_run_of_other_hands_is_refused(hands, hand_frames, tmp_path, monkeypatch):
    net = tiny_pose_net()
    options = {"name": "pose", "steps": 1, "batch_size": 2, "num_workers": 0, "device": "cpu"}
    folder = tmp_path / "20260101-000000_pose"
    fit(net, PoseTask(pca_draws=100), hand_frames, None, TrainConfig(**options), folder=folder)
    loaded = hand_loops.load_pose(hands, tmp_path, "pose")
    assert torch.equal(loaded.stem.weight, net.stem.weight)
    opened = LoopHands.open(hands.store, replace(CROP, size=48), step=2, runs=tmp_path, pose_run="pose")
    assert opened.crop.size == 32 and opened.num_actions == 2 and "2 actions" in repr(opened)
    for changed, message in (
        ({"skeleton": MSRA_21}, "expected a run on joints of MSRA_21, got one on FPHA_21"),
        ({"config": replace(CROP, cube=220.0)}, "expected a run on crops with cube=220.0, got cube=200.0"),
    ):
        train = copy.copy(hands.train)
        vars(train).update(changed)
        with pytest.raises(ValueError, match=message):
            hand_loops.load_pose(replace(hands, train=train), tmp_path, "pose")
    with pytest.raises(ValueError, match="expected a run on other hands .* got one trained on 2 of the 2 sequences to"):
        hand_loops.load_pose(replace(hands, test=hands.train), tmp_path, "pose")
    with pytest.raises(FileNotFoundError, match="expected a run called 'poses'"):
        hand_loops.load_pose(hands, tmp_path, "poses")


def test_an_action_run_of_other_sequences_is_refused_or_told_of(hands, tmp_path, recwarn):
    task = ActionTask(hands.train.actions, partners=True)
    for name, step in (("action", 2), ("dense", 1)):
        train = HandSequences(hands.store, "train", CROP, step=step)
        options = {"steps": 1, "batch_size": 2, "num_workers": 0, "device": "cpu"}
        folder = tmp_path / f"20260101-000000_{name}"
        fit(ActionLSTM(63, 2, hidden=8), task, train, None, TrainConfig(name, **options), folder=folder)
    recwarn.clear()
    assert hand_loops.load_action(hands, tmp_path, "action").num_actions == 2 and not recwarn
    with pytest.warns(UserWarning, match="one frame in 1, .* one in 2, so actions look 2 times as fast"):
        hand_loops.load_action(hands, tmp_path, "dense")
    train = copy.copy(hands.train)
    train.config = replace(CROP, cube=220.0, size=48)  # of the crops' size an action net knows nothing
    with pytest.raises(ValueError, match="action.*expected a run on crops with cube=220.0, got cube=200.0"):
        hand_loops.load_action(replace(hands, train=train), tmp_path, "action")
    with pytest.raises(ValueError, match="got one trained on 2 of the 2 sequences to test on"):
        hand_loops.load_action(replace(hands, test=hands.train), tmp_path, "action")
