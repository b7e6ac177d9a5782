"""Sources: the sample is there and whole, rendered videos keep their truth beside them."""

import json

import numpy as np
import pytest

from flowlib import sources
from flowlib.synthetic import random_scene
from flowlib.video import iterate_frames, probe_all
from flowlib.workspace import Workspace


def test_the_sample_is_whole(tmp_path):
    good, bad = probe_all(sources.find_source("sample", Workspace(tmp_path)))
    assert [one.name for one in bad] == ["README.md"] and not bad[0].is_video
    assert [(video.name, video.size, video.num_frames) for video in good] == [
        ("basketball", (360, 640), 333),
        ("bikes", (272, 640), 250),
    ]


def test_a_rendered_video_is_its_scene(tmp_path):
    scene = random_scene(5, (48, 64), seed=3)
    path = sources.write_scene(tmp_path / "a.mkv", scene)
    assert sources.read_scene(path) == scene
    np.testing.assert_array_equal(np.stack(list(iterate_frames(path))), scene.clip())


def test_rendering_again_keeps_what_is_there(tmp_path):
    options = {"count": 2, "num_frames": 3, "size": (32, 48)}
    folder = sources.write_synthetic(tmp_path, **options)
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    sources.write_synthetic(tmp_path, **options)
    assert len(times) == 4 and times == {path: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_missing_sources_are_named(tmp_path, refuses):
    workspace = Workspace(tmp_path)
    with refuses("expected 'sample', 'synthetic' or a path, found nothing at .*nope", FileNotFoundError):
        sources.find_source(str(tmp_path / "nope"), workspace)
    (tmp_path / "videos").mkdir()
    assert sources.find_source("", workspace) == tmp_path / "videos"
    with refuses("a.mp4: expected a rendered video", FileNotFoundError):
        sources.read_scene(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", "[" * 5000, "\x00", "{}", '{"format": 1}', "drop", "type", "nest", "NaN"]
)
def test_a_scene_edited_by_hand_is_told_by_its_file(text, tmp_path, refuses):
    path = tmp_path / "a.mkv"
    sources.write_scene(path, random_scene(3, (32, 32), seed=0))
    scene = json.loads(sources.scene_path(path).read_text())
    if text == "drop":
        del scene["layers"]
    elif text == "type":
        scene["layers"] = 3
    elif text == "nest":
        scene["layers"][0] = {"motion": [1]}
    sources.scene_path(path).write_text(json.dumps(scene) if text in ("drop", "type", "nest") else text)
    with refuses(r"a\.scene\.json: expected "):
        sources.read_scene(path)
