"""The hand viewer without a browser: what it takes, what it packs, its traits, and its pictures, pages and films."""

import json
import re
import zlib
from dataclasses import replace

import numpy as np
import pytest
from fixtures.hand_example import BEHIND, CAMERA, flat_hand, hand_example
from hypothesis import given
from hypothesis import strategies as st

from flowlib.video import decode_image, iterate_frames
from flowlib.viewer import HandViewer
from flowlib.viewer.hand_scene import DepthGrid, HandScene, HandView, depth_grid
from flowlib.viewer.hands import DEPTH_STEP, pack_depth

TAKE = hand_example()
OFF = TAKE.joints + np.float32([3, 4, 0])  # 5 mm from the truth, everywhere


def scene(**changes) -> HandScene:
    return HandScene((TAKE,), {"net": (OFF,)}, **changes)


# ---- Depth


def test_the_depth_around_the_hand_is_where_the_camera_saw_it():
    for frame in (0, 5):
        points, light = depth_grid(TAKE, frame, 300.0, 10_000).points(TAKE)
        turn, middle = np.deg2rad(4 * frame), TAKE.joints[frame, 3]
        normal = np.array([np.sin(turn), 0, np.cos(turn)])
        np.testing.assert_allclose((points - middle) @ normal, BEHIND, atol=0.01)
        assert np.linalg.norm(points - middle, axis=1).max() < 90 and len(points) > 2000
        # a plane is lit alike everywhere: by the light's share along its normal
        assert np.ptp(light) < 1e-3 and light[0] == pytest.approx(0.78 * np.cos(turn) + 0.3 * np.sin(turn), abs=0.01)


@pytest.mark.parametrize("most", [50, 500, 4000])
def test_no_more_points_are_kept_than_asked_for(most):
    count = int((depth_grid(TAKE, 0, 300.0, most).depth > 0).sum())
    assert most / 4 < count <= 1.1 * most or (count < most and most == 4000)


def test_a_smaller_cube_cuts_its_corners_off():
    points, _ = depth_grid(TAKE, 0, 60.0, 10_000).points(TAKE)
    assert np.abs(points - TAKE.joints[0, 3]).max() <= 30 and len(points) > 100


@pytest.mark.parametrize("depth", [0.0, 5000.0])
def test_a_frame_without_a_hand_has_no_points(depth):
    empty = replace(TAKE, read=lambda frame: np.full(CAMERA.size, depth))
    points, light = depth_grid(empty, 0, 300.0, 4000).points(empty)
    assert points.shape == (0, 3) and light.shape == (0,)
    assert HandViewer(empty).snapshot(width=200)


def test_a_hand_outside_the_picture_or_behind_the_camera_has_no_points():
    for moved in ([4000.0, 0, 0], [0, 0, -900.0]):
        away = replace(TAKE, joints=TAKE.joints + np.float32(moved))
        assert depth_grid(away, 0, 300.0, 4000).depth.size == 0
        assert HandViewer(away).snapshot(width=200)


def unpack_depth(data: bytes, shapes: list[tuple[int, int]]) -> list[np.ndarray]:
    """What `Take` in hand.js does."""
    raw = np.frombuffer(zlib.decompress(data), np.uint8)
    masks, at = [], 0
    for rows, columns in shapes:
        size = (rows * columns + 7) // 8
        bits = np.unpackbits(raw[at : at + size], count=rows * columns, bitorder="little")
        masks.append(bits.reshape(rows, columns).astype(bool))
        at += size
    total = sum(int(mask.sum()) for mask in masks)
    told = raw[at : at + total].astype(np.uint16) | (raw[at + total :].astype(np.uint16) << 8)
    grids, at = [], 0
    for mask in masks:
        count = int(mask.sum())
        grid = np.zeros(mask.shape)
        grid[mask] = np.cumsum(told[at : at + count], dtype=np.uint16) * DEPTH_STEP
        grids.append(grid)
        at += count
    return grids


@given(st.integers(0, 2**32 - 1), st.integers(0, 4), st.sampled_from([1.0, 0.4, 0.0]))
def test_packed_depth_comes_back_to_half_a_step(seed, S, share):
    rng = np.random.default_rng(seed)
    shapes = [(int(rng.integers(0, 6)), int(rng.integers(1, 7))) for _ in range(S)]
    depths = [np.where(rng.random(shape) < share, rng.uniform(1, 8000, shape), 0) for shape in shapes]
    packed = pack_depth(DepthGrid(depth.astype(np.float32)) for depth in depths)
    for depth, back in zip(depths, unpack_depth(packed, shapes)):
        np.testing.assert_allclose(back, depth, atol=DEPTH_STEP / 2 + 1e-3)


# ---- The view


def test_unturned_a_hand_is_seen_as_the_camera_sees_it():
    here, view = scene(), HandView(frame=2)
    seen = here.project(TAKE.joints[2], view, 300.0)
    offset = TAKE.joints[2] - here.middle(0, 2, True)
    assert (np.sign(seen[np.abs(offset[:, 0]) > 1, 0]) == np.sign(offset[np.abs(offset[:, 0]) > 1, 0])).all()
    np.testing.assert_allclose(seen[:, 2], offset[:, 2], atol=1e-3)
    flat = here.project(TAKE.joints[0], HandView(), 300.0)  # all at one distance: no perspective
    farthest = np.linalg.norm(flat[:, :2], axis=1).max()
    share = np.linalg.norm(TAKE.joints[0] - here.middle(0, 0, True), axis=1).max() / here.reach(0, True)
    assert farthest == pytest.approx(0.4 * 300 * share, rel=1e-3)


@given(st.floats(-180, 180), st.floats(-90, 90), st.floats(0.2, 5))
def test_turning_keeps_distances_and_zoom_scales(yaw, pitch, zoom):
    here = scene()
    plain = here.project(TAKE.joints[1], HandView(frame=1), 200.0)
    turned = here.project(TAKE.joints[1], HandView(frame=1, yaw=yaw, pitch=pitch, zoom=zoom), 200.0)
    eye = 5 * here.reach(0, True)

    def in_space(seen: np.ndarray, zoom: float) -> np.ndarray:
        """mm from the middle, the perspective taken back."""
        gain = 0.4 * 200 / here.reach(0, True) * zoom * eye / (eye + seen[:, 2])
        return np.c_[seen[:, :2] / gain[:, None], seen[:, 2]]

    lengths = [np.linalg.norm(in_space(seen, z), axis=1) for seen, z in ((plain, 1.0), (turned, zoom))]
    np.testing.assert_allclose(*lengths, rtol=1e-3, atol=1e-2)


def test_what_is_nearer_goes_right_and_down_when_the_view_is_turned_so():
    near = scene().middle(0, 0, True)[None] + [0, 0, -50]
    assert scene().project(near, HandView(yaw=30), 200.0)[0, 0] > 5
    assert scene().project(near, HandView(pitch=30), 200.0)[0, 1] > 5


def test_errors_and_their_limit():
    np.testing.assert_allclose(scene().errors(0, 1), 5, rtol=1e-5)
    assert scene().limit == 5
    assert scene().panels(HandView()) == [(0,), (1,)]
    assert scene().panels(HandView(compare="overlay", shown=(1,))) == [(1,)]


# ---- What comes in

BAD = [
    ({"sequences": []}, "sequences: expected one HandSequence or more"),
    ({"sequences": [1]}, "sequences: expected one HandSequence or more, got"),
    ({"predictions": OFF[:5]}, r"prediction, me/wave/1: expected numbers \[6, 21, 3\], got float32 \[5, 21, 3\]"),
    ({"predictions": OFF[:, :20]}, r"prediction, me/wave/1: expected numbers \[6, 21, 3\]"),
    ({"predictions": {"net": [OFF, OFF]}}, "net: expected an array for each of 1 sequences, got 2"),
    ({"predictions": {"truth": OFF}}, "predictions: expected another name than 'truth'"),
    ({"predictions": np.where(np.arange(6)[:, None, None] == 4, np.nan, OFF)}, "finite .* infinity in frame 4"),
    ({"predictions": [["a"]]}, "prediction, me/wave/1: expected numbers"),
    ({"actions": np.ones((6, 3)) / 3, "action_names": ("a", "b")}, r"actions, me/wave/1: expected numbers \[6, 2\]"),
    ({"cube": 0}, "cube: expected more than 0"),
    ({"points": -1}, "points: expected more than 0"),
    ({"fps": 0}, "fps: expected more than 0"),
    ({"frame": 6}, "frame: expected 0 to 5, got 6"),
    ({"sequence": 1}, "sequence: expected 0 to 0, got 1"),
    ({"colour": "error"}, "colour: 'error' needs predictions"),
    ({"compare": "errors"}, "compare: 'errors' needs predictions"),
    ({"colour": "red"}, "colour: expected one of finger"),
    ({"shown": [1]}, "shown: expected sets from 0 to 0"),
    ({"shown": []}, "shown: expected at least one"),
    ({"pitch": 91}, "pitch: expected -90 to 90"),
]


@pytest.mark.parametrize("change, message", BAD, ids=[message[:40] for _, message in BAD])
def test_bad_input_is_refused_with_its_name(change, message, refuses):
    with refuses(message):
        HandViewer(**({"sequences": TAKE} | change))


def test_unknown_settings_are_refused():
    with pytest.raises(TypeError, match="unknown settings: color"):
        HandViewer(TAKE, color="finger")


def test_predictions_may_be_one_several_or_named():
    other = hand_example(3, "me/wave/2")
    assert HandViewer(TAKE, OFF)._scene.names == ("truth", "prediction")
    many = HandViewer([TAKE, other], {"net": [OFF, other.joints], "loop": [OFF, other.joints + 1]})
    assert many._scene.names == ("truth", "net", "loop") and many.shown == [0, 1, 2]
    assert repr(many) == "HandViewer(2 sequences of 3 to 6 frames, 21 joints, truth and net and loop)"
    torch = pytest.importorskip("torch")
    assert HandViewer(TAKE, torch.from_numpy(OFF).requires_grad_())._scene.limit == 5


def test_a_shorter_sequence_shows_its_last_frame():
    viewer = HandViewer([TAKE, hand_example(3, "me/wave/2")], frame=5)
    viewer.sequence = 1
    assert (viewer.frame, viewer.num_frames) == (2, 3)


# ---- Pictures, pages, films


def picture_of(viewer: HandViewer, **settings) -> np.ndarray:
    for name, value in settings.items():
        setattr(viewer, name, value)
    data = viewer.snapshot(width=400)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    return decode_image(bytes(data)).astype(int)


def test_every_setting_changes_the_picture():
    viewer = HandViewer([TAKE, hand_example(3, "me/wave/2")], [OFF, hand_example(3).joints], frame=3)
    before = picture_of(viewer)
    steps = [
        {"colour": "error"}, {"colour": "set"}, {"compare": "overlay"}, {"compare": "errors"}, {"shown": [0]},
        {"hidden": "off"}, {"cloud": "faint"}, {"cloud": "off"}, {"follow": False}, {"yaw": 60.0}, {"pitch": -40.0},
        {"zoom": 2.0}, {"frame": 1}, {"sequence": 1},
    ]  # fmt: skip
    for step in steps:
        after = picture_of(viewer, **step)
        assert after.shape != before.shape or np.abs(after - before).max() > 30, f"{step} changed nothing"
        before = after


def test_a_joint_is_drawn_where_it_is_and_a_hidden_one_is_hollow():
    viewer = HandViewer(TAKE, cloud="off", frame=3)
    picture = picture_of(viewer)
    height, width = 288, 384  # of the panel, below the title and right of a gap
    places = viewer._scene.project(TAKE.joints[3], viewer._view(3), height)[:, :2] + [width / 2, height / 2]

    def colour_at(joint: int) -> np.ndarray:
        x, y = (places[joint] + [8, 28 + 8]).round().astype(int)
        return picture[y, x]

    assert np.abs(colour_at(14) - [32, 172, 128]).max() < 40, "the tip of the middle finger is green"
    assert colour_at(20).min() > 225, "the pinky's tip is hidden: only its rim has its colour"


@pytest.mark.parametrize("name", ["hand.mp4", "hand.gif"])
def test_a_film_has_all_frames(name, tmp_path):
    path = HandViewer(TAKE, OFF).to_video(tmp_path / name, width=320, progress=False)
    frames = list(iterate_frames(path))
    assert len(frames) == 6 and np.abs(frames[5].astype(int) - frames[0]).max() > 60


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & $x$"


def test_a_page_keeps_names_as_text_and_asks_for_nothing(tmp_path):
    viewer = HandViewer(hand_example(2, HOSTILE), {HOSTILE: OFF[:2]}, title=HOSTILE, yaw=20, frame=1, theme="dark")
    text = viewer.to_html(tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("</script>") == 2 and "<img" not in text
    assert set(re.findall(r"https?://[^\s\"'`)]+", text)) == {"http://www.w3.org/2000/svg"}
    state = json.loads(re.search(r'id="state">(.*?)</script>', text, re.S)[1])
    assert (state["yaw"], state["frame"], state["theme"], state["shown"]) == (20, 1, "dark", [0, 1])
    assert viewer.snapshot(width=200)


def test_a_page_of_fifty_frames_stays_light(tmp_path):
    path = HandViewer(hand_example(50), hand_example(50).joints + 2).to_html(tmp_path / "page.html")
    assert path.stat().st_size < 0.8e6


def test_the_example_is_a_hand():
    assert flat_hand()[3].tolist() == [0, 0, 0] and TAKE.camera.sees(TAKE.joints).all()
