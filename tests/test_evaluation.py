"""Evaluation: right numbers, honest intervals, no leak, nothing done twice; real ground truth, read and refused."""

import json
import pickle
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from test_models_baselines import SyntheticClips

from flowlib.evaluation import (
    EvalConfig,
    FlowPair,
    PointClip,
    StillTracker,
    compare,
    evaluate,
    evaluate_tracker,
    find_leaks,
    load_arrays,
    read_badja,
    read_flo,
    read_flow_pair,
    read_kitti_flow,
    read_tapvid,
)
from flowlib.evaluation.statistics import estimate, per_video, resamples
from flowlib.geometry import pixel_grid
from flowlib.models.baselines import ConstantVelocity, MeanMotion, OwnTracks, Scaled, ZeroMotion
from flowlib.synthetic import SceneTracker, synthetic_clip
from flowlib.tracks import Tracks

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
    predictors = {"dis": dis, "dis, gains": Scaled.fit(dis, train), "zero motion": ZeroMotion(8)}
    predictors |= {"ceiling": OwnTracks()}
    return evaluate(predictors, clips, folder=tmp_path_factory.mktemp("report"), train=train, progress=False)


# Statistics


def test_an_interval_covers_the_mean_as_often_as_it_says():
    """95 % intervals of 30 videos from a known distribution hold its mean in about 95 % of 200 trials."""
    rng, draws = np.random.default_rng(0), resamples(30, 500, seed=1)
    samples = rng.exponential(size=(200, 30))
    held = [(e.low <= 1 <= e.high) for e in (estimate(values, draws) for values in samples)]
    assert 0.86 <= np.mean(held) <= 0.98


def test_videos_without_a_value_are_left_out_and_counted():
    values = np.array([1.0, np.nan, 3.0])
    result = estimate(values, resamples(3, 200, seed=0))
    assert (result.mean, result.videos, result.left_out) == (2, 2, 1) and 1 <= result.low <= result.high <= 3
    nothing = estimate(np.array([np.nan, np.nan]), resamples(2, 10, seed=0))
    assert np.isnan(nothing.mean) and not nothing.has_interval and nothing.left_out == 2


def test_a_video_counts_once_however_many_clips_it_has():
    rows = [{"ade": 1.0}, {"ade": 3.0}, {"ade": np.nan}, {"ade": 10.0}]
    assert per_video(rows, ["a", "a", "a", "b"]) == {"a": {"ade": 2.0}, "b": {"ade": 10.0}}


# Evaluation


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
    assert report.overall["ceiling"]["ade"].mean < 0.1 < report.overall["dis"]["ade"].mean


def test_differences_are_paired(report):
    ours, theirs = report.values("dis", "ade"), report.values("zero motion", "ade")
    difference = report.differences["zero motion"]["ade"]
    assert difference.mean == pytest.approx((ours - theirs).mean())
    assert difference.low >= (ours - theirs).min() and difference.high <= (ours - theirs).max()
    assert report.difference("dis", "dis", "ade").high == 0


def test_all_measures_are_there(report):
    expected = {"ade", "fde", "mse_last", "miss_rate", "average_jaccard", "visibility_accuracy", "visibility_auroc"}
    expected |= {"tv_ratio", "curl_error", "blockiness", "psnr_all", "psnr_moving", "ssim_covered", "holes", "epe_7"}
    assert expected <= set(report.measured) and report.frames_ahead() == list(range(1, 8))
    assert report.overall["zero motion"]["holes"].mean == 0 and report.overall["zero motion"]["tv_ratio"].mean == 0


def test_the_oracle_rebuilds_the_frame(tmp_path):
    """With the exact motion of every pixel and no edges: over 40 dB wherever a pixel arrives."""
    clips = SyntheticClips(seeds=range(2), size=(120, 160), grid=(120, 160), num_sprites=0, camera="affine")
    report = evaluate({"exact": OwnTracks()}, clips, folder=tmp_path, **QUIET)
    assert all(row.scores["psnr_covered"] > 40 for row in report.rows["exact"])


def test_saved_files_hold_the_numbers_and_the_run(report, tmp_path):
    page = report.save(tmp_path / "out")
    saved = json.loads((tmp_path / "out" / "report.json").read_text())
    assert saved["overall"]["dis"]["ade"]["mean"] == report.overall["dis"]["ade"].mean
    assert saved["run"]["predictors"]["dis"]["describes_itself_as"]["flow"] == "dis_flow"
    assert saved["run"]["data"]["fingerprint"] == "synthetic [0, 1, 2] {'motion': 'linear', 'camera': 'linear'}"
    assert len(saved["per_clip"]["dis"]) == 6 and set(saved["per_video"]["dis"]) == {"scene_0", "scene_1", "scene_2"}
    html, tex = page.read_text(), (tmp_path / "out" / "table.tex").read_text()
    assert not re.search(r"(src|href)=['\"](?!data:)", html), "the page must stand alone"
    assert "<script" not in html and html.count("data:image/jpeg;base64,") >= 3 * (3 + 4 * 3)
    mean = f"{report.overall['dis']['ade'].mean:.2f}"
    assert mean in html and mean in tex and mean in (tmp_path / "out" / "table.md").read_text()
    assert tex.count("{") == tex.count("}") and tex.count("&") == 4 * 6 + 6
    names = {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    assert {"overall_ade.svg", "frames_ahead.svg", "per_video_ade.svg", "differences_ade.svg"} <= names
    import xml.dom.minidom

    for path in (tmp_path / "out" / "figures").iterdir():
        assert xml.dom.minidom.parseString(path.read_text()).documentElement.tagName == "svg"


def test_pictures_show_the_best_the_median_and_the_worst(report):
    errors = [row.scores["ade"] for row in report.rows["dis"]]
    titles = [clip.title for clip in report.pictures]
    assert titles == ["Best", "Median", "Worst"]
    assert report.pictures[0].clip == report.rows["dis"][int(np.argmin(errors))].clip
    assert report.pictures[2].clip == report.rows["dis"][int(np.argmax(errors))].clip
    assert report.pictures[2].predictors[0].ade == pytest.approx(max(errors))


def test_names_cannot_break_the_page_or_the_tables(clips, tmp_path):
    report = evaluate({"a|b & <c>_%": ZeroMotion(8), "b": Counting()}, clips, folder=tmp_path, **QUIET)
    assert "&lt;c&gt;" in report.html() and "<c>" not in report.html()
    assert "a\\|b" in report.markdown() and r"\& <c>\_\%" in report.latex()


def test_one_video_has_no_interval_and_says_so(tmp_path):
    report = evaluate({"zero": ZeroMotion(8)}, SyntheticClips(seeds=[1], clips_per_video=2), folder=tmp_path, **QUIET)
    assert not report.overall["zero"]["ade"].has_interval
    assert "only one video" in report.markdown() and "only one video" in report.html()
    assert report.to_dict()["overall"]["zero"]["ade"]["low"] is None


def test_a_clip_without_visible_points(tmp_path):
    class Hidden(SyntheticClips):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            if index == 0:
                sample["visibility"] = torch.zeros_like(sample["visibility"])
            return sample

    report = evaluate({"zero": ZeroMotion(8)}, Hidden(), folder=tmp_path, progress=False)
    assert report.overall["zero"]["ade"].left_out == 1 and "1 of 3 videos for ADE px" in report.markdown()


def test_a_clip_without_any_point(tmp_path):
    class Empty(SyntheticClips):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            none = {"tracks": sample["tracks"][:, :0], "visibility": sample["visibility"][:, :0]}
            return sample | none | {"queries": sample["queries"][:0]} if index == 0 else sample

    report = evaluate({"zero": ZeroMotion(8)}, Empty(), folder=tmp_path, progress=False)
    assert report.overall["zero"]["ade"].left_out == 1 and report.overall["zero"]["psnr_all"].left_out == 0


# Cache


def test_scores_are_reused_until_something_changes(clips, tmp_path):
    first, other = Counting(), Counting(name="other")
    once = evaluate({"a": first}, clips, folder=tmp_path, **QUIET)
    again = evaluate({"a": first, "b": other}, clips, folder=tmp_path, **QUIET)
    assert (first.calls, other.calls, again.run["scores_reused"]) == (6, 6, 6)
    assert again.overall["a"] == once.overall["a"]
    evaluate({"a": first}, clips, folder=tmp_path, config=EvalConfig(resamples=50, seed=3), **QUIET)
    assert first.calls == 6, "the bootstrap comes after scoring"
    evaluate({"a": first}, clips, folder=tmp_path, config=EvalConfig(fill="none"), **QUIET)
    assert first.calls == 12
    evaluate({"a": first}, SyntheticClips(seeds=[2, 9], clips_per_video=2, motion="linear", camera="linear"),
             folder=tmp_path, **QUIET)
    assert first.calls == 14, "clips of scene 2 were known"


def test_a_kill_costs_the_predictor_at_work_on_one_clip(clips, tmp_path):
    first, second = Counting(name="first"), Counting(fail_at=4, name="second")
    with pytest.raises(KeyboardInterrupt):
        evaluate({"a": first, "b": second}, clips, folder=tmp_path, **QUIET)
    path = next(path for path in (tmp_path / "scores").iterdir() if path.read_text().count("\n") == 3)
    path.write_text(path.read_text() + '{"clip": "torn')  # the kill came in the middle of a line
    resumed = evaluate({"a": first, "b": second}, clips, folder=tmp_path, **QUIET)
    assert (first.calls, second.calls) == (6, 7)
    fresh = evaluate({"a": first, "b": second}, clips, folder=tmp_path / "fresh", **QUIET)
    assert resumed.to_dict()["overall"] == fresh.to_dict()["overall"]


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
    one = evaluate({"net": net}, clips, folder=tmp_path, **QUIET)
    assert net.training and evaluate({"net": net}, clips, folder=tmp_path, **QUIET).run["scores_reused"] == 6
    with torch.no_grad():
        net.shift[0] = 30
    two = evaluate({"net": net}, clips, folder=tmp_path, **QUIET)
    assert two.run["scores_reused"] == 0 and two.overall["net"]["ade"].mean > one.overall["net"]["ade"].mean


# Leaks and bad input


def test_trained_on_the_test_videos(clips, tmp_path, refuses):
    mean = MeanMotion.fit(clips)
    with refuses("predictor 'mean' was trained on 3 of the 3 videos .*scene_0.*allow_leak=True"):
        evaluate({"mean": mean}, clips, folder=tmp_path, **QUIET)
    leaky = evaluate({"mean": mean}, clips, folder=tmp_path, allow_leak=True, **QUIET)
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
            return sample | {"frames": torch.from_numpy(frames.astype(np.uint8)), "clip": f"disguised_{index}"}

    test = SyntheticClips(seeds=range(4))
    leaks = find_leaks(Disguised(seeds=[2, 50, 51]), test)
    assert [(leak.train, leak.test) for leak in leaks] == [("disguised_0", "scene_2/000")]
    assert find_leaks(SyntheticClips(seeds=range(20, 24)), test) == []
    with refuses("1 clips to test on have a near-duplicate"):
        evaluate({"zero": ZeroMotion(8)}, test, folder=tmp_path, train=Disguised(seeds=[2]), **QUIET)


def test_bad_predictions_are_refused_by_name(clips, tmp_path, refuses):
    class Bad(ZeroMotion):
        def __call__(self, images):
            prediction = super().__call__(images)
            prediction.displacement[0, 3, 0, 5, 6] = float("nan")
            return prediction

    with refuses("predictor 'bad', clip 'scene_0/000': expected finite displacement, got NaN or infinity in 1 places"):
        evaluate({"bad": Bad(8)}, clips, folder=tmp_path, **QUIET)
    with refuses(r"predictor 'long', clip 'scene_0/000': expected frames below 8"):
        evaluate({"long": ZeroMotion(9)}, clips, folder=tmp_path, **QUIET)
    with refuses("expected predictors and clips, got 0 predictors and 6 clips"):
        evaluate({}, clips, folder=tmp_path, **QUIET)
    with refuses("rebuild: expected frames of the clip, -8 to 7, got 9"):
        evaluate({"z": ZeroMotion(8)}, clips, folder=tmp_path, config=EvalConfig(rebuild=(9,)), **QUIET)
    with refuses("no file", FileNotFoundError):
        evaluate({"z": ZeroMotion(8)}, clips, folder=tmp_path, config=EvalConfig(lpips_weights="/none"), **QUIET)


def test_frames_that_were_not_stored(tmp_path, refuses):
    """A dataset may keep frames 0 and 1 only: points are scored, later frames can't be."""

    class Kept(SyntheticClips):
        @property
        def clips(self):
            return [type("Clip", (), {"kept": (0, 1)})] * len(self)

        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return sample | {"frames": sample["frames"][:2]}

    report = evaluate({"dis": ConstantVelocity(), "zero": ZeroMotion(8)}, Kept(), folder=tmp_path, progress=False)
    assert "ade" in report.measured and "psnr_all" not in report.measured and "no later frame" in report.html()
    with refuses("frame 3 is an input, but only frames"):
        evaluate({"dis": ConstantVelocity(input_frames=(0, 3))}, Kept(), folder=tmp_path, **QUIET)


def test_predictions_of_some_frames_only(clips, tmp_path):
    class Last(ZeroMotion):
        def __call__(self, images):
            whole = super().__call__(images)
            return type(whole)(whole.displacement[:, 7:], whole.visibility_logits[:, 7:], frames=(7,))

    report = evaluate({"last": Last(8), "all": ZeroMotion(8)}, clips, folder=tmp_path, **QUIET)
    assert report.overall["last"]["fde"].mean == pytest.approx(report.overall["all"]["fde"].mean)
    assert report.overall["last"]["epe_7"].mean == pytest.approx(report.overall["all"]["epe_7"].mean)
    assert np.isnan(report.overall["last"]["epe_3"].mean)


# Ground truth


def test_flo_round_trip_and_bad_files(tmp_path, refuses):
    flow = np.random.default_rng(0).normal(size=(5, 7, 2)).astype("<f4")
    flow[2, 3] = 1e10
    data = struct.pack("<fii", 202021.25, 7, 5) + flow.tobytes()
    (tmp_path / "a.flo").write_bytes(data)
    read, known = read_flo(tmp_path / "a.flo")
    assert known.sum() == 34 and not known[2, 3] and (read[:, 2, 3] == 0).all()
    np.testing.assert_array_equal(read[:, known], flow.transpose(2, 0, 1)[:, known])
    cut = (data[:-4], "expected 292 bytes for 7×5")
    for broken, message in (cut, (b"PIEH", "expected a .flo file"), (b"\0" * 300, "expected a .flo file")):
        (tmp_path / "b.flo").write_bytes(broken)
        with refuses(message):
            read_flo(tmp_path / "b.flo")


def test_kitti_flow(tmp_path, refuses):
    import cv2

    flow = np.round(np.random.default_rng(0).uniform(-500, 500, (4, 6, 2)) * 64) / 64
    known = np.random.default_rng(1).random((4, 6)) > 0.3
    stored = np.concatenate([flow * 64 + 2**15, known[..., None]], axis=-1).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "flow.png"), stored[..., ::-1])  # OpenCV writes blue first
    read, valid = read_kitti_flow(tmp_path / "flow.png")
    np.testing.assert_array_equal(valid, known)
    np.testing.assert_array_equal(read[:, known], flow.transpose(2, 0, 1)[:, known])
    cv2.imwrite(str(tmp_path / "grey.png"), stored[..., 0] // 256)
    with refuses("three channels with 16 bits"):
        read_kitti_flow(tmp_path / "grey.png")


def tapvid_entry(S=8, size=(64, 96), N=3):
    frames, scene = synthetic_clip(S, size, seed=2)
    tracks = scene.tracks(np.array([[0, 20.0, 30], [0, 50, 20], [0, 70, 40]][:N]))
    shares = (tracks.tracks + 0.5) / np.array([size[1], size[0]])
    return {"video": frames, "points": shares.swapaxes(0, 1), "occluded": ~tracks.visibility.T}, tracks


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_tapvid_files(tmp_path, protocol):
    entry, tracks = tapvid_entry()
    (tmp_path / "davis.pkl").write_bytes(pickle.dumps({"clip": entry}, protocol))
    (clip,) = read_tapvid(tmp_path / "davis.pkl", size=None)
    np.testing.assert_allclose(clip.truth.tracks, tracks.tracks, atol=1e-4)
    np.testing.assert_array_equal(clip.truth.visibility, tracks.visibility)
    np.testing.assert_allclose(clip.truth.queries, tracks.queries, atol=1e-4)
    (small,) = read_tapvid(tmp_path / "davis.pkl")
    np.testing.assert_allclose(small.truth.tracks, tracks.resize((64, 96), (256, 256)).tracks, atol=1e-3)
    assert small.frames.shape == (8, 256, 256, 3)


def test_tapvid_kinetics_and_strided_queries(tmp_path):
    from flowlib.video import encode_image

    entry, tracks = tapvid_entry()
    entry["occluded"][0, :2], entry["occluded"][1] = True, True
    kinetics = [entry | {"video": [encode_image(frame) for frame in entry["video"]]}]
    (tmp_path / "k.pkl").write_bytes(pickle.dumps(kinetics))
    (first,) = read_tapvid(tmp_path / "k.pkl", size=None)
    assert first.name == "k_0000" and first.truth.queries[:, 0].tolist() == [2, 0]  # the one never seen is left out
    np.testing.assert_allclose(first.truth.queries[0, 1:], tracks.tracks[2, 0], atol=1e-4)
    (strided,) = read_tapvid(tmp_path / "k.pkl", size=None, query_mode="strided")
    expected = [(t, point) for t in (0, 5) for point in range(3) if not entry["occluded"][point, t]]
    assert strided.truth.queries[:, 0].tolist() == [t for t, _ in expected] and strided.query_mode == "strided"


class Danger:
    def __reduce__(self):
        return Path.touch, (Path("/tmp/flowlib_was_here"),)


@pytest.mark.parametrize(
    "content",
    [Danger(), {"video": Danger()}, [np.array([Danger()], dtype=object)], np.random.default_rng(0), print, Path],
)
def test_a_pickle_of_anything_but_arrays_is_refused(content, tmp_path, refuses):
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(content))
    with refuses(f"{tmp_path}.*expected a pickle of NumPy arrays only"):
        list(read_tapvid(tmp_path / "bad.pkl"))
    assert not Path("/tmp/flowlib_was_here").exists()


def test_pickles_that_are_none_or_not_tapvid(tmp_path, refuses):
    for data in (b"", b"hello", pickle.dumps({"a": np.zeros(3)})[:-5]):
        (tmp_path / "bad.pkl").write_bytes(data)
        with refuses("expected a pickle of NumPy arrays only"):
            load_arrays(tmp_path / "bad.pkl")
    (tmp_path / "other.pkl").write_bytes(pickle.dumps({"a": {"points": np.zeros(3)}}))
    with refuses("expected video, points and occluded for 'a'"):
        list(read_tapvid(tmp_path / "other.pkl"))
    entry, _ = tapvid_entry()
    (tmp_path / "short.pkl").write_bytes(pickle.dumps({"a": entry | {"occluded": entry["occluded"][:, 1:]}}))
    with refuses("expected points"):
        list(read_tapvid(tmp_path / "short.pkl"))


def exact_clip(name="scene"):
    frames, scene = synthetic_clip(6, (64, 96), seed=4, motion="linear", camera="linear")
    truth = scene.tracks(np.insert(pixel_grid((64, 96))[::16, ::16].reshape(-1, 2).astype(float), 0, 0, axis=1))
    return PointClip(name, frames, truth, np.full(6, 400.0)), scene


def test_a_perfect_tracker_and_a_still_one():
    clip, scene = exact_clip()
    perfect, still = evaluate_tracker(SceneTracker(scene), [clip]), evaluate_tracker(StillTracker(), [clip])
    assert perfect.rows[0]["average_jaccard"] == 1 and perfect.rows[0]["mean_error"] < 1e-4
    seen = clip.truth.visibility[1:]
    lengths = np.linalg.norm(clip.truth.displacement[1:], axis=-1)[seen]
    assert still.rows[0]["mean_error"] == pytest.approx(lengths.mean(), rel=1e-5)
    assert still.rows[0]["pck_t"] == pytest.approx((lengths < 0.2 * 20).mean())
    table = compare({"perfect": perfect, "still": still})
    assert "| mean | perfect | 100.0 | 0.00 |" in table and table.count("\n") == 5


def test_flow_pairs():
    frames, scene = synthetic_clip(2, (48, 64), seed=5)
    known = np.ones((48, 64), bool)
    known[:5] = False
    pair = FlowPair("pair", frames, scene.displacement()[1], known)
    assert evaluate_tracker(SceneTracker(scene), [pair]).rows[0]["epe"] < 1e-4
    expected = np.linalg.norm(pair.flow, axis=0)[known].mean()
    assert evaluate_tracker(StillTracker(), [pair]).rows[0]["epe"] == pytest.approx(expected, rel=1e-5)


def test_bad_benchmarks(refuses):
    class Short(StillTracker):
        def __call__(self, frames, queries):
            return super().__call__(frames[1:], queries)

    with refuses("expected clips or pairs of frames, got none"):
        evaluate_tracker(StillTracker(), [])
    with refuses(r"scene: expected tracks \[6"):
        evaluate_tracker(Short(), [exact_clip()[0]])


def badja_files(folder: Path, masks: bool) -> Path:
    """An animal whose joints walk 10 px of the annotation's 1920×1080 to the right in each frame."""
    import cv2

    (folder / "frames").mkdir()
    (folder / "masks").mkdir()
    entries = []
    for number in range(4):
        cv2.imwrite(str(folder / "frames" / f"{number:05d}.jpg"), np.zeros((54, 96, 3), np.uint8))
        if number == 2:
            continue
        joints = [[100, 200 + 10 * number], [300, 400 + 10 * number], [500, 100], [0, 0]]
        visible = [True, number < 3, True, False]
        path = f"DAVIS/JPEGImages/Full-Resolution/horse/{number:05d}.jpg"
        entries.append({"image_path": path, "segmentation_path": "", "joints": joints, "visibility": visible})
        if masks:
            mask = np.zeros((54, 96), np.uint8)
            mask[:10, :10] = 255
            cv2.imwrite(str(folder / "masks" / f"{number:05d}.png"), mask)
    (folder / "horse.json").write_text(json.dumps(entries))
    return folder / "horse.json"


def test_badja(tmp_path, refuses):
    clip = read_badja(badja_files(tmp_path, True), tmp_path / "frames", tmp_path / "masks")
    assert clip.truth.tracks.shape == (4, 3, 2) and clip.name == "horse" and not clip.occlusion_known
    np.testing.assert_allclose(clip.truth.tracks[3, 0], [(230.5) / 20 - 0.5, 100.5 / 20 - 0.5])
    assert clip.truth.visibility.tolist() == [[True] * 3, [True] * 3, [False] * 3, [True, False, True]]
    np.testing.assert_array_equal(clip.area, [100, 100, np.nan, 100])
    row = evaluate_tracker(StillTracker(), [clip]).rows[0]
    np.testing.assert_allclose(row["mean_error"], (0.5 + 0.5 + 0 + 1.5 + 0) / 5, rtol=1e-5)
    assert row["pck_t"] == 1 and "average_jaccard" not in row
    half = read_badja(tmp_path / "horse.json", tmp_path / "frames", tmp_path / "masks", size=(27, 48))
    assert half.frames.shape == (4, 27, 48, 3) and half.area[0] == 25
    assert "hull" in read_badja(tmp_path / "horse.json", tmp_path / "frames").note
    (tmp_path / "frames" / "00002.jpg").unlink()
    with refuses("00002 is missing", FileNotFoundError):
        read_badja(tmp_path / "horse.json", tmp_path / "frames")
    (tmp_path / "horse.json").write_text("[{}]")
    with refuses("as BADJA has it"):
        read_badja(tmp_path / "horse.json", tmp_path / "frames")


def test_real_ground_truth_is_read(shared):
    data = shared / "data"
    camel = read_badja(
        data / "gt/badja/camel.json", data / "davis480/camel/frames", data / "davis480/camel/masks", size=(96, 170)
    )
    assert camel.truth.tracks.shape == (84, 20, 2) and np.isfinite(camel.area).sum() == 18
    assert 0 < evaluate_tracker(StillTracker(), [camel]).rows[0]["pck_t"] < 1
    folder = data / "gt/middlebury/Urban2"
    pair = read_flow_pair(folder / "frame10.png", folder / "frame11.png", folder / "flow10.flo")
    assert pair.name == "Urban2" and pair.known.all() and np.abs(pair.flow).max() < 30
