"""ICVL, written as its authors hand it out: what is read, what is skipped, what is refused."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from fixtures.hands_files import write_grey, write_icvl

from flowlib.camera import ICVL
from flowlib.hands import ICVL_16
from flowlib.hands.icvl import read_icvl

TAKES = ("201403121135", "201403121140", "test_seq_1", "test_seq_2")
LABELS = Path("Training/labels.txt")
PICTURE = Path("Training/Depth/201403121140/image_0001.png")


@pytest.fixture(scope="session")
def icvl(tmp_path_factory) -> tuple[Path, dict]:
    root = tmp_path_factory.mktemp("icvl")
    return root, write_icvl(root, TAKES)


@pytest.fixture
def own(icvl, tmp_path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(icvl[0], tmp_path / "icvl"))


def test_everything_comes_back(icvl, tmp_path):
    write_icvl(tmp_path, TAKES, parts=False)
    for root in (icvl[0], tmp_path):
        hands = read_icvl(root, validation=0)
        assert [take.key for take in hands.sequences] == list(TAKES) and hands.skipped == ()
        assert hands.splits == {key: "test" if key.startswith("test") else "train" for key in TAKES}
        assert hands.check.near > 0.98 and hands.check.right == 0
        for take in hands.sequences:
            joints, depth = icvl[1][take.key]
            np.testing.assert_allclose(take.joints, joints, atol=1e-3)  # mm; the file has pixels
            np.testing.assert_array_equal([take.depth(frame) for frame in range(3)], depth)
            assert (take.camera, take.skeleton, take.action) == (ICVL, ICVL_16, None)


def test_frames_are_in_the_order_of_their_numbers_and_not_of_the_file(icvl):
    text = (icvl[0] / LABELS).read_text()
    assert text.index("image_0002") < text.index("image_0000")
    assert read_icvl(icvl[0]).sequences[0].numbers.tolist() == [0, 1, 2]


def test_turned_takes_are_skipped(own):
    lines = (own / LABELS).read_text().splitlines()
    with (own / LABELS).open("a") as file:
        for angle in ("45", "112-5"):
            file.writelines(f"{angle}/{line}\n" for line in lines if line)
    hands = read_icvl(own)
    assert len(hands) == 4
    assert [(s.name, s.reason) for s in hands.skipped] == [
        ("112-5", "6 frames of it are others, turned"),
        ("45", "6 frames of it are others, turned"),
    ]


def line(change):
    """Changes the line of frame 1 of the second take."""

    def damage(own: Path) -> None:
        lines = (own / LABELS).read_text().splitlines(keepends=True)
        which = next(i for i, text in enumerate(lines) if text.startswith("201403121140/image_0001"))
        lines[which] = change(lines[which].strip()) + "\n"
        (own / LABELS).write_text("".join(lines))

    return damage


FRAME_FAULTS = {
    "47 numbers": (line(lambda text: text.rsplit(" ", 1)[0]), "expected 48 numbers in a line, got 47"),
    "path alone": (line(lambda text: text.split()[0]), "expected 48 numbers in a line, got 0"),
    "NaN": (line(lambda text: text.rsplit(" ", 1)[0] + " nan"), "expected finite numbers, got nan"),
    "behind": (line(lambda text: text.rsplit(" ", 1)[0] + " 0"), "joints before the camera, got z = 0 mm"),
    "no picture": (lambda own: (own / PICTURE).unlink(), "expected a file with its depth, found none"),
    "8 bits": (
        lambda own: write_grey(own / PICTURE, np.zeros((240, 320)), np.uint8),
        "got one of 320×240 pixels, 8-bit",
    ),
}


@pytest.mark.parametrize("name", FRAME_FAULTS)
def test_a_fault_in_a_frame_costs_that_frame_and_is_listed(own, icvl, name):
    damage, reason = FRAME_FAULTS[name]
    damage(own)
    hands = read_icvl(own)
    take = next(take for take in hands.sequences if take.key == "201403121140")
    assert take.numbers.tolist() == [0, 2]
    np.testing.assert_array_equal(take.depth(1), icvl[1][take.key][1][2])
    (skipped,) = hands.skipped
    assert skipped.name == "201403121140, frame 1" and re.search(reason, skipped.reason), skipped.reason


@pytest.mark.parametrize("path", ["picture.png", "../../../etc/image_0001.png", "/etc/image_0001.png", "a/b.jpg"])
def test_lines_that_name_no_picture_of_the_set_are_listed(own, path):
    line(lambda text: path + " " + text.split(maxsplit=1)[1])(own)
    (skipped,) = read_icvl(own).skipped
    assert re.fullmatch(r"labels.txt, line \d", skipped.name) and f"first, got '{path}'" in skipped.reason


def test_what_isnt_there_is_named(own, tmp_path):
    with pytest.raises(FileNotFoundError, match="expected labels.txt, test_seq_1.txt, test_seq_2.txt in it"):
        read_icvl(tmp_path / "icvl" / "Training" / "Depth")
    (own / LABELS).unlink()
    with pytest.raises(ValueError, match="expected at least one sequence in train, found none"):
        read_icvl(own)
