"""Splits: whole videos, decided by names and seed, and left where a person has put them."""

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
