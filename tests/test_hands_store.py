"""The store of hands: what goes in comes out, whatever was interrupted; damage, and other data, are told."""

import json
import logging
import os
import signal
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from fixtures.ball_hands import SMALL, THICK, collection, render, sequence
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlib.hands import FPHA_21, HandCollection, Skipped
from flowlib.hands import store as storing
from flowlib.hands.crop import CropConfig, crop, estimate_centre, view
from flowlib.hands.store import (
    HandStore,
    StoreConfig,
    StoreError,
    UnpackedDepth,
    check_store,
    store_paths,
    unpack,
    write_hands,
)

MANY = collection([sequence(f"P{subject}/a/1", frames=2) for subject in range(4)])
FEW = collection([sequence("P0/a/1", frames=2), sequence("P1/b/2", frames=1, action=1)])


def files(folder: Path) -> dict[str, bytes]:
    """All that is in a store's folder, but for the lock."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".hands.lock"
    }


def contents(folder: Path) -> list:
    """Every number of every sequence, in order."""
    found = []
    for path in store_paths(folder):
        with HandStore(path) as store:
            for one in store.sequences:
                arrays = store.arrays(one)
                depths = [store.depth(one, frame) for frame in range(one.num_frames)]
                found.append((one, {name: array.tolist() for name, array in arrays.items()}, np.stack(depths).tolist()))
    return found


@pytest.fixture
def small_files(monkeypatch):
    """Several files, of a few sequences each."""
    monkeypatch.setattr(storing, "FILE_BYTES", 20_000)


def test_what_goes_in_comes_out(tmp_path):
    hands = collection()
    assert write_hands(tmp_path, hands) == ()
    (path,) = store_paths(tmp_path)
    with HandStore(path) as store:
        assert (store.config, store.skeleton, store.actions) == (StoreConfig(), FPHA_21, hands.actions)
        assert [one.key for one in store.sequences] == [one.key for one in hands.sequences]
        for there, given_ in zip(store.sequences, hands.sequences):
            assert (there.subject, there.action, there.camera) == (given_.subject, given_.action, given_.camera)
            assert (there.split, there.fingerprint) == (hands.splits[there.key], given_.fingerprint())
            arrays = store.arrays(there)
            for name in ("joints", "visible", "numbers"):
                np.testing.assert_array_equal(arrays[name], getattr(given_, name))
            np.testing.assert_array_equal(arrays["centre"], given_.joints[:, FPHA_21.centre])
            for frame in range(len(given_)):
                depth, window = given_.depth(frame), store.depth(there, frame)
                x, y = arrays["origin"][frame]
                patch = depth[y : y + window.shape[0], x : x + window.shape[1]]
                np.testing.assert_array_equal(window[: patch.shape[0], : patch.shape[1]], np.rint(patch))
                np.testing.assert_allclose(arrays["estimated"][frame], estimate_centre(depth, SMALL), rtol=1e-6)


def test_the_format_is_what_the_docstring_says(tmp_path):
    write_hands(tmp_path, FEW, StoreConfig(unit=0.5))
    (path,) = store_paths(tmp_path)
    assert path.name == "000.hands.h5" and sorted(files(tmp_path)) == ["000.hands.h5", "config.json"]
    with h5py.File(path) as file:
        assert (file.attrs["format"], file.attrs["version"]) == ("flowlib-hands", 1)
        entries = json.loads(file["index"][()].tobytes())
        assert [entry["key"] for entry in entries] == ["P0/a/1", "P1/b/2"]
        group = file["sequences"][entries[0]["group"]]
        depth = group["depth"]
        assert (depth.dtype, depth.chunks) == (np.uint16, (1, *entries[0]["window"])) and depth.attrs["unit"] == 0.5
        assert (depth.compression, depth.compression_opts, depth.shuffle, depth.fletcher32) == ("gzip", 4, True, True)
        kinds = {name: (array.dtype.str[1:], array.shape[0]) for name, array in group.items()}
        assert kinds == {
            "depth": ("u2", 2), "origin": ("i4", 2), "joints": ("f4", 2), "visible": ("u1", 2), "centre": ("f4", 2),
            "estimated": ("f4", 2), "numbers": ("i8", 2),
        }  # fmt: skip
        true = render(FEW.sequences[0].joints[0].astype(np.float64), SMALL, THICK)
        assert abs(depth[0].max() * 0.5 - true.max()) < 0.26


def test_the_window_is_what_every_crop_of_its_cube_reads(tmp_path):
    """At any turn a crop of window / √2 reads the store as it would read the picture."""
    hands = collection([sequence("P0/a/1", frames=4, seed=3)])
    write_hands(tmp_path, hands, StoreConfig(unit=0.01))
    (path,), (given_,) = store_paths(tmp_path), hands.sequences
    rng = np.random.default_rng(0)
    with HandStore(path) as store:
        (there,) = store.sequences
        origins = store.arrays(there)["origin"]
        for frame in range(4):
            for method in ("virtual", "cube"):
                config, centre = CropConfig(method, cube=212.0, size=48), given_.joints[frame, 3].astype(np.float64)
                motion = storing_motion(rng.uniform(-np.pi, np.pi))
                whole = crop(given_.depth(frame), SMALL, config, centre=centre, motion=motion).image
                seen = view(SMALL, config, centre, motion).of_window(origins[frame])
                read = seen.read(store.depth(there, frame), size=48, unit=0.01)
                assert (np.abs(whole - read) < 1e-4).mean() > 0.999


def storing_motion(angle: float):
    from flowlib.hands.augment import Motion

    return Motion(angle=np.array(angle))


def test_writing_again_changes_nothing(tmp_path):
    write_hands(tmp_path, FEW)
    before = files(tmp_path)
    assert write_hands(tmp_path, FEW) == () and write_hands(tmp_path, FEW, verify=True) == ()
    assert files(tmp_path) == before


def test_files_are_closed_at_a_size_and_later_sequences_come_into_new_ones(tmp_path, small_files):
    hands = collection()
    write_hands(tmp_path, collection(list(hands.sequences[:5])))
    before = files(tmp_path)
    write_hands(tmp_path, hands)
    after = files(tmp_path)
    assert before.items() <= after.items() and len(after) > len(before) > 2
    assert [one.key for path in store_paths(tmp_path) for one in check_store(path)] == [s.key for s in hands.sequences]


# --------------------------------------------------------------------------------------------------- interruptions


def run_and_kill(folder: Path, hands: HandCollection, after: int) -> bool:
    """Write in a process of its own that is killed at the event number `after`: a frame read, a file put in place or
    removed. Whether it came to its end before."""
    pid = os.fork()
    if pid == 0:
        left = [after]

        def count(function):
            def counted(*args, **options):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **options)

            return counted

        os.replace, Path.unlink = count(os.replace), count(Path.unlink)
        counting = [replace(one, read=count(one.read)) for one in hands.sequences]
        try:
            write_hands(folder, HandCollection(tuple(counting), hands.splits, hands.actions))
            os._exit(0)
        finally:
            os._exit(1)
    return os.WIFEXITED(status := os.waitpid(pid, 0)[1]) and os.WEXITSTATUS(status) == 0


def test_killed_at_any_moment_the_same_bytes_come_out(tmp_path, small_files):
    write_hands(tmp_path / "whole", MANY)
    whole, events = files(tmp_path / "whole"), 0
    assert len(whole) > 2
    while not run_and_kill(folder := tmp_path / str(events), MANY, events):
        assert events < 100
        for path in folder.glob("*.hands.h5"):
            check_store(path)  # whatever is in place is whole
        write_hands(folder, MANY)
        assert files(folder) == whole
        events += 2
    assert events > 14
    assert files(folder) == whole


def test_killed_again_and_again_it_comes_to_the_same_end(tmp_path, small_files):
    write_hands(tmp_path / "whole", MANY)
    tries = next(number for number in range(20) if run_and_kill(tmp_path / "hands", MANY, 9))
    assert tries > 1
    assert files(tmp_path / "hands") == files(tmp_path / "whole")


def test_a_disk_that_refuses_leaves_what_is_closed(tmp_path, small_files, monkeypatch):
    hands, real, left = MANY, os.replace, [4]

    def refuse(*args):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return real(*args)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_hands(tmp_path / "hands", hands)
    monkeypatch.undo()
    monkeypatch.setattr(storing, "FILE_BYTES", 20_000)
    write_hands(tmp_path / "hands", hands)
    write_hands(tmp_path / "whole", hands)
    assert files(tmp_path / "hands") == files(tmp_path / "whole")


# ---------------------------------------------------------------------------------------------------------- damage


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> tuple[Path, bytes, list]:
    """A store's folder, the bytes of its only file, and what is in it."""
    folder = tmp_path_factory.mktemp("few")
    write_hands(folder, FEW)
    return folder, store_paths(folder)[0].read_bytes(), contents(folder)


@settings(max_examples=150)
@given(st.floats(0, 1, exclude_max=True), st.integers(0, 7), st.sampled_from(["flip", "cut"]))
def test_no_damage_goes_unnoticed(few, place, bit, kind):
    folder, whole, right = few
    path, content = folder / "000.hands.h5", bytearray(whole)
    position = int(place * len(content))
    if kind == "flip":
        content[position] ^= 1 << bit
    path.write_bytes(content if kind == "flip" else content[:position])
    try:
        check_store(path)
        assert contents(folder) == right  # a gap between what is stored
    except StoreError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)


def test_a_damaged_file_is_named_and_written_anew_when_verified(tmp_path, small_files, caplog):
    hands = MANY
    write_hands(tmp_path, hands)
    right = sorted(contents(tmp_path), key=lambda entry: entry[0].key)
    path = store_paths(tmp_path)[1]
    content = bytearray(path.read_bytes())
    with HandStore(path) as store:
        where = store.file[f"sequences/{store.sequences[0].group}/depth"].id.get_chunk_info(0)
    content[where.byte_offset + where.size // 2] ^= 1
    path.write_bytes(content)
    with HandStore(path) as store, pytest.raises(StoreError, match=r"001.hands.h5: sequence .* is damaged .*verify"):
        store.depth(store.sequences[0], 0)
    with caplog.at_level(logging.WARNING):
        assert write_hands(tmp_path, hands, verify=True) == ()
    assert "001.hands.h5" in caplog.text and (tmp_path / "001.hands.h5.damaged").exists()
    assert sorted(contents(tmp_path), key=lambda entry: entry[0].key) == right


def test_a_file_that_is_none_is_told(tmp_path, refuses):
    for name, content in {"text": b"depth", "empty": b"", "zeros": bytes(4096)}.items():
        (path := tmp_path / f"{name}.hands.h5").write_bytes(content)
        with refuses(f"{name}.hands.h5: expected a store of hands, got a file that is truncated, damaged or none"):
            HandStore(path)
    with h5py.File(tmp_path / "other.hands.h5", "w") as file:
        file.attrs["format"] = "flowlib-shard"
        file.attrs["version"] = 1
    with refuses("other.hands.h5: expected flowlib-hands up to version 1"):
        HandStore(tmp_path / "other.hands.h5")
    with pytest.raises(FileNotFoundError):
        HandStore(tmp_path / "none.hands.h5")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(FileNotFoundError, match=r"nothing: expected a store of hands \(\*.hands.h5\), found none"):
        store_paths(tmp_path / "nothing")


# --------------------------------------------------------------------------------------------------- other content


@pytest.mark.parametrize(
    "change",
    [
        lambda one: replace(one, joints=one.joints + 1),
        lambda one: replace(one, subject="P9"),
        lambda one: replace(one, action=1),
        lambda one: replace(one, camera=replace(SMALL, fx=121.0)),
        lambda one: replace(one, source="rendered by other means"),
    ],
)
def test_another_sequence_of_the_same_name_is_refused(change, tmp_path, refuses):
    write_hands(tmp_path, FEW)
    changed = HandCollection((change(FEW.sequences[0]), FEW.sequences[1]), FEW.splits, FEW.actions)
    with refuses(r"000.hands.h5: holds another sequence P0/a/1 than the one given"):
        write_hands(tmp_path, changed)


def test_other_settings_are_refused(tmp_path, refuses):
    write_hands(tmp_path, FEW)
    with refuses("made with other settings .window: 300.0 there, 280.0 now."):
        write_hands(tmp_path, FEW, StoreConfig(window=280.0))
    other = HandCollection(FEW.sequences, FEW.splits, ("push", "pull"))
    with refuses("made with other settings .actions"):
        write_hands(tmp_path, other)


def test_what_the_store_holds_besides_is_told(tmp_path, caplog):
    write_hands(tmp_path, FEW)
    assert not caplog.records
    rest = FEW.sequences[:1]
    write_hands(tmp_path, HandCollection(rest, {one.key: FEW.splits[one.key] for one in rest}, FEW.actions))
    told = "also holds what isn't given now and stays part of it, 1 of its sequences, such as"
    assert f"{told} {FEW.sequences[1].key}" in caplog.text


def test_files_that_changed_since_are_found_when_verified(tmp_path, refuses):
    picture = tmp_path / "source.txt"
    picture.write_text("one")
    one = replace(FEW.sequences[0], source=(picture,))
    hands = collection([one])
    write_hands(tmp_path / "store", hands)
    picture.write_text("two")
    write_hands(tmp_path / "store", hands)
    with refuses("holds another sequence P0/a/1"):
        write_hands(tmp_path / "store", hands, verify=True)


# ------------------------------------------------------------------------------------------------- bad input, listed

HOLED = np.full(SMALL.size, 500.0)
HOLED[0, 0] = np.nan


@pytest.mark.parametrize(
    "picture, reason",
    [
        (np.zeros(SMALL.size), "expected depth that was measured, got zeros alone"),
        (HOLED, "expected depth in mm from 0 up, got NaN, infinity or negative ones"),
        (-np.ones(SMALL.size), "expected depth in mm from 0 up"),
        (np.zeros((9, 9)), r"expected depth of \[120, 160\] pixels, got \[9, 9\]"),
        (ValueError("depth_0001.png: expected a 16-bit picture"), "depth_0001.png: expected a 16-bit picture"),
        (FileNotFoundError(2, "No such file", "depth_0001.png"), "depth_0001.png"),
    ],
)
def test_a_bad_frame_is_listed_and_the_others_go_on(picture, reason, tmp_path):
    hands = collection([sequence("P0/a/1", depths={1: picture}), sequence("P1/a/1")])
    hands = HandCollection(hands.sequences, hands.splits, hands.actions, (Skipped("P7", "by the reader"),))
    skipped = write_hands(tmp_path, hands)
    assert [one.name for one in skipped] == ["P7", "P0/a/1, frame 1"]
    with pytest.raises(ValueError, match=reason):
        raise ValueError(skipped[1].reason)
    assert skipped == write_hands(tmp_path, hands)  # what is stored still knows
    with HandStore(store_paths(tmp_path)[0]) as store:
        first, second = store.sequences
        assert (first.num_frames, second.num_frames) == (2, 3)
        arrays = store.arrays(first)
        assert arrays["numbers"].tolist() == [0, 2]
        np.testing.assert_array_equal(arrays["joints"], hands.sequences[0].joints[[0, 2]])


def test_a_sequence_without_a_frame_left_is_listed(tmp_path, refuses):
    bad = sequence("P0/a/1", depths=dict.fromkeys(range(3), np.zeros(SMALL.size)))
    skipped = write_hands(tmp_path / "a", collection([bad, sequence("P1/a/1")]))
    assert [one.name for one in skipped] == ["P0/a/1"]
    with HandStore(store_paths(tmp_path / "a")[0]) as store:
        assert [one.key for one in store.sequences] == ["P1/a/1"]
    with refuses("expected a sequence that can be stored, got none"):
        write_hands(tmp_path / "b", collection([bad]))


def test_a_centre_behind_the_camera_is_listed(tmp_path):
    one = sequence("P0/a/1")
    one.joints[1] -= (0, 0, 1000)
    (skipped,) = write_hands(tmp_path, collection([one, sequence("P1/a/1")]))
    assert skipped.name == "P0/a/1, frame 1" and "expected its centre before the camera, got z = -" in skipped.reason


def test_a_hand_that_is_not_found_is_where_it_was_found_last(tmp_path):
    wall = np.zeros(SMALL.size)
    wall[::2, ::2] = 400  # measured, but no blob
    write_hands(tmp_path, collection([sequence("P0/a/1", frames=5, depths={0: wall, 2: wall, 3: wall})]))
    with HandStore(store_paths(tmp_path)[0]) as store:
        estimated = store.arrays(store.sequences[0])["estimated"]
    assert np.isfinite(estimated).all()
    for frame, source in ((0, 1), (2, 1), (3, 1)):
        np.testing.assert_array_equal(estimated[frame], estimated[source])
    assert (estimated[4] != estimated[1]).any()


@pytest.mark.parametrize("name", ["window", "unit", "centre_cube"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_settings_are_told(name, value, refuses):
    with refuses(f"{name}: expected mm above 0, got {value}"):
        StoreConfig(**{name: value})


def test_no_sequences_are_told(tmp_path, refuses):
    with refuses("collection: expected at least one sequence"):
        write_hands(tmp_path, HandCollection((), {}))


# --------------------------------------------------------------------------------------------------------- unpacked


def test_unpacked_depth_is_the_same(tmp_path):
    write_hands(tmp_path, collection())
    with HandStore(store_paths(tmp_path)[0]) as store:
        fast = UnpackedDepth(store, unpack(store, tmp_path / "a.depth"))
        for one in store.sequences:
            for frame in range(one.num_frames):
                np.testing.assert_array_equal(fast.depth(one, frame), store.depth(one, frame))
                assert not fast.depth(one, frame).flags.writeable


def test_unpacked_depth_of_another_store_or_half_of_it_is_refused(tmp_path, refuses):
    write_hands(tmp_path / "a", FEW)
    write_hands(tmp_path / "b", collection([sequence("P0/a/1", frames=2, seed=5), sequence("P1/b/2", frames=1)]))
    with HandStore(store_paths(tmp_path / "a")[0]) as one, HandStore(store_paths(tmp_path / "b")[0]) as other:
        path = unpack(other, tmp_path / "b.depth")
        with refuses("b.depth: expected the unpacked depth of .*, got another file, or not all of it"):
            UnpackedDepth(one, path)
        path.write_bytes(path.read_bytes()[:-2])
        with refuses("b.depth: expected the unpacked depth"):
            UnpackedDepth(other, path)
