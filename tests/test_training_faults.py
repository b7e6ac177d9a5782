"""Training survives what happens to its files: a fault is told in one sentence, and changes no number."""

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fixtures.labelling_faults import remount, small_disk
from fixtures.tiny_model import Tiny
from fixtures.training_clips import TINY, make_clips

from flowlib.models.fcn import TrajectoryFCN
from flowlib.models.protocols import TrajectoryPrediction
from flowlib.tasks.trajectories import TrajectoryTask
from flowlib.training import TrainConfig, checkpoints, fit, load_checkpoint, load_task, run_table
from flowlib.training.checkpoints import (
    check_architecture,
    describe_model,
    find_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from flowlib.training.runs import alone_in

SEED = 20260918
CLIPS, TASK, FAULTS = make_clips(4), TrajectoryTask(), Counter()
CONFIG = TrainConfig(steps=6, validate_every=3, save_every=1, num_workers=0, device="cpu", learning_rate=1e-3)


def train(folder, sessions=0, **options):
    """Train to the end, or in so many sessions a step each, and always the same; returns the weights."""
    for _ in range(sessions or 1):
        torch.manual_seed(0)
        model, minutes = Tiny(4), 1e-9 if sessions else 0.0
        fit(model, TASK, CLIPS, CLIPS, replace(CONFIG, session_minutes=minutes, **options), folder=folder)
    return model.state_dict()


def same(one, two):
    return all(torch.equal(value, two[key]) for key, value in one.items()) and one.keys() == two.keys()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """(weights, metrics.jsonl) of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return train(folder), (folder / "metrics.jsonl").read_bytes()


@pytest.fixture(scope="module")
def finished_run(undisturbed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    train(folder)
    return folder


@pytest.fixture
def stopped(tmp_path):
    """A run that was interrupted after four of six steps."""
    folder = tmp_path / "run"
    train(folder, sessions=4)
    assert read_checkpoint(folder / "last.pt")[1]["step"] == 4
    return folder


def goes_on_as_undisturbed(folder, undisturbed, fault):
    FAULTS[fault] += 1
    assert same(train(folder), undisturbed[0]) and (folder / "metrics.jsonl").read_bytes() == undisturbed[1]
    assert {read_checkpoint(folder / f"{name}.pt")[1]["step"] for name in ("last", "previous")} == {5, 6}
    assert not list(folder.glob(".*")), "something was left"


# ------------------------------------------------------------------------------------------------------- what was saved


def flipped(path, chance):
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def test_a_flipped_bit_is_an_error_or_changes_nothing(stopped):
    chance, noticed = random.Random(SEED), 0
    for name in ("last.pt", "best.pt"):
        path = stopped / name
        whole, (tensors, meta) = path.read_bytes(), read_checkpoint(path)
        for _ in range(60):
            flipped(path, chance)
            try:
                there, about = read_checkpoint(path)
                assert about == meta and same(there["model"], tensors["model"])
            except ValueError as error:
                assert str(path) in str(error) and "damaged" in str(error) or "kind of file" in str(error)
                noticed += 1
            path.write_bytes(whole)
            FAULTS["bit of a checkpoint flipped"] += 1
    assert noticed >= 115  # the rest hit the word that announces the hash


def deleted(path, chance):
    path.unlink()


def emptied(path, chance):
    os.truncate(path, 0)


def cut(path, chance):
    os.truncate(path, chance.randrange(4, path.stat().st_size - 100))


def with_a_hole(path, chance):
    with open(path, "r+b") as file:
        file.seek(chance.randrange(path.stat().st_size // 2))
        file.write(bytes(512))


def replaced(path, chance):
    path.write_text("<html>Quota exceeded</html>")


def of_something_else(path, chance):
    torch.save({"weight": torch.ones(1)}, path)


LOSSES = (flipped, deleted, emptied, cut, with_a_hole, replaced, of_something_else)


@pytest.mark.parametrize("fault", LOSSES)
def test_a_run_goes_on_from_the_checkpoint_before_with_a_word(fault, stopped, undisturbed):
    fault(stopped / "last.pt", random.Random(SEED))
    with pytest.warns(UserWarning, match=r"last\.pt: expected .* from the checkpoint before it, of step 3"):
        goes_on_as_undisturbed(stopped, undisturbed, f"last.pt {fault.__name__}")


@pytest.mark.parametrize("fault", LOSSES)
def test_a_run_without_a_checkpoint_never_begins_again_by_itself(fault, stopped, refuses):
    before = (stopped / "metrics.jsonl").read_bytes()
    for name in ("last.pt", "previous.pt"):
        fault(stopped / name, random.Random(SEED))
    with refuses(
        r"last\.pt: expected .*this run has begun: put a copy of last.pt back .* or give another name .*best.pt"
    ):
        train(stopped)
    assert (stopped / "metrics.jsonl").read_bytes() == before
    FAULTS["all checkpoints gone"] += 1


def test_a_disk_without_links_keeps_the_checkpoint_before_too(stopped, undisturbed, monkeypatch):
    def refuse(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    train(stopped, sessions=1)
    deleted(stopped / "last.pt", None)  # as a kill does between two renames
    with pytest.warns(UserWarning, match="step 4"):
        goes_on_as_undisturbed(stopped, undisturbed, "no links")


def test_files_from_before_the_seal_are_read(stopped, undisturbed):
    for name in ("last.pt", "best.pt"):
        content = torch.load(stopped / name, weights_only=True)
        torch.save(content, stopped / name)
        assert not (stopped / name).read_bytes()[-71:].startswith(b"sha256")
    (stopped / "previous.pt").unlink()
    assert load_checkpoint(stopped / "best.pt")[1]["step"] == 3
    goes_on_as_undisturbed(stopped, undisturbed, "files of before")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_neither_read_nor_taken_for_damage(make, stopped, undisturbed):
    (stopped / "last.pt").rename(stopped / "kept")
    make(stopped / "last.pt")
    for use in (train, lambda folder: load_checkpoint(folder / "last.pt")):
        with pytest.raises(OSError, match=r"last\.pt: expected a checkpoint, got (a folder; name its|no file)"):
            use(stopped)
    (stopped / "last.pt").rmdir() if make == Path.mkdir else (stopped / "last.pt").unlink()
    (stopped / "kept").rename(stopped / "last.pt")
    goes_on_as_undisturbed(stopped, undisturbed, "no file")


@pytest.mark.parametrize("error", [errno.EACCES, errno.EIO, errno.EMFILE])
def test_what_the_disk_refuses_is_not_taken_for_damage(error, stopped, undisturbed, monkeypatch):
    def refuse(*_):
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patch, pytest.raises(OSError, match=os.strerror(error)):
        patch.setattr(checkpoints, "_sha256", refuse)
        train(stopped)
    goes_on_as_undisturbed(stopped, undisturbed, os.strerror(error))


@pytest.mark.parametrize("fault", LOSSES)
def test_a_run_asked_for_by_name_gives_its_next_best_checkpoint_with_a_word(fault, finished_run, tmp_path, refuses):
    folder = shutil.copytree(finished_run, tmp_path / "20260101-000000_x")
    fault(folder / "best.pt", random.Random(SEED))
    if fault in (cut, of_something_else):  # without a seal, it shows when it is read
        with refuses(r"best\.pt: expected a checkpoint"):
            load_checkpoint(find_checkpoint(tmp_path, "x"))
    elif fault is deleted:
        assert find_checkpoint(tmp_path, "x").name == "last.pt"
    else:
        with pytest.warns(UserWarning, match=r"best\.pt: expected .*; last\.pt is taken in its place"):
            assert find_checkpoint(tmp_path, "x").name == "last.pt"
    FAULTS["best.pt damaged"] += 1


def test_steps_without_end_begin_at_once(tmp_path):
    run = fit(Tiny(4), TASK, CLIPS, None, replace(CONFIG, steps=10**12, session_minutes=1e-9), folder=tmp_path)
    assert (run.step, run.finished) == (1, "")


def test_lines_that_are_missing_are_told(stopped):
    lines = (stopped / "metrics.jsonl").read_text().splitlines(keepends=True)
    (stopped / "metrics.jsonl").write_text("".join(["5\n", "[]\n", '{"step": "x"}\n', *lines[1:]]))
    with pytest.warns(UserWarning, match=r"metrics\.jsonl: expected the lines of 4 steps, got 3: the curve has a gap"):
        train(stopped)


def test_other_threads_or_workers_are_told_and_the_same_are_not(stopped, recwarn):
    train(stopped, sessions=1)
    assert not recwarn.list
    threads = torch.get_num_threads()
    expected = rf"torch threads {threads + 1} \(before: {threads}\), num_workers 1 \(before: 0\): .*last digits"
    with pytest.warns(UserWarning, match=expected):
        train(stopped, num_workers=1, threads=threads + 1)
    assert torch.get_num_threads() == threads


class Opaque:
    pass


EDITS = {
    "a billion frames": lambda content, meta: meta["model"]["config"].update(frames=10**9),
    "a million frames": lambda content, meta: meta["model"]["config"].update(frames=10**6),
    "other frames": lambda content, meta: meta["model"]["config"].update(frames=5),
    "no frames": lambda content, meta: meta["model"]["config"].update(frames=-1),
    "frames in words": lambda content, meta: meta["model"]["config"].update(frames="four"),
    "another argument": lambda content, meta: meta["model"]["config"].update(depth=2),
    "no config": lambda content, meta: meta["model"].pop("config"),
    "a class of nothing": lambda content, meta: meta["model"].update(module=""),
    "a class that is a number": lambda content, meta: meta["model"].update(name=3),
    "no model": lambda content, meta: meta.pop("model"),
    "a step in words": lambda content, meta: meta.update(step="two"),
    "a negative step": lambda content, meta: meta.update(step=-2),
    "data in a list": lambda content, meta: meta.update(data=[]),
    "no score": lambda content, meta: meta.pop("best_score"),
    "no JSON": lambda content, meta: "{",
    "a list": lambda content, meta: "[1]",
    "a newer format": lambda content, meta: meta.update(format="flowlib checkpoint 99"),
    "an old format by half": lambda content, meta: meta.update(fit={}),
    "no weights": lambda content, meta: content.update(model=3),
    "no optimiser": lambda content, meta: content.pop("optimizer"),
    "weights of another shape": lambda content, meta: content["model"].update({"layer.bias": torch.zeros(3)}),
    "a weight too few": lambda content, meta: content["model"].pop("layer.bias"),
    "a weight too many": lambda content, meta: content["model"].update(more=torch.zeros(3)),
    "a number for a weight": lambda content, meta: content["model"].update({"layer.bias": 3}),
    "objects": lambda content, meta: content.update(more=Opaque()),
}


IN_MODELS_ONLY = ("a class of nothing",)
IN_RUNS_ONLY = ("settings of another task", "a config of another training", "an optimiser of another model")
EDITS |= {
    "settings of another task": lambda content, meta: meta["task"]["settings"].update(depth=2),
    "a config of another training": lambda content, meta: meta["config"].update(depth=2),
    "an optimiser of another model": lambda content, meta: content["optimizer"]["param_groups"].clear(),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_checkpoint_edited_by_hand_is_one_sentence_and_no_memory(edit, finished_run, tmp_path, refuses):
    path = tmp_path / "last.pt"
    content = torch.load(finished_run / "last.pt", weights_only=True)
    meta = json.loads(content.pop("meta"))
    text = EDITS[edit](content, meta)
    torch.save(content | {"meta": text if isinstance(text, str) else json.dumps(meta)}, path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    uses = [] if edit in IN_RUNS_ONLY else [load_checkpoint]
    uses += [] if edit in IN_MODELS_ONLY else [lambda path: train(path.parent)]
    uses += [load_task] if "task" in edit else []
    for use in uses:
        with refuses(f"{tmp_path}.*(expected|class)"):
            use(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes
    FAULTS["checkpoint edited"] += 1


def test_a_network_of_a_billion_frames_is_refused_before_it_is_made(refuses, tmp_path):
    model = TrajectoryFCN(**TINY)
    config = dict(model.config, num_frames=10**9)
    about = {"model": {"module": "flowlib.models.fcn", "name": "TrajectoryFCN", "config": config}, "weights": "none"}
    about |= {"task": {"settings": {}}, "config": {}, "data": {"train": {}}, "constants": {}, "step": 1, "stale": 0}
    parts = {"model": model.state_dict(), "ema": {}, "optimizer": {}, "scaler": {}}
    save_checkpoint(tmp_path / "x.pt", parts, about | {"best_score": None, "processes": 1})
    with refuses(r"x\.pt: expected a config .*num_frames: expected a whole number up to"):
        load_checkpoint(tmp_path / "x.pt")


def test_what_holds_objects_is_refused_without_the_advice_to_run_them(tmp_path, refuses):
    for content in ({"model": Opaque()}, Opaque(), {"meta": torch.nn.Linear(2, 2)}):
        torch.save(content, tmp_path / "x.pt")
        with refuses(r"x\.pt: expected .* got objects of other kinds than tensors and numbers"):
            load_checkpoint(tmp_path / "x.pt")
        try:
            load_checkpoint(tmp_path / "x.pt")
        except ValueError:
            assert "weights_only" not in traceback.format_exc()


def test_a_run_edited_by_hand_does_not_hide_the_others(finished_run, tmp_path, caplog):
    for number, (name, text) in enumerate([("config.json", "{"), ("config.json", "[]"), ("state.json", "3"), ("", "")]):
        folder = shutil.copytree(finished_run, tmp_path / f"2026010{number}-000000_run")
        if name:
            (folder / name).write_text(text)
            FAULTS["run's JSON edited"] += 1
    assert len(run_table(tmp_path)) == 1
    assert len(caplog.records) == 3 and all(".json: expected what a training wrote" in caplog.text for _ in range(3))


# ------------------------------------------------------------------------------------------------------ while it trains


HOLDER = """
import sys, time
from fixtures.tiny_model import Tiny
from fixtures.training_clips import make_clips
from flowlib.tasks.trajectories import TrajectoryTask
from flowlib.training import TrainConfig, fit

config = TrainConfig(steps=100_000, num_workers=2, device="cpu", save_every=1)
fit(Tiny(4), TrajectoryTask(), make_clips(2), None, config, folder=sys.argv[1])
"""


def test_a_second_training_is_refused_and_a_killed_one_holds_nothing(tmp_path, refuses):
    here, folder = Path(__file__).parent, tmp_path / "run"
    paths = {"PYTHONPATH": os.pathsep.join((str(here), str(here.parent)))}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder], env=os.environ | paths, stderr=subprocess.DEVNULL
    )
    try:
        while not (folder / "state.json").exists() or json.loads((folder / "state.json").read_text())["step"] < 2:
            assert process.poll() is None
            time.sleep(0.05)
        link = tmp_path / "link"
        link.symlink_to(folder)
        for path in (folder, link, folder / ".." / "run"):
            with refuses(
                "another training is writing into this run's folder: .* another name .*machine", BlockingIOError
            ):
                train(path)
            FAULTS["second training"] += 1
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with alone_in(folder):  # though its workers, which notice the kill in seconds only, are still there
        with refuses("another training", BlockingIOError):
            train(folder)
    with alone_in(folder):
        pass


@contextmanager
def largest_file(size):
    """The kernel refuses to let files grow larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [100, 1000, 4000, 8000])
def test_a_disk_that_takes_no_more_is_one_sentence_and_costs_nothing(size, stopped, undisturbed, refuses):
    before = {name: (stopped / name).read_bytes() for name in ("last.pt", "previous.pt", "best.pt")}
    with largest_file(size), refuses(r"can't be written \(File too large\).* run again to go on$", OSError):
        train(stopped)
    assert before == {name: (stopped / name).read_bytes() for name in before}
    goes_on_as_undisturbed(stopped, undisturbed, "file too large")


@pytest.mark.parametrize("kilobytes", [16, 36, 56])
def test_a_full_disk_is_one_sentence_and_costs_nothing(kilobytes, undisturbed, tmp_path, refuses):
    folder = tmp_path / "disk"
    with small_disk(folder, kilobytes / 1024):
        with refuses(r"can't be written \(No space left on device\).* run again to go on$", OSError):
            train(folder / "run")
        remount(folder, "size=64m")
        goes_on_as_undisturbed(folder / "run", undisturbed, "disk full")


# ------------------------------------------------------------------------------------------------------------ its model


class Wrong(Tiny):
    """Answers with a changed prediction."""

    change = None

    def forward(self, images):
        right = super().forward(images)
        parts = {"displacement": right.displacement, "visibility_logits": right.visibility_logits}
        return TrajectoryPrediction(**{"frames": right.frames} | parts | type(self).change(right))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda p: {"displacement": p.displacement[..., ::2, ::2]},
            r"displacement .*\[2, 4, 2, 32, 48\], got .*16, 24",
        ),
        (lambda p: {"displacement": p.displacement.mT}, "displacement .*48, 32"),
        (lambda p: {"displacement": p.displacement.movedim(2, -1)}, "displacement .*32, 48, 2"),
        (lambda p: {"displacement": p.displacement[:1]}, r"displacement .*got torch.float32 \[1, 4, 2"),
        (lambda p: {"displacement": p.displacement[:, :3]}, r"displacement .*\[2, 3, 2"),
        (lambda p: {"displacement": p.displacement.long()}, "displacement as a floating tensor .*int64"),
        (lambda p: {"displacement": None}, "displacement .*NoneType"),
        (lambda p: {"visibility_logits": p.visibility_logits[:, :, None]}, "visibility_logits .*4, 1, 32"),
        (lambda p: {"visibility_logits": p.visibility_logits > 0}, "visibility_logits .*bool"),
        (lambda p: {"log_scale": p.displacement}, "log_scale as a floating tensor"),
        (lambda p: {"frames": (0, 1, 2)}, "all 4 frames .*got frames"),
        (lambda p: {"frames": (0, 2, 4, 6)}, r"all 4 frames .*\(0, 1, 2, 3\), got frames \(0, 2, 4, 6\)"),
        (
            lambda p: {"displacement": p.displacement.detach(), "visibility_logits": p.visibility_logits.detach()},
            "detach",
        ),
    ],
)
def test_a_prediction_of_another_shape_is_named(change, message, tmp_path, refuses, monkeypatch):
    monkeypatch.setattr(Wrong, "change", staticmethod(change))
    with refuses(f"model: expected .*{message}"):
        fit(Wrong(4), TASK, CLIPS, None, CONFIG, folder=tmp_path)
    FAULTS["wrong prediction"] += 1


def test_how_many_faults_there_were(capsys):
    with capsys.disabled():
        kinds = ", ".join(f"{number} {name}" for name, number in FAULTS.items())
        print(f"\nfaults injected into trainings: {FAULTS.total()} ({kinds})")


def test_an_option_that_a_model_has_got_since_stands_at_its_default(tmp_path):
    class Later(torch.nn.Linear):
        def __init__(self, width=2, added=(1, 2)):
            super().__init__(width, width)
            self.config = {"width": width, "added": list(added)}

    meta = {"model": describe_model(Later())}
    del meta["model"]["config"]["added"]
    check_architecture("old.pt", meta, Later())
    with pytest.raises(ValueError, match=r"a model with added=\[3\]"):
        check_architecture("old.pt", meta, Later(added=(3,)))
