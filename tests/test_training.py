"""The loop: what it leaves, what it refuses, and that a killed run goes on as if nothing had happened."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from fixtures.training_clips import TINY, Clips, make_clip, make_clips
from torch.utils.data import Subset

from flowlib.augmentation import AugmentConfig
from flowlib.models.fcn import TrajectoryFCN
from flowlib.tasks.trajectories import TrajectoryTask
from flowlib.training import TrainConfig, fit, load_checkpoint, load_task, loop
from flowlib.training.checkpoints import read_checkpoint
from flowlib.training.optim import rate_factor
from flowlib.training.runs import read_metrics, run_folder

CLIPS = make_clips()
TASK, AUGMENTED = TrajectoryTask(), TrajectoryTask(augment=AugmentConfig(reverse=0.5))
QUICK = TrainConfig(steps=6, validate_every=3, save_every=2, num_workers=0, device="cpu", learning_rate=1e-3)


def tiny(seed=0, **options):
    torch.manual_seed(seed)
    return TrajectoryFCN(**TINY | options)


def same_weights(one, two):
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole run with everything on: (run, model)."""
    model = tiny(input_frames=(0, 3))
    config = replace(QUICK, ema_decay=0.9, picture_every=6, accumulate=2)
    return fit(model, AUGMENTED, CLIPS, Subset(CLIPS, [0, 1, 2]), config, folder=tmp_path_factory.mktemp("run")), model


def test_a_run_leaves_its_config_curves_checkpoints_and_pictures(finished):
    run, _ = finished
    names = {path.name for path in run.folder.iterdir()}
    expected = "config.json metrics.jsonl timings.jsonl state.json tensorboard last.pt previous.pt best.pt pictures"
    assert names == set(expected.split())
    assert (run.step, run.finished) == (6, "steps")
    lines = run.metrics()
    assert [line["step"] for line in lines if "grad_norm" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines if "validation_ade" in line] == [3, 6]
    keys = "step loss displacement_loss visibility_loss ade visibility_accuracy lr grad_norm bn_shift bn_layer clips"
    assert set(lines[0]) == set(keys.split())
    assert len(lines[0]["clips"]) == 4  # two batches of two made the step
    assert run.best_score == min(line["validation_ade"] for line in lines if "validation_ade" in line)
    about = json.loads((run.folder / "config.json").read_text())
    assert about["task"]["settings"]["augment"]["reverse"] == 0.5 and about["weights"] == "none"
    assert about["data"]["train"]["fingerprint"] == "synthetic 0+6"
    assert about["data"]["validation"]["samples"] == 3
    assert (run.folder / "pictures" / "step_000006.png").stat().st_size > 5000
    assert len(list((run.folder / "tensorboard").iterdir())) == 1


def test_a_finished_run_is_recognised_and_returns_at_once(finished, capsys):
    run, model = finished
    config = TrainConfig(**json.loads((run.folder / "config.json").read_text())["config"])
    other, before = tiny(seed=5, input_frames=(0, 3)), (run.folder / "metrics.jsonl").read_bytes()
    again = fit(other, AUGMENTED, CLIPS, Subset(CLIPS, [0, 1, 2]), config, folder=run.folder)
    assert ": 6 of 6 steps: done." in capsys.readouterr().out
    assert again == run and same_weights(other, model)
    assert (run.folder / "metrics.jsonl").read_bytes() == before


def test_a_checkpoint_gives_the_averaged_model_and_what_is_known_of_it(finished):
    run, model = finished
    loaded, info = load_checkpoint(run.best)
    assert loaded.config == model.config and not loaded.training
    assert (info["step"], info["rng"]["seed"], info["path"]) == (6, 0, str(run.best))
    assert info["target_scale"] == pytest.approx(float(loaded.target_scale)) and info["target_scale"] != 1
    assert info["stream_position"] == 6 * 2 * 2
    tensors, _ = read_checkpoint(run.best)
    assert all(torch.equal(value, tensors["ema"][key]) for key, value in loaded.state_dict().items())
    assert not same_weights(loaded, model)
    assert load_task(run.best) == AUGMENTED
    into = load_checkpoint(run.last, tiny(seed=3, input_frames=(0, 3)))[0]
    assert same_weights(into, loaded)


def test_a_checkpoint_of_another_architecture_is_refused_in_one_sentence(finished, refuses, tmp_path):
    run, _ = finished
    with refuses(r"last.pt: expected a checkpoint of a model with input_frames=\[0\], got one with .*\[0, 3\]"):
        load_checkpoint(run.last, tiny())
    with refuses("expected a checkpoint of a model with head='fine'"):
        fit(tiny(input_frames=(0, 3), head="fine"), TASK, CLIPS, None, QUICK, folder=run.folder)
    (tmp_path / "x.pt").write_bytes(b"PK not really")
    with refuses("x.pt: expected a checkpoint written by flowlib.training"):
        load_checkpoint(tmp_path / "x.pt")
    torch.save({"weight": torch.ones(1)}, tmp_path / "y.pt")
    with refuses("y.pt: expected a checkpoint written by flowlib.training, got other tensors"):
        load_checkpoint(tmp_path / "y.pt")
    with refuses("nothing there", FileNotFoundError):
        load_checkpoint(tmp_path / "z.pt")


def test_other_settings_or_data_in_the_same_folder_are_refused(finished, refuses):
    run, _ = finished
    config = TrainConfig(**json.loads((run.folder / "config.json").read_text())["config"])
    model, held_out = tiny(input_frames=(0, 3)), Subset(CLIPS, [0, 1, 2])
    with refuses("got one with learning_rate=0.001, not 0.5; give it another name"):
        fit(model, AUGMENTED, CLIPS, held_out, replace(config, learning_rate=0.5), folder=run.folder)
    with refuses(r"got one with augment=\{.*\}, not None"):
        fit(model, TASK, CLIPS, held_out, config, folder=run.folder)
    with refuses("expected a run on the same validation data"):
        fit(model, AUGMENTED, CLIPS, Subset(CLIPS, [0, 1, 3]), config, folder=run.folder)
    with refuses("expected a run on the same train data"):
        fit(model, AUGMENTED, make_clips(5), held_out, config, folder=run.folder)
    with refuses("got one with steps=6, not 9"):  # a cosine depends on them
        fit(model, AUGMENTED, CLIPS, held_out, replace(config, steps=9), folder=run.folder)


def test_more_steps_go_on_where_the_rate_does_not_depend_on_them(tmp_path):
    config = replace(QUICK, schedule="constant", steps=3)
    short = fit(tiny(), TASK, CLIPS, None, config, folder=tmp_path / "a")
    assert short.finished == "steps"
    grown, whole = tiny(seed=9), tiny()
    longer = fit(grown, TASK, CLIPS, None, replace(config, steps=5), folder=tmp_path / "a")
    other = fit(whole, TASK, CLIPS, None, replace(config, steps=5), folder=tmp_path / "b")
    assert longer.metrics() == other.metrics() and same_weights(grown, whole)
    assert longer.best == longer.last and longer.best_score is None  # nothing was validated


def test_a_session_that_ran_out_of_time_says_so_and_goes_on_in_the_next(tmp_path):
    config = replace(QUICK, session_minutes=1e-6)
    runs = [fit(tiny(seed=i), TASK, CLIPS, None, config, folder=tmp_path / "a") for i in range(6)]
    assert [(run.step, run.finished) for run in runs] == [*((i, "") for i in range(1, 6)), (6, "steps")]
    straight = fit(tiny(), TASK, CLIPS, None, replace(config, session_minutes=0), folder=tmp_path / "b")
    assert runs[-1].metrics() == straight.metrics(), "a cosine over six sessions is that over one"
    told = str(runs[2])
    assert told.startswith(
        "3 of 6 steps: session_minutes=1e-06 are over with the learning rate at 50% of its highest; "
    )
    assert re.search("run it again to go on exactly there, for about [0-9]+ s more$", told)
    assert str(runs[5]) == "6 of 6 steps: done" == str(straight)
    steady = fit(tiny(), TASK, CLIPS, None, replace(config, schedule="constant"), folder=tmp_path / "c")
    assert "are over; run it again" in str(steady)


@pytest.fixture
def clock(monkeypatch):
    """The loop's clock: a step takes a second, and those in `clock.slow` so many more."""

    class Clock:
        now, slow = 0.0, {}
        monotonic = perf_counter = staticmethod(lambda: Clock.now)

    def step(session, batches):
        Clock.now += 1 + Clock.slow.pop(session.step, 0)
        return train_step(session, batches)

    train_step = loop.train_step
    monkeypatch.setattr(loop, "time", Clock)
    monkeypatch.setattr(loop, "train_step", step)
    return Clock


@pytest.mark.parametrize("validation", [None, CLIPS], ids=["alone", "validated"])
def test_a_cosine_over_the_minutes_ends_within_them(clock, tmp_path, validation):
    config = replace(QUICK, steps=60, session_minutes=12 / 60, schedule_over="minutes", validate_every=4, save_every=50)
    whole = tiny()
    run = fit(whole, TASK, CLIPS, validation, config, folder=tmp_path / "a")
    assert (run.step, run.steps, run.finished) == (11, 11, "steps")  # 2 timed, and 9 until 11.4 s
    assert str(run) == "11 of 11 steps: done; as many of 60 as fitted into the minutes"
    rates = [line["lr"] / config.learning_rate for line in run.metrics() if "lr" in line]
    expected = [rate_factor(step, config, 60 if step < 2 else 11) for step in range(11)]
    assert rates == pytest.approx(expected) and rates[-1] < 0.03
    validated = [line["step"] for line in run.metrics() if "validation_ade" in line]
    assert validated == ([2, 4, 8, 11] if validation else [])

    clock.slow = {6: 100}  # another process gets in the way
    stopped = fit(tiny(), TASK, CLIPS, validation, config, folder=tmp_path / "b")
    assert (stopped.step, stopped.steps, stopped.finished) == (7, 11, "")
    assert re.search(r"^7 of 11 steps: session_minutes=0.2 are over with the learning rate at 29%", str(stopped))
    resumed = tiny(seed=9)
    on = fit(resumed, TASK, CLIPS, validation, config, folder=tmp_path / "b")
    assert on.finished == "steps" and on.metrics() == run.metrics() and same_weights(resumed, whole)
    assert fit(tiny(), TASK, CLIPS, validation, config, folder=tmp_path / "b").step == 11  # found done


def test_steps_that_all_fit_into_the_minutes_are_as_without_them(clock, tmp_path):
    config = replace(QUICK, session_minutes=1.0, schedule_over="minutes")
    timed = fit(tiny(), TASK, CLIPS, None, config, folder=tmp_path / "a")
    plain = fit(tiny(), TASK, CLIPS, None, QUICK, folder=tmp_path / "b")
    assert timed.metrics() == plain.metrics() and str(timed) == "6 of 6 steps: done"


SCRIPT = """
import sys
from fixtures.training_clips import TINY, make_clips
import torch
from flowlib.augmentation import AugmentConfig
from flowlib.models.fcn import TrajectoryFCN
from flowlib.tasks.trajectories import TrajectoryTask
from flowlib.training import TrainConfig, fit

torch.set_num_threads(1)
clips = make_clips()
torch.manual_seed(0)
config = TrainConfig(steps=24, validate_every=7, save_every=3, num_workers=1, device="cpu", ema_decay=0.9,
                   learning_rate=1e-3)
task = TrajectoryTask(augment=AugmentConfig(scale=(1.0, 1.3), colour=0.2))
fit(TrajectoryFCN(**TINY), task, clips, clips, config, folder=sys.argv[1])
"""


def environment(**extra: str) -> dict[str, str]:
    """For a process that imports flowlib and the tests' clips from this checkout."""
    here = Path(__file__).parent
    return os.environ | {"PYTHONPATH": os.pathsep.join((str(here), str(here.parent)))} | extra


def start(folder: Path) -> subprocess.Popen:
    log = open(folder.with_suffix(".log"), "ab")
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder)], stdout=log, stderr=log, env=environment())


def wait_for_step(process: subprocess.Popen, folder: Path, step: int) -> bool:
    """Whether the run's checkpoint got to `step` before the process ended."""
    while process.poll() is None:
        state = folder / "state.json"
        if state.exists() and json.loads(state.read_text())["step"] >= step:
            return True
        time.sleep(0.02)
    return False


def test_killed_three_times_and_resumed_equals_undisturbed(tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    reference = start(undisturbed)
    chance = random.Random()
    for least in (3, 9, 15):
        process = start(killed)
        assert wait_for_step(process, killed, least + chance.randrange(3)), killed.with_suffix(".log").read_text()
        time.sleep(chance.random() * 0.3)  # anywhere: in a step, a validation, while a checkpoint is written
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start(killed).wait(timeout=120) == 0, killed.with_suffix(".log").read_text()
    assert reference.wait(timeout=120) == 0, undisturbed.with_suffix(".log").read_text()
    assert not list(killed.glob(".*")), "a kill left half a file"
    assert (killed / "metrics.jsonl").read_bytes() == (undisturbed / "metrics.jsonl").read_bytes()
    for name in ("last.pt", "best.pt"):
        (first, about), (second, meta) = read_checkpoint(killed / name), read_checkpoint(undisturbed / name)
        for part in ("model", "ema"):
            assert all(torch.equal(value, second[part][key]) for key, value in first[part].items())
        assert (about["step"], about["best_score"]) == (meta["step"], meta["best_score"])
    assert len(read_metrics(killed)) == 24 + 4


DOUBLE = """
import os
import sys
from fixtures.training_clips import TINY, make_clips
import torch
from flowlib.models.fcn import TrajectoryFCN
from flowlib.tasks.trajectories import TrajectoryTask
from flowlib.training import TrainConfig, fit

torch.set_num_threads(1)
torch.manual_seed(int(os.environ.get("RANK", 0)))  # the second process starts from other weights, if it may
clips = make_clips()
config = TrainConfig(steps=2, validate_every=1, num_workers=0, device="cpu", batch_size=int(sys.argv[2]), ema_decay=0.9)
fit(TrajectoryFCN(**TINY | {"batch_norm": "group"}), TrajectoryTask(), clips, clips, config, folder=sys.argv[1])
"""


def test_two_processes_equal_one_with_twice_the_batch(tmp_path):
    (tmp_path / "script.py").write_text(DOUBLE)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script, on_cpu = tmp_path / "script.py", environment(ACCELERATE_USE_CPU="1")
    started = [
        subprocess.Popen([*launch, script, tmp_path / "two", "2"], env=on_cpu),
        subprocess.Popen([sys.executable, script, tmp_path / "one", "4"], env=on_cpu),
    ]
    assert [process.wait(timeout=180) for process in started] == [0, 0]
    for one, two in zip(read_metrics(tmp_path / "one"), read_metrics(tmp_path / "two"), strict=True):
        assert sorted(one.pop("clips", [])) == sorted(two.pop("clips", []))
        assert one == pytest.approx(two, rel=1e-4)


def test_early_stopping_and_a_wanted_error_end_a_run(tmp_path):
    still = replace(QUICK, steps=60, learning_rate=1e-30, patience=2)  # nothing gets better
    patient = fit(tiny(batch_norm="group"), TASK, CLIPS, CLIPS, still, folder=tmp_path / "patience")
    assert (patient.finished, patient.step) == ("patience", 9)
    easy = fit(tiny(), TASK, CLIPS, CLIPS, replace(QUICK, stop_at=1e3), folder=tmp_path / "easy")
    assert (easy.finished, easy.step) == ("stop_at", 3)
    further = fit(tiny(), TASK, CLIPS, CLIPS, replace(QUICK, stop_at=1e-3), folder=tmp_path / "easy")
    assert (further.finished, further.step) == ("steps", 6)


def test_a_loss_that_is_no_number_stops_names_the_batch_and_keeps_the_last_good_checkpoint(tmp_path, refuses):
    poisoned = dict(CLIPS[3], tracks=CLIPS[3]["tracks"].clone())
    poisoned["tracks"][2, 5] = 1e30  # its square is no number any more
    poisoned["visibility"] = torch.ones_like(poisoned["visibility"])
    clips, task = Clips([*CLIPS[:3], poisoned, *CLIPS[4:]]), TrajectoryTask(loss="mse", target_scale=3.0)
    config = replace(QUICK, save_every=1, batch_size=2)
    with refuses(
        r"step \d: the loss is inf.* for the batch of clips .*c3.*; the last good checkpoint is .*last.pt",
        FloatingPointError,
    ):
        fit(tiny(), task, clips, None, config, folder=tmp_path)
    model, info = load_checkpoint(tmp_path / "last.pt")
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert info["step"] == len(read_metrics(tmp_path)) < 3


def hidden(clips):
    return Clips([dict(clip, visibility=torch.zeros_like(clip["visibility"])) for clip in clips])


def test_a_batch_without_visible_points_is_no_trouble_but_none_with_any_is(tmp_path, refuses):
    some, none = Clips([*hidden(CLIPS[:4]), *CLIPS[4:]]), hidden(CLIPS[:2])
    with pytest.warns(UserWarning, match="validation: ade can't be measured on visible points in any clip: no best.pt"):
        run = fit(tiny(), TASK, some, none, replace(QUICK, stop_at=1.0), folder=tmp_path / "some")
    assert run.finished == "steps" and run.best_score is None and run.best == run.last
    assert 0 < sum("ade" in line for line in run.metrics()) < 6
    assert not any("validation_ade" in line for line in run.metrics())
    assert all(torch.isfinite(torch.tensor(line["loss"])) for line in run.metrics() if "loss" in line)
    expected = r"train: expected clips whose ade can be measured on visible points, got none in \d steps over \d+ clips"
    for name, steps in (("pass", 6), ("pass", 6), ("short", 1)):  # gone on with, too, and where not all were seen
        config = replace(QUICK, steps=steps, batch_size=2)
        with refuses(expected):
            fit(tiny(), TASK, hidden(CLIPS if name == "short" else CLIPS[:4]), None, config, folder=tmp_path / name)


def test_bad_data_is_named(refuses, tmp_path):
    with refuses("train: expected at least one clip, got an empty split"):
        fit(tiny(), TASK, Clips([]), None, QUICK, folder=tmp_path)
    with refuses("validation: expected at least one clip, got an empty split; validation=None trains without"):
        fit(tiny(), TASK, CLIPS, Clips([]), QUICK, folder=tmp_path)
    with refuses("train: expected clips of 4 frames, as the model predicts, got 3"):
        fit(tiny(), TASK, Clips([make_clip(0, num_frames=3)]), None, QUICK, folder=tmp_path)
    with refuses("train: expected clips with the pictures of all 4 frames, got 2 of them"):
        fit(tiny(), TASK, Clips([dict(CLIPS[0], frames=CLIPS[0]["frames"][:2])]), None, QUICK, folder=tmp_path)
    late = dict(CLIPS[0], queries=CLIPS[0]["queries"] + torch.tensor([1.0, 0, 0]))
    with refuses("train: expected points that are asked for in frame 0"):
        fit(tiny(), TASK, Clips([late]), None, QUICK, folder=tmp_path)
    with refuses("loss: 'laplace' expects a model made with log_scale=True"):
        fit(tiny(), TrajectoryTask(loss="laplace"), CLIPS, None, QUICK, folder=tmp_path)
    with refuses("precision: 'fp16' expects a GPU, got a CPU"):
        fit(tiny(), TASK, CLIPS, None, replace(QUICK, precision="fp16"), folder=tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps: expected a whole number from 1 up, got 0"),
        ({"batch_size": 1.5}, "batch_size: expected a whole number from 1 to 65536, got 1.5"),
        ({"learning_rate": 0.0}, "learning_rate: expected a number above 0"),
        ({"ema_decay": 1.0}, "ema_decay: expected 0"),
        ({"trained": "middle"}, r"trained: expected one of last, first\+last"),
        ({"seed": -1}, "seed: expected a whole number from 0 up, got -1"),
        ({"seed": 2**64}, "seed: expected a whole number from 0 up, got 18446744073709551616"),
        ({"warmup_steps": -3}, "warmup_steps: expected a whole number from 0 up, got -3"),
        ({"num_workers": -1}, "num_workers: expected a whole number from 0 to 1024, got -1"),
        ({"patience": -1}, "patience: expected a whole number from 0 up"),
        ({"validation_samples": True}, "validation_samples: expected a whole number from 0 up, got True"),
        ({"picture_every": "5"}, "picture_every: expected a whole number from 0 up, got '5'"),
        ({"steps": None}, "steps: expected a whole number from 1 up, got None"),
        ({"weight_decay": -0.1}, "weight_decay: expected a number from 0 up, got -0.1"),
        ({"weight_decay": float("nan")}, "weight_decay: expected a number from 0 up, got nan"),
        ({"momentum": 1.0}, r"momentum: expected 0 \(none\) or a number below 1, got 1.0"),
        ({"learning_rate": "1e-3"}, "learning_rate: expected a number above 0, got '1e-3'"),
        ({"learning_rate": float("inf")}, "learning_rate: expected a number above 0, got inf"),
        ({"stem_learning_rate": -1e-3}, "stem_learning_rate: expected a number from 0 up"),
        ({"session_minutes": -1}, "session_minutes: expected a number from 0 up"),
        ({"schedule_over": "hours"}, "schedule_over: expected one of steps, minutes, got 'hours'"),
        ({"schedule_over": "minutes"}, "schedule_over: 'minutes' expects a cosine and session_minutes above 0"),
        ({"stop_at": float("nan")}, "stop_at: expected a number or None, got nan"),
        ({"compile": 1}, "compile: expected True or False, got 1"),
        ({"name": 3}, "name: expected a text, got 3"),
    ],
)
def test_bad_settings_are_named(refuses, options, message):
    with refuses(message):
        TrainConfig(**options)


def test_numbers_of_numpy_are_plain_ones_afterwards():
    jaxtyping.config.update("jaxtyping_disable", True)  # as at a user's
    try:
        config = TrainConfig(steps=np.int64(3), learning_rate=np.float32(0.5), weight_decay=0, stop_at=None)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    assert config == TrainConfig(**json.loads(json.dumps(config.to_json()))) and type(config.steps) is int


@pytest.mark.parametrize("options", [{"visibility_weight": -1}, {"target_scale": -2.0}, {"huber_delta": float("nan")}])
def test_bad_settings_of_the_task_are_named(refuses, options):
    with refuses(f"{next(iter(options))}: expected a number"):
        TrajectoryTask(**options)


def test_a_batch_of_one_with_batch_statistics_is_warned_of(tmp_path):
    single = replace(QUICK, batch_size=1, steps=1)
    with pytest.warns(UserWarning, match="batch_size=1 with batch_norm='train'"):
        fit(tiny(), TASK, CLIPS, None, single, folder=tmp_path / "train")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=UserWarning, module="flowlib")
        fit(tiny(batch_norm="group"), TASK, CLIPS, None, single, folder=tmp_path / "group")


def test_small_batches_that_are_gathered_equal_a_large_one(tmp_path):
    """Only a mean over all points of a step can give this: the batches have different numbers of visible points."""
    whole, parts = tiny(batch_norm="group"), tiny(batch_norm="group")
    one = fit(whole, TASK, CLIPS, None, replace(QUICK, batch_size=4, steps=3), folder=tmp_path / "whole")
    four = fit(parts, TASK, CLIPS, None, replace(QUICK, batch_size=1, accumulate=4, steps=3), folder=tmp_path / "parts")
    for here, there in zip(one.metrics(), four.metrics(), strict=True):
        assert here["clips"] == there["clips"]
        assert here["loss"] == pytest.approx(there["loss"], rel=1e-4)


def test_training_learns_and_leaves_the_callers_random_numbers_alone(tmp_path):
    model = tiny(batch_norm="group")
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    run = fit(model, TASK, Clips(CLIPS[:2]), None, replace(QUICK, steps=40, learning_rate=3e-3), folder=tmp_path)
    assert torch.equal(torch.rand(3), expected)
    errors = [line["ade"] for line in run.metrics()]
    assert sum(errors[-5:]) < 0.6 * sum(errors[:5])
    assert not model.training


def test_bfloat16_trains_and_the_model_is_itself_again_afterwards(tmp_path):
    model = tiny()
    run = fit(model, TASK, CLIPS, CLIPS, replace(QUICK, precision="bf16"), folder=tmp_path / "bf16")
    assert run.finished == "steps" and "forward" not in model.__dict__
    images = CLIPS[0]["frames"][[0]].movedim(-1, 1)[None]
    assert model(images).displacement.dtype == torch.float32
    fit(tiny(), TASK, CLIPS, None, QUICK, folder=tmp_path / "no")  # another precision in the same process


def test_the_newest_run_of_a_name_is_gone_on_with(tmp_path):
    for name in ("20260101-000000_demo", "20260301-000000_demo", "20260401-000000_other_demo"):
        (tmp_path / name).mkdir()
    assert run_folder("demo", tmp_path).name == "20260301-000000_demo"
    assert run_folder("other_demo", tmp_path).name == "20260401-000000_other_demo"
    fresh = run_folder("new", tmp_path)
    assert fresh.name.endswith("_new") and not fresh.exists()
