"""What readers share: whether joints lie in the hand, and which takes are held out."""

from dataclasses import replace

import numpy as np
import pytest
from fixtures.hands_files import MSRA_ORDER, RADIUS, picture, right_hand

from flowlib.camera import MSRA15
from flowlib.hands import MSRA_21, HandSequence
from flowlib.hands.actions import ActionConfig
from flowlib.hands.reading import FrameError, by_number, check_depth, hold_out, natural, parse_numbers
from flowlib.hands.synthetic import SyntheticConfig, SyntheticHands

FRAMES = 6


def sequence(key: str = "P0/1", move=(0, 0, 0), joints=None, broken=()) -> HandSequence:
    """Depth of a hand beside its joints, moved by some mm."""
    true = right_hand(FRAMES)[:, MSRA_ORDER]

    def read(frame: int) -> np.ndarray:
        if frame in broken:
            raise ValueError("damaged")
        return picture(true[frame], MSRA15)

    moved = (true if joints is None else joints) + np.float32(move)
    return HandSequence(key, "P0", None, MSRA15, MSRA_21, moved, read)


def test_joints_in_the_hand_pass_and_the_worst_sequence_is_named():
    check = check_depth("set", [sequence("P0/1"), sequence("P0/2", (0, 12, 0))])
    assert check.near > 0.8 and check.worst[1] == "P0/2" and check.worst[0] < check.near
    assert (check.frames, check.unread, check.right) == (2 * FRAMES, 0, 1.0)


@pytest.mark.parametrize("move", [(0, 0, 90), (0, 0, -40), (60, 0, 0), (0, 80, 0), (2000, 0, 0)])
def test_joints_beside_the_hand_are_refused(move):
    with pytest.raises(ValueError, match="set: expected at least 50% of joints where depth shows a hand, got"):
        check_depth("set", [sequence(move=move)])


@pytest.mark.parametrize("behind, near", [(-25, False), (-10, True), (50, True), (90, False)])
def test_joints_may_lie_a_hands_thickness_behind_the_surface_but_not_before_it(behind, near):
    true = right_hand(FRAMES)[:, MSRA_ORDER]
    surface = RADIUS * np.ones_like(true[..., 2:])  # mm before each joint
    along = true * ((true[..., 2:] - surface + behind) / true[..., 2:])  # in the same pixels
    take = sequence(joints=along.astype(np.float32))
    if near:
        assert check_depth("set", [take]).near > 0.85
    else:
        with pytest.raises(ValueError, match="don't belong together"):
            check_depth("set", [take])


def test_half_of_the_sequences_may_be_wrong_but_no_more():
    good, bad = sequence("P0/1"), sequence("P0/2", (200, 0, 0))
    assert 0.5 <= check_depth("set", [sequence("P0/0"), good, bad]).near < 0.7
    with pytest.raises(ValueError, match="at least 50% of joints"):
        check_depth("set", [good, bad, sequence("P0/3", (0, 200, 0))])


def test_all_zero_depth_and_depth_that_cant_be_read():
    empty = HandSequence("P0/1", "P0", None, MSRA15, MSRA_21, sequence().joints, lambda frame: np.zeros(MSRA15.size))
    with pytest.raises(ValueError, match="got 0%; joints and depth don't belong together"):
        check_depth("set", [empty])
    assert check_depth("set", [sequence(broken=(0, 3))]).unread == 2
    with pytest.raises(ValueError, match="set: expected depth that can be read, none of 6 frames that were tried"):
        check_depth("set", [sequence(broken=range(FRAMES))])


def test_frames_are_spread_over_all_sequences():
    asked = []
    takes = [sequence(f"P0/{n}") for n in range(4)]
    for take in takes:
        read = take.read
        noted = lambda frame, key=take.key, read=read: asked.append((key, frame)) or read(frame)  # noqa: E731
        object.__setattr__(take, "read", noted)
    assert check_depth("set", takes, frames=8).frames == 8
    assert len({key for key, _ in asked}) == 4 and len(set(asked)) == 8
    assert ("P0/0", 0) in asked and ("P0/3", FRAMES - 1) in asked


def test_who_is_held_out_is_decided_by_names_alone():
    keys = [f"P0/{n}" for n in range(40)]
    held_out = hold_out(keys, 0.25)
    assert held_out not in (set(sorted(keys)[:10]), set(sorted(keys)[-10:]))
    assert len(held_out) == 10 == len(hold_out(reversed(keys), 0.25) & held_out)
    assert hold_out(keys, 0) == set() == hold_out(keys[:1], 0.5) and len(hold_out(keys[:2], 0.01)) == 1
    for share in (-0.1, 1, float("nan")):
        with pytest.raises(ValueError, match="validation: expected a share from 0 to below 1"):
            hold_out(keys, share)


def test_numbers_files_and_their_order(tmp_path):
    assert parse_numbers(" 1\t-2.5e1  3 \n", 3).tolist() == [1, -25, 3]
    with pytest.raises(FrameError, match="expected 2 numbers in a line, got 3"):
        parse_numbers("1 2 3", 2)
    for name in ("depth_0010.png", "depth_0002.png", "depth_0002.png.part", "._depth_0003.png", "depth_x.png"):
        (tmp_path / name).touch()
    found = by_number(tmp_path, r"depth_(\d{4,})\.png")
    assert {number: path.name for number, path in found.items()} == {2: "depth_0002.png", 10: "depth_0010.png"}
    assert list(found) == [2, 10]
    assert sorted(["S_10/a/1", "S_2/a/10", "S_2/a/9"], key=natural) == ["S_2/a/9", "S_2/a/10", "S_10/a/1"]


def test_hands_that_are_mostly_the_other_one_are_warned_of():
    take = sequence()
    mirrored = HandSequence(
        "P0/1",
        "P0",
        None,
        MSRA15,
        MSRA_21,
        take.joints * np.float32([-1, 1, 1]),
        lambda frame: take.read(frame)[:, ::-1],
    )
    with pytest.warns(UserWarning, match="set: expected right hands, got 0%"):
        assert check_depth("set", [mirrored]).right == 0
    left = replace(MSRA_21, right=False)
    assert check_depth("set", [replace(mirrored, skeleton=left)]).right == 0
    with pytest.warns(UserWarning, match="set: expected left hands, got 0%"):
        check_depth("set", [replace(take, skeleton=left)])


def test_the_synthetic_hand_passes_the_check():
    hands = SyntheticHands(SyntheticConfig(subjects=3, takes=1, actions=ActionConfig(families=1)))
    check = check_depth("synthetic", hands.sequences, frames=20)
    assert check.near > 0.85 and check.right == 1
