"""What the readers of published hand data share: lines of numbers, numbered files, splits, and the check of joints and
depth against each other.

A fault in one frame costs that frame, one in a whole take costs the take; both are listed and end nothing.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from flowlib.geometry import Size
from flowlib.hands.sequences import DepthCheck, HandCollection, HandSequence, Skipped
from flowlib.hands.skeleton import handedness
from flowlib.video import probe_png

# mm of a joint behind the depth of its pixel, at least and at most: a joint lies within the hand, up to a hand's
# thickness or what it holds behind what hides it, and annotations are a fingertip's radius off.
BEHIND = -20.0, 80.0
LEAST_NEAR = 0.5  # share of joints; below it, joints and depth are of different cameras, frames or conventions
CHECKED_FRAMES = 300
CURLED = 0.1  # of `handedness`; less tells nothing


class FrameError(ValueError):
    """One frame can't be used: one sentence."""


def existing_folder(root: str | Path, holds: str) -> Path:
    """`root` as a path, ~ expanded.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    path = Path(root).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(f"root: expected a folder with {holds}, found none at {path}")
    return path


def parse_numbers(line: str, count: int) -> Float[np.ndarray, " count"]:
    """The numbers in a line, divided by blanks, as float64.

    Raises:
        FrameError: not `count` of them, words, NaN or infinity.
    """
    words = line.split()
    if len(words) != count:
        raise FrameError(f"expected {count} numbers in a line, got {len(words)}")
    try:
        numbers = np.array([float(word) for word in words])
    except ValueError as error:
        raise FrameError(f"expected {count} numbers in a line, {error}") from error
    if not np.isfinite(numbers).all():
        raise FrameError(f"expected finite numbers, got {words[int(np.argmax(~np.isfinite(numbers)))]}")
    return numbers


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without empty ones at its end; bytes that are no text make no numbers."""
    return path.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()


def natural(key: str) -> list:
    """Sorts take 10 behind take 9."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", key)]


def by_number(folder: Path, name: str) -> dict[int, Path]:
    """The files of a folder by the number that the regular expression `name` finds in theirs, in its order."""
    found = ((re.fullmatch(name, path.name), path) for path in folder.iterdir())
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def check_png(size: Size, kind: str, path: Path) -> None:
    """Raise `FrameError` unless a file is a whole PNG of this size and kind, by its first and last bytes."""
    try:
        found = probe_png(path)
    except (OSError, ValueError) as error:
        raise FrameError(str(error)) from error
    if found != (size, kind):
        (expected, is_kind), (got, was_kind) = ((f"{s[1]}×{s[0]} pixels", k) for s, k in ((size, kind), found))
        raise FrameError(f"{path}: expected a PNG of {expected}, {is_kind}, got one of {got}, {was_kind}")


def read_take(
    key: str,
    numbers: Iterable[int],
    pose: Callable[[int], Float[np.ndarray, "J 3"]],
    files: dict[int, Path],
    check: Callable[[Path], None],
    decode: Callable[[bytes], np.ndarray],
    *,
    labels: Path,
    **about: Any,
) -> tuple[HandSequence | None, list[Skipped]]:
    """One take, and what is left out of it; None if no frame is left.

    Args:
        key: of the take.
        numbers: of the frames that `labels` has lines for.
        pose: gives the joints in mm of a numbered frame, in the camera's frame, or raises `FrameError`.
        files: the depth of each numbered frame.
        check: raises `FrameError` for a file that can't hold depth; is to read little of it.
        decode: gives the depth in mm of a file's bytes, or raises `ValueError`.
        labels: the file with the joints.
        about: subject, action, camera and skeleton, as `HandSequence` has them.
    """
    kept, joints, skipped, numbers = [], [], [], list(numbers)
    for number in numbers:
        try:
            joints_of_frame = pose(number)
            if not np.isfinite(joints_of_frame).all():
                raise FrameError(f"{labels}: expected finite joints, got NaN or infinity")
            if (nearest := joints_of_frame[:, 2].min()) <= 0:
                raise FrameError(f"{labels}: expected joints before the camera, got z = {nearest:g} mm")
            if number not in files:
                raise FrameError("expected a file with its depth, found none")
            check(files[number])
        except FrameError as error:
            skipped.append(Skipped(f"{key}, frame {number}", str(error)))
        else:
            kept.append(number)
            joints.append(joints_of_frame)
    unknown = sorted(files.keys() - set(numbers))
    skipped += [Skipped(f"{key}, frame {n}", f"{labels}: expected a line for it, found none") for n in unknown]
    if not kept:
        reason = f"; {skipped[0].name}: {skipped[0].reason}" if skipped else ""
        return None, [Skipped(key, f"expected at least one frame that can be used, found none{reason}")]
    paths, array = tuple(files[number] for number in kept), np.array(joints, np.float32)
    read = partial(_read_depth, paths, decode)
    take = HandSequence(key, joints=array, read=read, numbers=np.array(kept), source=paths, **about)
    return take, skipped


def _read_depth(paths: Sequence[Path], decode: Callable[[bytes], np.ndarray], frame: int) -> np.ndarray:
    try:
        return decode(paths[frame].read_bytes())
    except ValueError as error:
        raise ValueError(f"{paths[frame]}: {error}") from error


def hold_out(keys: Iterable[str], share: float) -> set[str]:
    """The sequences among those for training that are for validation: a share of them, decided by their names alone.

    Raises:
        ValueError: a share that isn't from 0 to below 1.
    """
    if not 0 <= share < 1:
        raise ValueError(f"validation: expected a share from 0 to below 1, got {share}")
    order = sorted(keys, key=lambda key: hashlib.sha256(key.encode()).digest())
    return set(order[: max(share > 0 and len(order) > 1, round(share * len(order)))])


def assemble(
    name: str,
    sequences: Sequence[HandSequence],
    *,
    test: Collection[str],
    val: Collection[str],
    skipped: Sequence[Skipped],
    actions: tuple[str, ...] = (),
) -> HandCollection:
    """A collection of what was read: the keys in `test` and `val`, all others for training; joints are checked.

    Raises:
        ValueError: no sequence for training or none for testing, or joints that don't lie in the hand.
    """
    splits = {take.key: "test" if take.key in test else "val" if take.key in val else "train" for take in sequences}
    for split in ("train", "test"):
        if split not in splits.values():
            reason = f"; first of {len(skipped)} skipped: {skipped[0].name}: {skipped[0].reason}" if skipped else ""
            raise ValueError(f"{name}: expected at least one sequence in {split}, found none{reason}")
    check = check_depth(name, sequences)
    return HandCollection(tuple(sequences), splits, actions, tuple(skipped), check)


def check_depth(name: str, sequences: Sequence[HandSequence], frames: int = CHECKED_FRAMES) -> DepthCheck:
    """Whether joints lie where depth shows a hand, on frames spread evenly over all sequences.

    Warns of poses that are mostly of the other hand than the skeleton's.

    Raises:
        ValueError: less than half of the joints do, or no frame could be read.
    """
    starts = np.cumsum([0, *map(len, sequences)])
    asked = np.unique(np.linspace(0, starts[-1] - 1, min(frames, int(starts[-1]))).round().astype(int))
    near: dict[str, list[float]] = {}
    signs, unread = [], 0
    for place, which in zip(asked, np.searchsorted(starts, asked, side="right") - 1):
        sequence, frame = sequences[which], int(place - starts[which])
        try:
            depth = sequence.depth(frame)
        except (OSError, ValueError):
            unread += 1
            continue
        near.setdefault(sequence.key, []).append(_share_near(sequence, frame, depth))
        signs.append(float(handedness(sequence.joints[frame], sequence.skeleton)))
    shares = np.concatenate([[], *near.values()])
    if not len(shares):
        raise ValueError(f"{name}: expected depth that can be read, none of {unread} frames that were tried could be")
    telling = [sign for sign in signs if abs(sign) > CURLED]
    right = float(np.mean(np.array(telling) > 0)) if telling else None
    worst = min((float(np.mean(values)), key) for key, values in near.items())
    check = DepthCheck(float(shares.mean()), worst, right, len(shares), unread)
    if check.near < LEAST_NEAR:
        expected = f"at least {LEAST_NEAR:.0%} of joints where depth shows a hand"
        raise ValueError(f"{name}: expected {expected}, got {check.near:.0%}; joints and depth don't belong together")
    if right is not None and (right < LEAST_NEAR) == sequences[0].skeleton.right:
        side, share = ("right", right) if sequences[0].skeleton.right else ("left", 1 - right)
        warnings.warn(f"{name}: expected {side} hands, got {share:.0%}: an axis may be mirrored", stacklevel=3)
    return check


def _share_near(sequence: HandSequence, frame: int, depth: np.ndarray) -> float:
    joints = sequence.joints[frame]
    seen = joints[sequence.camera.sees(joints)]
    x, y = sequence.camera.project(seen)[:, :2].round().astype(int).T
    shown = depth[y, x]
    behind = seen[:, 2] - shown
    return float(((shown > 0) & (behind >= BEHIND[0]) & (behind <= BEHIND[1])).sum() / len(joints))
