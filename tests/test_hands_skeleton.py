"""Hand skeletons: the orders of the data sets, and the way between them."""

import numpy as np
import pytest
from fixtures.hands_files import right_hand

from flowlib.hands import FPHA_21, ICVL_16, MSRA_21, NYU_14, Skeleton, bone_lengths, reorder
from flowlib.hands.skeleton import handedness

FPHA_NAMES = "Wrist TMCP IMCP MMCP RMCP PMCP TPIP TDIP TTIP IPIP IDIP ITIP MPIP MDIP MTIP RPIP RDIP RTIP PPIP PDIP PTIP"


def test_fpha_order_chains_and_centre_are_the_published_ones():
    assert " ".join(FPHA_21.joints) == FPHA_NAMES
    chains = [[0, 1, 6, 7, 8], [0, 2, 9, 10, 11], [0, 3, 12, 13, 14], [0, 4, 15, 16, 17], [0, 5, 18, 19, 20]]
    assert set(FPHA_21.bones) == {bone for chain in chains for bone in zip(chain, chain[1:])}
    assert list(FPHA_21.by_finger) == [joint for chain in chains for joint in chain if joint or chain is chains[0]]
    assert FPHA_21.joints[FPHA_21.centre] == MSRA_21.joints[MSRA_21.centre] == "MMCP" and MSRA_21.centre == 5
    assert FPHA_21.right and MSRA_21.right


def test_fpha_joint_i_is_this_one_of_msra():
    places = np.repeat(np.arange(21.0)[:, None], 3, axis=1)
    order = [0, 17, 1, 5, 9, 13, 18, 19, 20, 2, 3, 4, 6, 7, 8, 10, 11, 12, 14, 15, 16]
    assert reorder(places, MSRA_21, FPHA_21)[:, 0].tolist() == order


def test_reordering_there_and_back_is_the_identity_and_keeps_bones():
    joints = np.random.default_rng(0).normal(size=(4, 21, 3))
    there = reorder(joints, FPHA_21, MSRA_21)
    np.testing.assert_array_equal(reorder(there, MSRA_21, FPHA_21), joints)
    lengths, others = bone_lengths(joints, FPHA_21), bone_lengths(there, MSRA_21)
    assert lengths.shape == (4, 20)
    np.testing.assert_allclose(np.sort(lengths), np.sort(others))
    np.testing.assert_allclose(lengths[0, 0], np.linalg.norm(joints[0, 1] - joints[0, 0]))


@pytest.mark.parametrize("skeleton", [FPHA_21, MSRA_21, ICVL_16, NYU_14], ids=lambda skeleton: skeleton.name)
def test_every_finger_has_its_joints_and_ends_in_a_tip(skeleton):
    assert skeleton.num_joints == int(skeleton.name[-2:])
    for finger in ("thumb", "index", "middle", "ring", "pinky"):
        own = [name for name, part in zip(skeleton.joints, skeleton.fingers) if part == finger]
        assert len(own) >= 2 and len({name[0] for name in own}) == 1
        assert sum(name.endswith("TIP") and skeleton.joints.index(name) not in skeleton.parents for name in own) == 1
    assert skeleton.fingers[skeleton.root] == "palm" and len(skeleton.bones) == skeleton.num_joints - 1


def test_what_is_no_skeleton_or_not_its_joints_is_refused():
    with pytest.raises(ValueError, match="parents that make one tree"):
        Skeleton("circle", ("A", "B", "C"), (-1, 2, 1), 0, True)
    with pytest.raises(ValueError, match="parents that make one tree"):
        Skeleton("two roots", ("A", "B"), (-1, -1), 0, True)
    with pytest.raises(ValueError, match="unique names"):
        Skeleton("twins", ("A", "A"), (-1, 0), 0, True)
    with pytest.raises(ValueError, match="the centre among its 2 joints, got 2"):
        Skeleton("off", ("A", "B"), (-1, 0), 2, True)
    with pytest.raises(ValueError, match=r"joints: expected \[… 21 3\] as FPHA_21 has them, got \[5, 16, 3\]"):
        bone_lengths(np.zeros((5, 16, 3)), FPHA_21)
    with pytest.raises(ValueError, match="whose joints FPHA_21 has, got ICVL_16 with Palm"):
        reorder(np.zeros((5, 21, 3)), FPHA_21, ICVL_16)
    with pytest.raises(ValueError, match="expected one of its joints .*, got 'Palm'"):
        FPHA_21.index("Palm")


def test_handedness_tells_right_from_left_whichever_way_the_hand_is_turned():
    hand = right_hand(5)
    axes, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(9, 3, 3)))
    turned = np.stack([hand @ (turn * np.sign(np.linalg.det(turn))).T for turn in axes])
    found = handedness(turned.astype(np.float32), FPHA_21)
    assert found.shape == (9, 5) and (found > 0.1).all()
    np.testing.assert_allclose(found, np.broadcast_to(handedness(hand, FPHA_21), (9, 5)), atol=1e-4)
    for mirror in ([-1, 1, 1], [1, -1, 1], [1, 1, -1]):
        np.testing.assert_allclose(
            handedness(hand * np.float32(mirror), FPHA_21), -handedness(hand, FPHA_21), atol=1e-6
        )
    with pytest.raises(ValueError, match="skeleton: expected one with knuckles or sides of the wrist, got stick"):
        handedness(np.zeros((2, 3)), Skeleton("stick", ("A", "B"), (-1, 0), 0, True))


def test_straight_fingers_tell_nothing():
    hand = right_hand(1)[0]
    up = hand[3] - hand[0]
    hand[14] = hand[3] + 0.9 * up
    assert abs(handedness(hand, FPHA_21)) < 0.05
