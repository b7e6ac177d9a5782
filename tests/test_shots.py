"""Shots: cuts where the picture changes for good, nothing to learn where it is black or stands still."""

import json

import numpy as np
import pytest

from flowlib.shots import Scan, scan, scan_all
from flowlib.synthetic import random_scene
from flowlib.video import Video, probe, write_video


def scene(seed: int, frames: int = 14) -> np.ndarray:
    return random_scene(frames, (96, 160), seed=seed, motion="affine", camera="linear").clip(frames)


@pytest.fixture
def film(tmp_path):
    """Three scenes of 14 frames, then 10 frozen, then 6 black ones."""
    last = scene(3)[-1:]
    frames = np.concatenate([scene(1), scene(2), scene(3), np.repeat(last, 10, 0), np.zeros((6, 96, 160, 3), np.uint8)])
    return write_video(tmp_path / "films" / "film.mp4", frames, fps=10)


def test_cuts_and_frames_with_nothing_to_learn(film):
    found = scan(film)
    assert found.video == probe(film)
    assert found.cuts == (14, 28, 52) and found.shots == [(0, 14), (14, 28), (28, 52), (52, 58)]
    assert found.dark == ((52, 58),)
    assert (41, 52) in found.still and not any(first < 41 for first, _ in found.still)


@pytest.mark.parametrize("run, reason", [((0, 8), ""), ((38, 46), ""), ((42, 50), "frozen"), ((52, 58), "black")])
def test_why_there_is_nothing_to_learn(film, run, reason):
    assert scan(film).nothing_in(run) == reason


@pytest.mark.parametrize("seed", range(6))
def test_a_moving_camera_is_no_cut_and_no_standstill(tmp_path, seed):
    frames = random_scene(40, (120, 200), seed=seed, motion="wander", camera="affine").clip(40)
    found = scan(write_video(tmp_path / "a.mp4", frames))
    assert (found.cuts, found.dark, found.still) == ((), (), ())


def test_the_cuts_of_a_real_film(shared):
    """Looked at by eye; the film ships as a sample, too."""
    assert scan(shared / "data" / "videos" / "bikes.mp4").cuts == (30, 76, 137, 187, 242)
    for name in ("basketball", "bedroom_children", "cat", "taichi_1"):
        assert scan(shared / "data" / "videos" / f"{name}.mp4").cuts == ()


def test_scans_are_kept_by_content(film, tmp_path, monkeypatch):
    cache, folder = tmp_path / "surveys.json", film.parent
    first, _ = scan_all(folder, cache=cache)
    monkeypatch.setattr("flowlib.shots.probe", lambda *_, **__: pytest.fail("scanned again"))
    film = film.rename(film.with_name("other name.mp4"))
    (again,), skipped = scan_all(folder, cache=cache)
    assert (again.video.name, again.video.path, skipped) == ("other name", str(film), [])
    assert (again.cuts, again.dark, again.still) == (first[0].cuts, first[0].dark, first[0].still)


def test_a_changed_video_is_scanned_anew(film, tmp_path):
    cache = tmp_path / "surveys.json"
    scan_all(film, cache=cache)
    write_video(film, scene(7), fps=10)
    (found,), _ = scan_all(film, cache=cache)
    assert (found.video.num_frames, found.cuts) == (14, ())


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"version": 1}', '{"version": 1, "surveys": {"a": {"cuts": 3}}}'])
def test_a_damaged_cache_costs_time_and_nothing_else(film, tmp_path, damage):
    cache = tmp_path / "surveys.json"
    cache.write_text(damage)
    (found,), _ = scan_all(film, cache=cache)
    assert found == scan(film, "film") and len(json.loads(cache.read_text())["surveys"]) == 1


def test_a_cache_that_cannot_be_written_is_done_without(film, tmp_path):
    (tmp_path / "file").write_text("")
    (found,), _ = scan_all(film, cache=tmp_path / "file" / "surveys.json")
    assert found.cuts == (14, 28, 52)


def test_bad_videos_are_listed(film):
    film.with_name("bad.mp4").write_bytes(b"no video")
    good, bad = scan_all(film.parent)
    assert [one.video.name for one in good] == ["film"] and [one.name for one in bad] == ["bad"]


def test_shots_tile_the_video():
    video = Video("a", "a.mp4", (10, 10), 25.0, 9, "f" * 64)
    assert Scan(video).shots == [(0, 9)] and Scan(video, cuts=(2, 5)).shots == [(0, 2), (2, 5), (5, 9)]
