"""Vectors of frames: what counts of a hand and of tracks, and what doesn't; errors."""

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowlib.geometry import cell_grid
from flowlib.hands.skeleton import SKELETONS, Skeleton
from flowlib.models.features import FEATURES, POOLED, from_joints, from_tracks
from flowlib.tracks import Tracks

SIZE = (60, 80)
skeletons = st.sampled_from(list(SKELETONS.values()))
seeds, layouts = st.integers(0, 2**32 - 1), st.sampled_from([None, (1, 1), (2, 3), (4, 4)])


def hands(skeleton: Skeleton, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, skeleton.num_joints, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(skeleton=skeletons, kind=st.sampled_from(FEATURES[1:]), offset=st.tuples(*[st.floats(-9, 9)] * 3))
def test_where_a_hand_is_counts_only_as_given(skeleton, kind, offset):
    joints, moved = hands(skeleton), hands(skeleton) + torch.tensor(offset, dtype=torch.float64)
    assert torch.allclose(from_joints(joints, skeleton, kind), from_joints(moved, skeleton, kind), atol=1e-9)
    assert torch.equal(from_joints(moved, skeleton), moved.flatten(2))


@given(skeleton=skeletons)
def test_the_joint_that_others_are_seen_from_is_at_0(skeleton):
    for kind in ("centre", "root", "bones"):
        joint = skeleton.centre if kind == "centre" else skeleton.root
        placed = from_joints(hands(skeleton), skeleton, kind).unflatten(2, (-1, 3))
        assert not placed[:, :, joint].any()


@given(skeleton=skeletons, factors=st.lists(st.floats(0.1, 4), min_size=20, max_size=20))
def test_bones_count_by_direction_alone(skeleton, factors):
    joints = hands(skeleton)
    grown = [joints[..., skeleton.root, :]] * skeleton.num_joints
    for joint in skeleton.by_finger[1:]:
        parent = skeleton.parents[joint]
        grown[joint] = grown[parent] + factors[joint - 1] * (joints[..., joint, :] - joints[..., parent, :])
    placed, same = (from_joints(one, skeleton, "bones") for one in (joints, torch.stack(grown, dim=-2)))
    assert torch.allclose(placed, same, atol=1e-9)
    placed = placed.unflatten(2, (-1, 3))
    for parent, child in skeleton.bones:
        bone = placed[..., child, :] - placed[..., parent, :]
        assert torch.allclose(bone.norm(dim=-1), torch.ones(2, 3, dtype=torch.float64))


def test_a_bone_without_length_is_no_nan():
    joints = torch.zeros(1, 21, 3, requires_grad=True)
    placed = from_joints(joints, SKELETONS["FPHA_21"], "bones")
    placed.sum().backward()
    assert torch.isfinite(placed).all() and torch.isfinite(joints.grad).all()


def test_wrong_inputs_are_told(refuses):
    with refuses("features: expected one of given, centre, root, bones, got 'wrist'"):
        from_joints(torch.zeros(4, 21, 3), SKELETONS["FPHA_21"], "wrist")
    with refuses(r"joints: expected \[… 21 3\] as FPHA_21 has them, got \[4, 20, 3\]"):
        from_joints(torch.zeros(4, 20, 3), SKELETONS["FPHA_21"])


def random_tracks(seed: int = 0, S: int = 5, N: int = 40) -> Tracks:
    rng = np.random.default_rng(seed)
    # inside their cells, for half a rounding at a border would move a point into the next cell
    corners = cell_grid((60, 80), 60, 80)[rng.integers(0, 4800, N)].astype(np.float64) + rng.uniform(-0.4, 0.4, (N, 2))
    tracks = corners + np.cumsum(rng.normal(0, 2, (S, N, 2)), axis=0)
    tracks[0] = corners
    return Tracks(tracks, rng.random((S, N)) > 0.3, np.insert(corners, 0, 0, axis=1))


@given(seeds, layouts, st.sampled_from([0.5, 2.0, 3.0]))
def test_the_resolution_makes_no_difference(seed, cells, factor):
    tracks, size = random_tracks(seed), (int(60 * factor), int(80 * factor))
    np.testing.assert_allclose(
        from_tracks(tracks.resize(SIZE, size), size, cells=cells), from_tracks(tracks, SIZE, cells=cells), atol=1e-6
    )


@given(seeds, layouts)
def test_a_camera_that_moves_makes_no_difference(seed, cells):
    tracks = random_tracks(seed)
    shift = np.random.default_rng(seed).normal(0, 20, (5, 1, 2))
    shift[0] = 0
    shaken = replace(tracks, tracks=tracks.tracks + shift)
    np.testing.assert_allclose(
        from_tracks(shaken, SIZE, cells=cells), from_tracks(tracks, SIZE, cells=cells), atol=1e-6
    )


@given(seeds, layouts)
def test_the_order_of_the_points_makes_no_difference_to_cells(seed, cells):
    tracks = random_tracks(seed)
    order = np.random.default_rng(seed).permutation(tracks.num_points)
    there, mixed = (from_tracks(one, SIZE, cells=cells) for one in (tracks, tracks.points(order)))
    if cells is None:
        mixed = mixed.reshape(5, -1, 3)[:, np.argsort(order)].reshape(5, -1)
    np.testing.assert_allclose(mixed, there, atol=1e-7)


@given(seeds)
def test_mirrored_motion_is_told_from_its_opposite(seed):
    tracks = random_tracks(seed)
    there, mirrored = (from_tracks(one, SIZE, cells=(1, 1)).astype(float) for one in (tracks, tracks.flip(SIZE[1])))
    # of mean, variance, covariance, the four covariances with place, and visibility
    np.testing.assert_allclose(mirrored, there * [-1, 1, 1, 1, -1, 1, -1, -1, 1, 1], atol=1e-6)


def test_what_a_cell_tells_are_moments_of_its_visible_points():
    tracks = random_tracks(3)
    pooled = from_tracks(tracks, SIZE, cells=(2, 2)).reshape(5, 4, POOLED)
    first = (tracks.queries[:, 1] < 39.5) & (tracks.queries[:, 2] < 29.5)
    for frame in range(5):
        seen = tracks.visibility[frame]
        moved = tracks.displacement[frame] / 6
        moved = (moved - np.median(moved[seen], axis=0))[first & seen]
        spread = np.cov(moved.T, (tracks.queries[first & seen, 1:] / 6).T, bias=True)
        expected = [*moved.mean(axis=0), spread[0, 0], spread[1, 1], spread[0, 1], *spread[:2, 2:].ravel()]
        np.testing.assert_allclose(pooled[frame, 0], [*expected, seen[first].mean()], atol=1e-6)


def test_turning_is_told_by_the_covariance_with_place_alone():
    corners = cell_grid(SIZE, 6, 8).astype(np.float64) - [39.5, 29.5]
    c, s = np.cos(0.3), np.sin(0.3)
    for sign in (1, -1):
        turned = np.stack([corners, corners @ [[c, sign * s], [-sign * s, c]]]) + [39.5, 29.5]
        tracks = Tracks(turned, np.ones((2, 48), bool), np.insert(turned[0], 0, 0, axis=1))
        told = from_tracks(tracks, SIZE, cells=(1, 1))[1]
        np.testing.assert_allclose(told[:2], 0, atol=1e-6)
        assert np.sign(told[7]) == sign and np.sign(told[6]) == -sign  # dy·x, dx·y: clockwise on the screen is positive


def test_points_that_nobody_sees_say_nothing():
    still = Tracks.still(np.insert(cell_grid(SIZE, 4), 0, 0, axis=1), num_frames=3)
    hidden = replace(still, tracks=still.tracks + np.float32([[[0, 0]], [[9, 9]], [[9, 9]]]) * still.tracks)
    hidden = replace(hidden, visibility=np.repeat([[True], [False], [False]], 16, axis=1))
    for cells in (None, (2, 2)):
        told = from_tracks(hidden, SIZE, cells=cells)
        assert (told[1:] == 0).all() and (told[0] != 0).any()
    none = Tracks.still(np.zeros((0, 3)), num_frames=3)
    assert not from_tracks(none, SIZE, cells=(2, 2)).any() and from_tracks(none, SIZE, cells=None).shape == (3, 0)


def test_sizes_and_cells_that_are_none_are_told(refuses):
    still = Tracks.still(np.array([[0, 3.0, 4.0]]), num_frames=2)
    with refuses("cells: expected"):
        from_tracks(still, SIZE, cells=(0, 4))
    with refuses("size: expected"):
        from_tracks(still, (0, 4))
