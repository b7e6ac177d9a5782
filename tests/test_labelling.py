"""Labelling: any split of the plan gives the same samples, and nothing finished is done twice or lost."""

import json
import re
import shutil
import threading
import time
import weakref
from dataclasses import replace
from itertools import islice

import h5py
import numpy as np
import pytest
import torch
from fixtures.labelling import CONFIG, DriftTracker, samples, write_videos
from hypothesis import given
from hypothesis import strategies as st

from flowlib import sources
from flowlib.augmentation import AugmentConfig, augment
from flowlib.dataset import TrajectoryDataset
from flowlib.geometry import fit_frame
from flowlib.labelling import LabelConfig, estimate, label, make_plan
from flowlib.labelling.pipeline import FRAMES_AHEAD, Clock, decode_clips, label_clips
from flowlib.labelling.store import Store
from flowlib.models.baselines import OracleTracks
from flowlib.models.protocols import TrajectoryPrediction
from flowlib.shards import Shard, ShardError, find_shards
from flowlib.synthetic import random_scene
from flowlib.tasks.trajectories import TrajectoryTask
from flowlib.tasks.trajectories.batch import Frames
from flowlib.tasks.trajectories.loss import Targets, loss_sums
from flowlib.trackers.alltracker import AllTracker, AllTrackerTracker
from flowlib.trackers.lucas_kanade import LucasKanadeTracker
from flowlib.video import OnwardReader, resize_frame, write_video
from flowlib.video.reading import open_video
from flowlib.workspace import Workspace


@pytest.fixture
def videos(tmp_path):
    return write_videos(tmp_path / "my vidéos")


def test_the_plan_is_decided_by_inputs_and_config(videos):
    plan = make_plan(videos, CONFIG)
    assert [(clip.video, clip.first_frame) for clip in plan.clips] == [
        ("v0", 0), ("v0", 4), ("v0", 8), ("v1", 0), ("v1", 4), ("v2", 0),
    ]  # fmt: skip
    assert "3 videos, 6 clips of 4 frames, 9 points each: 54 trajectories" in str(plan)
    overlapping = make_plan(videos, LabelConfig(frames=4, clip_step=1, frame_step=2, max_clips=2))
    assert [clip.frame_numbers for clip in overlapping.clips[:2]] == [[0, 2, 4, 6], [6, 8, 10, 12]]
    assert [one.name for one in overlapping.skipped] == ["v2"] and "needs 7" in overlapping.skipped[0].reason


@pytest.mark.parametrize("num_chunks", [1, 3, 6, 10])
def test_any_split_gives_the_same_samples(videos, tmp_path, num_chunks):
    plan = make_plan(videos, CONFIG)
    assert [clip for i in range(num_chunks) for clip in plan.chunk(i, num_chunks)] == plan.clips
    whole = label(plan, Workspace(tmp_path / "a"), progress=False)
    for chunk in reversed(range(num_chunks)):
        part = label(plan, Workspace(tmp_path / "b"), chunk=chunk, num_chunks=num_chunks, progress=False)
    assert len(samples(whole.folder)) == 6 and samples(part.folder) == samples(whole.folder)


def test_labels_are_the_trackers_and_frames_the_videos(videos, tmp_path):
    report = label(make_plan(videos, CONFIG), Workspace(tmp_path), progress=False)
    ((path, clips),) = find_shards(report.folder)[0].items()
    with Shard(path) as shard:
        clip = clips[1]
        one = shard.read(clip)
    scene = sources.read_scene(videos / "v0.mkv")
    np.testing.assert_array_equal(one.frames, scene.clip(4, first_frame=4))
    exact = scene.tracks(CONFIG.queries(), 4, first_frame=4)
    np.testing.assert_allclose(one.truth.tracks, exact.tracks, atol=1 / 64)
    np.testing.assert_array_equal(one.truth.visibility, exact.visibility)
    assert not any((tmp_path / "scratch").rglob("*.h5"))


def network_tracker() -> AllTrackerTracker:
    """With weights that mean nothing, but move every pixel otherwise."""
    net = AllTracker("tiny")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
    return AllTrackerTracker(net, iters=1, device="cpu", visible_above=0.0)


@pytest.mark.parametrize("name", ["lucas_kanade", "exact", "alltracker"])
def test_every_pixel_can_be_labelled(tmp_path, name):
    """As a field that says what the tracker says, and is the same read, unpacked and trained on."""
    size, S = (72, 96), 3
    sources.write_scene(tmp_path / "in" / "v.mkv", random_scene(S, size, seed=3))
    config = LabelConfig(frames=S, spacing=1, height=72, width=96, tracker=name, encoding="webp")
    tracker = network_tracker() if name == "alltracker" else None
    plan = make_plan(tmp_path / "in", config)
    assert config.num_points == 72 * 96 and "6912 points each" in str(plan)
    folder = label(plan, Workspace(tmp_path / "out"), tracker=tracker, progress=False).folder
    dataset = TrajectoryDataset(folder, "all")
    sample = dataset[0]
    (path,) = find_shards(folder)[0]
    with Shard(path) as shard:
        assert shard.is_dense(sample.clip)
    assert sample.truth.is_dense(size)
    if name == "alltracker":
        dense = tracker.track_dense(sample.frames)
        flow, seen = dense.flow.reshape(S, 2, -1).transpose(0, 2, 1), dense.visibility.reshape(S, -1)
        assert np.abs(sample.truth.confidence - dense.confidence.reshape(S, -1)).max() <= 0.5 / 255 + 1e-6
    elif name == "exact":
        exact = sources.read_scene(tmp_path / "in" / "v.mkv").tracks(config.queries(), S)
        flow, seen = exact.displacement, exact.visibility
    else:
        found = LucasKanadeTracker()(sample.frames, config.queries())
        flow, seen = found.displacement, found.visibility
    assert np.abs(flow).max() > 0.2
    np.testing.assert_allclose(sample.truth.displacement, flow, atol=1 / 128 + 1e-4)
    np.testing.assert_array_equal(sample.truth.visibility, seen)
    unpacked = TrajectoryDataset(folder, "all", unpacked=tmp_path / "fast", progress=False)[0]
    for key, values in sample.truth.arrays().items():
        np.testing.assert_array_equal(unpacked.truth.arrays()[key], values)
    task = TrajectoryTask(augment=None)
    example = task.example(sample, Frames((0, 1), None), None)
    batch = task.collate([example, example])
    still = TrajectoryPrediction(torch.zeros(2, S, 2, *size), torch.ones(2, S, *size), tuple(range(S)))
    values = task.values(loss_sums(still, Targets.of(batch)), task.counts(batch))
    moved = np.linalg.norm(sample.truth.displacement[1:], axis=-1)
    assert values["ade"] == pytest.approx(moved[sample.truth.visibility[1:]].mean(), rel=1e-4)


def test_the_second_run_finds_the_work_done(videos, tmp_path):
    plan, workspace, tracker = make_plan(videos, CONFIG), Workspace(tmp_path), DriftTracker()
    label(plan, workspace, tracker=tracker, progress=False)
    again = label(plan, workspace, tracker=tracker, progress=False)
    assert (tracker.calls, again.found, again.labelled) == (6, 6, 0)
    assert "6 there before, 0 labelled now" in str(again)


def test_after_an_interrupt_only_the_clip_at_work_is_done_again(videos, tmp_path):
    plan, workspace = make_plan(videos, CONFIG), Workspace(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        label(plan, workspace, tracker=DriftTracker(fail_at=4), progress=False)
    tracker = DriftTracker()
    report = label(plan, workspace, tracker=tracker, progress=False)
    assert tracker.calls == 3
    undisturbed = label(plan, Workspace(tmp_path / "other"), tracker=DriftTracker(), progress=False)
    assert samples(report.folder) == samples(undisturbed.folder)


def test_a_damaged_shard_is_quarantined_and_done_again(videos, tmp_path):
    plan, workspace = make_plan(videos, CONFIG), Workspace(tmp_path)
    for chunk in range(2):
        report = label(plan, workspace, chunk=chunk, num_chunks=2, progress=False)
    before = samples(report.folder)
    victim = sorted((report.folder / "shards").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:-3000])
    counts = [label(plan, workspace, chunk=chunk, num_chunks=2, progress=False) for chunk in range(2)]
    assert sum(one.labelled for one in counts) == 3 and victim.name in counts[0].damaged[0]
    assert samples(report.folder) == before and victim.with_suffix(".h5.damaged").exists()


def test_more_clips_join_the_same_dataset_other_settings_do_not(videos, tmp_path):
    workspace = Workspace(tmp_path)
    few = LabelConfig(frames=4, grid=3, height=48, width=64, tracker="exact", max_clips=1)
    label(make_plan(videos, few), workspace, progress=False)
    everything = LabelConfig(frames=4, grid=3, height=48, width=64, tracker="exact")
    report = label(make_plan(videos, everything), workspace, progress=False)
    assert (report.found, report.labelled) == (3, 3)
    finer = LabelConfig(frames=4, grid=5, height=48, width=64, tracker="exact")
    with pytest.raises(ValueError, match="made with other settings .grid: 3 there, 5 now"):
        label(make_plan(videos, finer), workspace, progress=False)
    assert json.loads((report.folder / "config.json").read_text())["grid"] == 3


def test_labels_say_how_sure_they_are_where_that_is_asked_for(videos, tmp_path, refuses):
    from flowlib.dataset import TrajectoryDataset

    config, workspace = replace(CONFIG, tracker="lucas_kanade"), Workspace(tmp_path)
    sure = label(make_plan(videos, replace(config, confidence=True)), workspace, dataset="sure", progress=False)
    plain = label(make_plan(videos, config), workspace, dataset="plain", progress=False)
    samples, others = (TrajectoryDataset(report.folder, "all") for report in (sure, plain))
    for one, other in zip(samples, others):
        np.testing.assert_array_equal(one.truth.tracks, other.truth.tracks)
        assert "confidence" in one and "confidence" not in other
        np.testing.assert_array_equal(one.truth.confidence[0], one.truth.visibility[0])
        assert not one.truth.confidence[~one.truth.visibility].any()
    assert json.loads((sure.folder / "config.json").read_text())["confidence"] is True
    assert "confidence" not in json.loads((plain.folder / "config.json").read_text())
    few = TrajectoryDataset(sure.folder, "all", min_confidence=0.9)
    assert few[0].truth.visibility.sum() < samples[0].truth.visibility.sum() and not few[0].occlusion_known
    np.testing.assert_array_equal(few.tracks(0).visibility, few[0].truth.visibility)
    assert few.fingerprint != samples.fingerprint
    with refuses("min_confidence: expected tracks with a confidence"):
        TrajectoryDataset(plain.folder, "all", min_confidence=0.9)[0]
    with refuses("confidence: expected a tracker with a curve .lucas_kanade, raft., got 'exact'"):
        replace(CONFIG, confidence=True)


def test_a_damaged_config_is_named(videos, tmp_path, refuses):
    plan, workspace = make_plan(videos, CONFIG), Workspace(tmp_path)
    report = label(plan, workspace, progress=False)
    (report.folder / "config.json").write_text("{")
    with refuses("config.json: expected JSON, .*; delete it, and it is written anew"):
        label(plan, workspace, progress=False)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data[::-1]])
def test_journaled_tracks_are_the_trackers_or_none(videos, tmp_path, damage):
    plan = make_plan(videos, CONFIG)
    store, clip = Store(Workspace(tmp_path), "a", config=CONFIG.content(), tracker={"name": "drift"}), plan.clips[0]
    assert store.journaled(clip) is None
    tracks = DriftTracker()(np.zeros((4, 48, 64, 3), np.uint8), CONFIG.queries())
    store.journal(clip, tracks)
    found = store.journaled(clip)
    np.testing.assert_array_equal(found.tracks, tracks.tracks)
    np.testing.assert_array_equal(found.visibility, tracks.visibility)
    (path,) = store.growing.glob("*.npz")
    path.write_bytes(damage(path.read_bytes()))
    assert store.journaled(clip) is None
    shutil.rmtree(store.growing)
    store.journal(clip, tracks)  # a disk that is away costs a saving, and is not made anew
    assert not store.growing.exists()


def test_bad_videos_are_listed_and_the_others_go_on(videos, tmp_path):
    (videos / "broken.mp4").write_text("no video")
    shutil.copy(videos / "v1.mkv", videos / "v1 again.mkv")
    report = label(make_plan(videos, CONFIG), Workspace(tmp_path), tracker=DriftTracker(), progress=False)
    assert report.labelled == 6 and len(report.skipped) == 2
    assert "broken.mp4" in str(report) and "same content as" in str(report)
    with pytest.raises(RuntimeError, match="strict: 2 were skipped"):
        label(make_plan(videos, CONFIG), Workspace(tmp_path), tracker=DriftTracker(), progress=False, strict=True)


def test_a_video_that_changes_after_the_plan_is_reported(videos, tmp_path):
    plan = make_plan(videos, CONFIG)
    (videos / "v1.mkv").write_bytes((videos / "v1.mkv").read_bytes()[:3000])
    (videos / "v2.mkv").unlink()
    report = label(plan, Workspace(tmp_path), tracker=DriftTracker(), progress=False)
    assert report.labelled + sum("of its clips are missing" in one.reason for one in report.skipped) >= 4
    assert {one.name for one in report.skipped} == {"v1", "v2"}


def test_nothing_to_label_is_an_error_with_every_reason(tmp_path, refuses):
    (tmp_path / "a.mp4").write_text("no video")
    sources.write_scene(tmp_path / "short.mkv", random_scene(3, (48, 64)))
    with refuses("expected at least one video of 4 frames.*a.mp4.*short.mkv: has 3 frames"):
        make_plan(tmp_path, CONFIG)


@pytest.mark.parametrize("chunk, num_chunks", [(3, 3), (-1, 3), (0, 0), (5, 1)])
def test_bad_chunks_are_refused(videos, tmp_path, chunk, num_chunks, refuses):
    plan = make_plan(videos, CONFIG)
    with refuses("chunk"):
        label(plan, Workspace(tmp_path), chunk=chunk, num_chunks=num_chunks)


@pytest.mark.parametrize(
    "change",
    [{"frames": 1}, {"grid": 0}, {"tracker": "magic"}, {"fit": "zoom"}, {"encoding": "png"}, {"height": 0}]
    + [{"seed": "1"}, {"seed": 1.5}, {"jitter": "true"}, {"split_shots": "false"}, {"skip_still": 0}],
)
def test_bad_settings_are_named(change, refuses):
    with refuses(next(iter(change))):
        LabelConfig(**change)


def test_the_estimate_counts_the_whole_job(videos):
    text = estimate(make_plan(videos, CONFIG), clips=2)
    assert "6 clips" in text and "1 session of 12 h" in text and "kB" in text


def test_the_estimate_tells_the_chunk_beside_the_whole_and_the_load(videos):
    text = estimate(make_plan(videos, CONFIG), chunk=1, num_chunks=3)
    assert re.search(r"^chunk 1 of 3, 2 clips: .*\nall 6 clips: .*\nload [\d.]+ on \d+ cores?", text, re.M)
    assert "1 clip: " in estimate(make_plan(videos, CONFIG), chunk=5, num_chunks=6)


def test_the_estimate_follows_from_the_slowest_stage(videos):
    class Slow(DriftTracker):
        def __call__(self, frames, queries):
            time.sleep(0.5)
            return super().__call__(frames, queries)

    text = estimate(make_plan(videos, CONFIG), tracker=Slow())
    tracking = float(re.search(r"tracking ([\d.]+) s", text)[1])
    assert tracking >= 0.5
    assert float(re.search(r"6 clips: (\d+) s", text)[1]) == pytest.approx(6 * tracking, abs=0.6)


@pytest.mark.parametrize("pause, answer", [(0.5, "3 s, 1 session"), (500, "50 min, 1"), (30000, "50.0 h, 5 sessions")])
def test_the_estimate_is_in_seconds_minutes_or_hours(videos, monkeypatch, pause, answer):
    monkeypatch.setattr("flowlib.labelling.estimating._label_one", lambda *given: _spend(pause, *given))
    assert f"6 clips: {answer}" in estimate(make_plan(videos, CONFIG), tracker=DriftTracker())


def _spend(seconds, plan, clip, tracker, clock, path):
    clock["tracking"] += seconds
    return 1000


@pytest.fixture
def film(tmp_path):
    """Scenes of 9 and 10 frames, then 8 frozen frames and 6 black ones."""
    scenes = [random_scene(length, (48, 64), seed=length).clip(length) for length in (9, 10)]
    black = np.zeros((6, 48, 64, 3), np.uint8)
    frames = np.concatenate([*scenes, np.repeat(scenes[1][-1:], 8, 0), black])
    return write_video(tmp_path / "films" / "film.mkv", frames, lossless=True)


def test_no_clip_straddles_a_cut_or_shows_nothing(film):
    plan = make_plan(film, CONFIG)
    assert [clip.first_frame for clip in plan.clips] == [0, 4, 9, 13, 17]
    assert [(one.name, one.reason) for one in plan.skipped_clips] == [
        ("film, frames 21 to 24", "frozen"), ("film, frames 27 to 30", "black"),
    ]  # fmt: skip
    assert "cuts: 2, no clip straddles one" in str(plan) and "film: 1 clip, black" in str(plan)
    assert "2 clips, black or frozen" in str(label(plan, Workspace(film.parent), tracker=DriftTracker()))


def test_cuts_and_stills_can_be_kept(film):
    plan = make_plan(film, replace(CONFIG, split_shots=False, skip_still=False))
    assert [clip.first_frame for clip in plan.clips] == list(range(0, 32, 4)) and not plan.skipped_clips


def test_a_video_with_nothing_to_learn_says_so(tmp_path, refuses):
    write_video(tmp_path / "night.mkv", np.zeros((9, 48, 64, 3), np.uint8), lossless=True)
    with refuses("night.mkv: nothing to learn from, all 2 clips are black or frozen"):
        make_plan(tmp_path, CONFIG)


def test_scans_are_made_once(videos, tmp_path, monkeypatch):
    cache = Workspace(tmp_path).scans
    plan = make_plan(videos, CONFIG, cache=cache)
    monkeypatch.setattr("flowlib.shots.scan", lambda *_: pytest.fail("scanned again"))
    assert make_plan(videos, CONFIG, cache=cache) == plan


@pytest.mark.parametrize("change, count", [({"grid": 5}, 25), ({"spacing": 16}, 12), ({"spacing": 20}, 6)])
def test_points_by_grid_or_by_spacing(change, count):
    config = replace(CONFIG, **change)
    queries = config.queries()
    assert queries.shape == (count, 3) == (config.num_points, 3)
    assert queries[:, 1:].min() >= 0 and (queries[:, 1:].max(0) <= [63, 47]).all()
    assert ("spacing" in config.content()) == ("spacing" in change) != ("grid" in config.content())


@given(st.integers(0, 99), st.text(max_size=8), st.sampled_from([{"grid": 7}, {"spacing": 9}]))
def test_jitter_keeps_each_point_in_its_cell(seed, key, change):
    plain, config = replace(CONFIG, **change), replace(CONFIG, jitter=True, seed=seed, **change)
    offset = config.queries(key)[:, 1:] - plain.queries()[:, 1:]
    rows, columns = config.cells
    assert (np.abs(offset) <= [32 / columns + 1e-4, 24 / rows + 1e-4]).all() and np.abs(offset).max() > 0.1
    np.testing.assert_array_equal(config.queries(key), config.queries(key))
    assert (config.queries(key) != config.queries(key + "x")).any()


def test_jittered_points_are_stored_and_the_same_whatever_the_chunks(videos, tmp_path):
    config = replace(CONFIG, jitter=True, seed=3)
    plan = make_plan(videos, config)
    whole = label(plan, Workspace(tmp_path / "a"), progress=False)
    for chunk in range(3):
        part = label(plan, Workspace(tmp_path / "b"), chunk=chunk, num_chunks=3, progress=False)
    assert samples(part.folder) == samples(whole.folder)
    for path, clips in find_shards(part.folder)[0].items():
        with Shard(path) as shard:
            for clip in clips:
                np.testing.assert_array_equal(shard.tracks(clip).queries, config.queries(clip.key))
    assert json.loads((part.folder / "config.json").read_text())["seed"] == 3


@pytest.fixture
def two_shapes(tmp_path):
    """Two videos of 48×64 and one of 64×48, upright."""
    for number, size in enumerate([(48, 64), (48, 64), (64, 48)]):
        sources.write_scene(tmp_path / "in" / f"v{number}.mkv", random_scene(4, size, seed=number))
    return tmp_path / "in"


@pytest.mark.parametrize("change, count", [({"grid": 5}, 25), ({"spacing": 8}, 24)])
def test_points_lie_on_the_picture_and_none_on_bars(two_shapes, tmp_path, change, count):
    config = replace(CONFIG, height=60, width=68, **change)
    plan = make_plan(two_shapes, config)
    assert plan.config.size == (48, 64) and plan.config.content()["fit"] == "auto"
    told = str(plan)
    assert "working size: height 48, width 64, fit='auto'" in told and "2 videos of 64×48: not scaled\n" in told
    assert "1 video of 48×64: scaled by 0.75, fills 56% of the frame, the rest is black" in told
    assert ("24 to 48 points each: 120 trajectories" if change.get("spacing") else "25 points each: 75") in told
    report = label(plan, Workspace(tmp_path / "root"), progress=False)
    for path, clips in find_shards(report.folder)[0].items():
        with Shard(path) as shard:
            for clip in clips:
                sample = shard.read(clip)
                upright = clip.video == "v2"
                assert sample.frames.shape == (4, 48, 64, 3) and (sample.frames[..., :14, :] == 0).all() == upright
                x, y = sample.truth.queries[:, 1:].T
                left, right = (14, 50) if upright else (0, 64)
                assert left <= x.min() and x.max() <= right - 1 and 0 <= y.min() and y.max() <= 47
                assert abs((x.min() - left) - (right - 1 - x.max())) < 1e-4, "centred on the picture"
                assert sample.truth.num_points == (count if upright or change.get("grid") else 48)
                scene = sources.read_scene(two_shapes / f"{clip.video}.mkv")
                fit = fit_frame(clip.source_size, (48, 64), "auto")
                asked = np.column_stack([np.zeros(len(x)), fit.to_source(sample.truth.queries[:, 1:].astype(float))])
                exact = fit.to_target(scene.tracks(asked, 4).tracks)
                np.testing.assert_allclose(sample.truth.tracks, exact, atol=0.02)


@pytest.mark.parametrize("unpacked", [False, True])
def test_bars_count_for_nothing(two_shapes, tmp_path, unpacked):
    config = replace(CONFIG, height=60, width=68, grid=6)
    folder = label(make_plan(two_shapes, config), Workspace(tmp_path / "root"), progress=False).folder
    dataset = TrajectoryDataset(folder, split="all", unpacked=unpacked and tmp_path / "cache")
    found = {sample.clip.video: sample for sample in dataset}
    assert {name: sample.box for name, sample in found.items()} == {"v0": None, "v1": None, "v2": (0, 14, 48, 36)}
    black = found["v2"]
    lit = replace(black, frames=black.frames.copy())
    lit.frames[1:, :, :14] = lit.frames[1:, :, 50:] = 255  # as no prediction could know
    answers = [TrajectoryTask().ask(OracleTracks(), sample, "oracle") for sample in (black, lit)]
    assert answers[0].lattice == (6, 6) and answers[0].field["roughness"] == pytest.approx(0, abs=0.2)
    assert answers[0].pictures == answers[1].pictures and answers[0].pictures["psnr_all"] > 20
    whole = [TrajectoryTask().ask(OracleTracks(), replace(one, box=None), "oracle") for one in (black, lit)]
    assert whole[0].pictures["psnr_all"] > whole[1].pictures["psnr_all"] + 3, "what it is when bars count"
    augmented = augment(black, AugmentConfig(flip_x=1.0), torch.Generator())
    assert augmented.box is None and augmented.frames.shape == black.frames.shape


def test_a_dataset_keeps_its_size_when_videos_of_another_shape_come(two_shapes, tmp_path):
    workspace, config = Workspace(tmp_path / "root"), replace(CONFIG, height=360, width=640)
    label(make_plan(two_shapes, config), workspace, progress=False)
    for number in range(3, 8):
        sources.write_scene(two_shapes / f"v{number}.mkv", random_scene(4, (64, 48), seed=number))
    grown = make_plan(two_shapes, config)
    assert grown.config.size == (64, 48)
    assert grown.into(workspace.dataset("default")).config.size == (48, 64)
    assert grown.into(workspace.dataset("another")) == grown
    report = label(grown, workspace, progress=False)
    assert (report.found, report.labelled) == (3, 5)
    with pytest.raises(ValueError, match="made with other settings .*height: 48 there, 64 now"):
        label(make_plan(two_shapes, replace(config, fit="crop", height=64, width=48)), workspace, progress=False)


@pytest.mark.parametrize("says", [True, False], ids=["crop", "of before there was a choice"])
def test_an_old_dataset_stays_cut(two_shapes, tmp_path, says):
    workspace, old = Workspace(tmp_path / "root"), replace(CONFIG, fit="crop", height=32, width=64, max_clips=1)
    folder = label(make_plan(two_shapes / "v0.mkv", old), workspace, progress=False).folder
    settings = json.loads((folder / "config.json").read_text())
    assert settings.pop("fit") == "crop"
    if not says:
        (folder / "config.json").write_text(json.dumps(settings))
    plan = make_plan(two_shapes, replace(CONFIG, height=32, width=64)).into(folder)
    assert (plan.config.size, plan.config.fit) == ((32, 64), "crop")
    report = label(plan, workspace, progress=False)
    assert (report.found, report.labelled) == (1, 2)
    assert label(make_plan(two_shapes, replace(old, max_clips=0)), workspace, progress=False).found == 3


def test_a_damaged_picture_is_found_by_verifying_and_done_again(videos, tmp_path):
    plan, workspace = make_plan(videos, CONFIG), Workspace(tmp_path)
    report = label(plan, workspace, progress=False)
    before = samples(report.folder)
    (victim,) = (report.folder / "shards").iterdir()
    with h5py.File(victim, "r") as file:
        group = next(iter(file["frames"].values()))
        offset = next(iter(group.values())).id.get_chunk_info(0).byte_offset
    content = bytearray(victim.read_bytes())
    content[offset + 100] ^= 1
    victim.write_bytes(content)
    assert label(plan, workspace, progress=False).labelled == 0
    with pytest.raises(ShardError, match="label again with verify=True"):
        samples(report.folder)
    again = label(plan, workspace, verify=True, progress=False)
    assert again.labelled == 6 and "quarantined, labelled again" in str(again) and samples(again.folder) == before


def test_clips_of_a_changed_video_are_replaced_and_the_others_kept(videos, tmp_path):
    workspace = Workspace(tmp_path / "ws")
    label(make_plan(videos, CONFIG), workspace, progress=False)
    sources.write_scene(videos / "v1.mkv", random_scene(9, (48, 64), seed=77))
    (videos / "v0.mkv").unlink()  # its labels stay: who has them may throw videos away
    report = label(make_plan(videos, CONFIG), workspace, progress=False)
    assert (report.found, report.labelled, len(report.stale)) == (1, 2, 1) and "another content of v1" in str(report)
    found = [clip for clips in find_shards(report.folder)[0].values() for clip in clips]
    assert sorted(clip.video for clip in found) == ["v0"] * 3 + ["v1"] * 2 + ["v2"]
    fresh = label(make_plan(videos, CONFIG), Workspace(tmp_path / "fresh"), progress=False)
    assert samples(fresh.folder).items() <= samples(report.folder).items()
    assert len(list((report.folder / "shards").glob("*.stale"))) == 1


def test_damage_met_while_clips_are_replaced_costs_that_shard(videos, tmp_path):
    workspace = Workspace(tmp_path / "ws")
    first = label(make_plan(videos, CONFIG), workspace, progress=False)
    ((path, clips),) = find_shards(first.folder)[0].items()
    with Shard(path) as shard:
        picture = shard.picture(clips[0], 0).tobytes()
    path.write_bytes(path.read_bytes().replace(picture, picture[:-9] + bytes([picture[-9] ^ 1]) + picture[-8:]))
    sources.write_scene(videos / "v1.mkv", random_scene(9, (48, 64), seed=77))
    report = label(make_plan(videos, CONFIG), workspace, progress=False)
    assert report.labelled == 6 and path.name in str(report) and len(list(path.parent.glob("*.damaged"))) == 1
    fresh = label(make_plan(videos, CONFIG), Workspace(tmp_path / "fresh"), progress=False)
    assert samples(report.folder) == samples(fresh.folder)


def link_of(folder):
    (folder.parent / "link").symlink_to(folder, target_is_directory=True)
    return folder.parent / "link"


@pytest.mark.parametrize("second", [lambda other: other, link_of, lambda other: other / "v0.mkv"])
def test_two_sources_with_equal_names_keep_all_clips(videos, tmp_path, second):
    """Whole folders, a folder behind a link, and a single video; labelled in turns, and then once more."""
    workspace, other = Workspace(tmp_path / "ws"), tmp_path / "other"
    for number, length in enumerate((13, 9, 4)):
        sources.write_scene(other / f"v{number}.mkv", random_scene(length, (48, 64), seed=50 + number))
    plans = [make_plan(videos, CONFIG), make_plan(second(other), CONFIG)]
    reports = [label(plan, workspace, tracker=DriftTracker(), progress=False) for plan in plans + plans]
    count = len(plans[1].clips)
    assert [report.labelled for report in reports] == [6, count, 0, 0] and not any(one.stale for one in reports)
    found = {clip.key: clip for clips in find_shards(reports[0].folder)[0].values() for clip in clips}
    assert found.keys() == {clip.key for plan in plans for clip in plan.clips}
    names = {clip.fingerprint: clip.video for clip in found.values()}
    assert len(set(names.values())) == len(names) == 3 + len(plans[1].videos), "each has a name of its own"
    assert "v0.mkv: is 'v0 (" in str(reports[1]) and "renamed" not in str(reports[0])
    splits = json.loads((reports[0].folder / "splits.json").read_text())
    assert splits.keys() == set(names.values())


def test_a_video_that_is_renamed_or_moved_is_the_same_video(videos, tmp_path):
    workspace = Workspace(tmp_path / "ws")
    first = label(make_plan(videos, replace(CONFIG, max_clips=1)), workspace, tracker=DriftTracker(), progress=False)
    before = json.loads((first.folder / "splits.json").read_text())
    (videos / "v0.mkv").rename(videos / "v9.mkv")
    shutil.copy(videos / "v1.mkv", videos / "v1.avi.mkv")
    moved = videos.rename(tmp_path / "moved")
    report = label(make_plan(moved, CONFIG), workspace, tracker=DriftTracker(), progress=False)
    assert (report.found, report.labelled, report.stale) == (3, 3, [])
    assert json.loads((first.folder / "splits.json").read_text()) == before
    names = {clip.video for clips in find_shards(report.folder)[0].values() for clip in clips}
    assert names == {"v0", "v1", "v2"}, "so that no video is in two splits"


def test_a_dataset_of_an_earlier_version_loses_nothing_to_another_source(videos, tmp_path):
    workspace = Workspace(tmp_path / "ws")
    old = label(make_plan(videos, CONFIG), workspace, tracker=DriftTracker(), progress=False)
    before, splits = samples(old.folder), (old.folder / "splits.json").read_text()
    (old.folder / "videos.json").unlink()  # which earlier versions don't write
    for number in range(3):
        sources.write_scene(tmp_path / "other" / f"v{number}.mkv", random_scene(9, (48, 64), seed=60 + number))
    new = label(make_plan(tmp_path / "other", CONFIG), workspace, tracker=DriftTracker(), progress=False)
    assert before.items() <= samples(new.folder).items() and new.labelled == 6
    assert json.loads(splits).items() <= json.loads((old.folder / "splits.json").read_text()).items()


def test_a_broken_video_does_not_take_another_ones_clips_with_it(videos, tmp_path):
    """v0 is known, moves to v8, and something broken takes its name."""
    workspace = Workspace(tmp_path / "ws")
    label(make_plan(videos, replace(CONFIG, max_clips=1)), workspace, tracker=DriftTracker(), progress=False)
    (videos / "v0.mkv").rename(videos / "v8.mkv")
    (videos / "v0.mkv").write_bytes(b"no video")
    report = label(make_plan(videos, CONFIG), workspace, tracker=DriftTracker(), progress=False)
    assert (report.found, report.labelled) == (3, 3) and len(report.skipped) == 1


def test_another_seed_than_the_datasets_is_refused(videos, tmp_path, refuses):
    label(make_plan(videos, CONFIG), Workspace(tmp_path), tracker=DriftTracker(), progress=False)
    with refuses("seed: .*splits.json was made with 0, got 4; delete that file"):
        label(make_plan(videos, replace(CONFIG, seed=4)), Workspace(tmp_path), tracker=DriftTracker(), progress=False)


@pytest.mark.parametrize("name", ["config.json", "splits.json", "videos.json"])
@pytest.mark.parametrize("content", ["[]", "null", '"x"', "{", "", b"\xff\xfe", '{"a": 1, "a": 2}', "[" * 100_000])
def test_spoilt_json_in_the_datasets_folder_is_named(tmp_path, refuses, name, content):
    folder = Workspace(tmp_path).dataset("default")
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with refuses(f"{name}: expected JSON, "):
        Store(Workspace(tmp_path), "default", config={}, tracker={}).register([], 0)


def test_decoding_goes_ahead_and_writing_behind_the_tracker(videos, tmp_path, monkeypatch):
    """Clip 0 is tracked only once clip 1 is decoded, and written only once clip 1 is tracked; yet nothing is stuck."""
    plan, writers = make_plan(videos, CONFIG), set()
    store = Store(Workspace(tmp_path), "a", config=CONFIG.content(), tracker={"name": "drift"})
    decoded, tracked = threading.Event(), threading.Event()

    def decode(*arguments):
        for number, item in enumerate(decode_clips(*arguments)):
            if number == 1:
                decoded.set()
            yield item

    class Follower(DriftTracker):
        def __call__(self, frames, queries):
            assert decoded.wait(20)
            tracks = super().__call__(frames, queries)
            if self.calls == 2:
                tracked.set()
            return tracks

    def keep(clip, sample):
        assert tracked.wait(20)
        writers.add(threading.current_thread())
        store.keep(clip, sample)

    monkeypatch.setattr("flowlib.labelling.pipeline.decode_clips", decode)
    assert list(label_clips(plan, plan.clips, Follower(), store, keep, Clock(), [])) == plan.clips
    assert len(writers) == 1 and threading.main_thread() not in writers


def test_few_clips_are_in_memory_at_once(videos, tmp_path, monkeypatch):
    plan = make_plan(videos, replace(CONFIG, clip_step=1))
    store = Store(Workspace(tmp_path), "a", config=CONFIG.content(), tracker={"name": "drift"})
    alive, most = [], []

    class Frames(np.ndarray):
        """An array that can be watched."""

    def decode(*arguments):
        for clip, frames in decode_clips(*arguments):
            frames = frames.view(Frames)
            alive.append(weakref.ref(frames))
            most.append(sum(one() is not None for one in alive))
            yield clip, frames

    monkeypatch.setattr("flowlib.labelling.pipeline.decode_clips", decode)
    assert len(list(label_clips(plan, plan.clips, DriftTracker(), store, store.keep, Clock(), []))) == 17
    assert max(most) <= 8  # two ahead and one on its way, one tracked, three behind, one being written


@pytest.fixture
def long(monkeypatch):
    """Every clip counts as too long to be in memory."""
    monkeypatch.setattr("flowlib.labelling.pipeline.LONG_BYTES", 0)


SIZE = (48, 64)
LK_CONFIG = replace(CONFIG, frames=5, tracker="lucas_kanade", clip_step=3, jitter=True)


@pytest.mark.parametrize(
    "config",
    [LK_CONFIG, replace(LK_CONFIG, frame_step=2, frames=4, confidence=True), replace(CONFIG, clip_step=2)],
    ids=["overlapping", "every other frame, with confidence", "a tracker that sees all frames"],
)
def test_long_clips_give_the_same_shards(videos, tmp_path, monkeypatch, config):
    plan, shards = make_plan(videos, config), []
    for number, most in enumerate((10**9, 0)):
        monkeypatch.setattr("flowlib.labelling.pipeline.LONG_BYTES", most)
        report = label(plan, Workspace(tmp_path / f"{number}"), progress=False)
        assert report.labelled == len(plan.clips) > 3
        assert not any(path.is_file() for path in (tmp_path / f"{number}" / "scratch").rglob("*"))
        shards.append({path.name: path.read_bytes() for path in find_shards(report.folder)[0]})
    assert shards[0] == shards[1]


def test_of_long_clips_few_frames_are_in_memory_and_each_is_decoded_but_twice(tmp_path, monkeypatch, long):
    """Once to be tracked and once to be stored, however many clips the video has."""
    scene = random_scene(10, SIZE, seed=3)
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "v.mkv", (scene.render(t % 10) for t in range(120)), fps=25, lossless=True)
    plan = make_plan(tmp_path / "in", replace(LK_CONFIG, frames=60, clip_step=0, skip_still=False, split_shots=False))
    alive, most, read, opened = [], [], resize_frame, []

    class Frame(np.ndarray):
        """An array that can be watched."""

    def watched(*given):
        frame = read(*given).copy().view(Frame)
        alive.append(weakref.ref(frame))
        most.append(sum(one() is not None for one in alive))
        return frame

    def opening(*given):
        opened.append(given)
        return open_video(*given)

    monkeypatch.setattr("flowlib.labelling.pipeline.resize_frame", watched)
    monkeypatch.setattr("flowlib.video.videos.open_video", opening)
    report = label(plan, Workspace(tmp_path / "out"), progress=False)
    assert report.labelled == len(plan.clips) == 2 and len(alive) == 2 * 120
    assert max(most) <= 26 + 2 * (FRAMES_AHEAD + 3)  # of a piece; and those that wait, for the tracker and the disk
    assert len(opened) == 3  # for its fingerprint, to track, and to store


@pytest.mark.parametrize("moment", ["before", "tracking", "writing"])
def test_a_video_that_can_not_be_read_costs_its_long_clips_alone(videos, tmp_path, monkeypatch, long, moment):
    plan = make_plan(videos, LK_CONFIG)
    path, other = videos / "v0.mkv", (videos / "v1.mkv").read_bytes()
    replaced = lambda: (path.unlink(), path.write_bytes(other))  # noqa: E731
    if moment == "before":
        replaced()
    elif moment == "tracking":
        cut = OnwardReader._decode
        monkeypatch.setattr(
            OnwardReader, "_decode", lambda self: islice(cut(self), 4 if self.video.name == "v0" else None)
        )
    else:
        journal = Store.journal
        monkeypatch.setattr(Store, "journal", lambda *given: (journal(*given), replaced()))
    report = label(plan, Workspace(tmp_path / "out"), progress=False)
    assert {clip.video for clips in find_shards(report.folder)[0].values() for clip in clips} == {"v1"}
    (skipped,) = {one.name for one in report.skipped} - {"v2"}
    assert skipped == "v0" and "v0.mkv: " in report.skipped[-1].reason and "missing" in report.skipped[-1].reason
    assert ("has changed" if moment != "tracking" else "ended before frame") in report.skipped[-1].reason


def test_progress_of_long_clips_counts_frames(videos, tmp_path, long, capsys):
    label(make_plan(videos, LK_CONFIG), Workspace(tmp_path))
    assert re.search(r"labelling: +0%.* 0/25 .*frame", capsys.readouterr().out)


def test_the_estimate_of_long_clips_goes_by_two_stretches(tmp_path, long):
    sources.write_scene(tmp_path / "v.mkv", random_scene(70, SIZE, seed=0))

    class Slow(LucasKanadeTracker):
        def __call__(self, frames, queries):
            time.sleep(0.02 * len(frames) + 0.1)
            return super().__call__(frames, queries)

    text = estimate(make_plan(tmp_path, replace(LK_CONFIG, frames=64, clip_step=0)), tracker=Slow(), clips=1)
    tracking = float(re.search(r"tracking ([\d.]+) s", text)[1])
    assert 64 * 0.02 + 0.1 <= tracking < 20


def test_an_error_while_writing_ends_the_job(videos, tmp_path):
    plan, workspace = make_plan(videos, CONFIG), Workspace(tmp_path)
    store = Store(workspace, "a", config=CONFIG.content(), tracker={"name": "drift"})

    def full(*_):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        list(label_clips(plan, plan.clips, DriftTracker(), store, full, Clock(), []))


def test_unknown_engines_are_refused(videos, tmp_path, refuses):
    with refuses("engine: expected one of local, ray, got 'dask'"):
        label(make_plan(videos, CONFIG), Workspace(tmp_path), engine="dask")
