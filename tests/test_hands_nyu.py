"""NYU, written as its authors hand it out: what is read, what is skipped, what is refused."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from fixtures.hands_files import write_grey, write_nyu
from scipy.io import loadmat, savemat

from flowlib.camera import NYU
from flowlib.hands import NYU_14, nyu
from flowlib.hands.nyu import read_nyu

PICTURE, LABELS = Path("train/depth_1_0000002.png"), Path("train/joint_data.mat")


@pytest.fixture(scope="session")
def written(tmp_path_factory) -> tuple[Path, dict]:
    root = tmp_path_factory.mktemp("nyu")
    return root, write_nyu(root, {"train": 5, "test": 5})


@pytest.fixture
def own(written, tmp_path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(written[0], tmp_path / "nyu"))


@pytest.fixture(autouse=True)
def short_runs(monkeypatch):
    monkeypatch.setattr(nyu, "RUN", 2)
    monkeypatch.setattr(nyu, "SECOND_TEST_SUBJECT", 3)


def test_everything_comes_back_cut_into_runs(written):
    root, truth = written
    hands = read_nyu(root)
    starts = {"train": [1, 3, 5], "test": [1, 3, 4, 5]}  # the second subject begins with frame 4
    assert list(hands.splits) == [f"{part}/{start:07d}" for part in starts for start in starts[part]]
    assert hands.skipped == () and hands.check.near > 0.98 and hands.check.right == 1
    assert [take.subject for take in hands.sequences] == ["train"] * 3 + ["test_1"] * 2 + ["test_2"] * 2
    assert list(hands.splits.values()) == ["train", "train", "val", "test", "test", "test", "test"]
    for part, (joints, depth) in truth.items():
        takes = [take for take in hands.sequences if take.key.startswith(part)]
        np.testing.assert_array_equal(np.concatenate([take.joints for take in takes]), joints)
        np.testing.assert_array_equal([take.depth(frame) for take in takes for frame in range(len(take))], depth)
        assert np.concatenate([take.numbers for take in takes]).tolist() == [1, 2, 3, 4, 5]
    assert (hands.sequences[0].camera, hands.sequences[0].skeleton) == (NYU, NYU_14)
    assert "val" not in read_nyu(root, validation=0).splits.values()
    with pytest.raises(ValueError, match="validation: expected a share from 0 to below 1, got 1"):
        read_nyu(root, validation=1)


def joints(change):
    def damage(own: Path) -> None:
        content = {name: value for name, value in loadmat(own / LABELS).items() if name.startswith("joint")}
        change(content)
        savemat(own / LABELS, content)

    return damage


def at_frame_2(value: float):
    return joints(lambda content: content["joint_xyz"].__setitem__((0, 1, 0, 2), value))


FRAME_FAULTS = {
    "no picture": (lambda own: (own / PICTURE).unlink(), "expected a file with its depth, found none"),
    "grey": (
        lambda own: write_grey(own / PICTURE, np.zeros((480, 640))),
        "pixels, 8-bit RGB, got .* 16-bit grey",
    ),
    "cut": (lambda own: os.truncate(own / PICTURE, 999), "expected a whole PNG, got one that breaks off"),
    "NaN": (at_frame_2(np.nan), "joint_data.mat: expected finite joints, got NaN or infinity"),
    "behind": (at_frame_2(-1.0), "expected joints before the camera, got z = -1 mm"),
}


@pytest.mark.parametrize("name", FRAME_FAULTS)
def test_a_fault_in_a_frame_costs_that_frame_and_is_listed(own, name):
    damage, reason = FRAME_FAULTS[name]
    damage(own)
    hands = read_nyu(own)
    assert hands.sequences[0].numbers.tolist() == [1] and len(hands) == 7
    (skipped,) = hands.skipped
    assert skipped.name == "train/0000001, frame 2" and re.search(reason, skipped.reason), skipped.reason


LABEL_FAULTS = {
    "no MATLAB": (lambda own: (own / LABELS).write_bytes(b"x" * 300), "expected a MATLAB v5 file with joint_xyz"),
    "empty": (lambda own: os.truncate(own / LABELS, 0), "expected a MATLAB v5 file with joint_xyz"),
    "cut": (lambda own: os.truncate(own / LABELS, 2000), "expected a MATLAB v5 file with joint_xyz"),
    "without": (joints(lambda content: content.pop("joint_uvd")), "joint_xyz and joint_uvd: 'joint_uvd'"),
    "shape": (joints(lambda content: content.update(joint_xyz=np.zeros((3, 5, 9, 3)))), r"\[3 S 36 3\], got \[3, 5, 9"),
    "y down": (joints(lambda content: content["joint_xyz"].__imul__([1, -1, 1])), "within 2 pixels of each other, got"),
    "x and y": (joints(lambda content: content.update(joint_uvd=content["joint_uvd"][..., [1, 0, 2]])), "within 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", LABEL_FAULTS)
def test_labels_that_are_not_as_described_are_refused(own, name):
    damage, reason = LABEL_FAULTS[name]
    damage(own)
    with pytest.raises(ValueError, match=f"joint_data.mat: expected .*{reason.removeprefix('expected ')}"):
        read_nyu(own)


def test_what_isnt_there_is_named_and_what_has_no_label_listed(own, tmp_path):
    shutil.copy(own / PICTURE, own / "train" / "depth_1_0000009.png")
    (skipped,) = read_nyu(own).skipped
    assert skipped.name == "train, frames 9 to 9" and "got those of 5 frames" in skipped.reason
    (own / LABELS).unlink()
    with pytest.raises(FileNotFoundError, match=r"expected joint_data.mat in it, found none"):
        read_nyu(own)
    shutil.rmtree(own / "test")
    with pytest.raises(FileNotFoundError):
        read_nyu(own)
