"""FPHA, written as its authors hand it out: what is read, what is skipped, what is refused."""

import os
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from fixtures.hands_files import FPHA_TAKES, picture, right_hand, write_fpha, write_grey, write_skeleton, write_split

from flowlib.camera import FPHA_DEPTH
from flowlib.hands import FPHA_21
from flowlib.hands.actions import ActionConfig
from flowlib.hands.fpha import UNUSED, read_fpha, read_object_pose, read_objects, read_split, read_subject
from flowlib.hands.sources import describe_hands
from flowlib.hands.synthetic import SyntheticConfig, SyntheticHands

TAKE = "Subject_1/put_salt/1"
SKELETON = Path("Hand_pose_annotation_v1") / TAKE / "skeleton.txt"
DEPTH = Path("Video_files") / TAKE / "depth"
PICTURE = DEPTH / "depth_0001.png"
SPLIT = "data_split_action_recognition.txt"


@pytest.fixture(scope="session")
def fpha(tmp_path_factory) -> tuple[Path, dict]:
    root = tmp_path_factory.mktemp("fpha")
    return root, write_fpha(root)


@pytest.fixture
def own(fpha, tmp_path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(fpha[0], tmp_path / "fpha"))


def test_everything_comes_back_exactly(fpha):
    root, truth = fpha
    hands = read_fpha(root, validation=0)
    assert [take.key for take in hands.sequences] == list(FPHA_TAKES) and hands.skipped == ()  # take 10 behind take 2
    assert hands.splits == FPHA_TAKES
    assert len(hands.actions) == 45 and hands.actions[15] == "put_salt" and hands.actions[1] == "class 1"
    for take in hands.sequences:
        joints, depth = truth[take.key]
        np.testing.assert_array_equal(take.joints, joints)
        np.testing.assert_array_equal([take.depth(frame) for frame in range(len(take))], depth)
        subject, action, _ = take.key.split("/")
        assert (take.subject, hands.actions[take.action or 0]) == (subject, action)
        assert (take.camera, take.skeleton, take.numbers.tolist()) == (FPHA_DEPTH, FPHA_21, [0, 1, 2])


def test_joints_land_in_the_hand_and_it_is_a_right_one(fpha):
    hands = read_fpha(fpha[0])
    check = hands.check
    assert check.near > 0.98 and check.right == 1 and check.frames == 18 and check.worst[0] > 0.95
    text = describe_hands(hands)
    assert "100% of joints lie in the hand (18 frames; worst" in text and "100% of poses are right hands" in text
    assert "test: 2 sequences of 2 subjects, 6 frames" in text


def test_the_synthetic_hand_written_as_fpha_is_read_back_and_its_joints_lie_in_it(tmp_path):
    hands = SyntheticHands(SyntheticConfig(subjects=3, takes=1, actions=ActionConfig(families=1)))
    takes = {"Subject_1/put_salt/1": hands.sequences[0], "Subject_2/put_salt/2": hands.sequences[3]}
    frames = [0, 7, 14]
    for key, take in takes.items():
        write_skeleton(tmp_path / "Hand_pose_annotation_v1" / key / "skeleton.txt", take.joints[frames])
        for t, frame in enumerate(frames):
            write_grey(tmp_path / "Video_files" / key / "depth" / f"depth_{t:04d}.png", take.depth(frame))
    write_split(tmp_path, dict(zip(takes, ("train", "test"))))
    read = read_fpha(tmp_path)
    assert read.check.near > 0.9 and read.check.right in (1, None)
    for (key, take), same in zip(takes.items(), read.sequences):
        assert same.key == key
        np.testing.assert_array_equal(same.joints, take.joints[frames])
        np.testing.assert_array_equal([same.depth(t) for t in range(3)], [take.depth(frame) for frame in frames])


def test_the_order_of_a_listing_changes_nothing(fpha, monkeypatch):
    expected = read_fpha(fpha[0])
    for name in ("iterdir", "glob"):
        listing = getattr(Path, name)
        rng = random.Random(1)
        shuffled = lambda *given, listing=listing, rng=rng: iter(rng.sample(found := list(listing(*given)), len(found)))  # noqa: E731
        monkeypatch.setattr(Path, name, shuffled)
    hands = read_fpha(fpha[0])
    assert [take.key for take in hands.sequences] == [take.key for take in expected.sequences]
    assert hands.splits == expected.splits
    for take, same in zip(hands.sequences, expected.sequences):
        assert take.fingerprint() == same.fingerprint()
        assert all((take.depth(frame) == same.depth(frame)).all() for frame in range(len(take)))


def test_a_take_of_one_frame_is_a_take(tmp_path):
    truth = write_fpha(tmp_path, {"Subject_1/put_salt/1": "test", "Subject_1/put_salt/2": "train"}, frames=1)
    hands = read_fpha(tmp_path)
    assert [len(take) for take in hands.sequences] == [1, 1] and "val" not in hands.splits.values()
    np.testing.assert_array_equal(hands.sequences[0].depth(0), truth["Subject_1/put_salt/1"][1][0])


def test_protocols(fpha):
    root, _ = fpha
    tested = {protocol: {take.key for take in read_fpha(root, protocol=protocol).split("test")} for protocol in
              ("1:1", "cross-subject", "cross-object")}  # fmt: skip
    assert tested["1:1"] == {key for key, split in FPHA_TAKES.items() if split == "test"}
    assert tested["cross-subject"] == {"Subject_2/pour_milk/1", "Subject_6/high_five/2"}
    assert tested["cross-object"] == {"Subject_2/pour_milk/1", "Subject_3/prick/2"}


def test_validation_is_a_share_of_the_training_takes(fpha):
    half, none = read_fpha(fpha[0], validation=0.5), read_fpha(fpha[0], validation=0)
    assert len(half.split("val")) == 2 and len(half.split("train")) == 2 and none.split("val") == ()
    assert half.split("test") == half.split("test") and len(half.split("test")) == 2
    with pytest.raises(ValueError, match="validation: expected a share from 0 to below 1, got 1"):
        read_fpha(fpha[0], validation=1)


def test_either_name_of_the_skeletons_folder_but_not_both(own):
    (own / "Hand_pose_annotation_v1").rename(own / "Hand_pose_annotation_v1_1")
    assert len(read_fpha(own)) == len(FPHA_TAKES)
    shutil.copytree(own / "Hand_pose_annotation_v1_1", own / "Hand_pose_annotation_v1")
    with pytest.raises(ValueError, match="one version of the skeletons, found .*v1 and .*v1_1; say which"):
        read_fpha(own)
    assert len(read_fpha(own, annotations="Hand_pose_annotation_v1_1")) == len(FPHA_TAKES)
    for name in ("Hand_pose_annotation_v1", "Hand_pose_annotation_v1_1"):
        shutil.rmtree(own / name)
    with pytest.raises(FileNotFoundError, match="expected Hand_pose_annotation_v1 or"):
        read_fpha(own)


def line_with(own: Path, row: int, change) -> None:
    lines = (own / SKELETON).read_text().splitlines()
    lines[row] = change(lines[row])
    (own / SKELETON).write_text("\n".join(lines) + "\n")


def last_number(word: str):
    return lambda own: line_with(own, 1, lambda line: line.rsplit(" ", 1)[0] + word)


def grey(size: tuple[int, ...], kind: type = np.uint16):
    return lambda own: write_grey(own / PICTURE, np.zeros(size), kind)


FRAME_FAULTS = {
    "62 numbers": (last_number(""), "expected 64 numbers in a line, got 63"),
    "NaN": (last_number(" nan"), "expected finite numbers, got nan"),
    "a word": (last_number(" x"), "expected 64 numbers in a line, could not convert"),
    "behind": (last_number(" -3"), "skeleton.txt: expected joints before the camera, got z = -3 mm"),
    "no picture": (lambda own: (own / PICTURE).unlink(), "expected a file with its depth, found none"),
    "8 bits": (
        grey((480, 640), np.uint8),
        "expected a PNG of 640×480 pixels, 16-bit grey, got one of .*, 8-bit grey",
    ),
    "colour": (grey((480, 640, 3)), "got one of 640×480 pixels, 16-bit RGB"),
    "size": (grey((240, 320)), "got one of 320×240 pixels, 16-bit grey"),
    "cut": (lambda own: os.truncate(own / PICTURE, 900), "depth_0001.png: expected a whole PNG, got one that breaks"),
    "text": (lambda own: (own / PICTURE).write_text("x" * 99), "expected a PNG, got something else"),
    "empty": (lambda own: os.truncate(own / PICTURE, 0), "expected a PNG, got something else"),
}


@pytest.mark.parametrize("name", FRAME_FAULTS)
def test_a_fault_in_a_frame_costs_that_frame_and_is_listed(own, fpha, name):
    damage, reason = FRAME_FAULTS[name]
    damage(own)
    hands = read_fpha(own)
    take = next(take for take in hands.sequences if take.key == TAKE)
    assert len(hands) == len(FPHA_TAKES) and take.numbers.tolist() == [0, 2]
    joints, depth = fpha[1][TAKE]
    np.testing.assert_array_equal(take.joints, joints[[0, 2]])
    np.testing.assert_array_equal([take.depth(0), take.depth(1)], depth[[0, 2]])
    (skipped,) = hands.skipped
    assert skipped.name == f"{TAKE}, frame 1"
    assert re.search(reason, skipped.reason), skipped.reason


TAKE_FAULTS = {
    "empty skeleton": (lambda own: (own / SKELETON).write_text(""), "a line for each frame, got an empty file"),
    "blank skeleton": (lambda own: (own / SKELETON).write_text("\n \n"), "a line for each frame, got an empty file"),
    "no skeleton": (lambda own: (own / SKELETON).unlink(), "expected .*skeleton.txt, found none"),
    "no depth": (lambda own: shutil.rmtree(own / DEPTH), "expected .*depth, found none"),
    "no take": (lambda own: shutil.rmtree((own / DEPTH).parent), "expected it in .*Video_files, found nothing"),
    "no picture": (
        lambda own: [path.unlink() for path in (own / DEPTH).iterdir()],
        "at least one frame that can be used, found none; .*frame 0: expected a file with its depth",
    ),
    "t": (lambda own: line_with(own, 1, lambda line: "2" + line[1:]), "line 2: expected t = 1, got '2 "),
    "a gap in t": (lambda own: line_with(own, 1, lambda line: ""), "line 2: expected t = 1, got ''"),
}


@pytest.mark.parametrize("name", TAKE_FAULTS)
def test_a_fault_in_a_take_costs_that_take_and_is_listed(own, name):
    damage, reason = TAKE_FAULTS[name]
    write_split(own, FPHA_TAKES | {TAKE: "train", "Subject_1/put_salt/2": "test"})
    damage(own)
    hands = read_fpha(own)
    assert len(hands) == len(FPHA_TAKES) - 1 and TAKE not in hands.splits
    (skipped,) = hands.skipped
    assert skipped.name == TAKE and re.search(reason, skipped.reason), skipped.reason


def test_t_in_another_notation_is_t(own):
    line_with(own, 1, lambda line: "1.0000000e+00" + line[1:])
    assert read_fpha(own).skipped == ()


def test_pictures_without_a_line_are_listed(own):
    write_grey(own / DEPTH / "depth_0003.png", np.zeros((480, 640)))
    (skipped,) = read_fpha(own).skipped
    assert skipped.name == f"{TAKE}, frame 3" and "skeleton.txt: expected a line for it" in skipped.reason


def test_takes_that_the_split_or_the_authors_leave_out_are_listed(own):
    for key in ("Subject_1/put_salt/7", "Subject_1/juggle/1", *UNUSED):
        shutil.copytree(own / "Video_files" / TAKE, own / "Video_files" / key)
        write_skeleton(own / "Hand_pose_annotation_v1" / key / "skeleton.txt", right_hand(3))
    reasons = {skipped.name: skipped.reason for skipped in read_fpha(own).skipped}
    assert reasons["Subject_1/put_salt/7"] == f"{SPLIT} doesn't name it"
    assert "expected an action that" in reasons["Subject_1/juggle/1"]
    assert {key for key, reason in reasons.items() if "authors ask to ignore it" in reason} == UNUSED
    across = read_fpha(own, protocol="cross-subject")
    assert "Subject_1/put_salt/7" in across.splits and len(across) == len(FPHA_TAKES) + 1


def test_a_take_that_only_the_subjects_info_promises_is_listed(own):
    with (own / "Subjects_info" / "Subject_1_info.txt").open("a") as file:
        file.write("put_salt    9   12\n")
    (skipped,) = read_fpha(own).skipped
    assert skipped.name == "Subject_1/put_salt/9" and "found nothing" in skipped.reason
    shutil.rmtree(own / "Subjects_info")  # it isn't needed
    assert read_fpha(own).skipped == ()


SPLIT_FAULTS = {
    "Training 5": "line 6: expected one of 5 lines as 'Subject_1/put_salt/1 15' below 'Training', got 'Test 2'",
    "Training 3": "line 5: expected 'Test' and a number of takes, got 'Subject_6/high_five/2 44'",
    "Learning 4": "line 1: expected 'Training' and a number of takes, got 'Learning 4'",
}


@pytest.mark.parametrize("head", SPLIT_FAULTS)
def test_a_split_file_whose_counts_are_wrong_is_refused(own, head):
    lines = (own / SPLIT).read_text().splitlines()
    (own / SPLIT).write_text("\n".join([head, *lines[1:]]))
    with pytest.raises(ValueError, match=SPLIT_FAULTS[head]):
        read_fpha(own)


def test_other_broken_split_files_are_refused(tmp_path):
    path = tmp_path / SPLIT
    for text, message in (
        ("", "line 1: expected 'Training' and a number of takes, got its end"),
        ("Training 1\nSubject_1/a/1 0\n", "line 3: expected 'Test' .* got its end"),
        ("Training 1\nSubject_1/a/1 0\nTest 2\nSubject_1/a/2 0\n", "expected 2 lines below 'Test', got 1"),
        ("Training 1\nSubject_1/a/1 45\nTest 0\n", "line 2: expected a class from 0 to 44, got 45"),
        ("Training 1\nSubject_1/a/1\nTest 0\n", "line 2: expected one of 1 lines as"),
        ("Training 2\nSubject_1/a/1 0\nSubject_1/b/1 0\nTest 0\n", "line 3: expected a for class 0, got b"),
        ("Training 2\nSubject_1/a/1 0\nSubject_1/a/2 1\nTest 0\n", "one class for each action"),
        ("Training 1\nSubject_1/a/1 0\nTest 1\nSubject_1/a/1 0\n", "line 4: expected each take once"),
        ("Training 1\nSubject_1/a/1 0\nTest 0\nmore\n", "line 4: expected the file's end, got 'more'"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_split(path)


def test_what_every_copy_has_is_asked_for_by_name(own, tmp_path, refuses):
    with pytest.raises(FileNotFoundError, match="root: expected a folder with Video_files, found none at .*nowhere"):
        read_fpha(tmp_path / "nowhere")
    with refuses("protocol: expected one of 1:1, cross-subject, cross-object, got 'all'"):
        read_fpha(own, protocol="all")
    (own / SPLIT).rename(own / "gone")
    with pytest.raises(FileNotFoundError, match=f"expected {SPLIT} in it, found none"):
        read_fpha(own)


def test_a_protocol_without_training_or_test_is_refused(own):
    for subject in (2, 6):
        shutil.rmtree(own / "Video_files" / f"Subject_{subject}")
    with pytest.raises(ValueError, match="cross-subject: expected at least one sequence in test, found none; first of"):
        read_fpha(own, protocol="cross-subject")


def test_the_wrong_camera_frame_is_refused_and_a_mirrored_hand_warned_of(own):
    truth = {key: right_hand(3, number) for number, key in enumerate(FPHA_TAKES)}
    for swap in ([1, 0, 2], [0, 1, 2]):  # x and y swapped; y up
        for key, joints in truth.items():
            sign = [1, 1, 1] if swap[0] else [1, -1, 1]
            write_skeleton(own / "Hand_pose_annotation_v1" / key / "skeleton.txt", (joints * sign)[..., swap])
        with pytest.raises(ValueError, match="at least 50% of joints where depth shows a hand, got .*%"):
            read_fpha(own)
    for key, joints in truth.items():
        mirrored = joints * np.array([1, -1, 1], np.float32)
        write_skeleton(own / "Hand_pose_annotation_v1" / key / "skeleton.txt", mirrored)
        for t, pose in enumerate(mirrored):
            write_grey(own / "Video_files" / key / "depth" / f"depth_{t:04d}.png", picture(pose, FPHA_DEPTH))
    with pytest.warns(UserWarning, match="expected right hands, got 0%: an axis may be mirrored"):
        assert read_fpha(own).check.right == 0


def test_depth_that_breaks_after_the_check_says_which_file(fpha, own):
    take = next(take for take in read_fpha(own).sequences if take.key == TAKE)
    whole = (own / PICTURE).read_bytes()
    (own / PICTURE).write_bytes(whole[:2000] + bytes(100) + whole[2100:])  # its end is as it was
    hands = read_fpha(own)
    assert hands.check.unread == 1 and "1 could not be read" in str(hands.check)
    with pytest.raises(ValueError, match="put_salt/1/depth/depth_0001.png: expected"):
        take.depth(1)
    assert (take.depth(2) == fpha[1][TAKE][1][2]).all()


def test_object_poses_are_read_column_by_column(tmp_path):
    poses = np.random.default_rng(0).normal(size=(3, 4, 4))
    text = "".join(f"{t} {' '.join(map(repr, map(float, pose.T.ravel())))}\n" for t, pose in zip((0, 1, 4), poses))
    (tmp_path / "object_pose.txt").write_text(text)
    numbers, read = read_object_pose(tmp_path / "object_pose.txt")
    assert numbers.tolist() == [0, 1, 4]
    np.testing.assert_array_equal(read, poses)
    (tmp_path / "object_pose.txt").write_text(text + "5 1 2\n")
    with pytest.raises(ValueError, match="object_pose.txt, line 4: expected 17 numbers in a line, got 3"):
        read_object_pose(tmp_path / "object_pose.txt")
    (tmp_path / "object_pose.txt").write_text("")
    assert read_object_pose(tmp_path / "object_pose.txt")[1].shape == (0, 4, 4)


def test_objects_and_subjects(fpha, own):
    assert read_objects(fpha[0] / "action_object_info.txt")["pour_milk"] == "milk"
    assert read_subject(fpha[0] / "Subjects_info" / "Subject_1_info.txt") == {
        ("put_salt", 1): 3,
        ("put_salt", 2): 3,
        ("put_salt", 10): 3,
    }
    table = own / "action_object_info.txt"
    table.write_text(table.read_text().replace("  fork ", "  spoon "))
    with pytest.raises(ValueError, match="expected an action with the object 'fork', found none"):
        read_fpha(own, protocol="cross-object")
    table.write_text("head\n1 put_salt\n")
    with pytest.raises(ValueError, match="line 2: expected number, action and object, got '1 put_salt'"):
        read_fpha(own, protocol="cross-object")
