"""Reports from numbers alone: intervals, summaries, the clips that are shown, and modules that go one way."""

import ast
import json
from dataclasses import replace
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.toy_eval import Coin, SignTask, Summing, Vectors
from scipy.stats import norm

import flowlib.evaluation
from flowlib.evaluation import Report, charts, evaluate
from flowlib.evaluation.comparison import SampleRow, difference_between
from flowlib.evaluation.statistics import estimate, nan_mean, per_group, resamples
from flowlib.tasks.trajectories import TrajectoryTask
from flowlib.workspace import Workspace


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95])
def test_an_interval_is_as_wide_as_the_distribution_of_means_says(confidence):
    """400 normal values: the mean's standard error is known, and so is how many of them an interval spans each way."""
    values = np.random.default_rng(0).normal(size=400)
    found = estimate(values, resamples(400, 4000, seed=1), confidence)
    reach = norm.ppf(0.5 + confidence / 2) * values.std() / np.sqrt(len(values))
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - reach, abs=0.06 * reach)
    assert found.high == pytest.approx(values.mean() + reach, abs=0.06 * reach)


def test_an_interval_covers_the_mean_as_often_as_it_says():
    """95 % intervals of 30 videos from a known distribution hold its mean in about 95 % of 200 trials."""
    rng, draws = np.random.default_rng(0), resamples(30, 500, seed=1)
    samples = rng.exponential(size=(200, 30))
    held = [(e.low <= 1 <= e.high) for e in (estimate(values, draws) for values in samples)]
    assert 0.86 <= np.mean(held) <= 0.98


def test_a_mean_leaves_out_what_is_not_there():
    values = np.array([[1.0, np.nan], [3.0, np.nan]])
    assert nan_mean(values) == 2 and np.isnan(nan_mean(values[:, 1])) and np.isnan(nan_mean(np.array([])))
    np.testing.assert_array_equal(nan_mean(values, axis=0), [2, np.nan])


def test_videos_without_a_value_are_left_out_and_counted():
    values = np.array([1.0, np.nan, 3.0])
    result = estimate(values, resamples(3, 200, seed=0))
    assert (result.mean, result.videos, result.left_out) == (2, 2, 1) and 1 <= result.low <= result.high <= 3
    nothing = estimate(np.array([np.nan, np.nan]), resamples(2, 10, seed=0))
    assert np.isnan(nothing.mean) and not nothing.has_interval and nothing.left_out == 2


def test_a_video_counts_once_however_many_clips_it_has():
    rows = [{"ade": 1.0}, {"ade": 3.0}, {"ade": np.nan}, {"ade": 10.0}]
    assert per_group(rows, ["a", "a", "a", "b"]) == {"a": {"ade": 2.0}, "b": {"ade": 10.0}}


def made_up(main, still, other, videos=12):
    """A report on made-up errors: one number for each video and method."""
    errors = {"mine": main, "zero motion": still, "other": other}
    rows = {
        name: [SampleRow(f"v{i}/0", f"v{i}", {"ade": float(base + 0.1 * np.sin(i + 7 * j))}) for i in range(videos)]
        for j, (name, base) in enumerate(errors.items())
    }
    return Report(TrajectoryTask(), rows, {"methods": {"zero motion": {"role": "null"}}})


@pytest.mark.parametrize(
    "main, still, other, answer",
    [
        (1.0, 3.0, 2.0, "Better than all others here"),
        (1.98, 3.0, 2.0, "Ahead of all others here, but not by enough"),
        (2.5, 3.0, 2.0, "Better than moving nothing, but “other” comes nearer"),
        (3.0, 3.0, 2.0, "Not yet: “mine” is no better than moving nothing"),
        (5.0, 3.0, 4.0, "Not yet: “mine” is no better than moving nothing"),
    ],
)
def test_the_summary_follows_the_numbers(main, still, other, answer):
    said = made_up(main, still, other).summary()
    assert said[0].startswith(answer)
    assert sum("more than chance" in sentence for sentence in said) + sum("may well be" in s for s in said) >= 1
    assert "few to judge" not in " ".join(said) and "few to judge" in " ".join(made_up(1.0, 3.0, 2.0, 4).summary())


def test_the_error_is_told_as_a_share_of_the_others():
    """Twelve videos in which the main method has about half of one baseline's error and a third of the other's."""
    report = made_up(1.0, 3.0, 2.0)
    assert list(report.ratios) == ["zero motion", "other"]
    for name, expected in {"zero motion": 1 / 3, "other": 1 / 2}.items():
        found = report.ratios[name]
        assert found.pooled.mean == pytest.approx(expected, abs=0.03) == found.geometric.mean
        assert found.pooled.low < found.pooled.mean < found.pooled.high < 0.6
    table = report.markdown().split("## ADE of mine over that of the others")[1].split("##")[0]
    assert "/ zero motion | 0.3" in table and report.groups[report.ratios["other"].worst[1]] in table
    assert "divided by" in report.html() and "ratios_of_mine" in report.to_dict()


def test_what_is_better_the_larger_has_no_ratio():
    rows = {name: [SampleRow("a", "v0", {"accuracy": 0.5}), SampleRow("b", "v1", {"accuracy": 0.7})] for name in "xy"}
    assert Report(SignTask(), rows, {}).ratios == {}


def test_a_clip_that_shows_little_does_not_stand_for_others():
    visible = [0.9, 0.02, 0.8, 0.7]
    rows = [SampleRow(f"{i}", f"v{i}", {"ade": 5.0 - i, "visible": visible[i]}) for i in range(4)]
    rows[1].scores["ade"] = 0.01  # one point is left of it, and it is right
    assert Report(TrajectoryTask(), {"mine": rows}, {}).extreme_samples() == {"Best": 3, "Median": 2, "Worst": 0}
    lost = [SampleRow(row.name, row.group, row.scores | {"visible": 0.1}) for row in rows]
    assert Report(TrajectoryTask(), {"mine": lost}, {}).extreme_samples()["Best"] == 1


class Fruits(SignTask):
    """A series over named places, one of which no method has, and a long one that tables show in part."""

    name = "fruits"
    series = (
        replace(SignTask.series[0], name="fruit", title="Fruit by fruit", function=lambda a: {0: 1.0, 2: 3.0},
                names=("apple <1>", "pear", "plum"), unit="g"),
        replace(SignTask.series[0], name="long", title="A long way", function=lambda a: dict.fromkeys(range(81), 0.5),
                tabled=(0, 40, 80)),
    )  # fmt: skip


def test_a_series_of_named_places_is_shown_by_name_and_a_long_one_in_part(tmp_path):
    report = evaluate({"a": Summing(), "b": Coin()}, Fruits(), Vectors(), folder=tmp_path, progress=False)
    fruit, long = Fruits.series
    assert [m.label for m in report.at_places(fruit)] == ["apple <1>", "plum"]
    assert [m.label for m in report.at_places(long)] == ["0", "40", "80"] and len(report.places(long)) == 81
    text = report.markdown()
    assert "| method | apple <1> | plum |" in text and "| method | 0 | 40 | 80 |" in text
    figures = charts.figures(report)
    assert "apple &lt;1&gt;" in figures["fruit"] and "polyline" not in figures["fruit"]
    assert figures["fruit"].count("<circle") == 4 and "a, plum: 3.00" in figures["fruit"]
    assert ">40</text>" in figures["long"] and ">41</text>" not in figures["long"]
    assert report.estimate("a", "long_41").mean == 0.5
    page = report.save(tmp_path).read_text()
    assert "Bars are intervals" in page and "Bands are intervals" in page


def test_numbers_are_pooled_over_samples_by_weight():
    scores = [{"ade": 1.0, "n": 1.0}, {"ade": 4.0, "n": 3.0}, {"ade": np.nan, "n": 9.0}, {"ade": 7.0}]
    rows = [SampleRow(str(i), "ab"[i % 2], row) for i, row in enumerate(scores)]
    report = Report(TrajectoryTask(), {"mine": rows}, {})
    assert report.pooled("mine", "ade", "n") == pytest.approx((1 + 12) / 4)
    assert np.isnan(report.pooled("mine", "none", "n"))


def test_a_method_is_compared_with_itself_under_other_conditions():
    rng = np.random.default_rng(0)
    easy = rng.normal(5, 2, 40)
    both = []
    for values, names in ((easy + 1 + rng.normal(0, 0.1, 40), range(40)), (easy, range(5, 45))):
        by_name = dict(zip(range(40), values)) | {number: 99.0 for number in range(40, 45)}
        rows = [SampleRow(str(number), f"video {number}", {"ade": by_name[number]}) for number in names]
        both.append(Report(TrajectoryTask(), {"mine": rows}, {}))
    found = difference_between(*both, "mine", "ade")
    assert found.videos == 35 and found.mean == pytest.approx(1, abs=0.1)
    assert found.high - found.low < 0.2 and found.excludes_zero  # far less than videos differ: it is paired
    with pytest.raises(ValueError, match="second: expected a comparison on the same videos, got others"):
        difference_between(both[0], Report(TrajectoryTask(), {"mine": rows[-3:]}, {}), "mine", "ade")


def test_its_modules_import_one_another_in_one_direction():
    package = Path(flowlib.evaluation.__file__).parent
    trees = {path.stem: ast.parse(path.read_text()) for path in package.glob("*.py") if path.stem != "__init__"}
    needs = {name: set() for name in trees}
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flowlib.evaluation"):
                inner = node.module.removeprefix("flowlib.evaluation").lstrip(".")
                needs[name] |= {inner} if inner else {alias.name for alias in node.names}
    TopologicalSorter(needs).prepare()  # raises CycleError


def test_the_engine_names_no_task_and_has_few_files():
    package = Path(flowlib.evaluation.__file__).parent
    sources = {path.name: path.read_text() for path in package.glob("*.py")}
    assert len(sources) <= 11
    assert not [
        name for name, text in sources.items() if "flowlib.tasks." in text.replace("flowlib.tasks.protocol", "")
    ]


def test_a_report_without_a_series_a_baseline_or_an_interval_can_be_read():
    rows = {"mine": [SampleRow("a", "v", {"ade": 1.0}), SampleRow("b", "v", {"ade": 2.0})]}
    report = Report(TrajectoryTask(), rows, {})
    assert report.best_baseline("ade") is None and report.estimate("mine", "fde").videos == 0
    assert "only one video" in report.html() and "1.50" in report.latex() and report.summary()[0].startswith("“mine”")
    silent = Report(TrajectoryTask(), {"mine": [SampleRow("a", "v", {"ade": float("nan")})]}, {})
    assert silent.extreme_samples() == {} and "no error to report" in silent.markdown()


def test_facts_are_those_of_the_data():
    rows = {"mine": [SampleRow("a", "v", {"ade": 1.0, "visible": 0.5}), SampleRow("b", "w", {"visible": 1.0})]}
    report = Report(TrajectoryTask(), rows, {"data": {"num_frames": 8, "size": [48, 64], "split": "<test>"}})
    html = report.html()
    for fact in ("2 videos", "2 clips", "8 frames each", "64×48 pixels", "75% of the points can be seen"):
        assert f"<li>{fact}</li>" in html
    assert "split: &lt;test&gt;" in html and report.score.name == "ade"


TOY = {"progress": False, "train": None}
ODD = ["ü 🎉", "[x]*?", "a'b\"c", "%20 #1 & <b>", "$HOME $x_$", "~x", "-r", ".hidden", "CON", "a:b|c", "日本語"]


@pytest.mark.parametrize("name", ODD)
def test_names_of_reports_methods_and_figures_may_be_odd(name, tmp_path):
    score = replace(SignTask.metrics[0], name=f"../{name}/acc", label=name)
    task = type("Odd", (SignTask,), {"metrics": (score,), "score": score.name, "group": "a/b"})()
    folder = Workspace(tmp_path).report(name)
    report = evaluate({name: Summing(), f"{name} 2": Coin()}, task, Vectors(), folder=folder, **TOY)
    report.save(folder)
    assert json.loads((folder / "report.json").read_text())["run"]["methods"][name]["role"] == "model"
    files = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert all(path.is_relative_to(folder) for path in files) and len(list((folder / "figures").iterdir())) == 4


@pytest.mark.parametrize("name", ["", " ", "a/b", "..", "a\nb", "a\0b", "\x1b[31m", "\udcff", "x" * 300, "日" * 100])
def test_names_that_no_folder_or_table_can_have_are_refused(name, tmp_path, refuses):
    with refuses("report: expected "):
        Workspace(tmp_path).report(name)
    if not name.isprintable() or not name.strip():
        with refuses("methods: expected names that can be printed, got "):
            evaluate({name: Coin()}, SignTask(), Vectors(), folder=tmp_path, **TOY)


@pytest.mark.parametrize(
    "function, message",
    [
        (lambda answer: None, "metric 'accuracy': expected its function to give a number, got NoneType None"),
        (lambda answer: "much", "metric 'accuracy': expected its function to give a number, got str much"),
        (lambda answer: torch.zeros(2), r"metric 'accuracy': .* a number, got Tensor tensor"),
        (lambda answer: np.zeros(3), r"metric 'accuracy': .* a number, got ndarray"),
        (lambda answer: {1: 2.0}, r"metric 'accuracy': .* a number, got dict"),
    ],
)
def test_a_metric_that_gives_no_number_is_named(function, message, tmp_path, refuses):
    metrics = (replace(SignTask.metrics[0], function=function),)
    with refuses(message):
        evaluate({"c": Coin()}, type("T", (SignTask,), {"metrics": metrics})(), Vectors(), folder=tmp_path, **TOY)


@pytest.mark.parametrize("found", [None, [1.0], {"far": 1.0}, {1: None}, {1: "much"}, 3.0])
def test_a_series_that_gives_no_numbers_is_named(found, tmp_path, refuses):
    series = (replace(SignTask.series[0], function=lambda answer: found),)
    with refuses("metric 'top': expected its function to give numbers by whole-numbered places, got"):
        evaluate({"c": Coin()}, type("T", (SignTask,), {"series": series})(), Vectors(), folder=tmp_path, **TOY)


def test_a_report_holds_whatever_a_method_says_of_itself(tmp_path):
    class Talks(Coin):
        def describe(self):
            odd = {
                "array": np.arange(3),
                "tensor": torch.ones(2),
                "number": np.float32(0.5),
                3: {1, 2},
                "path": Path("a"),
            }
            return super().describe() | odd | {"nan": float("nan"), "function": len}

    report = evaluate({"t": Talks()}, SignTask(), Vectors(), folder=tmp_path, about={"t": {"x": np.ones(2)}}, **TOY)
    report.save(tmp_path)
    told = json.loads((tmp_path / "report.json").read_text())["run"]["methods"]["t"]
    assert told["description"]["array"] == [0, 1, 2] and told["description"]["number"] == 0.5
    assert told["about"] == {"x": [1.0, 1.0]} and told["description"]["nan"] is None


@pytest.mark.parametrize("frames", [0, None, 1.5, {0, 3}])
def test_input_frames_are_a_sequence(frames, tmp_path, refuses):
    class Sees(Coin):
        input_frames = frames

    with refuses("method 'c': expected input_frames as a sequence such as \\(0, 3\\), got "):
        evaluate({"c": Sees()}, SignTask(), Vectors(), folder=tmp_path, **TOY)


def test_long_names_that_end_apart_are_told_apart():
    names = [f"Subject_3/index_curls_then_{finger}_curls/1" for finger in ("thumb", "middle")]
    first, second = (charts._short(name) for name in names)
    assert first != second and len(first) == len(second) == 26 and first.startswith("Subject_3")
