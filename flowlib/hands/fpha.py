"""Read FPHA, the First-Person Hand Action Benchmark (Garcia-Hernando et al. 2018), as its authors hand it out.

    <root>/Video_files/Subject_1/put_salt/1/depth/depth_0015.png      grey PNG of 16 bits, 640×480, mm, 0 = none
    <root>/Hand_pose_annotation_v1/Subject_1/put_salt/1/skeleton.txt  a line a frame: t x1 y1 z1 … x21 y21 z21
    <root>/data_split_action_recognition.txt                          the 1:1 protocol, and the class of each take
    <root>/action_object_info.txt                                     the object of each action, for "cross-object"
    <root>/Subjects_info/Subject_1_info.txt                           optional: which takes there should be

The skeletons' folder may be called …_v1_1. Joints are in mm in the depth camera's frame, x right, y down, z forward:
taken as they are, and `DepthCheck` says what share of them lies in the hand. Colour pictures aren't read.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from flowlib.camera import FPHA_DEPTH
from flowlib.hands.reading import (
    FrameError,
    assemble,
    by_number,
    check_png,
    existing_folder,
    hold_out,
    natural,
    parse_numbers,
    read_lines,
    read_take,
)
from flowlib.hands.sequences import HandCollection, HandSequence, Skipped
from flowlib.hands.skeleton import FPHA_21
from flowlib.video import decode_depth

Protocol = Literal["1:1", "cross-subject", "cross-object"]
NUM_ACTIONS = 45
ANNOTATIONS = ("Hand_pose_annotation_v1", "Hand_pose_annotation_v1_1")
SPLIT_FILE, OBJECT_FILE = "data_split_action_recognition.txt", "action_object_info.txt"
TRAINING_SUBJECTS = ("Subject_1", "Subject_3", "Subject_4")  # of "cross-subject"
# Of "cross-object"; spray and flash are one object's names, and reading a letter is an action with paper.
TEST_OBJECTS = (
    ("peanut butter",),
    ("fork",),
    ("milk",),
    ("tea",),
    ("liquid soap",),
    ("spray", "flash"),
    ("paper", "letter"),
    ("calculator",),
    ("phone",),
    ("coin",),
    ("card",),
    ("wine bottle",),
)
UNUSED = frozenset(["Subject_2/close_milk/4", "Subject_2/put_tea_bag/2", "Subject_4/flip_sponge/2"])


def read_fpha(
    root: str | Path, *, protocol: Protocol = "1:1", validation: float = 0.1, annotations: str = ""
) -> HandCollection:
    """The takes of FPHA with joints, depth and class; whatever can't be used is listed in `skipped`.

    Args:
        root: the data set's folder.
        protocol: what is for testing. "1:1": the official split for actions, subjects are in both halves;
            "cross-subject": subjects 2, 5 and 6; "cross-object": the actions with twelve of the objects.
        validation: share of the takes for training that are for validation instead.
        annotations: name of the folder with the skeletons, where there are two versions of it.

    Returns:
        Sequences by subject, action and take; a frame whose line or picture can't be used is left out and listed.

    Raises:
        FileNotFoundError: a folder or file that every copy of the data set has isn't there.
        ValueError: another protocol, a broken split file, two versions of the skeletons, nothing for training or for
            testing, or joints that don't lie in the hand.
    """
    if protocol not in get_args(Protocol):
        raise ValueError(f"protocol: expected one of {', '.join(get_args(Protocol))}, got {protocol!r}")
    root = existing_folder(root, "Video_files")
    videos = existing_folder(root / "Video_files", "Subject_1 and others")
    skeletons = _skeleton_folder(root, annotations)
    official, actions = read_split(root / SPLIT_FILE)
    classes = {action: number for number, action in enumerate(actions)}
    keys = sorted(
        (take.relative_to(videos).as_posix() for take in videos.glob("Subject_*/*/*") if take.is_dir()), key=natural
    )
    missing = sorted((official.keys() | _promised(root)) - set(keys), key=natural)
    skipped = [Skipped(key, f"expected it in {videos}, found nothing") for key in missing]
    takes: list[HandSequence] = []
    for key in keys:
        subject, action, _ = key.split("/")
        if key in UNUSED:
            skipped.append(Skipped(key, "the data set's authors ask to ignore it"))
        elif action not in classes:
            skipped.append(Skipped(key, f"expected an action that {SPLIT_FILE} knows, got {action!r}"))
        elif protocol == "1:1" and key not in official:
            skipped.append(Skipped(key, f"{SPLIT_FILE} doesn't name it"))
        else:
            take, faults = _read_take(
                key, videos / key, skeletons / key / "skeleton.txt", subject=subject, action=classes[action]
            )
            takes += [take] if take else []
            skipped += faults
    if protocol == "1:1":
        test = {key for key, split in official.items() if split == "test"}
    elif protocol == "cross-subject":
        test = {take.key for take in takes if take.subject not in TRAINING_SUBJECTS}
    else:
        tested = _test_actions(root / OBJECT_FILE)
        test = {take.key for take in takes if take.key.split("/")[1] in tested}
    val = hold_out({take.key for take in takes} - test, validation)
    name = f"FPHA at {root}, protocol {protocol}"
    return assemble(name, takes, test=test, val=val, skipped=skipped, actions=actions)


def read_split(path: str | Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """The official split for actions: ("train" or "test" by take, as Subject_1/put_salt/1; name of each class).

    Raises:
        FileNotFoundError: no such file.
        ValueError: a head that promises other than what follows, a line that isn't one, a take that is named twice, a
            class beyond 44, or a class of two actions.
    """
    lines = read_lines(_existing(Path(path)))
    splits: dict[str, str] = {}
    names: dict[int, str] = {}
    at = 0
    for title, split in (("Training", "train"), ("Test", "test")):
        head = re.fullmatch(rf"{title}\s+(\d+)\s*", lines[at]) if at < len(lines) else None
        if head is None:
            got = repr(lines[at]) if at < len(lines) else "its end"
            raise ValueError(f"{path}, line {at + 1}: expected '{title}' and a number of takes, got {got}")
        body = lines[at + 1 : at + 1 + int(head[1])]
        for number, line in enumerate(body, at + 2):
            match = re.fullmatch(r"(Subject_\d+/([^/\s]+)/\d+)\s+(\d+)\s*", line)
            if match is None:
                expected = f"one of {head[1]} lines as 'Subject_1/put_salt/1 15' below '{title}'"
                raise ValueError(f"{path}, line {number}: expected {expected}, got {line!r}")
            key, action, label = match[1], match[2], int(match[3])
            if label >= NUM_ACTIONS:
                raise ValueError(f"{path}, line {number}: expected a class from 0 to {NUM_ACTIONS - 1}, got {label}")
            if key in splits:
                raise ValueError(f"{path}, line {number}: expected each take once, got {key} again")
            if names.setdefault(label, action) != action:
                raise ValueError(f"{path}, line {number}: expected {names[label]} for class {label}, got {action}")
            splits[key] = split
        if len(body) < int(head[1]):
            raise ValueError(f"{path}: expected {head[1]} lines below '{title}', got {len(body)}")
        at += 1 + len(body)
    if at < len(lines):
        raise ValueError(f"{path}, line {at + 1}: expected the file's end, got {lines[at]!r}")
    if len(set(names.values())) < len(names):
        raise ValueError(f"{path}: expected one class for each action, got several for one")
    return splits, tuple(names.get(label, f"class {label}") for label in range(NUM_ACTIONS))


def read_object_pose(path: str | Path) -> tuple[Int[np.ndarray, " S"], Float[np.ndarray, "S 4 4"]]:
    """An object's 6D pose in every frame: (numbers of the frames; 4×4 from the model to the camera of the joints).

    The file holds a line a frame, `t M11 M21 M31 M41 M12 …`, column by column. The models are in metres.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that doesn't hold 17 numbers.
    """
    rows = []
    for number, line in enumerate(read_lines(_existing(Path(path))), 1):
        try:
            rows.append(parse_numbers(line, 17))
        except FrameError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    table = np.array(rows).reshape(-1, 17)
    return table[:, 0].astype(np.int64), table[:, 1:].reshape(-1, 4, 4).swapaxes(1, 2)


def read_objects(path: str | Path) -> dict[str, str]:
    """The object of each action, by action_object_info.txt: a head, then lines `1  open_juice_bottle  juice_bottle  …`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line without number, action and object.
    """
    objects = {}
    for number, line in enumerate(read_lines(_existing(Path(path)))[1:], 2):
        words = line.split()
        if len(words) < 3 or not words[0].isdigit():
            raise ValueError(f"{path}, line {number}: expected number, action and object, got {line!r}")
        objects[words[1]] = words[2]
    return objects


def read_subject(path: str | Path) -> dict[tuple[str, int], int]:
    """The number of frames of each (action, take) of a subject, by its Subject_N_info.txt."""
    found = (re.fullmatch(r"\s*(\w+)\s+(\d+)\s+(\d+)\s*", line) for line in read_lines(Path(path)))
    return {(match[1], int(match[2])): int(match[3]) for match in found if match}


def _promised(root: Path) -> set[str]:
    """The takes that Subjects_info names; none where that folder isn't there."""
    named = (root / "Subjects_info").glob("Subject_*_info.txt")
    takes = ((path.name.removesuffix("_info.txt"), *take) for path in named for take in read_subject(path))
    return {f"{subject}/{action}/{take}" for subject, action, take in takes}


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent}: expected {path.name} in it, found none")
    return path


def _skeleton_folder(root: Path, asked: str) -> Path:
    if asked:
        return existing_folder(root / asked, "skeletons")
    there = [name for name in ANNOTATIONS if (root / name).is_dir()]
    if not there:
        raise FileNotFoundError(f"{root}: expected {' or '.join(ANNOTATIONS)} in it, found neither")
    if len(there) > 1:
        advice = f"say which with annotations={there[-1]!r}"
        raise ValueError(f"{root}: expected one version of the skeletons, found {' and '.join(there)}; {advice}")
    return root / there[0]


def _read_take(key: str, video: Path, skeleton: Path, **about: Any) -> tuple[HandSequence | None, list[Skipped]]:
    """One take, or None, and what is left out of it."""
    if not skeleton.is_file():
        return None, [Skipped(key, f"expected {skeleton}, found none")]
    if not (video / "depth").is_dir():
        return None, [Skipped(key, f"expected {video / 'depth'}, found none")]
    lines = read_lines(skeleton)
    if not lines:
        return None, [Skipped(key, f"{skeleton}: expected a line for each frame, got an empty file")]
    for row, line in enumerate(lines):
        if _frame_number(line) != row:
            return None, [Skipped(key, f"{skeleton}, line {row + 1}: expected t = {row}, got {line[:20]!r}")]

    return read_take(
        key,
        range(len(lines)),
        lambda row: parse_numbers(lines[row], 1 + 3 * FPHA_21.num_joints)[1:].reshape(-1, 3),
        by_number(video / "depth", r"depth_(\d{4,})\.png"),
        partial(check_png, FPHA_DEPTH.size, "16-bit grey"),
        decode_depth,
        labels=skeleton,
        **about,
        camera=FPHA_DEPTH,
        skeleton=FPHA_21,
    )


def _frame_number(line: str) -> float:
    """The t that a line begins with, in whatever notation; NaN if it begins otherwise."""
    try:
        return float(line.split(maxsplit=1)[0])
    except (IndexError, ValueError):
        return float("nan")


def _test_actions(path: Path) -> set[str]:
    """The actions with the objects that "cross-object" tests."""
    actions = set()
    words = {action: " ".join(re.findall("[a-z]+", name.lower())) for action, name in read_objects(path).items()}
    for names in TEST_OBJECTS:
        found = {action for action, text in words.items() if any(name in text for name in names)}
        if not found:
            raise ValueError(f"{path}: expected an action with the object {' or '.join(names)!r}, found none")
        actions |= found
    return actions
