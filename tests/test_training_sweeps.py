"""Lists of experiments, their table and curves; overfitting one batch; the check of the zeroed stem."""

import json
from dataclasses import replace

import matplotlib
import pytest
import torch
from fixtures.training_clips import TINY, Clips, make_clips

from flowlib.models.fcn import TrajectoryFCN, hold_later_frames, see_more_frames
from flowlib.tasks.trajectories import TrajectoryTask
from flowlib.training import (
    TrainConfig,
    compare_trainings,
    grid,
    overfit,
    plot_curves,
    run_experiments,
    run_table,
)
from flowlib.training.runs import read_metrics
from flowlib.training.sweeps import RunTable

matplotlib.use("Agg")
CLIPS = make_clips(4)
TASK = TrajectoryTask()
QUICK = TrainConfig(name="try", steps=4, validate_every=2, save_every=10, num_workers=0, device="cpu")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    wild = {"optimizer": "sgd", "learning_rate": 1e9, "clip": "none", "steps": 30}
    changes = grid(optimizer=["sgd", "adam"], batch_norm=["group"]) | {"wild one": wild}
    return run_experiments(TrajectoryFCN, TASK, CLIPS, CLIPS, changes, QUICK, model=TINY, runs=runs), changes, runs


def test_a_grid_is_every_combination_by_name():
    assert grid(loss=["l1", "mse"], masked=[True, False]).keys() == {
        "loss=l1 masked=True",
        "loss=l1 masked=False",
        "loss=mse masked=True",
        "loss=mse masked=False",
    }


def test_experiments_run_one_after_another_and_one_that_diverges_does_not_stop_the_rest(table):
    rows, _, runs = table
    assert [row["run"] for row in rows.rows] == [
        "try-optimizer=sgd-batch_norm=group",
        "try-optimizer=adam-batch_norm=group",
        "try-wild-one",
    ]
    assert [row["status"] for row in rows.rows] == ["done", "done", "diverged"]
    first = rows.rows[0]
    assert first["steps"] == 4 and first["minutes"] > 0 and first["best_ade"] <= first["validation_ade"]
    assert "optimizer=sgd" in first["changes"] and "batch_norm=group" in first["changes"]
    assert "learning_rate" not in first["changes"] and "learning_rate=1000000000.0" in rows.rows[2]["changes"]
    assert "diverged" in repr(rows) and "<table>" in rows._repr_html_()
    assert "loss is" in json.loads((runs / rows.rows[2]["folder"] / "failure.json").read_text())["error"]


def test_the_same_list_again_redoes_nothing_and_the_table_of_a_workspace_has_all(table):
    rows, changes, runs = table
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*.*")}
    again = run_experiments(TrajectoryFCN, TASK, CLIPS, CLIPS, changes, QUICK, model=TINY, runs=runs)
    assert again.rows == rows.rows
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*.*")} == before
    assert {row["run"] for row in run_table(runs).rows} == {row["run"] for row in rows.rows}
    assert len(run_table(runs / "nothing")) == 0


def test_models_of_a_list_start_alike(table):
    rows, *_ = table
    first = [read_metrics(row["folder"])[0] for row in rows.rows[:2]]
    assert first[0]["loss"] == first[1]["loss"]


def test_curves_of_several_runs_lie_over_each_other(table, refuses):
    rows, *_ = table
    ax = plot_curves(rows, "loss", smooth=2)
    assert len(ax.get_lines()) == 3 and ax.get_xlabel() == "step"
    judged = plot_curves([row["folder"] for row in rows.rows[:2]], "validation_ade")
    assert [len(line.get_xdata()) for line in judged.get_lines()] == [2, 2]
    with refuses("key: expected a name in the runs' metrics.jsonl, got 'nothing'"):
        plot_curves(rows, "nothing")
    matplotlib.pyplot.close("all")


def test_a_change_that_nobody_knows_is_named_before_anything_runs(refuses, tmp_path):
    with refuses("typo: expected fields of TrainConfig, TrajectoryTask or TrajectoryFCN, got optimiser"):
        run_experiments(
            TrajectoryFCN, TASK, CLIPS, None, {"typo": {"optimiser": "sgd"}}, QUICK, model=TINY, runs=tmp_path
        )
    with refuses("loss: expected one of"):
        run_experiments(TrajectoryFCN, TASK, CLIPS, None, {"bad": {"loss": "l7"}}, QUICK, model=TINY, runs=tmp_path)
    assert not list(tmp_path.iterdir())


def test_runs_of_one_setting_are_put_together_with_their_spread():
    rows = [{"cube": cube, "seed": seed, "best_ade": cube + seed} for cube in (1, 2) for seed in range(3)]
    rows += [{"cube": 3, "seed": 0, "best_ade": None}]
    found = RunTable(rows).spread("cube")
    assert found.rows[1] == {"cube": 2, "runs": 3, "mean_best_ade": 3.0, "lowest": 2, "highest": 4}
    assert found.rows[2] == {"cube": 3, "runs": 0, "mean_best_ade": None, "lowest": None, "highest": None}
    assert "lowest" in repr(found) and len(RunTable(rows).spread("cube", "seed")) == 7
    for over in ((), ("size",)):
        with pytest.raises(ValueError, match="over: expected columns of a table of one score"):
            RunTable(rows).spread(*over)


def test_one_batch_is_overfitted_and_the_summary_says_so(tmp_path):
    torch.manual_seed(0)
    model = TrajectoryFCN(**TINY | {"batch_norm": "group"})
    config = replace(QUICK, steps=200, learning_rate=3e-3, validate_every=10, schedule="constant")
    start = float(torch.cat([c["tracks"][1:] - c["queries"][:, 1:] for c in CLIPS[:2]]).norm(dim=-1).mean())
    result = overfit(model, TASK, CLIPS, config, samples=2, target=0.6 * start, folder=tmp_path)
    assert result.reached and result.score < 0.6 * start and result.steps < 200
    assert repr(result).startswith(f"Overfitted: ADE {result.score:.2f} px on visible points, below the asked")
    assert result.curve[-1] == (result.steps, result.score) and result.minutes > 0
    figure = result.figure()
    assert len([ax for ax in figure.axes if ax.get_title()]) == 6
    matplotlib.pyplot.close(figure)


def test_a_batch_that_is_not_overfitted_gets_hints(tmp_path, refuses):
    result = overfit(TrajectoryFCN(**TINY), TASK, CLIPS, replace(QUICK, steps=12), target=1e-3, folder=tmp_path)
    assert not result.reached and "Not overfitted: ADE" in repr(result) and len(repr(result)) > 120
    with refuses("samples: expected 1 to 4, as many as the dataset has, got 5"):
        overfit(TrajectoryFCN(**TINY), TASK, CLIPS, QUICK, samples=5, folder=tmp_path)


def test_a_zeroed_second_frame_trains_exactly_like_one_frame(tmp_path):
    torch.manual_seed(0)
    model = TrajectoryFCN(**TINY)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    config = replace(QUICK, steps=20, learning_rate=1e-3)
    one, two = see_more_frames(model, (0,)), see_more_frames(model, (0, 3), "zero")
    hold_later_frames(two)
    check = compare_trainings({"one_frame": one, "two_frames": two}, TASK, Clips(CLIPS), config, tmp_path)
    assert check.output_difference <= 1e-6 and check.loss_difference <= 1e-5 and check.equal
    assert len(check.losses) == 20 and check.losses[-1][0] < check.losses[0][0]
    assert repr(check).startswith("Equal: outputs differ by")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
