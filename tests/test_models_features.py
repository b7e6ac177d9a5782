"""Vectors of frames: what counts of a hand and what doesn't, by kind; errors."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from flowlib.hands.skeleton import SKELETONS, Skeleton
from flowlib.models.features import FEATURES, from_joints

skeletons = st.sampled_from(list(SKELETONS.values()))


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
