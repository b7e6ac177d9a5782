"""Shots: cuts where the picture changes for good, nothing to learn where it is black or stands still."""

import json
from dataclasses import replace

import av
import cv2
import numpy as np
import pytest

from flowlib.labelling import LabelConfig, make_plan
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
    assert found.still == dict.fromkeys(range(41, 51), 52) | dict.fromkeys(range(52, 57), 58)


@pytest.mark.parametrize("run, reason", [((0, 8), ""), ((38, 46), ""), ((42, 50), "frozen"), ((52, 58), "black")])
def test_why_there_is_nothing_to_learn(film, run, reason):
    assert scan(film).nothing_in(run) == reason


@pytest.mark.parametrize("seed", range(6))
def test_a_moving_camera_is_no_cut_and_no_standstill(tmp_path, seed):
    frames = random_scene(40, (120, 200), seed=seed, motion="wander", camera="affine").clip(40)
    found = scan(write_video(tmp_path / "a.mp4", frames))
    assert (found.cuts, found.dark, found.still) == ((), (), {})


def moved(picture: np.ndarray, pixels: float) -> np.ndarray:
    """A grey picture [H W] moved to the right by parts of a pixel, as a frame."""
    there = cv2.warpAffine(picture, np.array([[1.0, 0, pixels], [0, 1, 0]]), picture.shape[::-1], borderMode=2)
    return there.clip(0, 255).astype(np.uint8)[..., None].repeat(3, -1)


def texture(height: int = 180, width: int = 320, blur: float = 4.0) -> np.ndarray:
    noise = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 1, (height, width)).astype(np.float32), (0, 0), blur)
    return (noise - noise.min()) / np.ptp(noise) * 160 + 40


def square(side: int, height: int = 720, width: int = 1280, grey: int = 190, ground: int = 110) -> np.ndarray:
    picture = np.full((height, width), ground, np.float32)
    picture[300 % height :, 500 % width :][:side, :side] = grey
    return picture


@pytest.mark.parametrize(
    "picture, pixels, step",
    [
        (texture(), 0.15, 1),  # the slowest of slow motion
        (texture(360, 640), 0.25, 1),
        (texture(360, 640), 0.1, 4),
        (square(40), 0.5, 1),  # a slow object
        (square(12), 2, 1),  # a ball far away
        (square(20), 1, 1),
        (square(6, 360, 640), 1, 1),
        (square(8, grey=255, ground=0), 2, 1),  # one light in the night
        (square(4, 180, 320), 0.25, 2),
    ],
)
def test_slow_or_small_motion_is_motion(tmp_path, picture, pixels, step):
    frames = [moved(picture, pixels * i) for i in range(8 * step)]
    found, span = scan(write_video(tmp_path / "slow.mp4", frames, fps=240)), 7 * step + 1
    assert {found.nothing_in((first, first + span)) for first in range(len(frames) - span + 1)} == {""}


def test_motion_too_slow_for_a_clip_shows_at_a_larger_step(tmp_path, refuses):
    slow = [moved(texture(), 0.02 * i) for i in range(113)]
    path, config = write_video(tmp_path / "slow.mp4", slow), LabelConfig(height=24, width=32, grid=2)
    with refuses("are black or frozen; motion too slow .* takes a larger frame_step; skip_still=False keeps"):
        make_plan(path, config)
    assert len(make_plan(path, replace(config, frame_step=16)).clips) == 1
    assert len(make_plan(path, replace(config, skip_still=False)).clips) == 14


@pytest.mark.parametrize(
    "codec, noise, light", [("libx264", 0, 0), ("libx264", 4, 0), ("libx264", 0, 2), ("mpeg4", 0, 0), ("mpeg4", 1, 0)]
)
def test_neither_a_codec_nor_noise_nor_flicker_is_motion(tmp_path, codec, noise, light):
    """A camera on a tripod before a scene in which nothing happens."""
    random, path, picture = np.random.default_rng(0), tmp_path / "still.mkv", texture(blur=2)
    options = {"libx264": {"crf": "25", "g": "12", "preset": "veryfast"}, "mpeg4": {"b": "400000"}}[codec]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for i in range(28):
            grey = picture + random.normal(0, noise or 1e-9, (180, 320)) + light * (i % 2)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(moved(grey.astype(np.float32), 0), format="rgb24")))
        container.mux(stream.encode())
    assert {scan(path).nothing_in((first, first + 8)) for first in range(21)} == {"frozen"}


def test_a_long_still_takes_no_longer_than_it_is(tmp_path):
    frames = np.concatenate([scene(1)[:1].repeat(200, 0), scene(1)[1:6]])
    found = scan(write_video(tmp_path / "still.mp4", frames))
    assert found.still == dict.fromkeys(range(199), 200)


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


@pytest.mark.parametrize("there, then", [('"num_frames": 58', '"num_frames": 50'), ("14,", "15,"), ("58", "5")])
def test_a_changed_digit_in_the_cache_is_found(film, tmp_path, there, then):
    cache = tmp_path / "surveys.json"
    (found,), _ = scan_all(film, cache=cache)
    assert there in cache.read_text()
    cache.write_text(cache.read_text().replace(there, then, 1))
    assert scan_all(film, cache=cache) == ([found], [])


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
