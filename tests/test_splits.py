"""Splits: whole videos, decided by names and seed, and left where a person has put them."""

import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowlib import splits


@given(st.lists(st.text(min_size=1, max_size=5), unique=True, min_size=1, max_size=60), st.integers(0, 99))
def test_splits_cover_all_and_are_decided_by_names_and_seed(names, seed):
    assigned = splits.assign_splits(names, seed=seed)
    assert set(assigned) == set(names) and assigned == splits.assign_splits(names[::-1], seed=seed)
    counts = [list(assigned.values()).count(split) for split in splits.SPLITS]
    assert counts[0] >= 1 and (len(names) < 2 or counts[2] >= 1) and (len(names) < 3 or counts[1] >= 1)
    assert counts[0] >= 0.6 * len(names) or len(names) < 6


@given(st.integers(1, 20), st.integers(1, 20))
def test_new_videos_move_no_old_one(before, after):
    names = [f"v{i}" for i in range(before + after)]
    old = splits.assign_splits(names[:before])
    new = splits.assign_splits(names, known=old)
    assert old.items() <= new.items() and set(new) == set(names)


def test_a_person_may_edit_the_splits(tmp_path, refuses):
    splits.save_splits(tmp_path, ["a", "b"])
    (tmp_path / "splits.json").write_text('{"a": "test", "b": "train"}')
    assert splits.load_splits(tmp_path, ["b", "a"]) == {"b": "train", "a": "test"}
    assert splits.save_splits(tmp_path, ["a", "b", "c"])["a"] == "test"
    (tmp_path / "splits.json").write_text('{"a": "validation"}')
    with refuses("expected an object of video names and one of train, val, test"):
        splits.load_splits(tmp_path, ["a"])
    (tmp_path / "splits.json").write_text("{")
    with refuses("expected JSON"):
        splits.load_splits(tmp_path, ["a"])


@given(st.integers(30, 200), st.integers(0, 30))
def test_a_tenth_each_is_for_testing_and_validation(count, already):
    """Also where some videos came first: later ones fill what is short."""
    names = [f"v{i}" for i in range(count)]
    assigned = splits.assign_splits(names, known=splits.assign_splits(names[:already]) if already else None)
    numbers = {split: list(assigned.values()).count(split) for split in splits.SPLITS}
    assert abs(numbers["test"] - count / 10) <= 1 and abs(numbers["val"] - count / 10) <= 1


def test_the_seed_decides_and_the_file_is_written_once(tmp_path):
    names = [f"v{i}" for i in range(30)]
    assert splits.assign_splits(names, seed=1) != splits.assign_splits(names, seed=2)
    written = splits.save_splits(tmp_path, names, seed=2)
    assert written == splits.assign_splits(names, seed=2) == splits.load_splits(tmp_path, names)
    assert splits.load_splits(tmp_path, ["v7", "v3"]) == {name: written[name] for name in ("v7", "v3")}
    before = (tmp_path / "splits.json").stat().st_mtime_ns
    splits.save_splits(tmp_path, names)
    assert (tmp_path / "splits.json").stat().st_mtime_ns == before


WRITER = """
import sys
from flowlib.splits import load_splits, register_videos, save_splits
folder, number, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
for i in range(20):
    name = f"w{number}-{i}"
    if how == "save":
        save_splits(folder, [name], seed=5)
    elif how == "load":
        load_splits(folder, [name])
    else:
        register_videos(folder, {f"{number}{i}": (name, f"/{name}")}, seed=5, labelled=[])
"""


@pytest.mark.parametrize("how", ["save", "load", "register"])
def test_what_several_write_at_once_is_all_there(tmp_path, how):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(number), how], env=environment)
        for number in range(4)
    ]
    assert [writer.wait() for writer in writers] == [0] * 4
    written = json.loads((tmp_path / "splits.json").read_text())
    assert set(written) == {f"w{number}-{i}" for number in range(4) for i in range(20)}
    if how == "register":
        assert len(json.loads((tmp_path / "videos.json").read_text())["videos"]) == 80


@pytest.mark.parametrize("step", [1, 3])
def test_what_was_once_read_stays_when_videos_arrive(tmp_path, step):
    """Also where nobody has ever written the splits: reading them does."""
    names, seen = [f"v{i}" for i in range(24)], {}
    for count in range(step, 25, step):
        splits_now = splits.load_splits(tmp_path, names[-count:])
        assert seen.items() <= splits_now.items()
        seen = splits_now
    assert set(seen.values()) == set(splits.SPLITS)


def test_a_folder_that_cannot_be_written_is_warned_about(tmp_path, monkeypatch):
    splits.save_splits(tmp_path, ["a"])

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(splits, "write_json", refuse)
    with pytest.warns(UserWarning, match="Permission denied.*as videos arrive, 1 that it doesn't name"):
        assert splits.load_splits(tmp_path, ["a", "b"]) == {"a": "train", "b": "test"}
    assert splits.load_splits(tmp_path, ["a"]) == {"a": "train"}


def test_the_seed_is_kept_and_another_one_refused(tmp_path, refuses):
    names = [f"v{i}" for i in range(30)]
    seven = splits.save_splits(tmp_path, names[:20], seed=7)
    expected = splits.assign_splits(names, seed=7, known=seven)
    assert splits.load_splits(tmp_path, names) == expected != splits.assign_splits(names, seed=0, known=seven)
    for work in (splits.save_splits, splits.load_splits):
        with refuses("seed: .*splits.json was made with 7, got 8; delete that file"):
            work(tmp_path, names, seed=8)
    (tmp_path / "splits.json").unlink()
    assert splits.load_splits(tmp_path, names) == splits.assign_splits(names, seed=7)
    (tmp_path / "splits.json").unlink()
    for bad in ("7", 7.0, True):
        with refuses("seed: expected a whole number"):
            splits.save_splits(tmp_path, names, seed=bad)
    assert splits.save_splits(tmp_path, names, seed=8) == splits.assign_splits(names, seed=8)


def test_20000_videos_take_no_time(tmp_path):
    """Eight times the videos take about eight times as long, on a busy core too; 64 times when each counted all."""
    took = {}
    for count in (2_500, 20_000):
        names, folder = [f"v{i}" for i in range(count)], tmp_path / str(count)
        folder.mkdir()
        videos = {f"{i:064x}": (name, f"/videos/{name}.mp4") for i, name in enumerate(names)}
        labelled = [(key, name) for key, (name, _) in videos.items()]
        gc.disable()  # it would go through all that the tests before have left in memory
        try:
            started = time.process_time()
            splits.register_videos(folder, videos, seed=0, labelled=labelled)
            splits.load_splits(folder, names)
            took[count] = time.process_time() - started
        finally:
            gc.enable()
    assert took[20_000] < 16 * took[2_500]


@pytest.mark.parametrize(
    "content, complaint",
    [
        ("[]", "expected JSON, an object"),
        ("3", "expected JSON, an object"),
        ("", "expected JSON, Expecting value"),
        ('{"a": "train",}', "expected JSON, "),
        ('{"a": ["train"]}', r"one of train, val, test, calibration for each, got \['train'\] for 'a'"),
        ('{"a": null}', "one of train, val, test"),
        ('{"a": {"b": "train"}}', "one of train, val, test"),
        ('{"a": "Train"}', "got 'Train' for 'a'"),
        ('{"a": "train", "b": "val", "a": "test"}', "expected JSON, 'a' stands there twice"),
        ("[" * 100_000, "expected JSON"),
        ('{"a": ' + "9" * 5000 + "}", "expected JSON"),
        (b'{"\xe9": "train"}', "expected JSON, 'utf-8' codec"),
        ('{"a": "train"}'.encode("utf-16"), "expected JSON"),
        (b"\0" * 100, "expected JSON"),
    ],
)
def test_what_a_hand_has_spoilt_is_named(tmp_path, refuses, content, complaint):
    path = tmp_path / "splits.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for work in (splits.load_splits, splits.save_splits):
        with refuses(f"{path}: {complaint}" if complaint.startswith("expected") else complaint):
            work(tmp_path, ["a"])


@pytest.mark.parametrize(
    "content", ["{}", "[]", '{"seed": "1", "videos": {}}', '{"seed": 1, "videos": []}', '{"seed": true, "videos": {}}']
    + ['{"seed": 1, "videos": {"a": "b"}}', '{"seed": 1, "videos": {"a": {"name": 1, "path": ""}}}'],
)  # fmt: skip
def test_spoilt_names_of_videos_are_named_and_can_be_written_anew(tmp_path, refuses, content):
    (tmp_path / "videos.json").write_text(content)
    with refuses("videos.json: expected .*"):
        splits.load_splits(tmp_path, ["a"])
    with refuses("videos.json: expected .*"):
        splits.name_videos(tmp_path, [("1", "a")])
    (tmp_path / "videos.json").unlink()
    assert splits.name_videos(tmp_path, [("1", "a")]) == {"1": "a"}


def test_an_editors_byte_order_mark_is_no_fault(tmp_path):
    (tmp_path / "splits.json").write_bytes(b'\xef\xbb\xbf{"a": "val"}')
    assert splits.load_splits(tmp_path, ["a"]) == {"a": "val"}


def register(folder, **videos: str) -> tuple[dict[str, str], set[str]]:
    """Register videos given as fingerprint="path", called after their files."""
    named = {key: (Path(path).stem, path) for key, path in videos.items()}
    return splits.register_videos(folder, named, seed=0, labelled=[])


def test_a_video_is_its_content_and_its_place(tmp_path):
    assert register(tmp_path, f1="/a/x.mp4", f2="/a/y.mp4") == ({"f1": "x", "f2": "y"}, set())
    assert register(tmp_path, f3="/b/x.mp4") == ({"f3": "x (f3)"}, set()), "another source has another x"
    assert register(tmp_path, f4="/a/x.mp4", f2="/a/y.mp4") == ({"f4": "x", "f2": "y"}, {"f1"}), "x was changed"
    assert register(tmp_path, f1="/a/x.mp4") == ({"f1": "x"}, {"f4"}), "and changed back"
    assert register(tmp_path, f2="/c/z.mp4") == ({"f2": "y"}, set()), "moved and renamed, it is what it was"
    assert register(tmp_path, f5="/c/z.mp4", f2="/a/x.mp4") == ({"f2": "y", "f5": "z"}, {"f1", "f4"})
    assert register(tmp_path, f3="/b/x.mp4") == ({"f3": "x (f3)"}, set())


def test_videos_that_had_one_name_one_after_the_other_stay_in_one_split(tmp_path):
    register(tmp_path, f1="/a/x.mp4", f0="/a/w.mp4")
    register(tmp_path, f2="/a/x.mp4")
    before = json.loads((tmp_path / "splits.json").read_text())
    names, replaced = register(tmp_path, f1="/a/x.mp4", f2="/a/z.mp4")
    assert names == {"f1": "x", "f2": "x (f2)"} and not replaced
    after = json.loads((tmp_path / "splits.json").read_text())
    assert after == before | {"x (f2)": before["x"]}
