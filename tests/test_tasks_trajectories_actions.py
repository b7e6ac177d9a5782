"""Trajectories that are told an action: what is told when, and that it is of use where one frame doesn't say."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fixtures.training_clips import make_clip

from flowlib.clips import Clip, ClipList, ClipSample, content_hash
from flowlib.dataset.acted import ActedClips
from flowlib.evaluation import evaluate
from flowlib.geometry import cell_grid
from flowlib.models.fcn import TrajectoryFCN, take_actions
from flowlib.models.film import Retold, retold
from flowlib.synthetic import action_scene
from flowlib.tasks.trajectories import ScoringConfig, TrajectoryTask, predict_clips
from flowlib.training import TrainConfig, fit, load_checkpoint

SIZE, S = (32, 48), 3
PAIR = ("left", "right")
CONFIG = TrainConfig(
    steps=40, batch_size=6, learning_rate=3e-3, schedule="constant", save_every=40, validate_every=20, device="cpu",
    num_workers=0,
)  # fmt: skip
TASK = TrajectoryTask(scoring=ScoringConfig(rebuild=()))


def acted(seeds) -> ClipList:
    """Scenes, each twice: moving to the left and to the right, alike in frame 0."""
    found, queries = [], np.insert(cell_grid(SIZE, 8, 12), 0, 0, axis=1)
    for seed in seeds:
        for number, action in enumerate(PAIR):
            scene = action_scene(action, S, SIZE, seed, whole=True)
            frames = scene.clip()
            clip = Clip.named(f"{action}/{seed}", frames, video=f"{action}/{seed}", num_points=len(queries))
            found.append(ClipSample(clip, frames, scene.tracks(queries), action=np.eye(2)[number]))
    return ClipList(found)


@pytest.fixture(scope="module")
def clips() -> ClipList:
    return acted(range(3))


def conditioned(**options) -> TrajectoryFCN:
    torch.manual_seed(0)
    small = {"num_frames": S, "backbone": "lraspp_mobilenet_v3_large", "weights": "none", "head": "fine"}
    return TrajectoryFCN(**small | {"num_actions": 2, "film": ("head",)} | options)


def test_an_action_is_part_of_a_clip(clips, refuses):
    clip = clips[1]
    assert clip["action"].tolist() == [0, 1] and "action" in dict(clip)
    again = ClipSample.of(dict(clip))
    assert again.action.tolist() == [0, 1]
    plain = replace(clip, action=None)
    assert "action" not in dict(plain) and content_hash(plain) != content_hash(clip)
    assert clip.cut(0, 2).action.tolist() == [0, 1]
    for wrong in ([0.5, 0.4], [1.5, -0.5], [[1.0, 0.0]], [np.nan, 1.0]):
        with refuses("left/0: expected an action of probabilities"):
            replace(clips[0], action=np.array(wrong))


def test_what_is_told_when(clips, refuses):
    model = conditioned()
    frames = TASK.inputs(model)
    assert frames.num_actions == 2
    assert TASK.example(clips[0], frames, None)["action"].tolist() == [1, 0]
    uniform = replace(TASK, condition="uniform")
    assert uniform.example(clips[0], frames, None)["action"].tolist() == [0.5, 0.5]
    generator = torch.Generator().manual_seed(0)
    draws = [TASK.example(clips[0], frames, generator)["action"].tolist() for _ in range(400)]
    assert draws.count([0.5, 0.5]) == pytest.approx(100, abs=30) and draws.count([1, 0]) == 400 - draws.count(
        [0.5, 0.5]
    )
    assert TASK.unchanged().condition_dropout == 0
    plain = conditioned(num_actions=0, film=())
    before = generator.get_state()
    assert "action" not in TASK.example(clips[0], TASK.inputs(plain), generator)
    assert torch.equal(generator.get_state(), before)  # streams of runs without actions stay as they were
    nameless = ClipList([replace(clips[0], action=None)])
    with refuses("train: left/0: expected probabilities of 2 actions, as the model takes, got none"):
        TASK.check(model, nameless, "train")
    uniform.check(model, nameless, "train")
    with refuses("expected probabilities of 3 actions, as the model takes, got 2"):
        TASK.check(conditioned(num_actions=3), clips, "train")
    with refuses("condition: expected one of true, uniform, got 'wrong'"):
        TrajectoryTask(condition="wrong")
    with refuses("condition_dropout: expected a share from 0 to 1, got 2"):
        TrajectoryTask(condition_dropout=2)


def test_settings_go_round_and_old_ones_are_as_they_were():
    task = replace(TASK, condition="uniform", condition_dropout=0.5)
    assert TrajectoryTask.from_settings(task.settings()) == task
    old = {name: value for name, value in TASK.settings().items() if not name.startswith("condition")}
    assert TrajectoryTask.from_settings(old) == TASK
    assert "condition" not in TASK.score_settings() and task.score_settings()["condition"] == "uniform"


def test_the_right_action_helps_the_wrong_one_harms_and_none_is_as_before(clips, tmp_path):
    """In small and by heart, on clips that were learned; `bench/track_actions.py` measures on scenes unseen."""
    plain = conditioned(num_actions=0, film=())
    fit(plain, TASK, clips, clips, CONFIG, folder=tmp_path / "plain")
    model = take_actions(plain, 2, ("head",))
    run = fit(model, TASK, clips, clips, CONFIG, folder=tmp_path / "told")
    best, about = load_checkpoint(run.best)
    assert about["model"]["config"]["num_actions"] == 2
    methods = {telling: Retold(best, telling) for telling in ("true", "uniform", "wrong")} | {"plain": plain.eval()}
    report = evaluate(methods, TASK, clips, folder=tmp_path / "report", allow_leak=True, pictures=False, progress=False)
    ade = {name: report.estimate(name, "ade").mean for name in methods}
    assert ade["true"] < 0.6 * ade["plain"] and ade["wrong"] > 1.3 * ade["plain"]
    assert ade["uniform"] == pytest.approx(ade["plain"], rel=0.35)
    told = evaluate(
        {"told": best}, TASK, clips, folder=tmp_path / "one", allow_leak=True, pictures=False, progress=False
    )
    assert told.estimate("told", "ade").mean == pytest.approx(ade["true"])
    nothing = replace(TASK, condition="uniform")
    left = evaluate(
        {"told": best}, nothing, clips, folder=tmp_path / "one", allow_leak=True, pictures=False, progress=False
    )
    assert left.estimate("told", "ade").mean == pytest.approx(ade["uniform"])
    batch, prediction = predict_clips(best, clips, 2)
    assert batch["action"].tolist() == [[1, 0], [0, 1]]
    assert (prediction.displacement[0] - prediction.displacement[1]).abs().max() > 0.5


def test_controls_are_told_by_a_rule(refuses):
    action = torch.tensor([[0.7, 0.2, 0.1]])
    assert retold(action, "true") is action
    torch.testing.assert_close(retold(action, "uniform"), torch.full((1, 3), 1 / 3))
    torch.testing.assert_close(retold(action, "wrong"), torch.tensor([[0.2, 0.8, 0.0]]))  # 2 has no partner
    with refuses("telling: expected one of true, uniform, wrong, got 'oracle'"):
        Retold(conditioned(), "oracle")
    control = Retold(conditioned(), "wrong")
    assert control.role == "baseline" and Retold(control.network, "true").role == "oracle"
    assert control.input_frames == (0,) and control.config["telling"] == "wrong"


def test_classes_are_the_folders_of_videos(clips, refuses):
    plain = ClipList([replace(clip, action=None) for clip in clips])
    told = ActedClips(plain, PAIR)
    assert [clip.action.tolist() for clip in told] == [clip.action.tolist() for clip in clips]
    assert told.videos == plain.videos and told.fingerprints == plain.fingerprints
    assert told.size == SIZE and told.num_frames == S and len(told) == len(plain)
    probabilities = {name: [0.25, 0.75] for name in plain.videos}
    guessed = ActedClips(plain, PAIR, probabilities)
    assert guessed[0].action.tolist() == [0.25, 0.75]
    assert len({told.fingerprint, guessed.fingerprint, plain.fingerprint}) == 3
    TASK.check(conditioned(), told, "train")
    with refuses("left/0: expected a video in a folder of up, down"):
        ActedClips(plain, ("up", "down"))
    with refuses("actions: expected two or more names"):
        ActedClips(plain, ("left",))
    with refuses(r"told: expected probabilities \[2\] of left/0, got none"):
        ActedClips(plain, PAIR, {})
    with refuses("dataset: expected one that lists its clips, got list"):
        ActedClips([make_clip(0)], PAIR)
