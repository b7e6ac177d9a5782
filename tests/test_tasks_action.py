"""The task of actions: examples, loss, resumed training, bit-equal evaluations, random labels as a control, errors."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fixtures.actions import action_task, few_hands, test_poses, train_poses  # noqa: F401

from flowlib.evaluation import evaluate
from flowlib.hands.pca import PosePCA
from flowlib.models.action_baselines import LastFrame, Majority, NearestSequence
from flowlib.models.actions import ActionLSTM, ActionPrediction
from flowlib.tasks.action import ActionTask, confusion_figure, observed_figure, training_set
from flowlib.tasks.pose_and_action import PosedSequences
from flowlib.training import TrainConfig, fit, load_checkpoint
from flowlib.training.checkpoints import load_task

QUICK = {"optimizer": "amsgrad", "weight_decay": 0.0, "schedule": "constant", "learning_rate": 1e-2, "num_workers": 0}


def config(**options) -> TrainConfig:
    return TrainConfig(**{"batch_size": 4, "validate_every": 2, "save_every": 1, "device": "cpu", **QUICK, **options})


def net(seed: int = 0, **options) -> ActionLSTM:
    torch.manual_seed(seed)
    return ActionLSTM(**{"inputs": 63, "num_actions": 4, "hidden": 16} | options)


def batch_of(task, poses, indices):
    return task.collate([task.example(poses[i], None, None) for i in indices])


class Says:
    """A method that gives what a function makes of vectors and lengths."""

    def __init__(self, function, name: str = "says"):
        self.function, self.name = function, name

    def __call__(self, joints, lengths):
        return self.function(joints, lengths)

    def describe(self):
        return {"name": self.name}


def oracle(poses, shift: int = 0) -> Says:
    """Names the true action, or the one `shift` further on; in the first half of every sequence it says nothing."""
    known = {sample["pose"].numpy().tobytes(): int(sample["action"]) for sample in poses}

    def say(joints, lengths):
        action = (known[joints.reshape(1, -1, 21, 3).numpy().tobytes()] + shift) % 4
        frames = torch.zeros(1, joints.shape[1], 4)
        frames[0, joints.shape[1] // 2 :, action] = 9.0
        return ActionPrediction(frames[:, -1], frames)

    return Says(say, f"oracle {shift}")


# ---------------------------------------------------------------------------------------------------------- training


def test_sums_of_parts_are_the_sums_of_the_whole(action_task, train_poses):
    model = net().eval()
    whole = batch_of(action_task, train_poses, range(8))
    parts = [batch_of(action_task, train_poses, indices) for indices in (range(3), range(3, 8))]
    sums, counts = action_task.sums(model, whole, {}), action_task.counts(whole)
    assert torch.allclose(sum(action_task.sums(model, part, {}) for part in parts), sums, rtol=1e-5)
    assert torch.equal(sum(action_task.counts(part) for part in parts), counts)
    logits = model(whole["joints"], whole["lengths"]).logits
    values = action_task.values(sums, counts)
    assert values["loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, whole["action"])), rel=1e-5)
    assert values["top1"] == pytest.approx(float((logits.argmax(dim=1) == whole["action"]).float().mean()))
    assert (
        values["top1"]
        <= values["top3"]
        == pytest.approx(float((logits.topk(3).indices == whole["action"][:, None]).any(dim=1).float().mean()))
    )


def test_few_sequences_can_be_learned_and_a_checkpoint_gives_them_again(action_task, train_poses, test_poses, tmp_path):
    model = net()
    run = fit(
        model, action_task, train_poses, test_poses, config(steps=30, batch_size=8, learning_rate=0.03), folder=tmp_path
    )
    learned = action_task.values(*(
        part(batch_of(action_task, train_poses, range(8))) for part in (
            lambda batch: action_task.sums(model.eval(), batch, {}), action_task.counts)
    ))  # fmt: skip
    assert learned["top1"] == 1 and learned["loss"] < 0.3
    loaded, about = load_checkpoint(run.last)
    case = action_task.case(test_poses[0])
    assert np.array_equal(action_task.predict(loaded, case, "a"), action_task.predict(model, case, "a"))
    assert load_task(run.last) == action_task
    assert about["data"]["train"]["poses"] == "truth" and about["data"]["train"]["num_actions"] == 4


def test_a_resumed_training_is_the_undisturbed_one(action_task, train_poses, test_poses, tmp_path):
    task = replace(action_task, noise=3.0, offset=2.0)
    models = [net(attention="logits_relu") for _ in range(2)]
    whole = fit(models[0], task, train_poses, test_poses, config(steps=4), folder=tmp_path / "whole")
    fit(models[1], task, train_poses, test_poses, config(steps=1), folder=tmp_path / "parts")
    again = net(seed=9, attention="logits_relu")
    parts = fit(again, task, train_poses, test_poses, config(steps=4), folder=tmp_path / "parts")
    strip = [line for line in whole.metrics() if line["step"] != 1 or "loss" in line]
    assert strip == [line for line in parts.metrics() if line["step"] != 1 or "loss" in line]
    assert all(torch.equal(a, b) for a, b in zip(models[0].state_dict().values(), again.state_dict().values()))


def test_labels_at_random_are_told_at_chance(few_hands, action_task, train_poses, tmp_path):
    task = replace(action_task, labels="random")
    drawn = [task.case(train_poses[i]).action for i in range(len(train_poses))]
    true = [action_task.case(train_poses[i]).action for i in range(len(train_poses))]
    assert drawn != true and drawn == [task.case(train_poses[i]).action for i in range(len(train_poses))]
    model = net()
    fit(model, task, train_poses, None, config(steps=30, batch_size=8, learning_rate=0.03), folder=tmp_path)
    learned = batch_of(task, train_poses, range(8))
    assert float(task.sums(model.eval(), learned, {})[1]) == 8  # it has learned them by heart
    from flowlib.hands.dataset import TruePoses

    others = [TruePoses(few_hands, split) for split in ("val", "test")]
    cases = [action_task.case(poses[i]) for poses in others for i in range(len(poses))]
    right = sum(int(action_task.predict(model, case, "a")[-1].argmax() == case.action) for case in cases)
    assert len(cases) == 16 and right <= 9  # by chance 4; so many have a chance of 0.7 %


def test_noise_moves_joints_so_far_and_offsets_all_frames_alike(action_task, train_poses):
    sample = train_poses[0]
    plain = action_task.example(sample, None, None)["joints"]
    generator = torch.Generator().manual_seed(0)
    for name in ("noise", "offset"):
        task, found = replace(action_task, **{name: 8.0}), []
        for _ in range(100):
            moved = (task.example(sample, None, generator)["joints"] - plain).unflatten(1, (21, 3)) * 100
            found.append(moved.norm(dim=2))
            alike = bool(torch.allclose(moved, moved[:1].expand_as(moved), atol=1e-4))
            assert alike == (name == "offset")
        assert float(torch.stack(found).mean()) == pytest.approx(8.0, rel=0.05)
    assert torch.equal(task.example(sample, None, None)["joints"], plain)
    assert task.unchanged() == action_task


@pytest.mark.parametrize("features", ["given", "centre", "bones"])
def test_the_prior_is_fitted_to_the_training_frames_once(features, action_task, train_poses, test_poses):
    model = net(components=5, features=features)
    constants = action_task.prepare(model, train_poses)
    assert torch.allclose(model.basis.T @ model.basis, torch.eye(5), atol=1e-5)
    if features == "given":
        frames = np.concatenate([sample["pose"].numpy() for sample in train_poses])
        assert constants["variance_share"] == pytest.approx(PosePCA.fit(frames, 5).share)
        assert np.allclose(model.mean.numpy(), frames.reshape(len(frames), -1).mean(axis=0), atol=1e-5)
    before = model.basis.clone()
    assert action_task.prepare(model, test_poses) == {} and torch.equal(model.basis, before)
    assert action_task.prepare(net(), train_poses) == {}


def test_vectors_of_anything_will_do(action_task, tmp_path):
    generator = torch.Generator().manual_seed(0)
    samples = [
        {"vectors": torch.randn(3 + i, 5, generator=generator), "action": i % 4, "key": f"video {i}", "subject": f"{i}"}
        for i in range(8)
    ]
    model = net(inputs=5)
    run = fit(model, action_task, samples, None, config(steps=2), folder=tmp_path / "run")
    methods = {"a": load_checkpoint(run.last)[0], "majority": Majority.fit(*training_set(action_task, samples))}
    report = evaluate(methods, action_task, samples, folder=tmp_path, progress=False, allow_leak=True)
    assert len(report.groups) == 8 and "Where the input comes from isn't told." in report.summary()


# -------------------------------------------------------------------------------------------------------- evaluation


def test_the_truth_is_all_right_and_the_partner_all_wrong(action_task, test_poses, tmp_path):
    methods = {"truth": oracle(test_poses), "two further": oracle(test_poses, 2)}
    report = evaluate(methods, action_task, test_poses, folder=tmp_path, progress=False)
    for metric, good, bad in (("top1", 1, 0), ("top3", 1, 1), ("family", 1, 0), ("observed_100", 1, 0)):
        assert report.estimate("truth", metric).mean == good, metric
        assert report.estimate("two further", metric).mean <= bad, metric
    assert report.estimate("truth", "partner").mean == 1 and report.estimate("two further", "partner").mean == 0.5
    assert report.estimate("truth", "observed_60").mean == 1
    assert report.estimate("truth", "observed_10").mean == 0.25  # nothing said: the first of the equals
    assert report.estimate("truth", "observed_partner_10").mean == 0.5
    assert report.estimate("truth", "class_2").mean == 1 and report.estimate("truth", "class_2").videos == 2
    assert "Better than all others here" in report.summary()[0]
    text = report.markdown()
    assert "told apart" not in text and "Told from its partner" in text and action_task.actions[1] in text
    page = report.save(tmp_path).read_text()
    assert "<svg" in page and "% of the sequence seen" in page


def test_two_evaluations_are_bit_equal_and_nothing_is_measured_twice(action_task, train_poses, test_poses, tmp_path):
    model, known = net(attention="logits_conv"), training_set(action_task, train_poses)
    methods = {"a": model, "majority": Majority.fit(*known), "last frame": LastFrame.fit(*known)}
    methods |= {"nearest sequence": NearestSequence.fit(*known)}
    first, second = (
        evaluate(methods, action_task, test_poses, folder=tmp_path / name, progress=False) for name in "ab"
    )
    assert [row.scores for name in methods for row in first.rows[name]] == [
        row.scores for name in methods for row in second.rows[name]
    ]
    again = evaluate(methods, action_task, test_poses, folder=tmp_path / "a", progress=False)
    assert again.run["scores_reused"] == 4 * len(test_poses) and again.table() == first.table()


def test_all_modes_and_beginnings_give_one_answer(action_task, test_poses):
    case, task = action_task.case(test_poses[3]), action_task
    packed, padded, unrolled = (task.predict(net(mode=mode), case, "a") for mode in ("packed", "padded", "unrolled"))
    assert np.allclose(packed, padded, atol=1e-5) and np.allclose(packed, unrolled, atol=1e-5)
    cut = replace(case, vectors=case.vectors[:7])
    assert np.allclose(task.predict(net(), cut, "a")[-1], packed[6], atol=1e-5)


def test_noisy_poses_are_measured_apart(action_task, test_poses, tmp_path):
    poses = {sample["key"]: sample["pose"].numpy() + np.float32(0.1) for sample in test_poses}
    moved = PosedSequences(test_poses, poses, "joints 17 mm off")
    found = [evaluate({"a": net()}, action_task, data, folder=tmp_path, progress=False) for data in (test_poses, moved)]
    assert found[1].run["scores_reused"] == 0 and "The input: joints 17 mm off." in found[1].summary()
    assert found[0].summary()[-1].startswith("The input is the truth")


def test_what_was_trained_on_is_not_tested_on(action_task, train_poses, tmp_path):
    known = training_set(action_task, train_poses)
    with pytest.raises(ValueError, match="allow_leak=True overrides"):
        evaluate({"a": NearestSequence.fit(*known)}, action_task, train_poses, folder=tmp_path, progress=False)


def test_groups_are_sequences_or_subjects(action_task, test_poses, tmp_path):
    method = {"truth": oracle(test_poses)}
    by_sequence = evaluate(method, action_task, test_poses, folder=tmp_path, progress=False)
    by_subject = evaluate(
        method, replace(action_task, intervals="subject"), test_poses, folder=tmp_path, progress=False
    )
    assert len(by_sequence.groups) == 8 and by_subject.groups == ["Subject_3"]
    assert len(by_subject.per_sample("truth", "top1")) == 8 and by_subject.run["scores_reused"] == 8


def test_figures_show_counts_and_shares(action_task, test_poses, tmp_path):
    report = evaluate({"a": oracle(test_poses, 1)}, action_task, test_poses, folder=tmp_path, progress=False)
    ax = confusion_figure(report, action_task.actions)
    assert sorted(text.get_text() for text in ax.texts) == ["2"] * 4
    assert {text.get_position() for text in ax.texts} == {(1, 0), (2, 1), (3, 2), (0, 3)}
    line = observed_figure(report).lines[0]
    assert list(line.get_xdata()) == list(range(10, 101, 10)) and line.get_ydata()[-1] == 0


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "options, message",
    [
        ({"actions": ("a",)}, r"actions: expected two or more names, each once, got \['a'\]"),
        ({"actions": ("a", "a")}, "actions: expected two or more names, each once"),
        ({"actions": ("a", "b", "c"), "partners": True}, "partners: expected an even number of actions, got 3"),
        ({"labels": "shuffled"}, "labels: expected one of true, random, got 'shuffled'"),
        ({"noise": -1.0}, "noise: expected 0 mm or more, got -1.0"),
        ({"offset": float("nan")}, "offset: expected 0 mm or more, got nan"),
        ({"intervals": "frame"}, "intervals: expected one of sequence, subject, got 'frame'"),
    ],
)
def test_settings_out_of_range_are_named(options, message, refuses):
    with refuses(message):
        ActionTask(**{"actions": ("a", "b")} | options)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_actions": 12}, "model: expected one of 4 actions, as train has, got 12"),
        (
            {"inputs": 40},
            "model: expected one of 40 inputs a frame|model: expected one of 63 inputs a frame, .*, got 40",
        ),
        ({"components": 63}, None),
    ],
)
def test_model_and_data_must_belong_together(options, message, action_task, train_poses, tmp_path):
    if message is None:
        assert fit(net(**options), action_task, train_poses, None, config(steps=1), folder=tmp_path).step == 1
        return
    with pytest.raises(ValueError, match=message):
        fit(net(**options), action_task, train_poses, None, config(steps=1), folder=tmp_path)


def test_other_actions_than_the_tasks_are_refused(test_poses, tmp_path):
    with pytest.raises(ValueError, match="actions: expected the names of the classes, got none"):
        fit(net(), ActionTask(), test_poses, None, config(steps=1), folder=tmp_path / "none")
    task = ActionTask(actions=("wave", "point"))
    with pytest.raises(ValueError, match=r"train: expected the 2 actions of the task \(wave, …\), got 4 \(thumb curls"):
        fit(net(num_actions=2), task, test_poses, None, config(steps=1), folder=tmp_path / "run")
    with pytest.raises(ValueError, match="dataset: expected the 2 actions of the task"):
        evaluate({"a": net()}, task, test_poses, folder=tmp_path, progress=False)


def test_a_checkpoint_of_another_number_of_actions_is_refused(action_task, train_poses, test_poses, tmp_path):
    samples = [dict(sample) | {"action": int(sample["action"]) % 2} for sample in train_poses]
    run = fit(net(num_actions=2), ActionTask(actions=("a", "b")), samples, None, config(steps=1), folder=tmp_path)
    model, _ = load_checkpoint(run.last)
    with pytest.raises(
        ValueError, match=r"method 'old', sequence Subject_3/.*: expected logits \[1, 4\], got \[1, 2\]"
    ):
        evaluate({"old": model}, action_task, test_poses, folder=tmp_path / "report", progress=False)
    with pytest.raises(ValueError, match="with num_actions=4, got one with num_actions=2"):
        load_checkpoint(run.last, net())


def spoiled(sample, **changes):
    return dict(sample) | changes


def test_wrong_sequences_are_named(action_task, test_poses, tmp_path):
    sample = test_poses[0]
    nan = sample["pose"].clone()
    nan[4, 2, 1] = torch.nan
    for changes, message in (
        ({"pose": nan}, "expected finite numbers, got NaN or infinity in frame 4"),
        ({"pose": sample["pose"][:0]}, "expected at least one frame, got none"),
        ({"pose": sample["pose"][0]}, r"expected a whole sequence, got one frame \[21, 3\]"),
        ({"action": torch.tensor(45)}, "expected an action from 0 to 3, got 45"),
        ({"action": torch.tensor(-1)}, "expected an action from 0 to 3, got -1"),
    ):
        with pytest.raises(ValueError, match=f"{sample['key']}: {message}"):
            action_task.case(spoiled(sample, **changes))


def test_a_sequence_of_one_frame_has_an_action(action_task, train_poses, test_poses):
    case = action_task.case(spoiled(test_poses[0], pose=test_poses[0]["pose"][:1]))
    known = training_set(action_task, train_poses)
    for method in (net(), LastFrame.fit(*known), NearestSequence.fit(*known)):
        logits = action_task.predict(method, case, "a")
        assert logits.shape == (1, 4)
        assert action_task.answer(logits, case).after(10) is not None


def test_long_sequences_may_be_cut(few_hands, action_task):
    from flowlib.hands.dataset import TruePoses
    from flowlib.hands.sequences import HandCollection

    first = few_hands.sequences[0]
    rows = np.arange(401) % len(first)
    long = replace(first, joints=first.joints[rows], visible=None, numbers=None)
    collection = HandCollection((long,), {long.key: "train"}, few_hands.actions)
    whole, cut = (TruePoses(collection, "train", max_frames=most) for most in (0, 120))
    assert len(whole[0]["pose"]) == 401 and len(cut[0]["pose"]) == 120 and whole.fingerprint != cut.fingerprint
    assert action_task.predict(net(), action_task.case(whole[0]), "a").shape == (401, 4)
    with pytest.raises(ValueError, match="lengths: expected up to max_frames=120 frames, got 401"):
        action_task.predict(net(attention="inputs_linear"), action_task.case(whole[0]), "a")
    with pytest.raises(ValueError, match="split: 'test' has no sequences"):
        TruePoses(collection, "test")


@pytest.mark.parametrize(
    "answer, message",
    [
        (lambda n: torch.zeros(1, 4), "expected an ActionPrediction, got Tensor"),
        (
            lambda n: ActionPrediction(torch.zeros(1, 3), torch.zeros(1, n, 3)),
            r"expected logits \[1, 4\], got \[1, 3\]",
        ),
        (lambda n: ActionPrediction(torch.zeros(1, 4), torch.zeros(1, 1, 4)), r"expected frames \[1, \d+, 4\]"),
        (lambda n: ActionPrediction(torch.full((1, 4), torch.nan), torch.zeros(1, n, 4)), "expected finite logits"),
    ],
)
def test_a_wrong_answer_names_method_and_sequence(answer, message, action_task, test_poses):
    case = action_task.case(test_poses[0])
    with pytest.raises(ValueError, match=f"method 'a', sequence {case.key}: {message}"):
        action_task.predict(Says(lambda joints, lengths: answer(joints.shape[1])), case, "a")
