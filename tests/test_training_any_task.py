"""Models and tasks that flowlib has never seen train, go on and are loaded; so is what older versions wrote."""

import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fixtures.tiny_model import Tiny
from fixtures.toy_task import Classify, Labels, pictures
from fixtures.training_clips import make_clips
from torch import nn

from flowlib.dataset import TrajectoryDataset
from flowlib.evaluation import evaluate
from flowlib.tasks.trajectories import TrajectoryTask
from flowlib.training import TrainConfig, fit, load_checkpoint, load_task, overfit, run_experiments, run_table
from flowlib.training.checkpoints import find_class, read_checkpoint
from flowlib.training.runs import run_folder

CLIPS = make_clips(3)
QUICK = TrainConfig(steps=4, validate_every=2, save_every=1, num_workers=0, device="cpu")
TOY = replace(QUICK, steps=6, ema_decay=0.9, learning_rate=0.1, accumulate=2)


def test_a_model_with_config_and_input_frames_alone_trains_and_is_loaded_again(tmp_path):
    model = Tiny(4)
    run = fit(model, TrajectoryTask(), CLIPS, CLIPS, QUICK, folder=tmp_path)
    assert run.finished == "steps" and run.best_score > 0
    loaded, info = load_checkpoint(run.last)
    assert isinstance(loaded, Tiny) and not loaded.training
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in loaded.state_dict().items())
    assert info["model"] == {"module": "fixtures.tiny_model", "name": "Tiny", "config": {"frames": 4}}
    assert info["target_scale"] == info["constants"]["target_scale"] > 0 and info["weights"] is None
    report = evaluate({"mine": loaded}, TrajectoryTask(), make_clips(2, 50), folder=tmp_path, progress=False)
    assert report.role("mine") == "model" and report.estimate("mine", "ade").mean > 0


def test_a_class_that_cannot_be_imported_is_said_so_and_the_model_may_be_passed(tmp_path, refuses):
    class Inner(Tiny):
        pass

    run = fit(Inner(4), TrajectoryTask(), CLIPS, None, QUICK, folder=tmp_path)
    with refuses(r"pass model=, for its model's class .*Inner was defined in a function"):
        load_checkpoint(run.last)
    assert isinstance(load_checkpoint(run.last, Inner(4))[0], Inner)
    with refuses("was defined in a script or notebook"):
        find_class({"module": "__main__", "name": "Net"}, nn.Module, "x:")
    with refuses("x: model's class gone.Net can't be imported"):
        find_class({"module": "gone", "name": "Net"}, nn.Module, "x:")
    with refuses("expected to be a torch.nn.modules.module.Module, got os.system, which is none"):
        find_class({"module": "os", "name": "system"}, nn.Module, "x:")
    with refuses("got pathlib.Path, which is none"):
        find_class({"module": "pathlib", "name": "Path"}, nn.Module, "x:")


def test_what_cannot_be_trained_is_refused_at_the_door(tmp_path, refuses):
    with refuses("model: expected a `config`"):
        fit(nn.Linear(1, 1), Classify(), pictures(3), None, QUICK, folder=tmp_path)
    with refuses("train: expected at least one sample, got an empty split"):
        fit(Labels(3), Classify(), [], None, QUICK, folder=tmp_path)
    with refuses("model: expected a prediction of all 4 frames of a clip"):
        fit(Tiny(3), TrajectoryTask(), CLIPS, None, QUICK, folder=tmp_path)
    with refuses("validation: expected a dataset with a length, got TrainConfig"):
        fit(Labels(3), Classify(), pictures(3), QUICK, folder=tmp_path)
    with refuses("train: expected a dataset with a length, got generator"):
        fit(Labels(3), Classify(), iter(x for x in ()), None, QUICK, folder=tmp_path)
    with refuses("config: expected a TrainConfig, got dict"):
        fit(Labels(3), Classify(), pictures(3), None, {"steps": 2}, folder=tmp_path)
    with refuses(r"task: expected a Task, such as TrajectoryTask\(\), got list"):  # the arguments of before
        fit(Labels(3), pictures(3), None, QUICK, folder=tmp_path)


def labels(seed=0):
    torch.manual_seed(seed)
    return Labels(3)


def test_a_task_of_ones_own_trains_and_goes_on_exactly_after_a_stop(tmp_path):
    data, stopped = pictures(30), replace(TOY, session_minutes=1e-9)
    runs = [fit(labels(i), Classify(), data, data, stopped, folder=tmp_path / "a") for i in range(6)]
    assert [run.step for run in runs] == [1, 2, 3, 4, 5, 6] and runs[-1].finished == "steps"
    whole = fit(labels(), Classify(), data, data, TOY, folder=tmp_path / "b")
    for name in ("metrics.jsonl", "best.pt"):
        if name == "best.pt":
            first, second = (read_checkpoint(run.folder / name)[0] for run in (runs[-1], whole))
            assert all(torch.equal(first["ema"][key], second["ema"][key]) for key in first["ema"])
        else:
            assert (whole.folder / name).read_bytes() == (runs[-1].folder / name).read_bytes()
    scores = [line["validation_accuracy"] for line in whole.metrics() if "validation_accuracy" in line]
    assert whole.best_score == max(scores)  # high is good
    assert len(whole.metrics()[0]["samples"]) == 4
    assert load_task(whole.best) == Classify()
    trained, _ = load_checkpoint(whole.best)
    report = evaluate({"trained": trained, "untrained": labels(1)}, Classify(), data, folder=tmp_path, progress=False)
    assert isinstance(trained, Labels) and report.estimate("trained", "accuracy").mean == pytest.approx(
        whole.best_score
    )
    assert "Accuracy %" in report.markdown() and "“trained” reaches" in report.summary()[0]


def test_a_score_that_is_good_when_high_stops_a_training_and_is_told_in_its_unit(tmp_path):
    data = pictures(6)
    config = replace(TOY, steps=300, validate_every=5, accumulate=1, ema_decay=0.0, schedule="constant")
    result = overfit(labels(), Classify(), data, config, samples=6, target=0.9, folder=tmp_path / "a")
    assert result.reached and result.run.finished == "stop_at" and result.score > 0.9 and result.figure() is None
    assert repr(result).startswith("Overfitted: Accuracy 100.00 %, above the asked 90 %, after ")
    short = overfit(labels(), Classify(), data, replace(config, steps=5), samples=6, target=1.0, folder=tmp_path / "b")
    assert repr(short).startswith("Not overfitted: Accuracy ") and ", below the asked 100 %, " in repr(short)


def test_a_sweep_changes_task_model_and_training_and_its_table_speaks_of_the_score(tmp_path):
    changes = {"smooth": {"smoothing": 0.1}, "slow": {"learning_rate": 1e-4}}
    table = run_experiments(
        Labels, Classify(), pictures(6), pictures(6), changes, TOY, model={"labels": 3}, runs=tmp_path
    )
    assert "smoothing=0.1" in table.rows[0]["changes"] and "smoothing" not in table.rows[1]["changes"]
    assert "labels=3" in table.rows[0]["changes"] and "learning_rate=0.0001" in table.rows[1]["changes"]
    best = [max(line["validation_accuracy"] for line in lines) for lines in map(_validations, table.rows)]
    assert [row["best_accuracy"] for row in table.rows] == best
    assert "best accuracy" in repr(table) and len(run_table(tmp_path)) == 2


def _validations(row):
    lines = map(json.loads, (Path(row["folder"]) / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if "validation_accuracy" in line]


@pytest.fixture
def before_tasks(tmp_path):
    """What was written before tasks had a room of their own: see the archive's README."""
    with tarfile.open(Path(__file__).parent / "data" / "before_tasks.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def test_an_old_checkpoint_predicts_what_it_did(before_tasks):
    model, info = load_checkpoint(before_tasks / "runs" / "20260101-000000_old" / "last.pt")
    images = (torch.arange(3 * 32 * 48) % 251).to(torch.uint8).reshape(1, 1, 3, 32, 48)
    expected = torch.load(before_tasks / "expected.pt", weights_only=True)
    with torch.no_grad():
        torch.testing.assert_close(model(images).displacement, expected)
    assert info["step"] == 2 and info["target_scale"] == float(model.target_scale) and info["best_score"] > 0
    assert info["config"]["schedule"] == "constant" and load_task(info["path"]) == TrajectoryTask()
    assert model.trained_on == tuple(info["data"]["train"]["videos"])


def test_an_old_run_goes_on_and_stands_in_the_table(before_tasks):
    folder = before_tasks / "runs" / "20260101-000000_old"
    (row,) = run_table(before_tasks / "runs").rows
    assert row["status"] == "done" and row["best_ade"] > 0 and "num_frames=4" in row["changes"]
    clips = TrajectoryDataset(before_tasks / "datasets" / "old", split="train")
    meta = read_checkpoint(folder / "last.pt")[1]
    model = load_checkpoint(folder / "last.pt")[0]
    config = TrainConfig(**meta["config"])
    again = fit(model, TrajectoryTask(), clips, clips, config, folder=folder)
    assert (again.step, again.finished) == (2, "steps")
    shutil.copytree(folder, before_tasks / "copy")
    further = fit(model, TrajectoryTask(), clips, clips, replace(config, steps=3), folder=folder)
    assert further.step == 3 and len(further.metrics()) == 6
    assert read_checkpoint(further.last)[1]["format"].endswith("2")
    assert all(torch.isfinite(value).all() for value in load_checkpoint(further.last)[0].state_dict().values())


def test_a_list_of_other_samples_is_other_data(tmp_path, refuses):
    fit(labels(), Classify(), pictures(6), None, QUICK, folder=tmp_path)
    other = [(image, (label + 1) % 3) for image, label in pictures(6)]
    with refuses("expected a run on the same train data"):
        fit(labels(), Classify(), other, None, QUICK, folder=tmp_path)


def test_what_a_model_was_trained_on_is_known_at_once_and_of_lists_too(tmp_path, refuses):
    clips, model = [dict(clip) for clip in CLIPS], Tiny(4)
    run = fit(model, TrajectoryTask(), clips, None, QUICK, folder=tmp_path)
    for trained in (model, load_checkpoint(run.last)[0]):
        with refuses("was trained on 3 of the 3 videos"):
            evaluate({"mine": trained}, TrajectoryTask(), clips, folder=tmp_path, progress=False)


def test_a_clip_that_does_not_belong_is_named_wherever_it_stands(tmp_path, refuses):
    late = dict(CLIPS[1], queries=CLIPS[1]["queries"] + torch.tensor([1.0, 0, 0]))
    with refuses("c1: expected points that are asked for in frame 0"):
        fit(Tiny(4), TrajectoryTask(), [CLIPS[0], late], None, QUICK, folder=tmp_path / "late")
    short = {key: value[:3] if key in ("frames", "tracks", "visibility") else value for key, value in CLIPS[1].items()}
    with refuses("expected clips of one length in a batch, got 3 and 4 frames"):
        fit(Tiny(4), TrajectoryTask(), [CLIPS[0], short], None, QUICK, folder=tmp_path / "short")


def test_a_runs_name_may_hold_what_a_pattern_would_and_no_slash(tmp_path, refuses):
    assert run_folder("[y]*", tmp_path).name.endswith("_[y]*")
    (tmp_path / "20260101-000000_[y]").mkdir()
    assert run_folder("[y]", tmp_path).name == "20260101-000000_[y]"
    with refuses("run: expected the name of a folder, without slashes, got 'a/b'"):
        run_folder("a/b", tmp_path)


@pytest.mark.parametrize(
    "name", ["[a]", "a[1", "a..b", "$HOME", "~", "*?", "{}", " a ", "-x", ".x", "a%sb", "ß", "x" * 220]
)
def test_a_run_of_any_printable_name_is_found_again_and_trained(name, tmp_path):
    for steps in (1, 2):
        config = replace(QUICK, name=name, steps=steps, schedule="constant")
        run = fit(labels(), Classify(), pictures(6), pictures(6), config, folder=run_folder(name, tmp_path))
    assert len(list(tmp_path.iterdir())) == 1 and run.step == 2 and len(run_table(tmp_path)) == 1


@pytest.mark.parametrize("name", ["..", ".", "", " ", "../x", "a/", "a\0b", "a\nb", "x" * 221])
def test_what_cannot_name_a_run_is_refused(name, tmp_path, refuses):
    with refuses("run: expected "):
        run_folder(name, tmp_path)


@pytest.mark.parametrize("missing, validation", [("accuracy", pictures(3)), ("loss", None)])
def test_a_value_that_a_task_forgets_is_named_in_the_first_step(missing, validation, tmp_path, refuses):
    class Forgets(Classify):
        def values(self, sums, counts):
            return {name: value for name, value in super().values(sums, counts).items() if name != missing}

    with refuses(f"task: expected '{missing}' in what Forgets.values gives, got"):
        fit(labels(), Forgets(), pictures(6), validation, QUICK, folder=tmp_path)
