"""The synthetic data set: exact truth, splits that keep people apart, and a gain that knowing the action brings."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from flowlib.camera import FPHA_DEPTH, MSRA15
from flowlib.hands import FPHA_21, bone_lengths
from flowlib.hands.actions import ActionConfig
from flowlib.hands.kinematics import CAPSULES
from flowlib.hands.sensor import SensorConfig
from flowlib.hands.synthetic import HIDDEN_JOINTS, SEEN_JOINTS, SyntheticConfig, SyntheticHands

SMALL = SyntheticConfig(
    subjects=3, takes=1, actions=ActionConfig(families=2), sensor=SensorConfig.clean(), camera=MSRA15
)


@pytest.fixture(scope="module")
def hands() -> SyntheticHands:
    return SyntheticHands(SMALL)


@pytest.fixture(scope="module")
def many() -> SyntheticHands:
    return SyntheticHands(SyntheticConfig(subjects=6, takes=3))


def test_it_is_a_collection_in_fphas_convention(hands):
    assert len(hands) == 3 * 4 and hands.skipped == ()
    sequence = hands.sequences[0]
    assert sequence.key == "Subject_1/thumb_curls_then_index_curls/1"
    assert (sequence.subject, sequence.action, sequence.skeleton) == ("Subject_1", 0, FPHA_21)
    assert SyntheticConfig().camera == FPHA_DEPTH
    depth = sequence.depth(3)
    assert depth.shape == (240, 320) and depth.dtype == np.float32 and 200 < depth[depth > 0].min() < 600


def test_bones_keep_their_length_in_every_take(hands):
    for sequence in hands.sequences:
        assert np.ptp(bone_lengths(sequence.joints, FPHA_21), axis=0).max() < 1e-3, "float32 at 500 mm"
    by_subject = {sequence.subject: bone_lengths(sequence.joints[0], FPHA_21) for sequence in hands.sequences}
    again = {sequence.subject: bone_lengths(sequence.joints[-1], FPHA_21) for sequence in hands.sequences[::-1]}
    for subject, lengths in by_subject.items():
        np.testing.assert_allclose(again[subject], lengths, atol=1e-3)
    assert abs(by_subject["Subject_1"] - by_subject["Subject_2"]).max() > 1


def test_the_hand_is_in_the_picture_with_all_its_joints(many):
    for sequence in many.sequences:
        assert many.config.camera.sees(sequence.joints).all()


def test_the_fingers_are_covered_in_the_middle_of_every_take_and_only_there(many):
    hidden, seen = list(HIDDEN_JOINTS), list(SEEN_JOINTS)
    assert sorted(hidden + seen) == list(range(21)) and len(hidden) == 8
    covered = np.concatenate([s.visible[many.occluded(s.key)] for s in many.sequences])
    free = np.concatenate([s.visible[~many.occluded(s.key)] for s in many.sequences])
    assert covered[:, hidden].mean() < 1e-4, "a half bent fingertip may peep out, seldom"
    assert covered[:, seen].mean() > 0.8 and free[:, [4, 5]].all()
    assert 0.7 < len(covered) / (len(covered) + len(free)) < 0.8


def test_visibility_is_what_the_pictures_show(hands):
    """At the pixel of a joint the depth is that of its own flesh if it is visible, else something before it."""
    agree = total = 0
    for sequence in hands.sequences[:4]:
        shape = hands.shapes[sequence.subject]
        own = np.array([max(r for c, r in zip(CAPSULES, shape.radii) if joint in c) for joint in range(21)])
        for frame in range(0, len(sequence), 5):
            depth = sequence.depth(frame)
            x, y = np.rint(MSRA15.project(sequence.joints[frame])[:, :2]).astype(int).T
            assert (depth[y, x] > 0).all()
            before = sequence.joints[frame, :, 2] - depth[y, x]
            agree += ((before < 1.6 * own) == sequence.visible[frame]).sum()
            total += 21
    assert agree / total > 0.97, "but for joints whose pixel is half a pixel off at an edge"


def test_the_seed_decides_and_the_order_of_reading_does_not(hands):
    again = SyntheticHands(SMALL)
    backwards = {s.key: [s.depth(frame) for frame in (9, 2)] for s in again.sequences[::-1]}
    first, second = (SyntheticHands(replace(SMALL, sensor=SensorConfig())).sequences[5].depth(7) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    for sequence in hands.sequences:
        np.testing.assert_array_equal(sequence.depth(2), backwards[sequence.key][1])
        assert sequence.fingerprint() == again.sequences[hands.sequences.index(sequence)].fingerprint()
    for other in (replace(SMALL, seed=1), replace(SMALL, sensor=SensorConfig()), replace(SMALL, camera=FPHA_DEPTH)):
        assert SyntheticHands(other).sequences[0].fingerprint() != hands.sequences[0].fingerprint()


def test_more_takes_or_people_leave_the_others_as_they_are(hands):
    larger = SyntheticHands(replace(SMALL, subjects=4, takes=2))
    known = {sequence.key: sequence for sequence in larger.sequences}
    for sequence in hands.sequences:
        np.testing.assert_array_equal(known[sequence.key].joints, sequence.joints)
        assert known[sequence.key].fingerprint() == sequence.fingerprint()


def test_these_bytes_on_every_machine():
    digest = hashlib.sha256()
    for sequence in SyntheticHands(replace(SMALL, sensor=SensorConfig())).sequences[::5]:
        for array in (sequence.joints, np.asarray(sequence.visible), sequence.depth(len(sequence) // 2)):
            digest.update(array.tobytes())
    assert digest.hexdigest()[:16] == "2580e7bffacb00f1"


def test_left_hands_are_the_mirror_image_of_right_ones(hands):
    left = SyntheticHands(replace(SMALL, right=False))
    camera = replace(MSRA15, ux=159.5)
    assert left.sequences[0].skeleton.right is False
    for mine, other in zip(hands.sequences[::3], left.sequences[::3]):
        np.testing.assert_array_equal(other.joints, mine.joints * np.array((-1, 1, 1), np.float32))
        np.testing.assert_array_equal(other.visible, mine.visible)
    both = [SyntheticHands(replace(SMALL, right=side, camera=camera)).sequences[4].depth(10) for side in (True, False)]
    np.testing.assert_array_equal(both[0], both[1][:, ::-1])


@pytest.mark.parametrize("subjects, counts", [(10, (6, 2, 2)), (3, (1, 1, 1)), (5, (3, 1, 1))])
def test_across_subjects_nobody_is_in_two_splits(subjects, counts):
    hands = SyntheticHands(replace(SMALL, subjects=subjects))
    people = [{sequence.subject for sequence in hands.split(split)} for split in ("train", "val", "test")]
    assert tuple(map(len, people)) == counts and len(set.union(*people)) == subjects


def test_within_subjects_everybody_is_in_all_splits():
    hands = SyntheticHands(replace(SMALL, takes=4, protocol="within"))
    assert [len(hands.split(split)) for split in ("train", "val", "test")] == [24, 12, 12]
    assert all(len({sequence.subject for sequence in hands.split(split)}) == 3 for split in ("train", "val", "test"))


def test_knowing_the_action_is_worth_as_much_as_designed(many):
    gain = many.expected_gain("test")
    assert 26 < gain.without < 36 and abs(gain.without - gain.family) < 3
    assert 7 < gain.action < 16 and gain.partner > 50
    assert abs(gain.member - 0.5) < 0.1, "one frame doesn't tell the member"
    assert gain.gain == gain.without - gain.action and gain.gain_all_joints == gain.gain * 8 / 21
    assert gain.frames == sum(many.occluded(sequence.key).sum() for sequence in many.split("test"))


def test_the_gain_is_that_of_a_split_apart_from_training(many, refuses):
    with refuses("split: expected val or test, got 'train'"):
        many.expected_gain("train")


@pytest.mark.parametrize(
    "values, message",
    [
        ({"subjects": 1}, "subjects: expected a whole number of at least 3 for three splits cross-subject, got 1"),
        ({"takes": 2, "protocol": "within"}, "takes: expected a whole number of at least 3 for three splits within"),
        ({"protocol": "1:1"}, "protocol: expected one of cross-subject, within, got '1:1'"),
        ({"seed": -1}, "seed: expected a whole number of at least 0, got -1"),
        ({"takes": 0}, "takes: expected a whole number of at least 1"),
    ],
)
def test_impossible_data_sets_are_refused(values, message, refuses):
    with refuses(message):
        SyntheticConfig(**values)
