"""The task of hand poses: examples, loss and its millimetres, resumed training, checkpoints, evaluation, errors."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fixtures.hands import CROP, hand_frames, hand_sequences, hand_store  # noqa: F401
from fixtures.pose import tiny_pose_net
from torch.utils.data import Subset

from flowlib.evaluation import evaluate
from flowlib.hands.augment import HandAugment
from flowlib.hands.crop import restore
from flowlib.hands.pca import PosePCA
from flowlib.hands.skeleton import FPHA_21
from flowlib.models.hand_baselines import MeanPose, NearestCrop
from flowlib.models.pose import PosePrediction
from flowlib.tasks.hand_pose import PoseTask
from flowlib.training import TrainConfig, fit, load_checkpoint, overfit
from flowlib.training.checkpoints import load_task

QUICK = {"optimizer": "adam", "weight_decay": 0.0, "schedule": "constant", "learning_rate": 1e-3, "num_workers": 0}
TASK = PoseTask(pca_draws=500)


def config(**options) -> TrainConfig:
    return TrainConfig(**{"batch_size": 4, "validate_every": 2, "save_every": 1, "device": "cpu", **QUICK, **options})


def batch_of(task, model, frames, indices=range(6)):
    return task.collate([task.example(frames[i], task.inputs(model), None) for i in indices])


@pytest.fixture
def model(hand_frames):
    net = tiny_pose_net()
    TASK.prepare(net, hand_frames)
    return net.eval()


def test_the_prior_is_fitted_to_the_training_poses_once(hand_frames):
    net = tiny_pose_net(components=8)
    constants = TASK.prepare(net, hand_frames)
    assert torch.allclose(net.basis.T @ net.basis, torch.eye(8), atol=1e-5)
    poses = np.stack([sample["pose"].numpy() for sample in hand_frames]).astype(np.float64)
    pca = PosePCA.fit(poses, 8)
    assert constants["floor_mm"] == pytest.approx(pca.floor_mm(poses, CROP.cube), rel=0.05)
    before = net.basis.clone()
    TASK.prepare(net, Subset(hand_frames, range(30)))
    assert torch.equal(net.basis, before)


def test_a_subset_gets_the_prior_of_its_own_poses(hand_frames):
    whole, part = tiny_pose_net(), tiny_pose_net()
    TASK.prepare(whole, hand_frames)
    TASK.prepare(part, Subset(Subset(hand_frames, range(30)), range(5, 25)))
    expected = np.stack([hand_frames[i]["pose"].numpy().ravel() for i in range(5, 25)]).mean(axis=0)
    assert np.allclose(part.mean.numpy(), expected, atol=0.05) and not torch.allclose(part.mean, whole.mean)


def test_the_loss_in_millimetres_is_the_bases_conversion(model, hand_frames):
    batch = batch_of(TASK, model, hand_frames)
    values = TASK.values(TASK.sums(model, batch, {}), TASK.counts(batch))
    pca = PosePCA(model.mean.numpy(), model.basis.T.numpy(), np.zeros(5), 0.0)
    assert values["rms_mm"] == pytest.approx(pca.rms_mm(values["loss"], CROP.cube), rel=1e-5)
    predicted, pose = model(batch["crop"]), batch["pose"]
    assert values["loss"] == pytest.approx(float((predicted.coefficients - batch["coefficients"]).square().mean()))
    distance = (predicted.joints - pose).norm(dim=2) * CROP.cube / 2
    assert values["mpjpe"] == pytest.approx(float(distance.mean()), rel=1e-5)
    assert values["mpjpe_seen"] == pytest.approx(float(distance[batch["visible"]].mean()), rel=1e-5)
    assert values["mpjpe_hidden"] == pytest.approx(float(distance[~batch["visible"]].mean()), rel=1e-5)


def test_both_losses_differ_by_what_the_prior_cannot_say(model, hand_frames):
    task = replace(TASK, loss="joints")
    batch = batch_of(TASK, model, hand_frames)
    in_coefficients, in_joints = (t.sums(model, batch, {})[0] for t in (TASK, task))
    flat = batch["pose"].flatten(1)
    floor = (flat - (model.mean + batch["coefficients"] @ model.basis.T)).square().sum()
    assert float(in_joints) == pytest.approx(float(in_coefficients + floor), rel=1e-4)


def test_hidden_joints_may_count_less(model, hand_frames):
    task = replace(TASK, loss="joints", hidden_weight=0.25)
    batch = batch_of(TASK, model, hand_frames)
    squares = (model(batch["crop"]).joints - batch["pose"]).square().sum(dim=2)
    weights = torch.where(batch["visible"], 1.0, 0.25)
    values = task.values(task.sums(model, batch, {}), task.counts(batch))
    assert values["loss"] == pytest.approx(float((squares * weights).sum() / (3 * weights.sum())), rel=1e-5)
    assert values["rms_mm"] == pytest.approx((3 * values["loss"]) ** 0.5 * CROP.cube / 2, rel=1e-5)
    same = TASK.values(TASK.sums(model, batch, {}), TASK.counts(batch))
    assert all(values[name] == pytest.approx(same[name]) for name in ("mpjpe", "mpjpe_seen", "mpjpe_hidden"))


def test_sums_of_parts_are_the_sums_of_the_whole(model, hand_frames):
    whole = batch_of(TASK, model, hand_frames)
    parts = [batch_of(TASK, model, hand_frames, indices) for indices in (range(2), range(2, 6))]
    assert torch.allclose(sum(TASK.sums(model, part, {}) for part in parts), TASK.sums(model, whole, {}), rtol=1e-5)
    assert torch.equal(sum(TASK.counts(part) for part in parts), TASK.counts(whole))


def test_augmentation_follows_the_generator_and_keeps_the_truth(hand_frames):
    task, net = replace(TASK, augment=HandAugment(modes=("rot", "trans"))), tiny_pose_net()
    seeds = [torch.Generator().manual_seed(seed) for seed in (1, 1, 2)]
    one, same, other = (task.example(hand_frames[3], task.inputs(net), seed) for seed in seeds)
    assert torch.equal(one["crop"], same["crop"]) and torch.equal(one["pose"], same["pose"])
    assert not torch.equal(one["crop"], other["crop"])
    plain = task.example(hand_frames[3], task.inputs(net), None)
    assert torch.equal(plain["crop"], hand_frames[3]["crop"])
    sample = hand_frames[3].augmented(task.augment, torch.Generator().manual_seed(1))
    joints = restore(*(sample[name].double().numpy() for name in ("pose", "centre", "rotation", "cube")))
    assert np.allclose(joints, hand_frames[3]["joints"], atol=1e-3) and torch.equal(sample["crop"], one["crop"])


def test_a_resumed_training_is_the_undisturbed_one(hand_frames, hand_store, tmp_path):
    task = replace(TASK, augment=HandAugment(modes=("rot", "none")), condition_dropout=0.5)
    nets = [tiny_pose_net(num_actions=2, film=("linear",)) for _ in range(2)]
    validation = Subset(hand_frames, range(5))
    whole = fit(nets[0], task, hand_frames, validation, config(steps=4), folder=tmp_path / "whole")
    fit(nets[1], task, hand_frames, validation, config(steps=2), folder=tmp_path / "parts")
    again = tiny_pose_net(num_actions=2, film=("linear",), seed=9)
    parts = fit(again, task, hand_frames, validation, config(steps=4), folder=tmp_path / "parts")
    assert whole.metrics() == parts.metrics() and len(whole.metrics()) == 6
    assert all(torch.equal(a, b) for a, b in zip(nets[0].state_dict().values(), again.state_dict().values()))


def test_a_checkpoint_gives_the_same_network_prior_and_task(hand_frames, hand_sequences, tmp_path):
    net, task = tiny_pose_net(), replace(TASK, augment=HandAugment(modes=("rot",)), pca_augment=HandAugment())
    run = fit(net, task, hand_frames, None, config(steps=2), folder=tmp_path)
    loaded, about = load_checkpoint(run.last)
    case = task.case(hand_sequences[0])
    # Pictures lie otherwise in memory in training (channels last), which changes last bits.
    assert np.allclose(task.predict(loaded, case, "a"), task.predict(net.eval(), case, "a"), atol=1e-4)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert load_task(run.last) == task and about["floor_mm"] > 0
    assert about["data"]["train"]["crop"]["truth"] == "truth" and len(about["data"]["train"]["subjects"]) == 1


def test_few_crops_can_be_learned_by_heart(hand_frames, tmp_path):
    net = tiny_pose_net(components=6, dropout=0.0, batch_norm="group")
    result = overfit(
        net, TASK, hand_frames, config(steps=150, learning_rate=3e-3, validate_every=10), samples=8, target=6.0,
        folder=tmp_path,
    )  # fmt: skip
    assert result.reached, result.summary


class Oracle:
    """Says the truth, moved by an offset in halves of the cube."""

    def __init__(self, sequences, offset=(0.0, 0.0, 0.0)):
        self.known = {sample["crop"].numpy().tobytes()[:4000]: sample["pose"] for sample in sequences}
        self.offset = torch.tensor(offset)

    def __call__(self, crops):
        return PosePrediction(None, self.known[crops.numpy().tobytes()[:4000]] + self.offset)

    def describe(self):
        return {"name": "oracle", "offset": self.offset.tolist()}


def test_an_offset_is_the_error_and_the_truth_has_none(hand_frames, hand_sequences, tmp_path):
    methods = {"off": Oracle(hand_sequences, (0.06, 0.0, 0.08)), "truth": Oracle(hand_sequences)}
    methods |= {"nearest crop": NearestCrop.fit(hand_frames), "mean pose": MeanPose.fit(hand_frames)}
    report = evaluate(methods, TASK, hand_sequences, folder=tmp_path, progress=False)
    for metric in ("mpjpe", "mpjpe_seen", "mpjpe_hidden"):
        assert report.estimate("off", metric).mean == pytest.approx(10, abs=1e-3)
        assert report.estimate("truth", metric).mean == pytest.approx(0, abs=1e-3)
    assert report.pooled("off", "mpjpe", "frames") == pytest.approx(10, abs=1e-3)
    assert report.estimate("truth", "auc").mean == pytest.approx(1, abs=0.01)  # 0 mm is missed by a last bit
    text = report.markdown()
    assert "| off | 10.0" in text and "Index" not in text
    for joint in FPHA_21.joints:
        assert f"| {joint} |" in text
    assert "centre: truth" in text and "10.0" in report.summary()[1]
    page = report.save(tmp_path).read_text()
    assert "<svg" in page and "MTIP" in page and len(report.strips) == 2


def test_groups_are_sequences_or_subjects(hand_store, hand_sequences, tmp_path):
    methods = {"truth": Oracle(hand_sequences)}
    by_sequence = evaluate(methods, TASK, hand_sequences, folder=tmp_path, progress=False, pictures=False)
    task = replace(TASK, intervals="subject")
    by_subject = evaluate(methods, task, hand_sequences, folder=tmp_path, progress=False, pictures=False)
    assert len(by_sequence.groups) == len(hand_sequences) == 2
    assert by_subject.groups == hand_sequences.subjects and by_subject.run["scores_reused"] == 2


def test_the_network_is_evaluated_in_batches_without_a_difference(model, hand_sequences):
    case = TASK.case(hand_sequences[0])
    poses = torch.cat([model(crop[None]).joints for crop in case.crops]).detach().numpy()
    assert np.allclose(TASK.predict(model, case, "a"), case.restore(poses), atol=1e-2)


def test_what_was_trained_on_is_not_tested_on(hand_frames, hand_store, tmp_path):
    from flowlib.hands.dataset import HandSequences

    net = tiny_pose_net()
    fit(net, TASK, Subset(hand_frames, range(30)), None, config(steps=1), folder=tmp_path / "run")
    with pytest.raises(ValueError, match="allow_leak=True overrides"):
        evaluate({"a": net}, TASK, HandSequences(hand_store, "train", CROP), folder=tmp_path, progress=False)


# ---------------------------------------------------------------------------------------------------------- actions


def test_a_conditioned_network_is_told_the_true_action_or_none(hand_frames, hand_sequences):
    net = tiny_pose_net(num_actions=2, film=("linear",))
    TASK.prepare(net, hand_frames)
    sample = hand_frames[0]
    told = TASK.example(sample, TASK.inputs(net), None)["action"]
    assert torch.equal(told, torch.eye(2)[int(sample["action"])])
    uniform = replace(TASK, condition="uniform").example(sample, TASK.inputs(net), None)["action"]
    assert torch.equal(uniform, torch.full((2,), 0.5))
    with torch.no_grad():
        net.film_linear[0].layer.weight.normal_()
    case = TASK.case(hand_sequences[0])
    answers = [task.predict(net.eval(), case, "a") for task in (TASK, replace(TASK, condition="uniform"))]
    assert not np.allclose(*answers)


def test_the_action_is_dropped_in_training_alone(hand_frames):
    task, net = replace(TASK, condition_dropout=0.5), tiny_pose_net(num_actions=2, film=("linear",))
    generator = torch.Generator().manual_seed(0)
    drawn = [task.example(hand_frames[0], task.inputs(net), generator)["action"] for _ in range(200)]
    assert 0.4 < np.mean([bool((action == 0.5).all()) for action in drawn]) < 0.6
    kept = [task.example(hand_frames[0], task.inputs(net), None)["action"] for _ in range(20)]
    assert all(torch.equal(action, kept[0]) and action.max() == 1 for action in kept)
    assert task.unchanged().condition_dropout == 0


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "options, message",
    [
        ({"loss": "mse"}, "loss: expected one of coefficients, joints, got 'mse'"),
        ({"condition": "wrong"}, "condition: expected one of true, uniform, got 'wrong'"),
        ({"intervals": "frame"}, "intervals: expected one of sequence, subject, got 'frame'"),
        ({"skeleton": "hand"}, "skeleton: expected one of FPHA_21, MSRA_21, ICVL_16, NYU_14, got 'hand'"),
        ({"pca_draws": -1}, "pca_draws: expected 0 or more, got -1"),
        ({"hidden_weight": 0.5}, "hidden_weight: expected a share from 0 to 1 with loss='joints'"),
        ({"condition_dropout": 1.5}, "condition_dropout: expected a share from 0 to 1, got 1.5"),
    ],
)
def test_settings_out_of_range_are_named(options, message, refuses):
    with refuses(message):
        PoseTask(**options)


@pytest.mark.parametrize(
    "options, changes, message",
    [
        ({"joints": 16}, {}, "model: expected 21 joints, as train has, got 16"),
        ({}, {"skeleton": "ICVL_16"}, r"train: expected poses \[16 3\] of ICVL_16, got \[21, 3\]"),
        ({}, {"skeleton": "MSRA_21"}, "train: expected the joints of MSRA_21, in its order, got those of FPHA_21"),
        ({"train_basis": True}, {}, "loss: expected 'joints' with a pose prior that is trained"),
        ({"num_actions": 3, "film": ("linear",)}, {}, "train: expected hands of 3 actions, as the model is told of"),
        ({"size": 48}, {}, r"train: expected crops of 48 pixels, as the model takes them, got \[1, 32, 32\]"),
    ],
)
def test_model_data_and_task_must_belong_together(options, changes, message, hand_frames, tmp_path):
    with pytest.raises(ValueError, match=message):
        fit(tiny_pose_net(**options), replace(TASK, **changes), hand_frames, None, config(steps=1), folder=tmp_path)


def test_hands_of_another_skeleton_are_not_measured(model, hand_sequences, tmp_path):
    with pytest.raises(ValueError, match="dataset: expected the joints of MSRA_21, in its order, got those of FPHA_21"):
        evaluate({"model": model}, replace(TASK, skeleton="MSRA_21"), hand_sequences, folder=tmp_path)


def test_more_components_than_poses_are_refused(hand_frames, tmp_path):
    with pytest.raises(ValueError, match="components: expected at most 63 coordinates and 4 poses, got 5"):
        fit(tiny_pose_net(), TASK, Subset(hand_frames, range(4)), None, config(steps=1), folder=tmp_path)


class Wrong:
    def __init__(self, answer):
        self.answer = answer

    def __call__(self, crops):
        return self.answer(len(crops))


@pytest.mark.parametrize(
    "answer, message",
    [
        (lambda n: torch.zeros(n, 21, 3), "expected a PosePrediction, got Tensor"),
        (lambda n: PosePrediction(None, torch.zeros(n, 20, 3)), r"expected joints \[\d+, 21, 3\], got \[\d+, 20, 3\]"),
        (lambda n: PosePrediction(None, torch.full((n, 21, 3), torch.nan)), "expected finite joints, got NaN"),
    ],
)
def test_a_wrong_answer_names_method_and_sequence(answer, message, hand_sequences):
    case = TASK.case(hand_sequences[0])
    with pytest.raises(ValueError, match=f"method 'a', sequence {case.key}: {message}"):
        TASK.predict(Wrong(answer), case, "a")


def test_a_single_frame_is_no_case(hand_frames):
    with pytest.raises(ValueError, match="expected a whole sequence, as HandSequences has it, got one frame"):
        TASK.case(hand_frames[0])
