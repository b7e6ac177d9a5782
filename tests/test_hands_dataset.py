"""Samples of hands: the contract of a sample, splits by whole sequences, and draws that come back with their seed."""

import pickle
import random
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.ball_hands import SMALL, collection, sequence
from torch.utils.data import DataLoader, default_collate

from flowlib.hands import FPHA_21, HandCollection
from flowlib.hands.augment import HandAugment
from flowlib.hands.crop import CropConfig, crop, restore
from flowlib.hands.dataset import HandFrames, HandSequences
from flowlib.hands.pca import PCAConfig
from flowlib.hands.store import StoreConfig, StoreError, write_hands

HANDS = collection()
CROP = CropConfig(cube=220.0, size=32)
TURN = HandAugment(modes=("rot",))


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hands")
    write_hands(folder, HANDS, StoreConfig(window=320.0))
    return folder


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_same(a, b) -> None:
    assert list(a) == list(b)
    for name in a:
        assert torch.equal(a[name], b[name]) if isinstance(a[name], torch.Tensor) else a[name] == b[name], name


# ---------------------------------------------------------------------------------------------------- the contract


def test_a_frame_holds_what_the_header_says(store):
    frames = HandFrames(store, "train", CROP)
    assert len(frames) == 12 and frames.subjects == ["P0", "P1"] and frames.actions == ("wave", "grasp")
    number = 0
    for one in HANDS.split("train"):
        for frame in range(len(one)):
            sample = frames[number]
            number += 1
            tensors = {name: value for name, value in sample.items() if isinstance(value, torch.Tensor)}
            assert {name: (tuple(value.shape), value.dtype) for name, value in tensors.items()} == {
                "crop": ((1, 32, 32), torch.float32), "pose": ((21, 3), torch.float32),
                "joints": ((21, 3), torch.float32), "visible": ((21,), torch.bool), "centre": ((3,), torch.float32),
                "rotation": ((3, 3), torch.float32), "cube": ((), torch.float32), "frame": ((), torch.int64),
                "action": ((), torch.int64), "intrinsics": ((4,), torch.float32),
            }  # fmt: skip
            assert (sample["key"], sample["subject"], int(sample["frame"])) == (one.key, one.subject, frame)
            assert int(sample["action"]) == one.action and float(sample["cube"]) == 220.0
            np.testing.assert_array_equal(sample["joints"], one.joints[frame])
            np.testing.assert_array_equal(sample["visible"], one.visible[frame])
            np.testing.assert_array_equal(sample["centre"], one.joints[frame, 3])
            where = (sample[name] for name in ("centre", "rotation", "cube"))
            np.testing.assert_allclose(restore(sample["pose"], *where), one.joints[frame], atol=1e-3)
            direct = crop(one.depth(frame), SMALL, CROP, centre=one.joints[frame, 3].astype(np.float64))
            assert (np.abs(direct.image - sample["crop"][0].numpy()) <= 0.6 / 110).mean() > 0.999


def test_a_sequence_holds_its_frames(store):
    frames, sequences = HandFrames(store, "all", CROP), HandSequences(store, "all", CROP)
    assert len(sequences) == 8
    sample = sequences[5]
    single = [frames[15 + i] for i in range(3)]
    assert {one["key"] for one in single} == {sample["key"]} and int(sample["length"]) == 3
    for name in ("crop", "pose", "joints", "visible", "centre", "rotation", "cube", "frame"):
        assert torch.equal(sample[name], torch.stack([one[name] for one in single])), name
    assert (sample["subject"], int(sample["action"])) == (single[0]["subject"], int(single[0]["action"]))
    where = (sample[name] for name in ("centre", "rotation", "cube"))
    np.testing.assert_allclose(restore(sample["pose"], *where), sample["joints"], atol=1e-3)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_batches_samples(store, workers):
    frames = HandFrames(store, "train", CROP)
    batches = list(DataLoader(frames, 5, num_workers=workers))
    assert [len(batch["crop"]) for batch in batches] == [5, 5, 2]
    assert batches[0]["key"] == [frames[i]["key"] for i in range(5)]
    assert torch.equal(batches[2]["pose"], torch.stack([frames[i]["pose"] for i in (10, 11)]))
    assert torch.equal(torch.cat([batch["crop"] for batch in batches]), torch.stack([s["crop"] for s in frames]))


def test_a_sample_is_the_users_own(store):
    frames = HandFrames(store, "train", CROP)
    for name in ("joints", "visible", "centre", "rotation", "frame"):
        frames[0][name].zero_()
    assert_same(frames[0], HandFrames(store, "train", CROP)[0])
    with pytest.raises(KeyError, match="label: expected one of crop, pose"):
        frames[0]["label"]
    with pytest.raises(IndexError, match="expected one below 12, got 12"):
        frames[12]
    assert_same(frames[-1], frames[11])


def test_poses_are_read_without_depth(store, monkeypatch):
    frames = HandFrames(store, "train", CROP)
    monkeypatch.setattr(HandFrames, "read", None)
    np.testing.assert_array_equal(frames.poses, np.stack([frames[i]["pose"].numpy() for i in range(12)]))
    np.testing.assert_array_equal(frames.joints, np.stack([frames[i]["joints"].numpy() for i in range(12)]))
    np.testing.assert_allclose(frames.centres, np.stack([frames[i]["centre"].numpy() for i in range(12)]))


def test_two_evaluations_are_equal_bit_for_bit(store):
    first, second = (HandFrames(store, "test", CropConfig(cube=220.0, size=32, centre_noise=5.0)) for _ in range(2))
    for a, b in zip(first, second):
        assert_same(a, b)


# ---------------------------------------------------------------------------------------------------- augmentation


def test_a_motion_is_a_function_of_the_generators_state(store):
    frames = HandFrames(store, "train", CROP)
    for seed in range(3):
        assert_same(frames[4].augmented(TURN, generator(seed)), frames[4].augmented(TURN, generator(seed)))
    one, other = (frames[4].augmented(TURN, generator(seed)) for seed in range(2))
    assert (one["crop"] != other["crop"]).any() and (one["pose"] != other["pose"]).any()


@pytest.mark.parametrize("mode", ["rot", "scale", "trans"])
def test_an_augmented_sample_is_a_crop_of_the_raw_depth(store, mode):
    """Not a crop of a crop: it equals what `crop` makes of the picture with the same motion, and still restores."""
    frames, one = HandFrames(store, "train", CROP), HANDS.sequences[1]
    for seed in range(5):
        motion = HandAugment(modes=(mode,)).draw(seed)
        sample, centre = frames[4].moved(motion), one.joints[1, 3].astype(np.float64)
        direct = crop(one.depth(1), SMALL, CROP, centre=centre, motion=motion)
        assert (np.abs(direct.image - sample["crop"][0].numpy()) <= 0.6 / 110).mean() > 0.995
        np.testing.assert_allclose(sample["pose"], direct.normalise(one.joints[1]), atol=1e-6)
        where = (sample[name] for name in ("centre", "rotation", "cube"))
        np.testing.assert_allclose(restore(sample["pose"], *where), one.joints[1], atol=1e-3)


def test_all_frames_of_a_sequence_share_one_motion(store):
    sample = HandSequences(store, "train", CROP)[0]
    moved = sample.augmented(TURN, generator(3))
    turns = moved["rotation"] @ sample["rotation"].transpose(1, 2)  # about the axis, after the camera has turned
    angles = torch.atan2(turns[:, 1, 0], turns[:, 0, 0])
    np.testing.assert_allclose(angles, angles[0], atol=1e-5)
    assert abs(float(angles[0])) > 0.01
    assert len({frame.numpy().tobytes() for frame in moved["crop"]}) == 3


# ----------------------------------------------------------------------------------- splits, orders and other traps


def test_splits_are_of_whole_sequences(store):
    parts = {name: HandFrames(store, name, CROP) for name in ("train", "val", "test")}
    keys = {name: {sample["key"] for sample in part} for name, part in parts.items()}
    assert not (keys["train"] & keys["val"] or keys["train"] & keys["test"] or keys["val"] & keys["test"])
    assert {name: part.subjects for name, part in parts.items()} == {
        "train": ["P0", "P1"], "val": ["P2"], "test": ["P3"],
    }  # fmt: skip
    assert sum(map(len, parts.values())) == len(HandFrames(store, "all", CROP)) == 24
    assert parts["train"].videos == sorted(keys["train"]) and len(set(parts["train"].fingerprints)) == 4


def test_a_basis_knows_training_poses_alone(store, tmp_path):
    config = PCAConfig(components=5, draws=200)
    pca = HandFrames(store, "train", CROP).fit_pca(config, folder=tmp_path)
    everything = HandFrames(store, "all", CROP)
    with pytest.raises(ValueError, match="split: expected a basis to be fitted on train alone, got 'all'"):
        everything.fit_pca(config)
    with pytest.raises(ValueError, match="got 'val'"):
        HandFrames(store, "val", CROP).fit_pca(config)
    assert pca.components.shape == (5, 63) and len(list(tmp_path.glob("pca_*.npz"))) == 1
    assert HandFrames(store, "train", CROP).fit_pca(config).components.tolist() == pca.components.tolist()


def test_the_order_in_which_sequences_were_found_changes_no_sample(store, tmp_path):
    """An unsorted listing once put frames beside other frames' joints."""
    found = list(HANDS.sequences)
    random.Random(1).shuffle(found)
    assert [one.key for one in found] != [one.key for one in HANDS.sequences]
    write_hands(tmp_path, HandCollection(tuple(found), HANDS.splits, HANDS.actions), StoreConfig(window=320.0))
    one, other = (HandFrames(folder, "all", CROP) for folder in (store, tmp_path))
    assert one.fingerprint == other.fingerprint
    for a, b in zip(one, other):
        assert_same(a, b)


def test_other_splits_may_be_given(store):
    splits = {key: "test" if key.startswith("P0") else "train" for key in HANDS.splits}
    assert HandFrames(store, "test", CROP, splits=splits).subjects == ["P0"]
    assert len(HandFrames(store, "train", CROP, splits=splits)) == 18
    with pytest.raises(ValueError, match=r"split: 'val' has no sequences in .* \(\{'test': 2, 'train': 6\}\)"):
        HandFrames(store, "val", CROP, splits=splits)
    with pytest.raises(ValueError, match="splits: expected one of train, val, test for 'P0/a/0', got None"):
        HandFrames(store, "test", CROP, splits={})
    with pytest.raises(ValueError, match="got 'training'"):
        HandFrames(store, "test", CROP, splits=dict.fromkeys(HANDS.splits, "training"))


def test_the_fingerprint_is_of_all_that_decides_samples(store):
    base = HandFrames(store, "train", CROP).fingerprint
    assert len(base) == 64 and HandFrames(store, "train", CROP, unpacked=False).fingerprint == base
    others = [
        HandFrames(store, "all", CROP), HandFrames(store, "train", CropConfig(cube=210.0, size=32)),
        HandFrames(store, "train", CROP, step=2), HandSequences(store, "train", CROP),
        HandFrames(store, "train", CropConfig(cube=220.0, size=32, centre="estimated")),
    ]  # fmt: skip
    assert len({base, *(one.fingerprint for one in others)}) == 6


def test_joints_outside_the_cube_are_told(store):
    with pytest.warns(UserWarning, match=r"cube: .* % of joints lie outside a cube of 150 mm"):
        small = HandFrames(store, "train", CropConfig(cube=150.0, size=16))
    farthest = np.abs(small.poses).max(axis=-1)
    assert small.share_outside == pytest.approx((farthest > 1).mean()) and small.share_outside > 0.01
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert HandFrames(store, "train", CROP).outside([220.0, 240.0])[240.0] == 0


# --------------------------------------------------------------------------------------------------------- centres


def test_noise_on_centres_is_as_large_as_said_and_each_sequences_own(store):
    noisy = CropConfig(cube=220.0, size=8, centre_noise=5.0)
    frames, part = HandFrames(store, "all", noisy), HandFrames(store, "test", noisy)
    noise = frames.centres - HandFrames(store, "all", CROP).centres
    assert 4 < noise.std() < 6 and len(np.unique(noise)) == noise.size
    np.testing.assert_array_equal(part.centres, frames.centres[-len(part) :])  # whatever else is read
    assert (HandFrames(store, "all", noisy, seed=1).centres != frames.centres).all()
    sample = frames[0]
    np.testing.assert_array_equal(sample["joints"], HANDS.sequences[0].joints[0])
    where = (sample[name] for name in ("centre", "rotation", "cube"))
    np.testing.assert_allclose(restore(sample["pose"], *where), sample["joints"], atol=1e-3)


def test_an_estimated_centre_holds_no_truth(store, tmp_path):
    """The same pictures with other joints give the same crops."""
    config = CropConfig(cube=220.0, size=32, centre="estimated")
    shift = np.float32([9, -7, 5])
    moved = [sequence(one.key, action=one.action) for one in HANDS.sequences]
    for one in moved:
        read = one.read
        pictures = [read(frame) for frame in range(len(one))]
        object.__setattr__(one, "read", pictures.__getitem__)
        object.__setattr__(one, "joints", one.joints + shift)
    write_hands(tmp_path, HandCollection(tuple(moved), HANDS.splits, HANDS.actions), StoreConfig(window=320.0))
    for a, b in zip(HandFrames(store, "all", config), HandFrames(tmp_path, "all", config)):
        assert torch.equal(a["centre"], b["centre"])
        assert (a["crop"] == b["crop"]).float().mean() > 0.99
        np.testing.assert_allclose(b["joints"] - a["joints"], np.broadcast_to(shift, (21, 3)), atol=1e-3)


def test_a_sequence_in_which_no_hand_was_found_is_left_out_with_a_warning(tmp_path):
    specks = np.zeros(SMALL.size)
    specks[::2, ::2] = 400
    write_hands(tmp_path, collection([sequence("P0/a/1", depths=dict.fromkeys(range(3), specks)), sequence("P1/a/1")]))
    assert len(HandFrames(tmp_path, "train", CROP)) == 6
    with pytest.warns(UserWarning, match="P0/a/1: left out, since no hand was found in its depth"):
        assert len(HandFrames(tmp_path, "train", CropConfig(size=8, cube=220.0, centre="estimated"))) == 3


def test_a_padded_box_takes_its_window_from_the_true_joints(store):
    config = CropConfig("padded_box", cube=220.0, size=32)
    sample, one = HandFrames(store, "train", config)[0], HANDS.sequences[0]
    joints = one.joints[0].astype(np.float64)
    direct = crop(one.depth(0), SMALL, config, centre=joints[3], joints=joints)
    assert (np.abs(direct.image - sample["crop"][0].numpy()) < 0.01).mean() > 0.98


# ------------------------------------------------------------------------------------------------ lengths and speed


def test_sequences_are_thinned_and_cut(tmp_path):
    write_hands(tmp_path, collection([sequence("P0/a/1", frames=7), sequence("P1/b/1", frames=1)]))
    thinned = HandSequences(tmp_path, "train", CROP, step=3)
    assert [one["frame"].tolist() for one in thinned] == [[0, 3, 6], [0]]
    cut = HandSequences(tmp_path, "train", CROP, max_frames=2)
    assert [(int(one["length"]), len(one["crop"])) for one in cut] == [(2, 2), (1, 1)]
    assert [int(one["frame"]) for one in HandFrames(tmp_path, "train", CROP, step=3)] == [0, 3, 6, 0]
    whole = HandSequences(tmp_path, "train", CROP)
    assert torch.equal(thinned[0]["crop"], whole[0]["crop"][::3])


def test_a_sequence_of_401_frames_is_cut_where_asked(tmp_path):
    picture = HANDS.sequences[0].depth(0)
    write_hands(tmp_path, collection([sequence("P0/a/1", frames=401, depths=dict.fromkeys(range(401), picture))]))
    assert len(HandSequences(tmp_path, "train", CROP, max_frames=120)[0]["pose"]) == 120
    assert len(HandSequences(tmp_path, "train", CROP)[0]["pose"]) == 401


def test_unpacked_samples_are_the_same_bit_for_bit(store, tmp_path):
    packed, fast = HandFrames(store, "all", CROP), HandFrames(store, "all", CROP, unpacked=tmp_path / "fast")
    assert packed.fingerprint == fast.fingerprint
    for a, b in zip(packed, fast):
        assert_same(a, b)
    (path,) = (tmp_path / "fast").glob("*.depth")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StoreError, match=r"depth: expected the unpacked depth of .*, got another file, or not all"):
        HandFrames(store, "all", CROP, unpacked=tmp_path / "fast")[0]["crop"]


def test_a_dataset_goes_to_other_processes(store):
    frames = HandFrames(store, "train", CROP)
    frames[0]["crop"]
    again = pickle.loads(pickle.dumps(frames))  # as a loader's workers get it where they are spawned
    assert_same(default_collate([again[3]]), default_collate([frames[3]]))


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "options, said",
    [
        ({"split": "training"}, "split: expected one of train, val, test, all; got 'training'"),
        ({"crop": CropConfig(cube=321.0)}, "cube: expected at most the 320 mm that .* holds; write the store again"),
        ({"step": 0}, "step: expected a whole number from 1 up, got 0"),
    ],
)
def test_bad_options_are_told(store, options, said, refuses):
    with refuses(said):
        HandFrames(store, **options)


def test_turned_crops_do_not_reach_beyond_the_stored_windows(store):
    """The store holds 320 mm: cubes of 230 at any turn (325, within the rim), of 300 only up to some 6°."""
    anywhere, little = HandAugment(("rot",)), HandAugment(("rot",), angle=5.0)
    generator = torch.Generator().manual_seed(0)
    frames, large = (HandFrames(store, "train", CropConfig(cube=cube, size=32)) for cube in (230.0, 300.0))
    frames[0].augmented(anywhere, generator)
    large[0].augmented(little, generator)
    with pytest.raises(ValueError, match=r"300 mm turned by up to 180° need windows of 424 mm, .* holds 320; turn by"):
        large[0].augmented(anywhere, generator)


def test_max_frames_below_zero_is_told(store, refuses):
    with refuses("max_frames: expected a number of frames, or 0 for all, got -1"):
        HandSequences(store, "train", CROP, max_frames=-1)


def test_no_store_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a store of hands"):
        HandFrames(tmp_path / "none", "train", CROP)


def test_stores_of_two_configs_are_told(store, tmp_path, refuses):
    write_hands(tmp_path, collection([sequence("P0/x/1")]))
    (tmp_path / "000.hands.h5").rename(tmp_path / "009.hands.h5")
    (tmp_path / "000.hands.h5").write_bytes((store / "000.hands.h5").read_bytes())
    with refuses("009.hands.h5: expected the config and collection of .*000.hands.h5, got others"):
        HandFrames(tmp_path, "train", CROP)


def test_stores_of_two_skeletons_are_told(store, tmp_path, refuses):
    left = replace(sequence("P0/x/1"), skeleton=replace(FPHA_21, right=False))
    write_hands(tmp_path, collection([left]), StoreConfig(window=320.0))
    (tmp_path / "001.hands.h5").write_bytes((store / "000.hands.h5").read_bytes())
    with refuses("001.hands.h5: expected the config and collection of .*000.hands.h5, got others"):
        HandFrames(tmp_path, "train", CROP)


def test_a_file_that_is_there_twice_counts_no_frame_twice(store, tmp_path, refuses):
    for name in ("000.hands.h5", "copy.hands.h5"):
        (tmp_path / name).write_bytes((store / "000.hands.h5").read_bytes())
    with refuses("expected each sequence once, got 'P0/a/0' in 000.hands.h5 and copy.hands.h5; remove one"):
        HandFrames(tmp_path, "train", CROP)
