"""Labelling: any split of the plan gives the same samples, and nothing finished is done twice or lost."""

import json
import shutil

import numpy as np
import pytest

from flowlib import sources
from flowlib.labelling import LabelConfig, estimate, label, make_plan
from flowlib.shards import Shard, find_shards
from flowlib.synthetic import random_scene
from flowlib.tracks import Tracks
from flowlib.workspace import Workspace

CONFIG = LabelConfig(frames=4, grid=3, height=48, width=64, tracker="exact", encoding="webp")


class DriftTracker:
    """Moves every point by a pixel a frame, and counts its calls."""

    def __init__(self, fail_at: int = -1) -> None:
        self.calls, self.fail_at = 0, fail_at

    def __call__(self, frames, queries):
        self.calls += 1
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        moved = queries[None, :, 1:] + np.arange(len(frames), dtype=np.float32)[:, None, None]
        return Tracks(moved, np.ones(moved.shape[:2], bool), queries)

    def describe(self):
        return {"name": "drift", "weights_sha256": ""}


@pytest.fixture
def videos(tmp_path):
    """Three rendered videos of 13, 9 and 4 frames: 3 + 2 + 1 clips."""
    folder = tmp_path / "my vidéos"
    for number, length in enumerate((13, 9, 4)):
        sources.write_scene(folder / f"v{number}.mkv", random_scene(length, (48, 64), seed=number))
    return folder


def samples(folder) -> dict:
    """Every sample of a dataset by key, as bytes."""
    found, bad = find_shards(folder)
    assert not bad
    content = {}
    for path, clips in found.items():
        with Shard(path) as shard:
            for clip in clips:
                one = shard.read(clip)
                content[clip.key] = one.frames.tobytes() + one.tracks.tracks.tobytes() + one.tracks.visibility.tobytes()
    return content


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
    np.testing.assert_allclose(one.tracks.tracks, exact.tracks, atol=1 / 64)
    np.testing.assert_array_equal(one.tracks.visibility, exact.visibility)
    assert not any((tmp_path / "scratch").rglob("*.h5"))


def test_the_second_run_finds_the_work_done(videos, tmp_path):
    plan, workspace, tracker = make_plan(videos, CONFIG), Workspace(tmp_path), DriftTracker()
    label(plan, workspace, tracker=tracker, progress=False)
    again = label(plan, workspace, tracker=tracker, progress=False)
    assert (tracker.calls, again.found, again.labelled) == (6, 6, 0)
    assert "6 were there, 0 labelled now" in str(again)


def test_after_an_interrupt_only_the_clip_at_work_is_done_again(videos, tmp_path):
    plan, workspace = make_plan(videos, CONFIG), Workspace(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        label(plan, workspace, tracker=DriftTracker(fail_at=4), progress=False)
    tracker = DriftTracker()
    report = label(plan, workspace, tracker=tracker, progress=False)
    assert tracker.calls == 3
    undisturbed = label(plan, Workspace(tmp_path / "other"), tracker=DriftTracker(), progress=False)
    assert samples(report.folder) == samples(undisturbed.folder)


def test_a_damaged_shard_is_set_aside_and_done_again(videos, tmp_path):
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


def test_bad_videos_are_listed_and_the_others_go_on(videos, tmp_path):
    (videos / "broken.mp4").write_text("no video")
    shutil.copy(videos / "v1.mkv", videos / "v1 again.mkv")
    report = label(make_plan(videos, CONFIG), Workspace(tmp_path), tracker=DriftTracker(), progress=False)
    assert report.labelled == 6 and len(report.skipped) == 2
    assert "broken.mp4" in str(report) and "same content as" in str(report)
    with pytest.raises(RuntimeError, match="strict: 2 were left out"):
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
    "change", [{"frames": 1}, {"grid": 0}, {"tracker": "magic"}, {"fit": "zoom"}, {"encoding": "png"}, {"height": 0}]
)
def test_bad_settings_are_named(change, refuses):
    with refuses(next(iter(change))):
        LabelConfig(**change)


def test_the_estimate_counts_the_whole_job(videos):
    text = estimate(make_plan(videos, CONFIG), clips=2)
    assert "6 clips" in text and "1 session of 12 h" in text
