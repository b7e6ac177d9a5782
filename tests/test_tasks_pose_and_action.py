"""Poses and actions together: the loss and its parts, resumed training, checkpoints, controls, bad input."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fixtures.hands import CROP, hand_frames, hand_sequences, hand_store  # noqa: F401
from fixtures.pose import tiny_pose_net
from torch.utils.data import Subset

from flowlib.evaluation import evaluate
from flowlib.hands.augment import HandAugment
from flowlib.hands.dataset import HandSequences
from flowlib.hands.skeleton import MSRA_21
from flowlib.models.actions import ActionLSTM
from flowlib.models.loops import Chain, Feedback, HandPrediction, Taught, Told, TwoPass
from flowlib.tasks.hand_pose import PoseTask
from flowlib.tasks.pose_and_action import JointTask, OnTruePoses, PosedSequences, predict_poses
from flowlib.tasks.pose_and_action.metrics import PARTS, JointAnswer, over_time
from flowlib.tasks.pose_and_action.task import Found
from flowlib.training import TrainConfig, fit, load_checkpoint
from flowlib.training.checkpoints import load_task

TASK, K = JointTask(alpha=0.3), 2
PRIOR = PoseTask(pca_draws=200)


def config(**options) -> TrainConfig:
    quick = {"optimizer": "adam", "weight_decay": 0.0, "schedule": "constant", "learning_rate": 1e-3, "num_workers": 0}
    return TrainConfig(**{"batch_size": 2, "validate_every": 2, "save_every": 1, "device": "cpu", **quick, **options})


@pytest.fixture
def sequences(hand_store) -> HandSequences:
    return HandSequences(hand_store, "train", CROP, max_frames=4)


@pytest.fixture
def nets(hand_frames):
    first, second = tiny_pose_net(), tiny_pose_net(num_actions=K, film=("linear",))
    for net in (first, second):
        PRIOR.prepare(net, hand_frames)
    torch.manual_seed(0)
    return first, second, ActionLSTM(63, K, hidden=8)


@pytest.fixture
def loop(nets):
    return TwoPass(*nets)


def batch_of(task, sequences, indices=(0, 1)):
    return task.collate([task.example(sequences[i], None, None) for i in indices])


def test_the_loss_is_what_the_class_says(loop, hand_store):
    data = HandSequences(hand_store, "train", CROP)
    task = replace(TASK, hidden_weight=0.25, smoothness=0.5)
    batch = batch_of(task, data)
    assert int(batch["length"][0]) != int(batch["length"][1]), "sequences of different lengths"
    found = loop.eval()(batch["crop"], batch["length"])
    values = task.values(task.sums(loop, batch, {}), task.counts(batch))
    square, weights, jerk, mm, all_squares = [], [], [], [], []
    for index, length in enumerate(batch["length"].tolist()):
        off = found.joints[index, :length] - batch["pose"][index, :length]
        seen = batch["visible"][index, :length]
        weights.append(torch.where(seen, 1.0, 0.25)[:, :, None].expand(-1, -1, 3))
        square.append(off.square() * weights[-1])
        jerk.append(off.diff(n=2, dim=0).square().flatten())
        mm.append((off.norm(dim=2) * 100).flatten())
        all_squares.append(off.square().flatten())
    nll = torch.nn.functional.cross_entropy(found.logits, batch["action"])
    mse = sum(part.sum() for part in square) / sum(part.sum() for part in weights)
    expected = 0.3 * nll + 0.7 * mse + 0.5 * torch.cat(jerk).mean()
    assert values["loss"] == pytest.approx(float(expected), rel=1e-5)
    assert values["nll"] == pytest.approx(float(nll), rel=1e-5)
    assert values["mpjpe"] == pytest.approx(float(torch.cat(mm).mean()), rel=1e-4)
    plain = float(torch.cat(all_squares).mean())
    assert values["joint_score"] == pytest.approx((100 * plain + float(nll)) / 2, rel=1e-5)


def test_sums_of_parts_are_the_sums_of_the_whole(loop, sequences):
    whole, parts = batch_of(TASK, sequences), [batch_of(TASK, sequences, [index]) for index in (0, 1)]
    loop.eval()
    assert torch.allclose(sum(TASK.sums(loop, part, {}) for part in parts), TASK.sums(loop, whole, {}), rtol=1e-4)
    assert torch.equal(sum(TASK.counts(part) for part in parts), TASK.counts(whole))


def test_the_teacher_pulls_poses_and_probabilities(nets, sequences):
    first, second, action = nets
    torch.nn.init.normal_(second.film_linear[0].layer.weight)
    teacher = Feedback(second, ActionLSTM(63, K, hidden=8))
    net, task = Taught(Chain(first, action), teacher), replace(TASK, teacher=0.4, teacher_action=0.3, temperature=2.0)
    batch = batch_of(task, sequences)
    own, its = net(batch["crop"], batch["length"]), net.teach(batch["crop"], batch["length"], batch["action"])
    p, q = (one.logits.div(2.0).softmax(dim=1) for one in (its, own))
    divergence = 4.0 * (p * (p.log() - q.log())).sum(dim=1).mean()
    distance = torch.cat([(own.joints - its.joints)[i, :n].flatten() for i, n in enumerate(batch["length"])])
    expected = 0.3 * divergence + 0.7 * distance.square().mean()
    alone = replace(TASK, teacher=0.0)
    losses = [t.total_loss(t.sums(net, batch, {}), t.counts(batch)) for t in (task, alone)]
    assert float(losses[0]) == pytest.approx(float(0.4 * expected + 0.6 * losses[1]), rel=1e-4)
    with pytest.raises(ValueError, match="teacher: expected a model with a teacher"):
        task.check(Chain(first, action), sequences, "train")


@pytest.mark.parametrize("kind", ["two passes", "feedback"])
def test_a_stopped_training_is_the_undisturbed_one(nets, sequences, tmp_path, kind):
    task = replace(TASK, augment=HandAugment(modes=("rot", "none")))
    make = {"two passes": lambda: TwoPass(*nets), "feedback": lambda: Feedback(nets[1], nets[2])}[kind]
    start = {name: value.clone() for name, value in make().state_dict().items()}

    def fresh():
        loop = make()
        loop.load_state_dict(start)
        return loop

    whole = fit(fresh(), task, sequences, sequences, config(steps=4), folder=tmp_path / "whole")
    for steps in (1, 3, 4):
        parts = fit(fresh(), task, sequences, sequences, config(steps=steps), folder=tmp_path / "parts")
    steps = [line for line in parts.metrics() if "grad_norm" in line]
    assert steps == [line for line in whole.metrics() if "grad_norm" in line] and len(steps) == 4
    last = [run.metrics()[-1] for run in (whole, parts)]
    assert last[0] == last[1] and "validation_joint_score" in last[0]


def test_a_checkpoint_gives_the_same_loop_and_task(loop, nets, sequences, tmp_path):
    task = replace(TASK, augment=HandAugment(modes=("rot",)))
    case = task.case(sequences[0])
    for index, net in enumerate((loop, Taught(Chain(nets[0], nets[2]), Feedback(nets[1], nets[2])))):
        run = fit(
            net, replace(task, teacher=0.1 * index), sequences, None, config(steps=1), folder=tmp_path / str(index)
        )
        loaded, about = load_checkpoint(run.last)
        assert type(loaded) is type(net) and load_task(run.last) == replace(task, teacher=0.1 * index)
        one, other = (task.predict(each.eval(), case, "a") for each in (loaded, net))
        assert np.allclose(one.joints, other.joints, atol=1e-3) and np.allclose(one.logits, other.logits, atol=1e-5)
        assert about["data"]["train"]["skeleton"] == "FPHA_21" and loaded.trained_on


def test_methods_and_controls_are_evaluated_side_by_side(loop, nets, hand_store, tmp_path):
    torch.nn.init.normal_(nets[1].film_linear[0].layer.weight)
    test = HandSequences(hand_store, "test", CROP)
    methods = {"two-pass": loop} | {telling: Told(loop, telling) for telling in ("uniform", "true", "wrong")}
    methods["true poses"] = OnTruePoses(nets[2])
    report = evaluate(methods, TASK, test, folder=tmp_path, pictures=True)
    again = evaluate(methods, TASK, test, folder=tmp_path / "again", pictures=False)
    for name in methods:
        assert [row.scores for row in report.rows[name]] == [row.scores for row in again.rows[name]], "bit-equal"
    assert report.estimate("true poses", "mpjpe").mean == pytest.approx(0, abs=1e-3)
    assert report.role("true") == report.role("wrong") == "oracle" and report.baselines == ["uniform"]
    errors = {name: report.estimate(name, "mpjpe").mean for name in ("true", "wrong", "uniform")}
    assert len(set(errors.values())) == 3
    assert report.strips and "covered joints" in " ".join(report.summary())
    assert {"mpjpe_covered", "top1", "nll", "joint_score", f"time_{PARTS - 1}"} <= set(report.measured)


def answer(case, joints=None, logits=(0.0, 0.0)):
    return JointAnswer(case.joints + 0.0 if joints is None else joints, case, np.array(logits))


def test_numbers_of_an_answer(hand_store):
    test = HandSequences(hand_store, "test", CROP)
    case = TASK.case(test[0])
    assert case.action == 1
    values = {spec.name: spec.function for spec in TASK.metrics}
    right, wrong = answer(case, logits=(0.0, 2.0)), answer(case, logits=(2.0, 0.0))
    assert values["top1"](right) == 1 and values["top1"](wrong) == 0 and values["top3"](wrong) == 1
    assert values["top1"](answer(case)) == 0, "who thinks all alike likely names the first, and no one's own"
    assert values["nll"](right) == pytest.approx(np.log(1 + np.exp(-2))) and values["nll"](wrong) > 2
    moved = case.joints.copy()
    moved[:, [18, 19, 20]] += [3.0, 0.0, 4.0]  # the little finger, 5 mm off
    off = answer(case, moved)
    covered = ~case.visible & np.isin(np.arange(21), [4, 5, 15, 16, 17, 18, 19, 20])
    expected = np.where(covered, np.linalg.norm(moved - case.joints, axis=-1), 0).sum(1)[covered.any(1)]
    assert values["mpjpe_covered"](off) == pytest.approx((expected / covered.sum(1)[covered.any(1)]).mean(), rel=1e-5)
    assert values["mpjpe_covered"](answer(case)) == 0
    curve = over_time(off)
    assert set(curve) <= set(range(PARTS)) and all(value == pytest.approx(15 / 8, rel=1e-3) for value in curve.values())
    assert values["joint_score"](right) == pytest.approx(values["nll"](right) / 2)


class Says:
    """A method that says what it is given to say."""

    def __init__(self, change):
        self.change = change

    def __call__(self, crops, lengths):
        joints, logits = torch.zeros(1, crops.shape[1], 21, 3), torch.zeros(1, K)
        return self.change(joints, logits)


@pytest.mark.parametrize(
    "change, match",
    [
        (lambda joints, logits: joints, "method 'odd', sequence .*: expected a HandPrediction, got Tensor"),
        (lambda joints, logits: HandPrediction(joints[:, 1:], logits), r"expected joints \[1, \d+, 21, 3\], got"),
        (lambda joints, logits: HandPrediction(joints * torch.nan, logits), "expected finite numbers"),
        (lambda joints, logits: HandPrediction(joints, logits[:, :0]), "expected logits of more than 1 actions"),
    ],
)
def test_bad_answers_are_refused(change, match, hand_sequences, refuses):
    with refuses(match):
        TASK.predict(Says(change), TASK.case(hand_sequences[0]), "odd")


def test_data_that_do_not_go_with_the_network_are_refused(loop, nets, hand_frames, sequences, refuses):
    TASK.check(loop, sequences, "train")
    with refuses("train: expected sequences, as HandSequences has them, got single frames"):
        TASK.check(loop, hand_frames, "train")
    three = TwoPass(nets[0], tiny_pose_net(num_actions=3, film=("linear",)), ActionLSTM(63, 3))
    with refuses("train: expected hands of 3 actions, as the model tells apart, got 2"):
        TASK.check(three, sequences, "train")
    large = Chain(tiny_pose_net(size=48), nets[2])
    with refuses("train: expected crops of 48 pixels, as the model takes them, got"):
        TASK.check(large, sequences, "train")
    with refuses("dataset: expected the joints of MSRA_21, in its order, got those of FPHA_21"):
        replace(TASK, skeleton=MSRA_21.name).check(loop, sequences, "train")


@pytest.mark.parametrize(
    "changed, match",
    [
        ({"length": torch.tensor(0)}, "odd: expected a sequence of 1 frame or more, got none"),
        ({"action": torch.tensor(-1)}, "odd: expected a sequence whose action is known, got one without"),
    ],
)
def test_bad_sequences_are_refused(changed, match, sequences, refuses):
    with refuses(match):
        TASK.example(dict(sequences[0]) | {"key": "odd"} | changed, None, None)


def test_a_sequence_of_one_frame_is_one(loop, hand_store, tmp_path):
    one = HandSequences(hand_store, "train", CROP, max_frames=1)
    run = fit(loop, replace(TASK, smoothness=1.0), one, one, config(steps=1), folder=tmp_path)
    assert np.isfinite(run.metrics()[0]["loss"]) and [len(one[i]["crop"]) for i in range(len(one))] == [1] * len(one)
    found = TASK.predict(loop, TASK.case(one[0]), "loop")
    assert isinstance(found, Found) and found.joints.shape == (1, 21, 3)


@pytest.mark.parametrize(
    "options, match",
    [
        ({"alpha": 1.5}, "alpha: expected a share from 0 to 1, got 1.5"),
        ({"smoothness": -1.0}, "smoothness: expected 0 or more, got -1.0"),
        ({"temperature": 0.0}, "temperature: expected more than 0, got 0.0"),
        ({"skeleton": "HAND"}, "skeleton: expected one of"),
        ({"intervals": "frame"}, "intervals: expected one of sequence, subject, got 'frame'"),
    ],
)
def test_bad_settings_are_refused(options, match, refuses):
    with refuses(match):
        JointTask(**options)


# ------------------------------------------------------------------------------------------------- predicted poses


def test_predicted_poses_are_the_networks_and_kept_by_content(nets, sequences, tmp_path, caplog):
    first, second, _ = nets
    poses = predict_poses(first, sequences, tmp_path)
    assert list(poses) == sequences.videos
    assert np.array_equal(poses[sequences.videos[1]], first(sequences[1]["crop"]).joints.detach().numpy())
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(files) == len(sequences)
    assert all(np.array_equal(predict_poses(first, sequences, tmp_path)[key], poses[key]) for key in poses)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files, "predicted once"
    predict_poses(second, sequences, tmp_path, sequences.videos[:1])
    assert len(list(tmp_path.iterdir())) == len(files) + 1, "another network's are others"
    damaged = sorted(files)[0]
    damaged.write_bytes(damaged.read_bytes()[:-9])
    again = predict_poses(first, sequences, tmp_path)
    assert all(np.array_equal(again[key], poses[key]) for key in poses) and "can't be used" in caplog.text


def test_a_data_set_has_the_predicted_poses_in_place_of_the_true_ones(nets, sequences, tmp_path, refuses):
    poses = predict_poses(nets[0], sequences, tmp_path)
    posed = PosedSequences(sequences, poses)
    sample, true = posed[1], sequences[1]
    assert np.array_equal(sample["pose"], poses[true["key"]]) and not torch.equal(sample["pose"], true["pose"])
    assert all(torch.equal(sample[name], true[name]) for name in ("joints", "visible", "action", "length", "cube"))
    assert len(posed) == len(sequences) and posed.fingerprint != sequences.fingerprint
    other = PosedSequences(sequences, {key: value + 1 for key, value in poses.items()})
    assert other.fingerprint not in (posed.fingerprint, sequences.fingerprint)
    assert Subset(posed, [0])[0]["key"] == sequences.videos[0] and posed.actions == sequences.actions
    with refuses("augment: expected none with predicted poses"):
        sample.augmented(HandAugment(), torch.Generator())
    with refuses(f"{sequences.videos[0]}: expected poses .*, got none"):
        PosedSequences(sequences, {})
    short = {key: value[:1] for key, value in poses.items()}
    with refuses(rf"{sequences.videos[0]}: expected poses \[4, 21, 3\], got \[1, 21, 3\]"):
        PosedSequences(sequences, short)
