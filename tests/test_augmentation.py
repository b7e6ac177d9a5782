"""Augmentation moves images, positions and visibility together: the pixel at the track looks like that at the query."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlib.augmentation import AugmentConfig, augment, colour, crop, flip, refill, resize, reverse, shift, usable
from flowlib.clips import ClipSample
from flowlib.geometry import bilinear_sample
from flowlib.synthetic import synthetic_clip

SIZE = (48, 72)


def make_sample(seed=0, motion="linear", num_frames=4):
    frames, scene = synthetic_clip(num_frames, SIZE, seed, num_sprites=3, motion=motion, camera=motion)
    x, y = np.meshgrid(np.arange(2, SIZE[1] - 2, 3), np.arange(2, SIZE[0] - 2, 3))
    queries = np.stack([np.zeros(x.size), x.ravel(), y.ravel()], axis=1).astype(np.float32)
    tracks = scene.tracks(queries, num_frames)
    arrays = {"frames": frames, "tracks": tracks.tracks, "visibility": tracks.visibility, "queries": queries}
    return {key: torch.from_numpy(value.copy()) for key, value in arrays.items()} | {"clip": f"c{seed}"}


SAMPLES = [make_sample(seed) for seed in range(3)]

BOUND = 1.4  # grey values; measured: 0.4 to 1.0 for labels that follow, 1.6 to 3.6 for ones that stay


def looks(sample):
    """Colour at each point's track [S N 3], and which of them is visible."""
    images = sample["frames"].movedim(-1, 1).float()
    return bilinear_sample(images, sample["tracks"]).movedim(1, -1), sample["visibility"]


def mismatch(sample):
    """Mean absolute difference of grey values between the visible points of a track and its query."""
    values, visible = looks(sample)
    difference = (values - values[0]).abs().mean(dim=-1)
    return float(difference[visible].mean())


def moved_colours(before, after):
    """Mean absolute difference of grey values between points before and after a change that keeps their order."""
    (old, seen), (new, still_seen) = looks(before), looks(after)
    return float((old - new).abs().mean(dim=-1)[seen & still_seen].mean())


@settings(max_examples=40, deadline=None)
@given(
    index=st.integers(0, 2),
    seed=st.integers(0, 10**6),
    low=st.floats(0.7, 1.2),
    more=st.floats(0, 0.5),
    move=st.floats(0, 0.3),
    colours=st.floats(0, 0.3),
    cut=st.sampled_from([None, (32, 40), (41, 61), (60, 80)]),
)
def test_the_pixel_at_the_track_still_looks_like_the_pixel_at_the_query(index, seed, low, more, move, colours, cut):
    sample = SAMPLES[index]
    config = AugmentConfig(0.5, 0.5, 0.5, (low, low + more), move, cut, colours)
    changed = augment(sample, config, torch.Generator().manual_seed(seed))
    assert changed["frames"].shape == (4, *(cut or SIZE), 3)
    assert usable(changed).all()
    assert changed["tracks"].shape == sample["tracks"].shape
    torch.testing.assert_close(changed["tracks"][0], changed["queries"][:, 1:], atol=1e-3, rtol=0)
    assert mismatch(changed) < BOUND


def test_the_measures_notice_labels_that_moved_the_wrong_way():
    for sample in SAMPLES:
        moved = shift(sample, 9, -5)
        swapped = dict(moved) | {"tracks": sample["tracks"] + torch.tensor([-5.0, 9.0])}
        assert moved_colours(sample, moved) < 0.1 and moved_colours(sample, swapped) > 5
        forgotten = dict(flip(sample, "x")) | {"tracks": sample["tracks"]}
        assert moved_colours(sample, flip(sample, "x")) < 0.1 and moved_colours(sample, forgotten) > 5
        still = dict(sample) | {"tracks": sample["tracks"][:1].expand_as(sample["tracks"])}
        assert mismatch(sample) < BOUND < mismatch(still)


@given(dx=st.integers(-20, 20), dy=st.integers(-20, 20))
@settings(max_examples=20, deadline=None)
def test_a_shift_moves_each_pixel_and_its_label_by_the_same_x_and_y(dx, dy):
    sample = SAMPLES[1]
    moved = shift(sample, dx, dy)
    expected = torch.tensor([dx, dy]).expand_as(moved["tracks"]) * 1.0
    torch.testing.assert_close(moved["tracks"] - sample["tracks"], expected)
    inner = (moved["tracks"] >= 0).all(-1) & (moved["tracks"] <= torch.tensor([71.0, 47.0])).all(-1)
    assert moved_colours(sample, dict(moved) | {"visibility": moved["visibility"] & inner}) < 1e-3
    inside = (moved["tracks"] >= -0.5).all(-1) & (moved["tracks"] <= torch.tensor([71.5, 47.5])).all(-1)
    assert not (moved["visibility"] & ~inside).any()


@pytest.mark.parametrize("axis", ["x", "y"])
def test_flipping_twice_gives_the_clip_back(axis):
    twice = flip(flip(SAMPLES[0], axis), axis)
    assert torch.equal(twice["frames"], SAMPLES[0]["frames"])
    torch.testing.assert_close(twice["tracks"], SAMPLES[0]["tracks"])


def test_flipping_mirrors_displacement_along_its_axis_only():
    flipped = flip(SAMPLES[0], "x")
    there = flipped["tracks"] - flipped["queries"][:, 1:]
    here = SAMPLES[0]["tracks"] - SAMPLES[0]["queries"][:, 1:]
    torch.testing.assert_close(there, here * torch.tensor([-1.0, 1.0]), atol=1e-4, rtol=0)


def test_reversing_turns_motion_round_and_drops_points_hidden_at_the_end():
    sample = SAMPLES[0]
    hidden = sample["visibility"].clone()
    hidden[-1, :5] = False
    changed = reverse(dict(sample) | {"visibility": hidden})
    assert torch.equal(changed["frames"][0], sample["frames"][-1])
    forth, back = sample["tracks"][-1] - sample["tracks"][0], changed["tracks"][-1] - changed["tracks"][0]
    torch.testing.assert_close(forth, -back)
    assert not usable(changed)[:5].any()
    filled = refill(changed, torch.Generator().manual_seed(0))
    assert usable(filled).all() and filled["tracks"].shape == sample["tracks"].shape


def test_scaling_scales_displacements_and_keeps_colours():
    doubled = resize(SAMPLES[2], (96, 144))
    here = SAMPLES[2]["tracks"] - SAMPLES[2]["queries"][:, 1:]
    torch.testing.assert_close(doubled["tracks"] - doubled["queries"][:, 1:], here * 2, atol=1e-3, rtol=0)
    assert moved_colours(SAMPLES[2], doubled) < 1
    centre = resize(SAMPLES[2], (24, 36))
    torch.testing.assert_close(centre["queries"][:, 1:], (SAMPLES[2]["queries"][:, 1:] + 0.5) / 2 - 0.5)


def test_colour_changes_all_frames_alike_and_no_position():
    sample = SAMPLES[0]
    assert torch.equal(colour(sample, 1, 1, 1)["frames"], sample["frames"])
    grey = colour(sample, 1, 1, 0)["frames"].float()
    assert float((grey.max(dim=-1).values - grey.min(dim=-1).values).max()) <= 1
    assert float(colour(sample, 0.5, 1, 1)["frames"].float().mean() / sample["frames"].float().mean()) < 0.51
    assert torch.equal(colour(sample, 1.2, 0.8, 1)["tracks"], sample["tracks"])


def test_the_same_generator_gives_the_same_clip_and_the_given_one_stays():
    before = {key: value.clone() for key, value in SAMPLES[0].items() if key != "clip"}
    config = AugmentConfig(0.5, 0.5, 0.5, (0.8, 1.3), 0.2, None, 0.2)
    first, second = (augment(SAMPLES[0], config, torch.Generator().manual_seed(7)) for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in before)
    assert all(torch.equal(SAMPLES[0][key], before[key]) for key in before)
    assert first["clip"] == "c0"


def test_a_crop_that_leaves_no_point_falls_back_to_the_middle():
    sample = SAMPLES[0]
    corner = dict(sample) | {key: sample[key][..., :1, :] for key in ("tracks", "queries")}
    corner |= {"visibility": sample["visibility"][:, :1]}
    config = AugmentConfig(flip_x=0, scale=(3.0, 3.0))
    for seed in range(5):
        changed = augment(corner, config, torch.Generator().manual_seed(seed))
        assert torch.equal(changed["frames"], sample["frames"]) or usable(changed).all()


def test_bad_input_is_named(refuses):
    with refuses("flip_x: expected a number from 0 to 1, got 2"):
        AugmentConfig(flip_x=2)
    with refuses("scale: expected two numbers above 0"):
        AugmentConfig(scale=(2.0, 1.0))
    with refuses("crop: expected"):
        AugmentConfig(crop=(0, 5))
    with refuses("axis: expected 'x' or 'y', got 'z'"):
        flip(SAMPLES[0], "z")
    with refuses("size: expected"):
        crop(SAMPLES[0], 0, 0, (0, 4))


def digest(config, wrap):
    """SHA-256 of 24 draws; of whole pixels only, so that every machine computes the same."""
    found, generator = hashlib.sha256(), torch.Generator().manual_seed(7)
    for sample in SAMPLES:
        for _ in range(8):
            drawn = augment(wrap(sample), config, generator)
            for key in ("frames", "tracks", "visibility", "queries"):
                value = drawn[key]
                found.update(f"{key} {value.dtype} {tuple(value.shape)}".encode() + value.numpy().tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("wrap", [dict, ClipSample.of])
def test_the_same_generator_gives_what_it_always_gave(wrap):
    config = AugmentConfig(flip_x=0.5, flip_y=0.5, reverse=0.5, shift=0.25, crop=(40, 52))
    assert digest(config, wrap) == "ec0a55eff22c619866944a8a977f36c8718e908fc79816fa915c00a35eb6510d"


def test_what_else_a_sample_says_follows():
    sample = ClipSample.of(SAMPLES[0])
    some = replace(sample, clip=replace(sample.clip, kept=(0, 2)), frames=sample.frames[[0, 2]], area=np.arange(4.0))
    back = reverse(some)
    assert back.clip.kept == (1, 3) and back.area.tolist() == [3, 2, 1, 0]
    np.testing.assert_array_equal(back.picture(1), some.picture(2))
    assert (flip(some, "x").clip, some.clip.kept) == (some.clip, (0, 2))
