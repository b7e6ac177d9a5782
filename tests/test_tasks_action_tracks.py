"""Videos as sequences of tracks: what a sample holds, what is kept, what is skipped and said, and that it is enough."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from flowlib.geometry import fit_frame
from flowlib.models.actions import ActionLSTM
from flowlib.models.features import from_tracks
from flowlib.sources import write_actions, write_scene
from flowlib.synthetic import ACTIONS, action_scene
from flowlib.tasks.action import ActionTask
from flowlib.tasks.action import tracks as room
from flowlib.tasks.action.tracks import TrackConfig, TrackSequences, track_videos
from flowlib.trackers.exact import ExactTracker
from flowlib.training import TrainConfig, fit

SIZE, S = (48, 64), 6
CONFIG = TrackConfig(tracker="exact", height=48, width=64, grid=8, rows=2, columns=2)
PAIR = ("left", "right")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Five scenes in two classes."""
    folder = tmp_path_factory.mktemp("videos")
    for seed in range(5):
        for action in PAIR:
            write_scene(folder / action / f"scene_{seed}.mkv", action_scene(action, S, SIZE, seed))
    return folder


@pytest.fixture(scope="module")
def tracked(videos, tmp_path_factory):
    return track_videos(videos, tmp_path_factory.mktemp("store"), CONFIG)


def test_a_sample_is_its_videos_tracks_as_vectors(tracked):
    everything = TrackSequences(tracked, "all")
    assert everything.actions == PAIR and len(everything) == 10 and everything.inputs == 40
    for index, sample in enumerate(everything):
        action, scene = sample["key"].split("/scene_")
        assert sample["subject"] == sample["key"] == everything.videos[index]
        assert PAIR[sample["action"]] == action
        truth = action_scene(action, S, SIZE, int(scene)).tracks(CONFIG.queries)
        expected = from_tracks(truth, SIZE, cells=(2, 2))
        np.testing.assert_allclose(sample["vectors"].numpy(), expected, atol=1e-4)
        assert everything.tracks(index).num_points == 64
    flat = TrackSequences(replace(tracked, config=replace(CONFIG, rows=0, columns=0)), "all")
    assert flat.inputs == 3 * 64


def test_whole_scenes_are_in_one_split(tracked):
    keys = {split: TrackSequences(tracked, split).videos for split in ("train", "val", "test")}
    scenes = {split: {key.split("/")[1] for key in found} for split, found in keys.items()}
    assert sorted(map(len, keys.values())) == [2, 2, 6]  # both classes of each scene
    assert sum(map(len, scenes.values())) == 5
    assert {len({key.split("/")[0] for key in found}) for found in keys.values()} == {2}


def test_videos_are_tracked_once_for_each_content_and_setting(videos, tmp_path, monkeypatch):
    calls = []
    track = room._track
    monkeypatch.setattr(room, "_track", lambda path, *rest: calls.append(path) or track(path, *rest))
    store, folder = tmp_path / "store", shutil.copytree(videos, tmp_path / "videos")
    first = track_videos(folder, store, CONFIG)
    assert len(calls) == 10
    again = track_videos(folder, store, replace(CONFIG, rows=1, columns=1))  # pools what is there
    assert len(calls) == 10
    for suffix in (".mkv", ".scene.json"):
        (folder / "left" / f"scene_0{suffix}").rename(folder / "left" / f"take_0{suffix}")
    moved = track_videos(folder, store, CONFIG)
    assert len(calls) == 10
    assert {video.split for video in moved.videos if video.key == "left/take_0"} <= {"train", "val", "test"}
    for kept in (store / "tracks").glob("*.npz"):
        kept.write_bytes(kept.read_bytes()[:100])
    mended = track_videos(folder, store, CONFIG)
    assert len(calls) == 20
    track_videos(folder, store, replace(CONFIG, max_frames=4))
    assert len(calls) == 30
    assert TrackSequences(first).fingerprint != TrackSequences(again).fingerprint
    assert TrackSequences(moved, "all").fingerprint == TrackSequences(mended, "all").fingerprint
    assert TrackSequences(first, "all").fingerprint != TrackSequences(moved, "all").fingerprint


def test_what_cannot_be_used_is_listed_and_skipped(videos, tmp_path):
    folder = shutil.copytree(videos, tmp_path / "videos")
    whole = (folder / "left" / "scene_0.mkv").read_bytes()
    (folder / "left" / "cut.mp4").write_bytes(b"\0" * 100)
    (folder / "left" / "empty.mkv").write_bytes(b"")
    (folder / "right" / "the_same.mkv").write_bytes(whole)
    write_scene(folder / "right" / "sceneless.mkv", action_scene("right", S, SIZE, seed=9))
    (folder / "right" / "sceneless.scene.json").unlink()
    (folder / "stray.mkv").write_bytes(whole)
    write_scene(folder / "right" / "picture.mkv", action_scene("right", 1, SIZE))
    (folder / "up").mkdir()
    (folder / "down").mkdir()
    (folder / "down" / "one.png").write_bytes(b"a picture")
    (folder / ".cache").mkdir()
    found = track_videos(folder, tmp_path / "store", CONFIG)
    assert len(found.videos) == 10
    reasons = {one.name: one.reason for one in found.skipped}
    assert set(reasons) == {f"left/{name}" for name in ("cut", "empty")} | {
        "right/the_same", "right/picture", "right/sceneless", "stray", "up", "down",
    }  # fmt: skip
    assert reasons["up"] == "has no video, so it is no class"
    assert reasons["down"] == "has no video, so it is no class: a picture, but not in a folder <name>/frames/"
    assert "the same content as left/scene_0" in reasons["right/the_same"]
    assert "two or more frames" in reasons["right/picture"]
    assert reasons["stray"] == "lies in no class's folder"
    text = found.describe()
    assert "skipped: left/cut: " in text and text.endswith("10 videos, 6 skipped")


def test_folders_that_are_no_classes_are_refused(videos, tmp_path, refuses):
    folder = shutil.copytree(videos, tmp_path / "videos")
    with refuses(r"actions: expected the folders in .* \(left, right\), got \['left', 'up'\]"):
        track_videos(folder, tmp_path / "store", CONFIG, actions=("left", "up"))
    turned = track_videos(folder, tmp_path / "store", CONFIG, actions=("right", "left"))
    assert turned.actions == ("right", "left") and turned.videos[0].key.startswith("right/")
    with refuses("a folder of videos for each of two or more classes, got videos without folders"):
        track_videos(folder / "left", tmp_path / "store", CONFIG)
    for name, split in {"left": "train", "right": "Test"}.items():
        shutil.copytree(folder / name, tmp_path / "splits" / split / name)
    with refuses("expected a folder of videos for each class, .* got Test, train, which are names of splits"):
        track_videos(tmp_path / "splits", tmp_path / "store", CONFIG)
    for path in (folder / "right").iterdir():
        path.write_bytes(b"no video") if path.suffix == ".mkv" else path.unlink()
    with refuses("right: expected a video that can be read, got none"):
        track_videos(folder, tmp_path / "store", CONFIG)
    shutil.rmtree(folder / "right")
    with refuses("two or more classes, got left"):
        track_videos(folder, tmp_path / "store", CONFIG)
    with refuses("found nothing at", FileNotFoundError):
        track_videos(tmp_path / "nowhere", tmp_path / "store", CONFIG)


def test_splits_without_videos_are_refused(videos, tmp_path, refuses, tracked):
    with refuses("split: expected one of train, val, test, all"):
        TrackSequences(tracked, "training")
    few = replace(tracked, videos=tracked.videos[:1])
    empty = next(split for split in ("train", "val", "test") if split != few.videos[0].split)
    with refuses(f"split: '{empty}' has none of the 1 video; three"):
        TrackSequences(few, empty)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"grid": 0}, "grid: expected a whole number of at least 1, got 0"),
        ({"max_frames": 1}, "max_frames: expected a whole number of at least 2"),
        ({"frame_step": 0.5}, "frame_step"),
        ({"rows": 0}, "rows, columns: expected both or none to be 0"),
        ({"fit": "bend"}, "fit: expected one of crop"),
        ({"height": 0}, "height and width"),
    ],
)
def test_settings_out_of_range_are_refused(change, message, refuses):
    with refuses(message):
        TrackConfig(**change)


def test_a_real_tracker_follows_frames_brought_to_one_size(videos, tmp_path):
    config = replace(CONFIG, tracker="lucas_kanade", height=96, width=96)
    found = track_videos(videos, tmp_path, config)
    video = next(video for video in found.videos if video.key == "left/scene_1")
    fit_to = fit_frame(SIZE, config.size, config.fit)
    exact = ExactTracker(action_scene("left", S, SIZE, 1), fit=fit_to)(
        np.zeros((S, *config.size, 3), np.uint8), config.queries
    )
    apart = np.linalg.norm(video.tracks.tracks - exact.tracks, axis=2)[video.tracks.visibility & exact.visibility]
    assert np.median(apart) < 0.5 and found.tracker["name"] == "lucas_kanade"


def test_the_motions_of_the_demo_are_told_apart_in_videos_unseen(tmp_path):
    """In small: exact tracks; `bench/track_actions.py` measures with a tracker."""
    everything = [
        {"vectors": torch.from_numpy(CONFIG.vectors(action_scene(action, 10, SIZE, seed).tracks(CONFIG.queries)))}
        | {"action": number, "key": f"{action}/{seed}", "subject": f"{seed}"}
        for seed in range(20)
        for number, action in enumerate(ACTIONS[:4])
    ]
    torch.manual_seed(0)
    model, task = ActionLSTM(CONFIG.rows * CONFIG.columns * 10, 4, hidden=32), ActionTask(ACTIONS[:4])
    config = TrainConfig(steps=80, batch_size=16, optimizer="amsgrad", learning_rate=0.01, schedule="constant")
    config = replace(config, weight_decay=0.0, validate_every=80, device="cpu", num_workers=0)
    result = fit(model, task, everything[:60], everything[60:], config, folder=tmp_path / "run")
    assert result.best_score >= 0.9  # chance: 0.25


def test_the_demo_has_a_folder_for_each_action(tmp_path):
    folder = write_actions(tmp_path, count=1, num_frames=2, size=SIZE)
    assert {path.name for path in folder.iterdir()} == set(ACTIONS)
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*.mkv")}
    assert len(written) == len(ACTIONS)
    write_actions(tmp_path, count=1, num_frames=2, size=SIZE)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.mkv")} == written
