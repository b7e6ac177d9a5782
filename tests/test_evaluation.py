"""Evaluation: right numbers, honest intervals, no leak, nothing done twice."""

import dataclasses
import hashlib
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from fixtures.synthetic_clips import SyntheticClips
from fixtures.toy_eval import Coin, SignTask, Summing, Vectors

from flowlib.clips import Clip, ClipList, ClipSample
from flowlib.evaluation import EvalConfig, evaluate, find_leaks, page
from flowlib.geometry import cell_grid
from flowlib.models import TrajectoryPrediction
from flowlib.models.baselines import ConstantVelocity, MeanMotion, OracleTracks, Scaled, ZeroMotion
from flowlib.synthetic import synthetic_clip
from flowlib.tasks.protocol import MetricSpec
from flowlib.tasks.trajectories import ScoringConfig, TrajectoryTask

TASK = TrajectoryTask()
QUIET = {"progress": False, "pictures": False}


class Counting(ZeroMotion):
    """Zero motion that counts its calls, and can be told to fail at one of them."""

    def __init__(self, fail_at: int = -1, name: str = "counting") -> None:
        super().__init__(8)
        self.calls, self.fail_at, self.name = 0, fail_at, name

    def __call__(self, images):
        self.calls += 1
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        return super().__call__(images)

    def describe(self):
        return {"name": self.name}


@pytest.fixture(scope="module")
def clips():
    return SyntheticClips(seeds=range(3), clips_per_video=2, motion="linear", camera="linear")


@pytest.fixture(scope="module")
def report(clips, tmp_path_factory):
    train = SyntheticClips(seeds=[7, 8])
    dis = ConstantVelocity()
    methods = {"dis": dis, "dis, gains": Scaled.fit(dis, train), "zero motion": ZeroMotion(8)}
    methods |= {"oracle": OracleTracks()}
    return evaluate(methods, TASK, clips, folder=tmp_path_factory.mktemp("report"), train=train, progress=False)


def test_the_numbers_are_those_of_the_metrics(report, clips):
    moved = []
    for index in range(len(clips)):
        sample = clips[index]
        lengths = torch.linalg.norm(sample["tracks"] - sample["queries"][:, 1:], dim=-1)
        moved.append(float(lengths[1:][sample["visibility"][1:]].mean()))
    rows = report.rows["zero motion"]
    np.testing.assert_allclose([row.scores["ade"] for row in rows], moved, rtol=1e-4)
    by_video = np.array(moved).reshape(3, 2).mean(axis=1)
    overall = report.overall["zero motion"]["ade"]
    assert overall.mean == pytest.approx(by_video.mean(), rel=1e-4) and overall.videos == 3
    assert by_video.min() - 1e-4 <= overall.low < overall.mean < overall.high <= by_video.max() + 1e-4
    assert report.overall["oracle"]["ade"].mean < 0.1 < report.overall["dis"]["ade"].mean


def test_differences_are_paired(report):
    ours, theirs = report.values("dis", "ade"), report.values("zero motion", "ade")
    difference = report.differences["zero motion"]["ade"]
    assert difference.mean == pytest.approx((ours - theirs).mean())
    assert difference.low >= (ours - theirs).min() and difference.high <= (ours - theirs).max()
    assert report.difference("dis", "dis", "ade").high == 0


def test_all_metrics_are_there(report):
    expected = {"ade", "fde", "mse_last", "miss_rate", "average_jaccard", "visibility_accuracy", "visibility_auroc"}
    expected |= {"roughness", "curl_error", "grid_artefacts"}
    expected |= {"psnr_all", "psnr_moving", "ssim_covered", "holes", "epe_7"}
    assert expected <= set(report.measured) and report.places(TASK.series[0]) == list(range(1, 8))
    assert report.overall["zero motion"]["holes"].mean == 0 and report.overall["zero motion"]["roughness"].mean == -1


def test_the_oracle_rebuilds_the_frame(tmp_path):
    """With the exact motion of every pixel and no edges: over 40 dB wherever a pixel arrives."""
    clips = SyntheticClips(seeds=range(2), size=(120, 160), grid=(120, 160), num_sprites=0, camera="affine")
    report = evaluate({"exact": OracleTracks()}, TASK, clips, folder=tmp_path, **QUIET)
    assert all(row.scores["psnr_covered"] > 40 for row in report.rows["exact"])


def test_saved_files_hold_the_numbers_and_the_run(report, tmp_path):
    page = report.save(tmp_path / "out")
    saved = json.loads((tmp_path / "out" / "report.json").read_text())
    assert saved["overall"]["dis"]["ade"]["mean"] == report.overall["dis"]["ade"].mean
    assert saved["run"]["methods"]["dis"]["description"]["flow"] == "dis medium"
    assert saved["run"]["data"]["fingerprint"] == "synthetic [0, 1, 2] {'motion': 'linear', 'camera': 'linear'}"
    assert len(saved["per_clip"]["dis"]) == 6 and set(saved["per_video"]["dis"]) == {"scene_0", "scene_1", "scene_2"}
    html, tex = page.read_text(), (tmp_path / "out" / "table.tex").read_text()
    assert not re.search(r"(src|href)=['\"](?!data:)", html), "the page must stand alone"
    assert "<script" not in html and html.count("data:image/jpeg;base64,") >= 3 * (3 + 4 * 3)
    mean = f"{report.overall['dis']['ade'].mean:.2f}"
    assert mean in html and mean in tex and mean in (tmp_path / "out" / "table.md").read_text()
    assert tex.count("{") == tex.count("}") and tex.count("&") == 4 * 6 + 6
    names = {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    assert {"overall_ade.svg", "epe.svg", "per_video_ade.svg", "differences_ade.svg"} <= names
    import xml.dom.minidom

    for path in (tmp_path / "out" / "figures").iterdir():
        assert xml.dom.minidom.parseString(path.read_text()).documentElement.tagName == "svg"


def test_pictures_show_the_best_the_median_and_the_worst(report):
    errors = [row.scores["ade"] for row in report.rows["dis"]]
    titles = [strip.title for strip in report.strips]
    assert titles == ["Best", "Median", "Worst"]
    assert report.strips[0].name == report.rows["dis"][int(np.argmin(errors))].name
    assert report.strips[2].name == report.rows["dis"][int(np.argmax(errors))].name
    assert report.strips[2].rows[0].note.startswith(f"{max(errors):.2f} px, ")


def test_the_page_answers_first_and_introduces_everyone(report):
    answer, *rest = report.summary()
    html = report.html()
    assert answer in html and all(sentence in html for sentence in rest[:1])
    assert "Nothing moves. The frame rebuilt from it is a copy of the first picture." in html
    assert "frames 0 and 1 by optical flow (DIS)" in html and "scaled by what fits the training videos" in html
    assert "prefers-color-scheme: dark" in html and "% of the points can be seen" in html


def test_the_report_says_where_a_checkpoint_comes_from(clips, tmp_path, refuses):
    about = {"zero": {"step": 200, "path": "runs/two_frames/best.pt", "best": float("nan")}}
    report = evaluate({"zero": ZeroMotion(8)}, TASK, clips, folder=tmp_path, about=about, **QUIET)
    report.save(tmp_path)
    saved = json.loads((tmp_path / "report.json").read_text())
    assert saved["run"]["methods"]["zero"]["about"] == about["zero"] | {"best": None}
    assert "step 200, from runs/two_frames/best.pt" in report.markdown()
    with refuses("about: expected names of methods \\(zero\\), got 'model'"):
        evaluate({"zero": ZeroMotion(8)}, TASK, clips, folder=tmp_path, about={"model": {}}, **QUIET)


def test_names_cannot_break_the_page_or_the_tables(clips, tmp_path):
    report = evaluate({"a|b & <c>_%": ZeroMotion(8), "b": Counting()}, TASK, clips, folder=tmp_path, **QUIET)
    assert "&lt;c&gt;" in report.html() and "<c>" not in report.html()
    assert "a\\|b" in report.markdown() and r"\& <c>\_\%" in report.latex()


def test_one_video_has_no_interval_and_says_so(tmp_path):
    report = evaluate(
        {"zero": ZeroMotion(8)}, TASK, SyntheticClips(seeds=[1], clips_per_video=2), folder=tmp_path, **QUIET
    )
    assert not report.overall["zero"]["ade"].has_interval
    assert "only one video" in report.markdown() and "only one video" in report.html()
    assert report.to_dict()["overall"]["zero"]["ade"]["low"] is None


def test_a_clip_without_visible_points(tmp_path):
    class Hidden(SyntheticClips):
        def __getitem__(self, index):
            sample = dict(super().__getitem__(index))
            if index == 0:
                sample["visibility"] = torch.zeros_like(sample["visibility"])
            return sample

    report = evaluate({"zero": ZeroMotion(8)}, TASK, Hidden(), folder=tmp_path, progress=False)
    assert report.overall["zero"]["ade"].left_out == 1 and "1 of 3 videos for ADE px" in report.markdown()
    assert "mean of 2 videos, 1 left out" in report.html()
    both = evaluate({"zero": ZeroMotion(8), "dis": ConstantVelocity()}, TASK, Hidden(), folder=tmp_path, **QUIET)
    assert "3 of 3 videos for Grid artefacts % of “zero”" in both.left_out_note()


def test_a_clip_without_any_point(tmp_path):
    class Empty(SyntheticClips):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            none = {"tracks": sample["tracks"][:, :0], "visibility": sample["visibility"][:, :0]}
            return {**sample, **none, "queries": sample["queries"][:0]} if index == 0 else sample

    report = evaluate({"zero": ZeroMotion(8)}, TASK, Empty(), folder=tmp_path, progress=False)
    assert report.overall["zero"]["ade"].left_out == 1 and report.overall["zero"]["psnr_all"].left_out == 0


def test_lpips_is_measured_where_its_network_is_at_hand(clips, tmp_path, shared):
    weights = str(shared / "data" / "weights" / "lpips_alex_v0.1.pth")
    large = SyntheticClips(seeds=[1, 2], size=(64, 96), grid=(64, 96), num_sprites=0, camera="affine")
    task = TrajectoryTask(scoring=ScoringConfig(lpips_weights=weights))
    report = evaluate({"zero": ZeroMotion(8), "truth": OracleTracks()}, task, large, folder=tmp_path, **QUIET)
    assert 0 <= report.overall["truth"]["lpips_covered"].mean < 0.5 * report.overall["zero"]["lpips_covered"].mean
    told = re.search("Not measured: (.*?)<", report.html())
    assert told and told[1] == (
        "Labels apart, for lack of labels by two trackers; Inside, Paths inside, Radius, Radius of paths, for lack of "
        "regions; Spread, for lack of a prediction that says how sure it is; Between futures, for lack of a prediction "
        "that says how sure it is and several futures."
    )
    without = evaluate({"zero": ZeroMotion(8)}, TASK, large, folder=tmp_path, **QUIET)
    assert "LPIPS moving, for lack of the weights of its network (lpips_weights)" in without.html()


def test_methods_that_say_nothing_of_themselves_share_no_scores(clips, tmp_path):
    class Silent:
        input_frames = (0,)

        def __call__(self, images):
            return ZeroMotion(8)(images)

    for _ in range(2):
        report = evaluate({"silent": Silent()}, TASK, clips, folder=tmp_path, **QUIET)
        assert report.run["scores_reused"] == 0


def test_a_subclass_that_calls_otherwise_and_a_silent_network_share_no_scores(clips, tmp_path):
    class Faster(ZeroMotion):
        def __init__(self, speed):
            super().__init__(8)
            self.speed = speed

        def __call__(self, images):
            still = super().__call__(images)
            return TrajectoryPrediction(still.displacement + self.speed, still.visibility_logits, still.frames)

    found = [
        [report.estimate(name, "ade").mean for name in ("slow", "fast")]
        for report in (
            evaluate({"slow": Faster(1.0), "fast": Faster(9.0)}, TASK, clips, folder=tmp_path, **QUIET)
            for _ in range(2)
        )
    ]
    assert found[0] == found[1] and found[0][0] < found[0][1]


def test_networks_without_a_description_are_told_apart_by_their_attributes(clips, tmp_path):
    class Shifted(torch.nn.Module):
        input_frames = (0,)

        def __init__(self, shift):
            super().__init__()
            self.shift = shift

        def forward(self, images):
            still = ZeroMotion(8)(images)
            return TrajectoryPrediction(still.displacement + self.shift, still.visibility_logits, still.frames)

    near, far = (
        evaluate({"one": Shifted(shift)}, TASK, clips, folder=tmp_path, **QUIET).estimate("one", "ade").mean
        for shift in (1.0, 9.0)
    )
    assert near < far


def test_an_oracle_in_front_is_not_praised(clips, tmp_path):
    report = evaluate({"o": OracleTracks(), "z": ZeroMotion(8)}, TASK, clips, folder=tmp_path, **QUIET)
    assert "“o” sees the answer" in report.summary()[0] and "Better" not in " ".join(report.summary())


# Cache


def test_scores_are_reused_until_something_changes(clips, tmp_path):
    first, other = Counting(), Counting(name="other")
    once = evaluate({"a": first}, TASK, clips, folder=tmp_path, **QUIET)
    again = evaluate({"a": first, "b": other}, TASK, clips, folder=tmp_path, **QUIET)
    assert (first.calls, other.calls, again.run["scores_reused"]) == (6, 6, 6)
    assert again.overall["a"] == once.overall["a"]
    evaluate({"a": first}, TASK, clips, folder=tmp_path, config=EvalConfig(resamples=50, seed=3), **QUIET)
    assert first.calls == 6, "the bootstrap comes after scoring"
    evaluate({"a": first}, TrajectoryTask(scoring=ScoringConfig(fill="none")), clips, folder=tmp_path, **QUIET)
    assert first.calls == 12
    evaluate(
        {"a": first},
        TASK,
        SyntheticClips(seeds=[2, 9], clips_per_video=2, motion="linear", camera="linear"),
        folder=tmp_path,
        **QUIET,
    )
    assert first.calls == 14, "clips of scene 2 were known"


def test_a_kill_costs_the_method_at_work_on_one_clip(clips, tmp_path):
    first, second = Counting(name="first"), Counting(fail_at=4, name="second")
    with pytest.raises(KeyboardInterrupt):
        evaluate({"a": first, "b": second}, TASK, clips, folder=tmp_path, **QUIET)
    path = next(path for path in (tmp_path / "scores").iterdir() if path.read_text().count("\n") == 3)
    path.write_text(path.read_text() + '{"key": "torn')  # the kill came in the middle of a line
    resumed = evaluate({"a": first, "b": second}, TASK, clips, folder=tmp_path, **QUIET)
    assert (first.calls, second.calls) == (6, 7)
    fresh = evaluate({"a": first, "b": second}, TASK, clips, folder=tmp_path / "fresh", **QUIET)
    assert resumed.to_dict()["overall"] == fresh.to_dict()["overall"]


def test_a_new_metric_is_computed_alone_for_all_clips(clips, tmp_path):
    calls = {}

    def counted(metric, version=0):
        def function(answer):
            calls[metric.name] = calls.get(metric.name, 0) + 1
            return metric.function(answer)

        return replace(metric, function=function, version=metric.version + version)

    class Counted(TrajectoryTask):
        metrics = tuple(map(counted, TrajectoryTask.metrics))

    bias = MetricSpec("bias", "Bias", "px", "zero", lambda a: float(a.at_points[0][1:, :, 0].mean()), group="Where")

    class Extended(Counted):
        metrics = (*Counted.metrics, counted(bias))

    class Raised(Counted):
        metrics = (counted(TrajectoryTask.metrics[0], version=1), *Counted.metrics[1:])

    dis, zero = ConstantVelocity(), ZeroMotion(8)
    evaluate({"dis": dis}, Counted(), clips, folder=tmp_path, **QUIET)
    assert calls["ade"] == calls["fde"] == 6
    calls.clear()
    report = evaluate({"dis": dis}, Extended(), clips, folder=tmp_path, **QUIET)
    assert calls == {"bias": 6} and report.run["scores_reused"] == 0
    assert all(np.isfinite(row.scores["bias"]) and "ade" in row.scores for row in report.rows["dis"])
    assert "Bias px" in report.markdown()
    calls.clear()
    evaluate({"dis": dis}, Raised(), clips, folder=tmp_path, **QUIET)
    assert calls == {"ade": 6}
    calls.clear()
    again = evaluate({"dis": dis, "zero": zero}, Extended(), clips, folder=tmp_path, **QUIET)
    assert set(calls.values()) == {6} and again.run["scores_reused"] == 6, "an added method costs only itself"


class ByContent(SyntheticClips):
    """Clips with a fingerprint of their content, as the shards' have, that count how often they are read."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.reads, self.fingerprint = 0, hashlib.sha256(self.fingerprint.encode()).hexdigest()

    def __getitem__(self, index):
        self.reads += 1
        return super().__getitem__(index)


def test_nothing_is_read_or_predicted_again_when_all_is_known(tmp_path):
    test, train, counting = ByContent(seeds=range(3)), ByContent(seeds=[7, 8]), Counting()
    once = evaluate({"a": counting}, TASK, test, folder=tmp_path, train=train, progress=False)
    test.reads = train.reads = counting.calls = 0
    again = evaluate({"a": counting}, TASK, test, folder=tmp_path, train=train, progress=False)
    assert (test.reads, train.reads, counting.calls) == (0, 0, 0)
    assert again.strips == once.strips and again.overall == once.overall and len(again.strips) == 3
    other = Counting(name="other")
    evaluate({"a": counting, "b": other}, TASK, test, folder=tmp_path, train=train, progress=False)
    assert (counting.calls, other.calls) == (3, 6), "three clips scored, and three pictured with both"


def test_what_a_transform_changes_is_read_every_time(tmp_path):
    test = ByContent(seeds=range(2))
    evaluate({"a": Counting()}, TASK, test, folder=tmp_path, **QUIET)
    test.transform, test.reads = (lambda sample: sample), 0
    evaluate({"a": Counting()}, TASK, test, folder=tmp_path, **QUIET)
    assert test.reads == 2


def test_networks_are_told_apart_by_their_weights_and_left_as_they_were(clips, tmp_path):
    class Net(torch.nn.Module):
        input_frames = (0,)

        def __init__(self):
            super().__init__()
            self.shift, self.drop = torch.nn.Parameter(torch.tensor([1.0, 0.0])), torch.nn.Dropout(0.9)

        def forward(self, images):
            still = ZeroMotion(8)(images)
            moved = still.displacement + self.drop(self.shift)[None, None, :, None, None]
            moved = moved * (torch.arange(8) > 0)[None, :, None, None, None]
            return type(still)(moved, still.visibility_logits, still.frames)

    net = Net().train()
    one = evaluate({"net": net}, TASK, clips, folder=tmp_path, **QUIET)
    assert net.training and evaluate({"net": net}, TASK, clips, folder=tmp_path, **QUIET).run["scores_reused"] == 6
    with torch.no_grad():
        net.shift[0] = 30
    two = evaluate({"net": net}, TASK, clips, folder=tmp_path, **QUIET)
    assert two.run["scores_reused"] == 0 and two.overall["net"]["ade"].mean > one.overall["net"]["ade"].mean


# Leaks and bad input


class Described(SyntheticClips):
    """Clips that say, as those of shards do, which video and which of its frames they are."""

    @property
    def clips(self):
        return [self[index].clip for index in range(len(self))]

    def __getitem__(self, index):
        sample = ClipSample.of(super().__getitem__(index))
        return replace(sample, clip=replace(sample.clip, name="", first_frame=16, fingerprint=sample.clip.video))


def test_a_subset_is_looked_through(tmp_path):
    some = torch.utils.data.Subset(Described(seeds=range(4)), [1, 3])
    report = evaluate({"zero": ZeroMotion(8)}, TASK, some, folder=tmp_path, progress=False)
    assert report.groups == report.run["data"]["videos"] == ["scene_1", "scene_3"]
    assert {strip.where for strip in report.strips} == {"frames 16 to 23"} and "frames 16 to 23" in report.html()


class Unnamed(torch.utils.data.Dataset):
    """A clip of which nothing is known before it is read."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return SyntheticClips(seeds=[1])[0]


def test_trained_on_the_test_videos(clips, tmp_path, refuses):
    mean = MeanMotion.fit(clips)
    with refuses("methods 'mean', 'again' were trained on 3 of the 3 videos to be tested on .*scene_0, "):
        evaluate({"mean": mean, "zero": ZeroMotion(8), "again": mean}, TASK, clips, folder=tmp_path, **QUIET)
    with refuses("method 'mean' was trained on 3 of the 3 videos .*scene_0.*allow_leak=True"):
        evaluate({"mean": mean}, TASK, clips, folder=tmp_path, **QUIET)
    whole = torch.utils.data.Subset(Described(seeds=range(3)), [0, 2])
    with refuses("method 'mean' was trained on 2 of the 2 videos .*scene_0, scene_2"):
        evaluate({"mean": mean}, TASK, whole, folder=tmp_path, **QUIET)
    listed = torch.utils.data.Subset([clips[0], clips[2]], [1])
    with refuses("method 'mean' was trained on 1 of the 1 videos .*scene_1"):
        evaluate({"mean": mean}, TASK, listed, folder=tmp_path, **QUIET)
    with refuses("which videos are tested on is not known"):
        evaluate({"mean": mean}, TASK, Unnamed(), folder=tmp_path, **QUIET)
    leaky = evaluate({"mean": mean}, TASK, clips, folder=tmp_path, allow_leak=True, **QUIET)
    assert "was trained on 3" in leaky.warnings[0] and "was trained on 3" in leaky.markdown()
    assert "was trained on 3" in leaky.html()


def test_near_duplicates_are_found(tmp_path, refuses):
    import cv2

    class Disguised(SyntheticClips):
        """The same scene under another name: brighter, another size, compressed."""

        def __getitem__(self, index):
            sample = super().__getitem__(index)
            frames = [cv2.imencode(".jpg", cv2.resize(f, (90, 70)))[1] for f in sample["frames"].numpy()]
            frames = np.stack([cv2.imdecode(f, cv2.IMREAD_COLOR) for f in frames]).astype(float) * 0.8 + 20
            return {**sample, "frames": torch.from_numpy(frames.astype(np.uint8)), "clip": f"disguised_{index}"}

    test = SyntheticClips(seeds=range(4))
    leaks = find_leaks(TASK, Disguised(seeds=[2, 50, 51]), test)
    assert [(leak.train, leak.test) for leak in leaks] == [("disguised_0", "scene_2/000")]
    assert find_leaks(TASK, SyntheticClips(seeds=range(20, 24)), test) == []

    class Later(SyntheticClips):
        """The same scene, from its sixth frame on, and dark before."""

        def __getitem__(self, index):
            frames = super().__getitem__(index)["frames"]
            return {**super().__getitem__(index), "frames": torch.cat([frames[5:], frames[:5] * 0]), "clip": "later"}

    assert [leak.test for leak in find_leaks(TASK, Later(seeds=[3]), test)] == ["scene_3/000"]

    class Dark(SyntheticClips):
        def __getitem__(self, index):
            return {**super().__getitem__(index), "frames": torch.full((8, 48, 64, 3), 9, dtype=torch.uint8)}

    assert find_leaks(TASK, Dark(), Dark()) == [], "pictures of nothing are all alike"
    with refuses("1 clips to test on have a near-duplicate"):
        evaluate({"zero": ZeroMotion(8)}, TASK, test, folder=tmp_path, train=Disguised(seeds=[2]), **QUIET)


def test_bad_predictions_are_refused_by_name(clips, tmp_path, refuses):
    class Bad(ZeroMotion):
        def __call__(self, images):
            prediction = super().__call__(images)
            prediction.displacement[0, 3, 0, 5, 6] = float("nan")
            return prediction

    with refuses("method 'bad', clip 'scene_0/000': expected finite displacement, got NaN or infinity in 1 places"):
        evaluate({"bad": Bad(8)}, TASK, clips, folder=tmp_path, **QUIET)
    with refuses(r"method 'long', clip 'scene_0/000': expected frames below 8"):
        evaluate({"long": ZeroMotion(9)}, TASK, clips, folder=tmp_path, **QUIET)
    with refuses("expected methods and clips, got 0 methods and 6 clips"):
        evaluate({}, TASK, clips, folder=tmp_path, **QUIET)
    with refuses("rebuild: expected frames of the clip, -8 to 7, got 9"):
        task = TrajectoryTask(scoring=ScoringConfig(rebuild=(9,)))
        evaluate({"z": ZeroMotion(8)}, task, clips, folder=tmp_path, **QUIET)
    for config, wrong, message in (
        (EvalConfig, {"confidence": 95}, "confidence: expected a share between 0 and 1, such as 0.95, got 95"),
        (EvalConfig, {"resamples": 0}, "resamples: expected 1 or more, got 0"),
        (ScoringConfig, {"method": "cubic"}, "method: expected one of splat, nearest, clough_tocher, got 'cubic'"),
        (ScoringConfig, {"period": 2}, "period: expected 3 or more, got 2"),
    ):
        with refuses(message):
            config(**wrong)
    with refuses("/none: expected a weights file", FileNotFoundError):
        task = TrajectoryTask(scoring=ScoringConfig(lpips_weights="/none"))
        evaluate({"z": ZeroMotion(8)}, task, clips, folder=tmp_path, **QUIET)


def test_frames_that_were_not_stored(tmp_path, refuses):
    """A dataset may keep frames 0 and 1 only: points are scored, later frames can't be."""

    class Kept(SyntheticClips):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return {**sample, "frames": sample["frames"][:2]}

    report = evaluate({"dis": ConstantVelocity(), "zero": ZeroMotion(8)}, TASK, Kept(), folder=tmp_path, progress=False)
    assert "ade" in report.measured and "psnr_all" not in report.measured and "no later frame" in report.html()
    with refuses("expected a picture of frame 3, got those of frames 0, 1 only"):
        evaluate({"dis": ConstantVelocity(input_frames=(0, 3))}, TASK, Kept(), folder=tmp_path, **QUIET)


def test_predictions_of_some_frames_only(clips, tmp_path):
    class Last(ZeroMotion):
        def __call__(self, images):
            whole = super().__call__(images)
            return type(whole)(whole.displacement[:, 7:], whole.visibility_logits[:, 7:], frames=(7,))

    report = evaluate({"last": Last(8), "all": ZeroMotion(8)}, TASK, clips, folder=tmp_path, **QUIET)
    assert report.overall["last"]["fde"].mean == pytest.approx(report.overall["all"]["fde"].mean)
    assert report.overall["last"]["epe_7"].mean == pytest.approx(report.overall["all"]["epe_7"].mean)
    assert np.isnan(report.overall["last"]["epe_3"].mean)
    assert len(report.warnings) == 1 and report.warnings[0] in report.markdown()
    assert "“last” has 1 of 7 frames ahead only (7)" in report.warnings[0]


def test_no_warning_that_a_method_does_not_say_how_sure_it_is(clips, tmp_path):
    """Some say how far off they expect to be, at every frame; the others at none, which makes no mean unequal."""

    class Sure(ZeroMotion):
        def __call__(self, images):
            whole = super().__call__(images)
            return dataclasses.replace(whole, log_scale=whole.displacement[:, :, 0] * 0)

    report = evaluate({"sure": Sure(8), "all": ZeroMotion(8)}, TASK, clips, folder=tmp_path, **QUIET)
    assert "expected_7" in report.overall["sure"] and not report.warnings


# Roles, benchmarks, other tasks


def test_a_renamed_or_subclassed_baseline_keeps_its_role(clips, tmp_path):
    class Frozen(ZeroMotion):
        pass

    class Answers(OracleTracks):
        pass

    methods = {"dis": ConstantVelocity(), "nothing": Frozen(8), "answers": Answers(), "net": Last()}
    report = evaluate(methods, TASK, clips, folder=tmp_path, **QUIET)
    assert [report.role(name) for name in report.methods] == ["baseline", "null", "oracle", "model"]
    assert report.baselines == ["nothing", "net"] and report.best_baseline("ade") in report.baselines
    assert "with the labels' motion" in report.summary()[-1]
    assert page.introduce(report, "nothing").startswith("Nothing moves.")
    assert page.introduce(report, "net") == "A network (Last, 1 parameters); it sees frame 0 only."


class Last(torch.nn.Module):
    """A network without role or description that predicts the last frame alone."""

    input_frames = (0,)

    def __init__(self):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images):
        whole = ZeroMotion(8)(images)
        return type(whole)(whole.displacement[:, 7:], whole.visibility_logits[:, 7:], frames=(7,))


def test_a_benchmarks_clips_are_taken_as_those_of_shards(tmp_path, refuses):
    frames, scene = synthetic_clip(20, (48, 64), 3, motion="linear")
    queries = np.insert(cell_grid((48, 64), 6, 8), 0, 0, axis=1)
    long = ClipSample(Clip.named("horse", frames, num_points=48), frames, scene.tracks(queries), occlusion_known=False)
    report = evaluate({"zero": ZeroMotion(8)}, TASK, ClipList([long], num_frames=8), folder=tmp_path, progress=False)
    assert [row.name for row in report.rows["zero"]] == ["horse-00000-1-8", "horse-00008-1-8"]
    assert "visibility_accuracy" not in report.measured and "average_jaccard" not in report.measured
    assert "AJ, Visibility, AUROC, for lack of knowledge of what is hidden" in report.markdown()
    later = np.concatenate([queries[:24], queries[24:] + [5, 0, 0]])
    asked_later = replace(long, truth=replace(long.truth, queries=later))
    with refuses(r"horse: expected points queried in frame 0.*up to frame 5; ClipList\(samples, num_frames=…\) cuts"):
        evaluate({"zero": ZeroMotion(8)}, TASK, ClipList([asked_later]), folder=tmp_path, **QUIET)


def test_any_task_is_evaluated(tmp_path):
    methods = {"sum <1>": Summing(), "coin": Coin()}
    report = evaluate(methods, SignTask(), Vectors(), folder=tmp_path, progress=False)
    assert (report.role("coin"), report.groups) == ("null", [f"subject {i}" for i in range(4)])
    assert report.estimate("sum <1>", "accuracy").mean == 1 and report.places(SignTask.series[0]) == [1, 2]
    assert report.estimate("coin", "top_2").mean == 1 and report.extreme_samples()["Best"] >= 0
    html = report.save(tmp_path).read_text()
    assert "Says that every sum is positive." in html and "Subject by subject" in html and "sum &lt;1&gt;" in html
    assert "How good is “sum &lt;1&gt;”?" in html and report.summary()[0] in report.markdown()
    assert "A network (Summing, 8 parameters)." in report.markdown()
    assert set(json.loads((tmp_path / "report.json").read_text())) >= {"per_subject", "per_vector"}
    again = evaluate(methods, SignTask(), Vectors(), folder=tmp_path, progress=False)
    assert again.run["scores_reused"] == 40 and again.overall == report.overall
