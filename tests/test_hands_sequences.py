"""Sequences and collections of hands: what belongs together, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from flowlib.camera import MSRA15
from flowlib.hands import FPHA_21, MSRA_21, HandCollection, HandSequence


def sequence(key: str = "P0/1", frames: int = 3, **given) -> HandSequence:
    joints = np.random.default_rng(0).normal([0, 0, 400], 30, (frames, 21, 3)).astype(np.float32)
    depth = {"read": lambda frame: np.full(MSRA15.size, 100 + frame, np.uint16)}
    fields = {"action": None, "joints": joints} | depth | given
    return HandSequence(key, "P0", camera=MSRA15, skeleton=MSRA_21, **fields)


def test_depth_is_read_when_asked_for_as_float32_millimetres():
    asked = []
    take = sequence(read=lambda frame: asked.append(frame) or np.full(MSRA15.size, 100 + frame, np.uint16))
    assert len(take) == 3 and take.numbers.tolist() == [0, 1, 2] and asked == []
    assert take.depth(2).dtype == np.float32 and take.depth(2)[0, 0] == 102 and asked == [2, 2]


def test_wrong_sequences_are_refused_by_name(refuses):
    with refuses(r"P0/1: expected joints \[S 21 3\] of at least one frame, got \[0, 21, 3\]"):
        sequence(frames=0)
    with refuses(r"got \[3, 20, 3\]"):
        sequence(joints=np.zeros((3, 20, 3), np.float32))
    broken = np.ones((3, 21, 3), np.float32)
    broken[1, 4, 2] = np.nan
    with refuses("P0/1: expected finite joints, got NaN or infinity in frame 1"):
        sequence(joints=broken)
    with refuses(r"expected visible as bool \[3 21\], got float64 \[3, 21\]"):
        sequence(visible=np.zeros((3, 21)))
    with refuses("a number for each of 3 frames"):
        sequence(numbers=np.arange(4))
    with pytest.raises(IndexError, match="expected a frame from 0 to 2, got 3"):
        sequence().depth(3)
    with pytest.raises(IndexError, match="got -1"):
        sequence().depth(-1)
    with refuses(r"P0/1, frame 0: expected depth of \[240, 320\] pixels, got \[480, 640\]"):
        sequence(read=lambda frame: np.zeros((480, 640))).depth(0)


def test_the_fingerprint_is_of_content_and_not_of_places(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "depth.bin").write_bytes(b"1234")
    one, other = (sequence(source=(tmp_path / folder / "depth.bin",)) for folder in ("a", "b"))
    assert one.fingerprint() == other.fingerprint()
    changed = [replace(one, joints=one.joints + 1), replace(one, action=1), replace(one, skeleton=FPHA_21)]
    changed += [replace(one, numbers=np.array([0, 1, 3])), replace(one, visible=np.ones((3, 21), bool))]
    prints = {one.fingerprint(), *(take.fingerprint() for take in changed)}
    (tmp_path / "a" / "depth.bin").write_bytes(b"1235")
    prints |= {one.fingerprint(), sequence(source="seed 1").fingerprint(), sequence(source="seed 2").fingerprint()}
    assert len(prints) == 9


def test_a_collection_gives_its_splits():
    takes = [sequence("P0/1"), sequence("P0/2"), sequence("P1/1", action=1)]
    hands = HandCollection(tuple(takes), {"P0/1": "train", "P0/2": "test", "P1/1": "train"}, ("wave", "grasp"))
    assert len(hands) == 3 and hands.split("train") == (takes[0], takes[2]) and hands.split("val") == ()
    with pytest.raises(ValueError, match="split: expected one of train, val, test, got 'validation'"):
        hands.split("validation")


def test_collections_whose_parts_disagree_are_refused():
    takes = (sequence("P0/1"), sequence("P0/2"))
    splits = {"P0/1": "train", "P0/2": "test"}
    with pytest.raises(ValueError, match="a key of its own for each, got 'P0/1' twice"):
        HandCollection((takes[0], takes[0]), {"P0/1": "train"})
    with pytest.raises(ValueError, match="for every sequence and no others, got 'P0/2'"):
        HandCollection(takes, {"P0/1": "train"})
    with pytest.raises(ValueError, match="no others, got 'P0/3'"):
        HandCollection(takes, splits | {"P0/3": "test"})
    with pytest.raises(ValueError, match="one of train, val, test, got 'both'"):
        HandCollection(takes, splits | {"P0/2": "both"})
    with pytest.raises(ValueError, match="one skeleton, got FPHA_21, MSRA_21"):
        HandCollection((takes[0], replace(takes[1], skeleton=FPHA_21)), splits)
    with pytest.raises(ValueError, match="P0/2: expected a class from 0 to 44, got 45"):
        HandCollection((takes[0], replace(takes[1], action=45)), splits, tuple(map(str, range(45))))


def test_skeletons_of_one_name_that_differ_are_refused():
    takes = (sequence("P0/1"), replace(sequence("P0/2"), skeleton=replace(MSRA_21, right=False)))
    with pytest.raises(ValueError, match="one skeleton, got MSRA_21, MSRA_21"):
        HandCollection(takes, {"P0/1": "train", "P0/2": "test"})


@pytest.mark.parametrize(
    "change, said",
    [
        ({"key": ""}, "key and subject: expected a name for each"),
        ({"subject": ""}, "key and subject: expected a name for each"),
        ({"action": 0.5}, "P0/1: expected a whole number as action, or None, got 0.5"),
        ({"numbers": np.array([1, 1, 2])}, "P0/1: expected numbers of frames that ascend, got 1 before 1"),
        ({"numbers": np.array([3, 2, 4])}, "P0/1: expected numbers of frames that ascend, got 3 before 2"),
    ],
)
def test_what_a_store_could_not_hold_is_refused(change, said, refuses):
    with refuses(said):
        replace(sequence("P0/1"), **change)
