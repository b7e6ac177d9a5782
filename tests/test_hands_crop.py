"""Crops: joints and picture stay together whatever moves them, and each way they once parted is told."""

import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
from fixtures.ball_hands import FPHA_DEPTH, RADIUS, hand, render
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flowlib.camera import Camera
from flowlib.hands import crop as cropping
from flowlib.hands.augment import Motion
from flowlib.hands.crop import STILL, Crop, CropConfig, crop, estimate_centre, normalise, restore, share_outside
from flowlib.hands.kinematics import LIMITS, forward, place, random_shape
from flowlib.hands.kinematics import rotation as turning
from flowlib.hands.rendering import render as render_hand

OBLONG = replace(FPHA_DEPTH, fx=430.0, fy=520.0)  # which one focal length for both can't be taken for
centres = st.tuples(st.floats(-110, 110), st.floats(-80, 80), st.floats(330, 600)).map(np.array)
methods = st.sampled_from(["virtual", "cube", "padded_box"])


@st.composite
def motions(draw, modes=("none", "rot", "scale", "trans")):
    """One of the modes, in ranges beyond what training draws."""
    mode = draw(st.sampled_from(modes))
    return {
        "none": lambda: STILL,
        "rot": lambda: Motion(angle=np.array(draw(st.floats(-np.pi, np.pi)))),
        "scale": lambda: Motion(factor=np.array(draw(st.floats(0.9, 1.1)))),
        "trans": lambda: Motion(offset=np.array(draw(st.tuples(*[st.floats(-15, 15)] * 3)))),
    }[mode]()


def rigid(config: CropConfig, centre: np.ndarray, motion: Motion) -> np.ndarray:
    """The rotation of a crop, from the axis and angle of each turn by Rodrigues' formula, not from `crop`'s own."""

    def about(axis, angle):
        k = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
        return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k

    turn = about((0.0, 0.0, 1.0), float(motion.angle))
    if config.method != "virtual":
        return turn
    direction = (centre + motion.offset) / np.linalg.norm(centre + motion.offset)
    axis = np.cross(direction, (0, 0, 1))
    length = np.linalg.norm(axis)
    return turn @ (about(axis / length, np.arcsin(length)) if length > 1e-12 else np.eye(3))


def joints_error(made: Crop, config: CropConfig, joints: np.ndarray, centre: np.ndarray, motion: Motion) -> float:
    """How far, in mm, what the crop makes of the joints is from the joints moved by the same rigid motion."""
    rotation = rigid(config, centre, motion)
    unnormalised = made.normalise(joints) * config.cube * float(motion.factor) / 2 + rotation @ (centre + motion.offset)
    return float(np.abs(unnormalised - joints @ rotation.T).max())


def picture_error(made: Crop, joints: np.ndarray, rotation: np.ndarray) -> float:
    """The share of pixels that are 2 mm or more from the moved hand, rendered by the crop's camera."""
    rendered = render(joints @ rotation.T, made.camera)
    distance = float((rotation @ made.centre)[2])
    expected = np.where(rendered > 0, np.clip((rendered - distance) / (made.cube / 2), -1, 1), 1)
    return float((np.abs(made.image - expected) * made.cube / 2 >= 2).mean())


def make(config, joints, centre, motion=STILL, camera=FPHA_DEPTH) -> Crop:
    depth = render(joints, camera)
    return crop(depth, camera, config, centre=centre, motion=motion, joints=joints)


@given(methods, centres, motions(), st.integers(0, 99))
def test_normalise_and_restore_are_inverse(method, centre, motion, seed):
    joints = hand(centre, seed=seed).astype(np.float64)
    assume((centre + motion.offset)[2] > 0)
    made = crop(np.ones(FPHA_DEPTH.size), FPHA_DEPTH, CropConfig(method, size=8), centre=centre, motion=motion,
                joints=joints)  # fmt: skip
    np.testing.assert_allclose(made.restore(made.normalise(joints)), joints, atol=1e-9)
    poses = np.random.default_rng(seed).uniform(-1, 1, (4, 21, 3))
    np.testing.assert_allclose(made.normalise(made.restore(poses)), poses, atol=1e-11)
    assert joints_error(made, CropConfig(method), joints, centre, motion) < 1e-3


@settings(max_examples=25)
@given(methods, centres, motions(), st.integers(0, 99))
def test_a_crop_is_what_its_camera_would_see_of_the_moved_hand(method, centre, motion, seed):
    """Rendered, then cropped, equals cropped, then rendered: picture, depth and joints have moved together."""
    config, joints = CropConfig(method, size=96), hand(centre, seed=seed).astype(np.float64)
    made = make(config, joints, centre, motion, OBLONG)
    assert picture_error(made, joints, rigid(config, centre, motion)) < 0.05


@settings(max_examples=15)
@given(methods, centres, motions(), st.integers(0, 99))
def test_the_synthetic_hand_rendered_after_the_motion_is_the_augmented_crop(method, centre, motion, seed):
    config, shape = CropConfig(method, size=96), random_shape(np.random.default_rng(seed))
    theta = np.random.default_rng(seed).uniform(LIMITS[..., 0], LIMITS[..., 1])[None]
    joints = place(forward(theta, shape), turning(np.array([[0.3, -0.2, 0.4]])), np.zeros((1, 3)))[0]
    joints = joints - joints[3] + centre
    assume(joints[:, 2].min() > 200)
    depth = render_hand(joints, shape.radii, OBLONG)
    made = crop(depth, OBLONG, config, centre=centre, motion=motion, joints=joints)
    rotation = rigid(config, centre, motion)
    again = render_hand(joints @ rotation.T, shape.radii, made.camera)
    expected = np.where(again > 0, np.clip((again - (rotation @ made.centre)[2]) / (made.cube / 2), -1, 1), 1)
    assert (np.abs(made.image - expected) * made.cube / 2 < 2).mean() > 0.95


# What was wrong elsewhere, put back: each must be found by one of the two checks above.


def r_rotates_the_crop(monkeypatch):
    """Joint pixels of the whole picture turned about (64, 64), the middle of the crop, and unprojected."""

    def wrong(joints, centre, rotation, cube):
        cos, sin = rotation[0, 0], rotation[1, 0]
        turned = FPHA_DEPTH.project(joints)
        turned[:, :2] = (turned[:, :2] - 64) @ np.array([[cos, sin], [-sin, cos]]) + 64
        return (FPHA_DEPTH.unproject(turned) - rotation @ centre) / (cube / 2)

    monkeypatch.setattr(cropping, "normalise", wrong)


def r_scales_the_picture_alone(monkeypatch):
    monkeypatch.setattr(cropping, "normalise", lambda joints, centre, rotation, cube: normalise(
        joints, centre, rotation, CropConfig().cube))  # fmt: skip


def r_shifts_pixels_but_not_the_depth(monkeypatch):
    right = cropping.View.read

    def wrong(self, depth, *args, **options):
        return right(replace(self, centre=self.centre * (1, 1, 410 / self.centre[2])), depth, *args, **options)

    monkeypatch.setattr(cropping.View, "read", wrong)


def r_divides_by_the_distance(monkeypatch):
    right = cropping.View.read

    def wrong(self, depth, *args, **options):
        image = right(self, depth, *args, **options)
        return np.where(image < 1, image * self.cube / (self.rotation[2] @ self.centre), 1)

    monkeypatch.setattr(cropping.View, "read", wrong)


def one_focal_length_for_both(monkeypatch):
    right = cropping.view
    monkeypatch.setattr(cropping, "view", lambda camera, *rest: right(replace(camera, fy=camera.fx), *rest))


def y_up(monkeypatch):
    right = cropping.view
    monkeypatch.setattr(
        cropping, "view", lambda camera, config, centre, *rest: right(camera, config, centre * (1, -1, 1), *rest)
    )


def x_and_y_swapped(monkeypatch):
    right = cropping.view
    monkeypatch.setattr(
        cropping, "view", lambda camera, config, centre, *rest: right(camera, config, centre[[1, 0, 2]], *rest)
    )


TRAPS = {
    r_rotates_the_crop: Motion(angle=np.array(0.7)),
    r_scales_the_picture_alone: Motion(factor=np.array(1.06)),
    r_shifts_pixels_but_not_the_depth: Motion(offset=np.array([0.0, 0.0, 15.0])),
    r_divides_by_the_distance: STILL,
    one_focal_length_for_both: STILL,
    y_up: STILL,
    x_and_y_swapped: STILL,
}


@pytest.mark.parametrize("trap, motion", TRAPS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_trap_that_is_put_back_is_found(trap, motion, monkeypatch):
    config, centre = CropConfig("cube", size=64), np.array([70.0, -40.0, 410.0])
    joints = hand(centre).astype(np.float64)
    rotation = rigid(config, centre, motion)

    def errors() -> tuple[bool, bool]:
        made = make(config, joints, centre, motion, OBLONG)
        return joints_error(made, config, joints, centre, motion) < 1e-3, picture_error(made, joints, rotation) < 0.05

    assert errors() == (True, True)
    trap(monkeypatch)
    assert errors() != (True, True)


@pytest.mark.parametrize("method", ["virtual", "cube", "padded_box"])
def test_every_joint_lies_in_the_picture_of_its_ball(method):
    centre = np.array([80.0, 50.0, 420.0])
    joints = hand(centre).astype(np.float64)
    made = make(CropConfig(method, cube=230.0), joints, centre)
    for x, y, z in made.pixels(joints):
        seen = made.image[round(y), round(x)] * made.cube / 2 + (made.rotation[2] @ centre)
        assert seen < z - RADIUS + 2.0  # its own ball's front, or another one's before it


def test_off_the_axis_a_virtual_crop_looks_as_on_it():
    """The same hand, carried around the camera: what the network sees doesn't tell where in the picture it was."""
    joints = hand().astype(np.float64)
    straight = make(CropConfig(), joints, np.array([0.0, 0.0, 400.0]))
    turn = rigid(CropConfig(), np.array([150.0, -90.0, 380.0]), STILL).T
    aside = make(CropConfig(), joints @ turn.T, turn @ (0.0, 0.0, 400.0))
    assert (np.abs(straight.image - aside.image) < 0.02).mean() > 0.97
    np.testing.assert_allclose(aside.normalise(joints @ turn.T), straight.normalise(joints), atol=1e-9)


def test_a_quarter_turn_turns_the_picture():
    joints, centre = hand().astype(np.float64), np.array([0.0, 0.0, 400.0])
    camera = replace(FPHA_DEPTH, fy=FPHA_DEPTH.fx)
    still, turned = (
        make(CropConfig(), joints, centre, Motion(angle=np.array(angle)), camera) for angle in (0.0, np.pi / 2)
    )
    assert (np.rot90(still.image, -1) == turned.image).mean() > 0.98


def test_what_is_before_behind_or_missing():
    depth, centre = np.full(FPHA_DEPTH.size, 400.0), np.array([0.0, 0.0, 400.0])
    depth[:, 300:330], depth[:, 330:340], depth[:, 340:350] = 250, 0, 900
    image = crop(depth, FPHA_DEPTH, CropConfig("cube", size=64), centre=centre).image
    assert image.dtype == np.float32 and image.shape == (64, 64)
    assert sorted(set(image.ravel().tolist())) == [-1.0, 0.0, 1.0]
    column = FPHA_DEPTH.size[1] // 2 - 5
    assert depth[0, column] == 250 and image[32, 30] == -1


def test_depth_in_whole_millimetres_makes_the_same_crop():
    joints, centre = hand().astype(np.float64), np.array([0.0, 0.0, 400.0])
    depth = np.rint(render(joints, FPHA_DEPTH))
    floating, whole = (crop(d, FPHA_DEPTH, CropConfig(), centre=centre).image for d in (depth, depth.astype(np.uint16)))
    np.testing.assert_array_equal(floating, whole)


def test_the_padded_box_holds_the_joints_is_central_and_squashes():
    centre = np.array([30.0, 10.0, 500.0])
    joints = hand(centre).astype(np.float64)
    made = make(CropConfig("padded_box"), joints, centre)
    pixels = made.pixels(joints)[:, :2]
    middle = made.pixels(centre[None])[0, :2]
    np.testing.assert_allclose(middle, (128 - 1) / 2, atol=1e-9)
    assert (pixels > 0).all() and (pixels < 127).all()
    reach = np.abs(FPHA_DEPTH.project(joints) - FPHA_DEPTH.project(centre[None]))[:, :2].max(axis=0) + 40
    scales = made.camera.fx / FPHA_DEPTH.fx, made.camera.fy / FPHA_DEPTH.fy
    np.testing.assert_allclose(scales, 128 / (2 * reach))
    assert abs(scales[0] / scales[1] - 1) > 0.03
    wall = np.full(FPHA_DEPTH.size, joints[:, 2].max() + 101)
    behind = crop(wall, FPHA_DEPTH, CropConfig("padded_box", cube=1000.0), centre=centre, joints=joints)
    assert (behind.image == 1).all()
    assert CropConfig("padded_box", centre="estimated").uses_truth and not CropConfig(centre="estimated").uses_truth
    assert "box of the true joints" in CropConfig("padded_box", centre="estimated").truth


def test_a_batch_of_tensors_is_restored_as_single_crops_are():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    made = [make(CropConfig(size=8), hand(c).astype(np.float64), np.array(c)) for c in [(0.0, 0, 400), (90.0, 20, 350)]]
    poses = rng.normal(size=(2, 21, 3))
    parts = [np.stack([getattr(one, name) for one in made]) for name in ("centre", "rotation", "cube")]
    tensors = restore(*map(torch.from_numpy, (poses, *parts)))
    for one, pose, got in zip(made, poses, tensors):
        np.testing.assert_allclose(got, one.restore(pose), atol=1e-9)
    np.testing.assert_allclose(normalise(tensors, *map(torch.from_numpy, parts)), poses, atol=1e-12)


def test_joints_outside_the_cube_are_counted_and_warned_of():
    offsets = np.zeros((100, 1, 3))
    offsets[:3, 0, 1] = [-101, 99, 106]
    with pytest.warns(UserWarning, match="2.0 % of joints lie outside a cube of 200 mm"):
        assert share_outside(offsets, [200.0, 215.0, 190.0]) == {200.0: 0.02, 215.0: 0.0, 190.0: 0.03}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert share_outside(offsets, [210.0]) == {210.0: 0.01}


@settings(max_examples=20)
@given(centres)
def test_a_ball_is_found_where_its_surface_is(centre):
    radius = 60.0
    found = estimate_centre(render(centre[None], FPHA_DEPTH, radius), FPHA_DEPTH)
    # The mean of a ball's visible half, seen from afar, lies 2/3 of its radius before its centre.
    towards = centre * (1 - radius * 2 / 3 / np.linalg.norm(centre))
    assert found is not None and np.linalg.norm(found - towards) < 6


def test_the_nearest_blob_that_is_large_enough_counts():
    near, far = np.array([-60.0, 0, 380.0]), np.array([60.0, 0, 700.0])
    depth = render(np.stack([near, far]), FPHA_DEPTH, 50.0)
    speck = depth.copy()
    speck[10:20, 10:20] = 200  # 100 px, before everything
    for picture in (depth, speck):
        assert np.linalg.norm(estimate_centre(picture, FPHA_DEPTH) - near) < 50
    wall = np.where(depth > 0, depth, 1500.0)
    np.testing.assert_allclose(estimate_centre(wall, FPHA_DEPTH), estimate_centre(depth, FPHA_DEPTH), atol=1e-6)


def test_nothing_large_enough_is_no_hand():
    depth = np.zeros(FPHA_DEPTH.size)
    assert estimate_centre(depth, FPHA_DEPTH) is None
    depth[5:15, 5:15] = 400
    assert estimate_centre(depth, FPHA_DEPTH) is None
    depth[::2, ::2] = 400  # specks all over, joined to none
    assert estimate_centre(depth, FPHA_DEPTH) is None


@pytest.mark.parametrize("unmeasured", [np.inf, np.nan, -np.inf])
def test_what_is_not_finite_is_not_measured(unmeasured):
    depth = render(np.array([[0.0, 0, 400]]), FPHA_DEPTH, 50.0)
    other = np.where(depth > 0, depth, unmeasured)
    np.testing.assert_array_equal(estimate_centre(other, FPHA_DEPTH), estimate_centre(depth, FPHA_DEPTH))


WALL, AHEAD = np.full(FPHA_DEPTH.size, 400.0), np.array([0.0, 0.0, 400.0])
NAN = float("nan")
HOLED = np.where(np.arange(640) == 320, NAN, WALL)


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: CropConfig(cube=0.0), "cube: expected the side of a cube in mm, above 0, got 0.0"),
        (lambda: CropConfig(cube=float("nan")), "cube: expected"),
        (lambda: CropConfig(size=0), "size: expected"),
        (lambda: CropConfig(method="com"), "method: expected one of virtual, cube, padded_box, got 'com'"),
        (lambda: CropConfig(centre="guess"), "centre: expected one of truth, estimated, got 'guess'"),
        (lambda: CropConfig(centre_noise=-1.0), "centre_noise: expected mm from 0 up"),
        (lambda: CropConfig(centre="estimated", centre_noise=5.0), "centre_noise: expected 0 for an estimated centre"),
        (lambda: crop(0 * WALL, FPHA_DEPTH, CropConfig(), centre=AHEAD), "depth: expected some that was measured"),
        (lambda: crop(WALL, FPHA_DEPTH, CropConfig(), centre=-AHEAD), "centre: expected one before the camera"),
        (lambda: crop(WALL[1:], FPHA_DEPTH, CropConfig(), centre=AHEAD), r"expected a picture of \[480, 640\]"),
        (lambda: crop(HOLED, FPHA_DEPTH, CropConfig(), centre=AHEAD), "depth: expected mm from 0 up, got nan"),
        (lambda: crop(-WALL, FPHA_DEPTH, CropConfig(), centre=AHEAD), "depth: expected mm from 0 up, got -400"),
        (lambda: crop(WALL, FPHA_DEPTH, CropConfig(), centre=AHEAD * [NAN, 1, 1]), "centre: expected finite .* nan"),
        (lambda: estimate_centre(WALL[1:], FPHA_DEPTH), r"expected a picture of \[480, 640\]"),
        (lambda: estimate_centre(WALL, FPHA_DEPTH, 0.0), "cube: expected the side of a cube in mm, above 0, got 0"),
        (lambda: share_outside(np.zeros((4, 3)), [200.0, NAN]), "cubes: expected sides in mm, above 0, got nan"),
        (lambda: crop(WALL, FPHA_DEPTH, CropConfig("padded_box"), centre=AHEAD), "joints: expected the true ones"),
    ],
)
def test_bad_input_is_told(make, said, refuses):
    with refuses(said):
        make()


def test_a_centre_that_the_motion_takes_behind_the_camera_is_told(refuses):
    with refuses(re.escape("centre: expected one before the camera (z > 0 mm), got z = -5")):
        crop(WALL, FPHA_DEPTH, CropConfig(), centre=AHEAD * 10 / 400, motion=Motion(offset=np.array([0, 0, -15.0])))


def test_the_crops_camera_sees_the_cube_and_no_more():
    made = crop(WALL, FPHA_DEPTH, CropConfig("cube", size=100), centre=AHEAD)
    assert isinstance(made.camera, Camera) and made.camera.size == (100, 100)
    edge = made.pixels(np.array([[-100.0, 100.0, 400.0]]))[0, :2]
    np.testing.assert_allclose(edge, [0 - 1 / 2, 100 - 1 / 2], atol=1e-9)
