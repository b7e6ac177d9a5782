"""MSRA15, written as its authors hand it out: what is read, what is skipped, what is refused."""

import os
import re
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fixtures.hands_files import FPHA_OF_MSRA, words, write_bin, write_msra15
from hypothesis import given
from hypothesis import strategies as st

from flowlib.camera import MSRA15
from flowlib.hands import FPHA_21, MSRA_21, reorder
from flowlib.hands.actions import ActionConfig
from flowlib.hands.msra15 import FAULTY, GESTURES, decode_bin, read_msra15
from flowlib.hands.sensor import SensorConfig
from flowlib.hands.skeleton import handedness
from flowlib.hands.synthetic import SyntheticConfig, SyntheticHands

TAKES = ("P0/1", "P0/TIP", "P1/1", "P2/MP", "P2/Y")
BIN = Path("P1/1/000001_depth.bin")
LABELS = Path("P1/1/joint.txt")


@pytest.fixture(scope="session")
def msra(tmp_path_factory) -> tuple[Path, dict]:
    root = tmp_path_factory.mktemp("msra")
    return root, write_msra15(root, TAKES)


@pytest.fixture
def own(msra, tmp_path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(msra[0], tmp_path / "msra"))


def missing(hands, takes=TAKES) -> list:
    """What is skipped, but for the gestures that the test didn't write."""
    return [skipped for skipped in hands.skipped if skipped.name.split(",")[0] in takes]


def test_everything_comes_back_exactly(msra):
    root, truth = msra
    hands = read_msra15(root, validation=0)
    assert [take.key for take in hands.sequences] == list(TAKES) and missing(hands) == []
    assert len(hands.skipped) == 3 * len(GESTURES) - len(TAKES)  # each gesture that isn't there is named
    assert hands.splits == {key: "test" if key.startswith("P0") else "train" for key in TAKES}
    for take in hands.sequences:
        joints, depth = truth[take.key]
        np.testing.assert_array_equal(take.joints, joints)
        np.testing.assert_array_equal([take.depth(frame) for frame in range(3)], depth)
        assert f"{take.subject}/{hands.actions[take.action or 0]}" == take.key
        assert (take.camera, take.skeleton) == (MSRA15, MSRA_21)


def test_joints_land_in_the_hand_and_it_is_a_right_one(msra):
    check = read_msra15(msra[0]).check
    assert check.near > 0.98 and check.right == 1 and check.frames == 15


def test_the_synthetic_hand_written_as_msra15_is_read_back_and_its_joints_lie_in_it(tmp_path):
    actions, clean = ActionConfig(families=1), SensorConfig.clean()
    hands = SyntheticHands(SyntheticConfig(subjects=3, takes=1, actions=actions, sensor=clean, camera=MSRA15))
    takes = {"P0/1": hands.sequences[0], "P1/1": hands.sequences[3]}
    frames = [0, 7, 14]
    for key, take in takes.items():
        (tmp_path / key).mkdir(parents=True)
        up = reorder(take.joints[frames], FPHA_21, MSRA_21) * [1, -1, -1]
        (tmp_path / key / "joint.txt").write_text("\n".join(["3", *map(words, up)]))
        for t, frame in enumerate(frames):
            write_bin(tmp_path / key / f"{t:06d}_depth.bin", take.depth(frame))
    read = read_msra15(tmp_path)
    assert read.check.near > 0.9 and read.check.right in (1, None)
    for (key, take), same in zip(takes.items(), read.sequences):
        assert same.key == key
        np.testing.assert_array_equal(reorder(same.joints, MSRA_21, FPHA_21), take.joints[frames])
        for t, frame in enumerate(frames):
            depth, visible = same.depth(t), take.visible[frame]
            np.testing.assert_array_equal(depth, take.depth(frame))
            pixels = MSRA15.project(take.joints[frame][visible])
            x, y = pixels[:, :2].round().astype(int).T
            behind = pixels[:, 2] - depth[y, x]
            assert visible.sum() > 8 and (depth[y, x] > 0).all() and (behind > 0).all() and (behind < 25).all()


def test_joints_are_fphas_in_another_order(msra):
    take = read_msra15(msra[0]).sequences[0]
    np.testing.assert_array_equal(reorder(take.joints, MSRA_21, FPHA_21), take.joints[:, FPHA_OF_MSRA])


def test_the_subject_left_out_is_for_testing(msra):
    for subject in ("P0", "P1", "P2"):
        hands = read_msra15(msra[0], test_subject=subject, validation=0.5)
        assert {take.subject for take in hands.split("test")} == {subject}
        assert subject not in {take.subject for split in ("train", "val") for take in hands.split(split)}
        assert hands.split("val")
    with pytest.raises(ValueError, match="test_subject: expected one of P0, P1, P2 in .*, got 'P9'"):
        read_msra15(msra[0], test_subject="P9")


def test_one_subject_cannot_be_split(own, tmp_path, refuses):
    for subject in ("P1", "P2"):
        shutil.rmtree(own / subject)
    with pytest.raises(ValueError, match="expected several subjects to split, found P0 alone"):
        read_msra15(own)
    with pytest.raises(FileNotFoundError, match="root: expected a folder with P0 to P8, found none at"):
        read_msra15(tmp_path / "nowhere")
    with refuses("faulty: expected 'skip' or 'keep', got 'drop'"):
        read_msra15(own, faulty="drop")


def test_after_a_missing_file_each_frame_keeps_its_own_joints(own, msra):
    (own / BIN).unlink()
    hands = read_msra15(own)
    take = next(take for take in hands.sequences if take.key == "P1/1")
    joints, depth = msra[1]["P1/1"]
    assert take.numbers.tolist() == [0, 2]
    np.testing.assert_array_equal(take.joints, joints[[0, 2]])
    np.testing.assert_array_equal(take.depth(1), depth[2])
    (skipped,) = missing(hands)
    assert (skipped.name, skipped.reason) == ("P1/1, frame 1", "expected a file with its depth, found none")


def test_known_faulty_frames_are_skipped_unless_asked_for(own, msra):
    joints, depth = msra[1]["P2/MP"]
    up = [words(pose * [1, -1, -1]) for pose in joints]
    (own / "P2/MP/joint.txt").write_text("\n".join(["362", *(up[0] for _ in range(362))]))
    for number in (172, 173, 344, 345, 354, 355, 361):
        write_bin(own / "P2/MP" / f"{number:06d}_depth.bin", depth[0])
    found = {}
    for faulty in ("skip", "keep"):
        hands = read_msra15(own, faulty=faulty)
        found[faulty] = next(take for take in hands.sequences if take.key == "P2/MP").numbers.tolist()
    assert found == {"skip": [0, 1, 2, 172, 344, 355, 361], "keep": [0, 1, 2, 172, 173, 344, 345, 354, 355, 361]}
    named = {skipped.name for skipped in read_msra15(own).skipped if "known to be faulty" in skipped.reason}
    assert named == {f"P2/MP, frame {number}" for number in FAULTY["P2/MP"]} and len(named) == 16
    assert {key: len(frames) for key, frames in FAULTY.items()} == {"P2/TIP": 3, "P2/MP": 16, "P3/T": 2, "P8/4": 1}


def head(*numbers: int):
    """Writes another head over the file's own."""

    def damage(own: Path) -> None:
        data = (own / BIN).read_bytes()
        (own / BIN).write_bytes(struct.pack("<6i", *numbers) + data[24:])

    return damage


def row(text: str):
    """Writes another line over that of frame 1."""

    def damage(own: Path) -> None:
        lines = (own / LABELS).read_text().splitlines()
        lines[2] = text.format(lines[2].rsplit(" ", 1)[0])
        (own / LABELS).write_text("\n".join(lines))

    return damage


FRAME_FAULTS = {
    "cut": (
        lambda own: os.truncate(own / BIN, 1024),
        r"000001_depth.bin: expected \d+ bytes for a box of .*, got 1024",
    ),
    "too long": (
        lambda own: (own / BIN).write_bytes((own / BIN).read_bytes() + b"\0\0\0\0"),
        r"expected \d+ bytes for a",
    ),
    "no head": (lambda own: os.truncate(own / BIN, 23), "expected a head of 24 bytes, got a file of 23"),
    "empty": (lambda own: os.truncate(own / BIN, 0), "expected a head of 24 bytes, got a file of 0"),
    "box beyond": (head(320, 240, 300, 10, 321, 20), "box inside the picture of 320×240 pixels, got x from 300 to 321"),
    "box before": (head(320, 240, -1, 10, 20, 20), "box inside the picture .*, got x from -1 to 20"),
    "box below": (head(320, 240, 10, 230, 20, 241), "box inside the picture .*y from 230 to 241"),
    "box turned": (head(320, 240, 20, 10, 10, 20), "box inside the picture .*, got x from 20 to 10"),
    "other size": (head(640, 480, 0, 0, 10, 10), "expected a picture of 320×240 pixels, got 640×480"),
    "62 numbers": (row("{0}"), "expected 63 numbers in a line, got 62"),
    "NaN": (row("{0} nan"), "expected finite numbers, got nan"),
    "infinity": (row("{0} -inf"), "expected finite numbers, got -inf"),
    "behind": (row("{0} 5"), "joint.txt: expected joints before the camera, got z = -5 mm"),
    "blank": (row(""), "expected 63 numbers in a line, got 0"),
}


@pytest.mark.parametrize("name", FRAME_FAULTS)
def test_a_fault_in_a_frame_costs_that_frame_and_is_listed(own, msra, name):
    damage, reason = FRAME_FAULTS[name]
    damage(own)
    hands = read_msra15(own)
    take = next(take for take in hands.sequences if take.key == "P1/1")
    assert len(hands) == len(TAKES) and take.numbers.tolist() == [0, 2]
    joints, depth = msra[1]["P1/1"]
    np.testing.assert_array_equal(take.joints, joints[[0, 2]])
    np.testing.assert_array_equal(take.depth(1), depth[2])
    (skipped,) = missing(hands)
    assert skipped.name == "P1/1, frame 1" and re.search(reason, skipped.reason), skipped.reason


def count(text: str):
    return lambda own: (own / LABELS).write_text("\n".join([text, *(own / LABELS).read_text().splitlines()[1:]]))


TAKE_FAULTS = {
    "N too large": (count("4"), "expected the number of lines and as many lines, got '4' above 3 lines"),
    "N too small": (count("2"), "got '2' above 3 lines"),
    "no N": (lambda own: (own / LABELS).write_text((own / LABELS).read_text()[2:]), "above 2 lines"),
    "words": (lambda own: (own / LABELS).write_bytes(os.urandom(100)), "expected the number of lines"),
    "empty": (lambda own: os.truncate(own / LABELS, 0), "got an empty file"),
    "missing": (lambda own: (own / LABELS).unlink(), "expected .*joint.txt, found none"),
    "no files": (
        lambda own: [path.unlink() for path in (own / LABELS).parent.glob("*.bin")],
        "at least one frame that can be used, found none; P1/1, frame 0: expected a file with its depth",
    ),
}


@pytest.mark.parametrize("name", TAKE_FAULTS)
def test_a_fault_in_a_take_costs_that_take_and_is_listed(own, name):
    damage, reason = TAKE_FAULTS[name]
    damage(own)
    hands = read_msra15(own)
    assert [take.key for take in hands.sequences] == [key for key in TAKES if key != "P1/1"]
    (skipped,) = missing(hands)
    assert skipped.name == "P1/1" and re.search(reason, skipped.reason), skipped.reason


def test_files_without_a_line_are_listed(own):
    shutil.copy(own / BIN, (own / BIN).with_name("000007_depth.bin"))
    (skipped,) = missing(read_msra15(own))
    assert skipped.name == "P1/1, frame 7" and "joint.txt: expected a line for it, found none" in skipped.reason


@pytest.mark.parametrize("signs", [(1, 1, -1), (1, -1, 1), (-1, -1, -1)], ids=["y", "z", "x"])
def test_joints_with_a_flipped_axis_are_refused(own, msra, signs):
    for key, (joints, _) in msra[1].items():
        up = joints * [1, -1, -1] * np.array([1, -1, -1]) * signs
        (own / key / "joint.txt").write_text("\n".join(["3", *map(words, up)]))
    with pytest.raises(ValueError, match="expected at least (50% of joints where|one sequence in train, found none)"):
        read_msra15(own)


def test_a_hand_is_mirrored_by_negating_z_alone(msra):
    take = read_msra15(msra[0]).sequences[0]
    flipped = replace(take, joints=take.joints * np.array([1, -1, 1], np.float32))
    assert (handedness(take.joints, MSRA_21) > 0.1).all() and (handedness(flipped.joints, MSRA_21) < -0.1).all()


@given(st.integers(0, 2**32 - 1))
def test_any_box_comes_back_exactly(seed):
    rng = np.random.default_rng(seed)
    (left, right), (top, bottom) = (np.sort(rng.choice(side + 1, 2, replace=False)) for side in (320, 240))
    box = rng.uniform(0, 900, (bottom - top, right - left)).astype("<f4")
    depth = decode_bin(struct.pack("<6i", 320, 240, left, top, right, bottom) + box.tobytes())
    np.testing.assert_array_equal(depth[top:bottom, left:right], box)
    assert np.count_nonzero(depth) == np.count_nonzero(box)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_depth_that_is_none_is_refused_by_its_file(own, value):
    data = bytearray((own / BIN).read_bytes())
    data[24:28] = struct.pack("<f", value)
    (own / BIN).write_bytes(data)
    take = next(take for take in read_msra15(own).sequences if take.key == "P1/1")
    with pytest.raises(ValueError, match="000001_depth.bin: expected finite depth that isn't negative"):
        take.depth(1)
