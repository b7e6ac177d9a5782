"""Read NYU, the hand poses of Tompson et al. (2014): 72,757 frames of one subject, and 8,252 of two for testing.

    <root>/train/depth_1_0000001.png, <root>/test/…   8-bit RGB PNG of 640×480; mm = 256 · green + blue; camera 1 of 3
    <root>/train/joint_data.mat, <root>/test/…        MATLAB v5: joint_xyz and joint_uvd [3 frames 36 3], y *up*

Of 36 points the 14 that are scored are read. A recording has no takes: it is cut into runs of 1000 frames.
"""

from __future__ import annotations

import struct
import zlib
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float

from flowlib.camera import NYU
from flowlib.hands.reading import assemble, by_number, check_png, existing_folder, read_take
from flowlib.hands.sequences import HandCollection, HandSequence, Skipped
from flowlib.hands.skeleton import NYU_14
from flowlib.video import decode_whole

SCORED = (0, 3, 6, 9, 12, 15, 18, 21, 24, 25, 27, 30, 31, 32)  # of the 36 points, in the order of `NYU_14`
TO_OPENCV = np.array([1, -1, 1])  # of the files' joints: y up
RUN = 1000  # frames
SECOND_TEST_SUBJECT = 2440  # index of the test set's first frame of another hand, whose bones are a sixth shorter
FARTHEST_PIXEL = 2.0  # between a joint in mm, projected, and the same in pixels
UNREADABLE = (ValueError, TypeError, KeyError, IndexError, NotImplementedError, OSError, struct.error, zlib.error)


def read_nyu(root: str | Path, *, validation: float = 0.1) -> HandCollection:
    """The runs of NYU, by camera 1.

    Args:
        root: the folder with train and test.
        validation: share of the runs for training that are for validation: its last ones, since neighbours are alike.

    Raises:
        FileNotFoundError: no such folder, or a joint_data.mat is missing.
        ValueError: such a file that can't be read or isn't as described, or joints that don't lie in the hand.
    """
    if not 0 <= validation < 1:
        raise ValueError(f"validation: expected a share from 0 to below 1, got {validation}")
    root = existing_folder(root, "train and test")
    takes: list[HandSequence] = []
    skipped: list[Skipped] = []
    for part in ("train", "test"):
        folder = existing_folder(root / part, "joint_data.mat")
        joints = read_joints(folder / "joint_data.mat")
        files = by_number(folder, r"depth_1_(\d{7})\.png")
        cuts = {0, len(joints), *range(0, len(joints), RUN)} | ({SECOND_TEST_SUBJECT} if part == "test" else set())
        starts = sorted(cut for cut in cuts if cut <= len(joints))
        if unknown := [number for number in files if not 1 <= number <= len(joints)]:
            reason = f"{folder / 'joint_data.mat'}: expected joints for them, got those of {len(joints)} frames"
            skipped.append(Skipped(f"{part}, frames {unknown[0]} to {unknown[-1]}", reason))
        for start, stop in pairwise(starts):
            numbers = range(start + 1, stop + 1)  # of files, from 1
            subject = "train" if part == "train" else f"test_{1 + (start >= SECOND_TEST_SUBJECT)}"
            take, faults = read_take(
                f"{part}/{start + 1:07d}",
                numbers,
                lambda number, joints=joints: joints[number - 1],
                {number: files[number] for number in numbers if number in files},
                partial(check_png, NYU.size, "8-bit RGB"),
                decode_nyu,
                labels=folder / "joint_data.mat",
                subject=subject,
                action=None,
                camera=NYU,
                skeleton=NYU_14,
            )
            takes += [take] if take else []
            skipped += faults
    test = {take.key for take in takes if take.key.startswith("test/")}
    train = [take.key for take in takes if take.key not in test]
    val = train[len(train) - max(validation > 0 and len(train) > 1, round(validation * len(train))) :]
    return assemble(f"NYU at {root}", takes, test=test, val=val, skipped=skipped)


def decode_nyu(data: bytes) -> Float[np.ndarray, "H W"]:
    """The depth in mm that a picture of NYU holds in its green (upper 8 bits) and blue channels.

    Raises:
        ValueError: no picture, or a damaged one.
    """
    rgb = decode_whole(data)[0].astype(np.float32)
    return 256 * rgb[..., 1] + rgb[..., 2]


def read_joints(path: str | Path) -> Float[np.ndarray, "S 14 3"]:
    """The scored joints in mm in camera 1's frame, x right, y down, z forward, by joint_data.mat.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it isn't MATLAB's, lacks joint_xyz or joint_uvd, or these disagree by more than 2 pixels.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    if not (path := Path(path)).is_file():
        raise FileNotFoundError(f"{path.parent}: expected {path.name} in it, found none")
    try:
        content = loadmat(path, variable_names=["joint_xyz", "joint_uvd"])
        xyz, uvd = (np.asarray(content[name], np.float64) for name in ("joint_xyz", "joint_uvd"))
    except (MatReadError, *UNREADABLE) as error:
        raise ValueError(f"{path}: expected a MATLAB v5 file with joint_xyz and joint_uvd: {error}") from error
    if xyz.shape != uvd.shape or xyz.ndim != 4 or xyz.shape[0] != 3 or xyz.shape[2:] != (36, 3):
        got = f"{list(xyz.shape)} and {list(uvd.shape)}"
        raise ValueError(f"{path}: expected joint_xyz and joint_uvd [3 S 36 3], got {got}")
    joints, pixels = xyz[0][:, SCORED] * TO_OPENCV, uvd[0][:, SCORED]
    sound = np.isfinite(joints).all(axis=(1, 2)) & (joints[..., 2] > 0).all(axis=1)
    apart = np.abs(NYU.project(joints[sound])[..., :2] - pixels[sound][..., :2]).max(axis=(1, 2))
    if sound.any() and np.median(apart) > FARTHEST_PIXEL:
        expected = f"joint_xyz and joint_uvd within {FARTHEST_PIXEL:g} pixels of each other"
        raise ValueError(f"{path}: expected {expected}, got {np.median(apart):.1f}")
    return joints
