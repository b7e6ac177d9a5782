"""Assign videos to training, validation, test and calibration. Whole videos, so that none is learned and tested.

Knows names of videos and two JSON files in a dataset's folder: `splits.json`, name -> split, which a person may edit,
and `videos.json`: the seed of the splits, and how each video is called there, by its content, and where it was found.
What was once decided stays, whoever adds videos meanwhile: both are read and written under one lock.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from flowlib.workspace import locked, read_json, write_json

SPLITS = ("train", "val", "test")
CALIBRATION = "calibration"  # videos that regions are calibrated on; nothing is assigned to it unasked
PARTS = (*SPLITS, CALIBRATION)
LOCK = ".splits.lock"


def assign_splits(videos: Sequence[str], *, seed: int = 0, known: dict[str, str] | None = None) -> dict[str, str]:
    """Assign whole videos to "train", "val" and "test": about 80, 10 and 10 %, so no video is learned and tested.

    Decided by the names and the seed alone. One video is all for training; of two the second is for testing; from
    three on each split has one at least. Videos in `known` stay where they are, later ones fill what is short.

    >>> sorted(assign_splits(["a", "b", "c"]).values())
    ['test', 'train', 'val']
    """
    splits = dict(known or {})
    new = sorted(set(videos) - set(splits), key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    counts = Counter(splits.values())
    total = len(splits) + len(new) - counts[CALIBRATION]
    for name in new:
        splits[name] = _shortest_split(counts, total)
        counts[splits[name]] += 1
    return {name: splits[name] for name in sorted(splits)}


def _shortest_split(counts: Mapping[str, int], total: int) -> str:
    """The split to fill next, so that `total` videos end as one for training first, then test, then validation."""
    if counts["train"] == 0:
        return "train"
    if counts["test"] < max(1, round(0.1 * total)):
        return "test"
    if counts["val"] < max(1, round(0.1 * total)):
        return "val"
    return "train"


def load_splits(folder: str | Path, videos: Sequence[str], *, seed: int | None = None) -> dict[str, str]:
    """Which split each of `videos` is in, by `splits.json` in the dataset's folder; a person may edit that file.

    Videos that it doesn't name, or all if there is no file, are assigned and written there by `save_splits`, so that
    they stay where they are when others arrive; where that can't be written, a warning says so.

    Args:
        folder: the dataset's.
        videos: their names.
        seed: the dataset's own if None, see `save_splits`.

    Raises:
        ValueError: `splits.json` is no JSON object of names and one of `PARTS` each, or is of another seed.
    """
    known = _read_splits(folder)
    seed = _seed(folder, seed, known)
    if missing := set(videos) - known.keys():
        try:
            Path(folder).stat()  # reading makes no folder
            known = save_splits(folder, videos, seed=seed)
        except OSError as error:
            sentence = f"{folder}: splits.json can't be written ({error.strerror or error}), so as videos arrive"
            warnings.warn(f"{sentence}, {len(missing)} that it doesn't name may come into another split", stacklevel=2)
            known = assign_splits(videos, seed=seed or 0, known=known)
    return {name: known[name] for name in videos}


def save_splits(folder: str | Path, videos: Sequence[str], *, seed: int | None = None) -> dict[str, str]:
    """Write `splits.json` for `videos`; what the file says already stays, and so does what others write meanwhile.

    Args:
        folder: the dataset's.
        videos: their names.
        seed: decides; None: the one that was given first, else 0.

    Raises:
        ValueError: as `load_splits`.
        OSError: the folder can't be written.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    with locked(Path(folder) / LOCK):
        known = _read_videos(folder)
        return _add_splits(folder, videos, seed, known, known["videos"], _read_splits(folder))


def reserve_calibration(folder: str | Path, count: int) -> tuple[str, ...]:
    """Keep `count` videos of a dataset for calibration, taken from those for training; before anything is trained.

    What is kept already counts; which others are taken the names and the dataset's seed decide. Those to validate and
    test on stay.

    Args:
        folder: the dataset's; `splits.json` must be there.
        count: videos for calibration; 0 takes none, and none is ever put back.

    Returns:
        The names of all videos for calibration.

    Raises:
        ValueError: so few videos for training that none would be left, or `splits.json` isn't what it should be.
    """
    if not isinstance(count, int) or count < 0:
        raise ValueError(f"count: expected a number of videos from 0 on, got {count!r}")
    if not count:
        return tuple(name for name, split in _read_splits(folder).items() if split == CALIBRATION)
    with locked(Path(folder) / LOCK):
        splits, seed = _read_splits(folder), _read_videos(folder)["seed"] or 0
        kept = [name for name, split in splits.items() if split == CALIBRATION]
        free = [name for name, split in splits.items() if split == "train"]
        missing = count - len(kept)
        if missing >= max(1, len(free)):
            raise ValueError(
                f"{Path(folder) / 'splits.json'}: expected more than {missing} videos for training, to keep {count} "
                f"for calibration, got {len(free)}; label more videos, or keep fewer"
            )
        free.sort(key=lambda name: hashlib.sha256(f"{seed}/calibration/{name}".encode()).digest())
        kept += free[: max(0, missing)]
        if missing > 0:
            write_json(Path(folder) / "splits.json", splits | dict.fromkeys(kept, CALIBRATION))
    return tuple(sorted(kept))


def name_videos(folder: str | Path, videos: Iterable[tuple[str, str]]) -> dict[str, str]:
    """What each video is called in a dataset, by its fingerprint: a name of its own, for good.

    Args:
        folder: the dataset's.
        videos: (fingerprint, name) of the clips in its shards, in their order; of several videos with one name that
            `videos.json` doesn't tell apart, all but the first get some digits of their fingerprint beside it.

    Raises:
        ValueError: `videos.json` isn't what it should be.
    """
    return _names(_read_videos(folder)["videos"], videos)


def _names(entries: Mapping[str, dict], videos: Iterable[tuple[str, str]]) -> dict[str, str]:
    names = {key: entry["name"] for key, entry in entries.items()}
    taken = set(names.values())
    for key, name in videos:
        if key not in names:
            names[key] = _another(name, key) if name in taken else name
            taken.add(names[key])
    return names


def _another(name: str, fingerprint: str) -> str:
    return f"{name} ({fingerprint[:8]})"


def register_videos(
    folder: str | Path,
    videos: Mapping[str, tuple[str, str]],
    *,
    seed: int | None,
    labelled: Iterable[tuple[str, str]],
) -> tuple[dict[str, str], set[str]]:
    """Give each video a name and a split in the dataset, for good, and write both down.

    A video is its content. Of several with one name, from several sources, the first keeps it, and the others get some
    digits of their fingerprint beside it; a video that takes another's place in its source takes its name, too.

    Args:
        folder: the dataset's.
        videos: fingerprint -> (name in the source, path) of those to be labelled.
        seed: as for `save_splits`.
        labelled: as for `name_videos`.

    Returns:
        The names in the dataset by fingerprint, and the fingerprints of what `videos` have taken the place of.

    Raises:
        ValueError, OSError: as `save_splits`; also if `videos.json` isn't what it should be.
    """
    with locked(Path(folder) / LOCK):
        known = _read_videos(folder)
        entries = {key: {"name": name, "path": ""} for key, name in _names(known["videos"], labelled).items()}
        entries |= known["videos"]
        paths, names, used, splits = defaultdict(set), {}, set(), _read_splits(folder)
        for entry in entries.values():
            paths[entry["name"]].add(entry["path"])
        for key in sorted(videos, key=lambda key: key not in entries):  # the known ones keep their names
            (name, path), is_known = videos[key], key in entries
            old = entries[key]["name"] if is_known else name
            taken = old in used if is_known else not paths[old] <= {path}
            names[key] = name = _another(old, key) if taken else old
            if is_known and taken and old in splits:
                splits[name] = splits[old]  # they have had one name, and with it one split
            entries[key] = {"name": name, "path": path}
            paths[name].add(path)
            used.add(name)
        here = {path for _, path in videos.values()}
        _add_splits(folder, list(names.values()), seed, known, entries, splits)
    return names, {key for key, entry in entries.items() if entry["path"] in here} - videos.keys()


def _add_splits(
    folder: str | Path, videos: Sequence[str], seed: int | None, known: dict, entries: dict, splits: dict
) -> dict[str, str]:
    """Write both files, as far as they change; the lock is held."""
    seed = _seed(folder, seed, splits, known)
    about = {"seed": seed, "videos": entries}
    if about != known:
        write_json(Path(folder) / "videos.json", about)
    assigned = assign_splits(videos, seed=seed or 0, known=splits)
    if assigned != _read_splits(folder):
        write_json(Path(folder) / "splits.json", assigned)
    return assigned


def _seed(folder: str | Path, given: int | None, splits: dict, known: dict | None = None) -> int | None:
    """The seed that decides; None as long as none was given."""
    there = (known or _read_videos(folder))["seed"]
    if given is not None and type(given) is not int:
        raise ValueError(f"seed: expected a whole number, got {given!r}")
    if splits and None not in (there, given) and there != given:
        path = Path(folder) / "splits.json"
        raise ValueError(f"seed: {path} was made with {there}, got {given}; delete that file to assign all videos anew")
    return there if given is None else given


def _read_splits(folder: str | Path) -> dict[str, str]:
    path = Path(folder) / "splits.json"
    splits = read_json(path) if path.exists() else {}
    if wrong := [name for name, split in splits.items() if split not in PARTS]:
        expected = f"an object of video names and one of {', '.join(PARTS)} for each"
        raise ValueError(f"{path}: expected {expected}, got {splits[wrong[0]]!r} for {wrong[0]!r}")
    return splits


def _read_videos(folder: str | Path) -> dict:
    path = Path(folder) / "videos.json"
    known = read_json(path) if path.exists() else {"seed": None, "videos": {}}
    right = known.keys() == {"seed", "videos"} and isinstance(known["videos"], dict)
    right = right and (known["seed"] is None or type(known["seed"]) is int)
    for entry in dict(known["videos"] or {}).values() if right else ():
        right = right and isinstance(entry, dict) and entry.keys() == {"name", "path"}
        right = right and all(isinstance(text, str) for text in entry.values())
    if not right:
        raise ValueError(f"{path}: expected a seed, and name and path of each video; delete it, and it is written anew")
    return known
