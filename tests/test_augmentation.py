"""Augmentation moves images, positions and visibility together: the pixel at the track looks like that at the query."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlib.augmentation import (
    AugmentConfig,
    augment,
    colour,
    crop,
    draw_pan,
    flip,
    follow,
    refill,
    resize,
    reverse,
    shift,
    usable,
)
from flowlib.clips import ClipSample
from flowlib.flow import DISFlow
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


PLACE = 3.0  # grey values a pixel


def make_place(num_frames=8):
    """A clip that rests and whose colours say where one is: red grows to the right, green downwards."""
    x, y = np.meshgrid(np.arange(SIZE[1]), np.arange(SIZE[0]))
    picture = np.stack([PLACE * x, PLACE * y, np.zeros_like(x)], axis=-1).astype(np.uint8)
    queries = np.stack([np.zeros(x[::3, ::3].size), x[::3, ::3].ravel(), y[::3, ::3].ravel()], axis=1)
    tracks = np.repeat(queries[None, :, 1:], num_frames, axis=0)
    arrays = {"frames": np.repeat(picture[None], num_frames, axis=0), "tracks": tracks.astype(np.float32)}
    arrays |= {"visibility": np.ones(tracks.shape[:2], bool), "queries": queries.astype(np.float32)}
    return {key: torch.from_numpy(value) for key, value in arrays.items()}


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    scale=st.floats(1, 2),
    cut=st.sampled_from([None, (32, 40), (60, 80)]),
    mirror=st.booleans(),
)
def test_a_moving_crop_shows_at_each_track_the_place_that_it_follows(seed, scale, cut, mirror):
    sample = make_place()
    config = AugmentConfig(0.0, float(mirror), 0.5, (1.0, scale), crop=cut, pan=1.0)
    changed = augment(sample, config, torch.Generator().manual_seed(seed))
    values, seen = looks(changed)
    assert changed["frames"].shape == (8, *(cut or SIZE), 3) and seen[0].all()
    inner = (changed["tracks"] >= 0).all(-1) & (changed["tracks"] <= torch.tensor(changed.size[::-1]) - 1).all(-1)
    apart = (values - values[0]).abs().amax(dim=-1)[seen & inner & inner[0]]
    assert float(apart.max()) < 0.35 * PLACE  # a third of a pixel: both colours are rounded


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), low=st.floats(1, 1.5), more=st.floats(0, 1), cut=st.sampled_from([SIZE, (32, 40)]))
def test_windows_of_a_pan_stay_in_the_picture_and_go_nearly_straight(seed, low, more, cut):
    windows = draw_pan(make_place(), cut, (low, low + more), torch.Generator().manual_seed(seed))
    first, last = windows[:, :2], windows[:, :2] + windows[:, 2:]
    assert (first >= 0).all() and (last <= torch.tensor([SIZE[1], SIZE[0]]) + 1e-3).all()
    middle = (first + last) / 2
    way = float((middle[-1] - middle[0]).norm())
    bent = (middle - torch.lerp(middle[0], middle[-1], torch.linspace(0, 1, 8)[:, None])).norm(dim=-1)
    assert float(bent.max()) <= 0.25 * way + 5 * 0.5 + 0.1 * SIZE[1] * (low + more - 1)


def test_a_window_of_whole_pixels_is_the_crop_of_that_box_and_a_wandering_one_moves_what_rests():
    sample = SAMPLES[0]
    still = follow(sample, torch.tensor([[5.0, 3, 40, 32]]).expand(4, 4), (32, 40))
    cut = crop(sample, 5, 3, (32, 40))
    assert torch.equal(still["frames"], cut["frames"]) and torch.equal(still["visibility"], cut["visibility"])
    torch.testing.assert_close(still["tracks"], cut["tracks"], atol=1e-4, rtol=0)
    windows = torch.tensor([[2.0 + 1.5 * frame, 8.0 - frame, 40, 32] for frame in range(8)])
    moved = follow(make_place(), windows, (32, 40))
    steps = (moved["tracks"][1:] - moved["tracks"][:-1]).reshape(-1, 2)
    torch.testing.assert_close(steps, torch.tensor([[-1.5, 1.0]]).expand_as(steps), atol=1e-4, rtol=0)


def test_optical_flow_sees_the_motion_that_a_moving_crop_says():
    sample = SAMPLES[0]
    rest = dict(sample) | {"frames": sample["frames"][:1].expand(4, -1, -1, -1).contiguous()}
    rest |= {"tracks": sample["tracks"][:1].expand(4, -1, -1).contiguous()}
    rest |= {"visibility": torch.ones_like(sample["visibility"])}
    windows = torch.tensor([[3.0 + 2 * frame, 10 - 1.5 * frame, 54 - frame, 36 - frame * 2 / 3] for frame in range(4)])
    moved = follow(rest, windows, SIZE)
    flow = torch.from_numpy(DISFlow()(moved.frames[0], moved.frames[3]))[None]
    read = bilinear_sample(flow, moved["queries"][None, :, 1:])[0].T
    told = moved["tracks"][3] - moved["queries"][:, 1:]
    seen = moved["visibility"][0] & moved["visibility"][3]
    assert float(told[seen].norm(dim=-1).mean()) > 5
    assert float((read - told)[seen].norm(dim=-1).median()) < 0.5


def test_pictures_that_nobody_wants_are_left_out_and_the_others_stay_as_they_are():
    for pan in (0.0, 1.0):
        config = AugmentConfig(0.5, 0.5, 0.5, (1.0, 1.5), pan=pan)
        for seed in range(4):
            whole, part = (
                augment(SAMPLES[0], config, torch.Generator().manual_seed(seed), frames) for frames in (None, (0, 3))
            )
            assert np.array_equal(part.frames, whole.pictures((0, 3))) and part.clip.kept == (0, 3)
            assert torch.equal(part["tracks"], whole["tracks"]) and torch.equal(part["visibility"], whole["visibility"])


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


# Pictures that tell where each pixel came from, and oracles that share nothing with the module's code.


def coded_sample(height=48, width=72, num_frames=3):
    """Pixel (x, y) has the colour (x + 1, y + 1, frame + 1), so black is what lies beyond; still points everywhere."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    frames = np.stack([np.stack([x + 1, y + 1, np.full_like(x, t + 1)], axis=-1) for t in range(num_frames)])
    grid = np.stack([x.ravel(), y.ravel()], axis=-1)[::7].astype(np.float32)
    queries = np.concatenate([np.zeros((len(grid), 1), np.float32), grid], axis=1)
    arrays = {
        "frames": frames.astype(np.uint8),
        "tracks": np.repeat(grid[None], num_frames, axis=0),
        "visibility": np.ones((num_frames, len(grid)), bool),
        "queries": queries,
    }
    return {key: torch.from_numpy(value.copy()) for key, value in arrays.items()}


def origin(sample):
    """Which pixel (left, top) of the coded picture a crop begins with, told by any of its pixels that isn't black."""
    row, column = (int(index) for index in sample["frames"][0, :, :, 0].nonzero()[0])
    pixel = sample["frames"][0, row, column]
    return int(pixel[0]) - 1 - column, int(pixel[1]) - 1 - row


@settings(max_examples=60, deadline=None)
@given(
    st.integers(-9, 14), st.integers(-9, 14), st.tuples(st.integers(1, 14), st.integers(1, 14)), st.integers(0, 10**6)
)
def test_a_crop_is_what_slow_loops_cut_out(left, top, size, seed):
    generator = torch.Generator().manual_seed(seed)
    sample = coded_sample(6, 11)
    sample["tracks"] = (torch.rand(3, 10, 2, generator=generator) * 40 - 10).round() / 2  # the borders among them
    sample["queries"] = torch.cat([torch.zeros(10, 1), sample["tracks"][0]], dim=1)
    sample["visibility"] = torch.rand(3, 10, generator=generator) < 0.7
    found = crop(sample, left, top, size)
    for row in range(size[0]):
        for column in range(size[1]):
            y, x = row + top, column + left
            there = 0 <= y < 6 and 0 <= x < 11
            assert found["frames"][1, row, column].tolist() == ([x + 1, y + 1, 2] if there else [0, 0, 0])
    for s in range(3):
        for n in range(10):
            x, y = sample["tracks"][s, n].tolist()
            assert found["tracks"][s, n].tolist() == [x - left, y - top]
            on_frame = -0.5 <= x <= 10.5 and -0.5 <= y <= 5.5
            in_box = -0.5 <= x - left <= size[1] - 0.5 and -0.5 <= y - top <= size[0] - 0.5
            assert bool(found["visibility"][s, n]) == (bool(sample["visibility"][s, n]) and on_frame and in_box)
    assert found["queries"][:, 1:].tolist() == found["tracks"][0].tolist()


@pytest.mark.parametrize("axis, column", [("x", 0), ("y", 1)])
def test_after_a_flip_each_point_lies_on_the_pixel_that_it_lay_on(axis, column):
    sample = coded_sample(5, 9)
    flipped = flip(sample, axis)
    for n, (x, y) in enumerate(flipped["tracks"][0].int().tolist()):
        before = sample["tracks"][0, n] + 1
        assert flipped["frames"][0, y, x, :2].tolist() == before.tolist()
    moved = (flipped["tracks"] != sample["tracks"]).any(dim=0).any(dim=0)
    assert moved[column] and not moved[1 - column]


def test_reversing_takes_each_frames_own_visibility_and_the_last_positions_as_queries():
    drawn = torch.rand(SAMPLES[1]["visibility"].shape, generator=torch.Generator().manual_seed(0))
    sample = SAMPLES[1] | {"visibility": drawn < 0.5}
    changed = reverse(sample)
    for s in range(4):
        assert torch.equal(changed["visibility"][s], sample["visibility"][3 - s])
        assert torch.equal(changed["tracks"][s], sample["tracks"][3 - s])
    assert torch.equal(changed["queries"][:, 1:], sample["tracks"][3])


def test_enlarging_is_bilinear_and_rounds_to_the_nearest_grey():
    frames = torch.randint(0, 256, (1, 4, 6, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    sample = coded_sample(4, 6, 1) | {"frames": frames}
    found = resize(sample, (9, 8))["frames"][0].numpy().astype(float)
    old = frames[0].numpy().astype(float)
    for row in range(9):
        for column in range(8):
            y = min(max((row + 0.5) * 4 / 9 - 0.5, 0), 3)
            x = min(max((column + 0.5) * 6 / 8 - 0.5, 0), 5)
            r, c = min(int(y), 2), min(int(x), 4)
            down, right = y - r, x - c
            upper = old[r, c] * (1 - right) + old[r, c + 1] * right
            lower = old[r + 1, c] * (1 - right) + old[r + 1, c + 1] * right
            assert np.abs(found[row, column] - (upper * (1 - down) + lower * down)).max() <= 0.501


def test_shrinking_keeps_the_mean_of_thin_stripes():
    """Every third column is white: three into one is a third of white, wherever the one is read."""
    frames = torch.zeros(1, 9, 27, 3, dtype=torch.uint8)
    for first in range(3):
        striped = frames.clone()
        striped[:, :, first::3] = 255
        found = resize(coded_sample(9, 27, 1) | {"frames": striped}, (3, 9))["frames"].float()
        assert (found[:, :, 1:-1] - 85).abs().max() < 20


@settings(max_examples=30, deadline=None)
@given(st.floats(0.5, 1.5), st.floats(0.5, 1.5), st.floats(0, 1.5), st.integers(0, 1000))
def test_colours_are_what_their_formulas_say(brightness, contrast, saturation, seed):
    old = np.random.default_rng(seed).integers(0, 256, (2, 3, 4, 3)).astype(np.uint8)
    sample = coded_sample(3, 4, 2) | {"frames": torch.from_numpy(old)}
    found = colour(sample, brightness, contrast, saturation)["frames"].numpy()
    red, green, blue = np.moveaxis(old * brightness, -1, 0)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-R BT.601
    mean = grey.mean()
    for channel, values in enumerate((red, green, blue)):
        expected = mean + contrast * (grey + saturation * (values - grey) - mean)
        assert np.abs(found[..., channel] - np.clip(expected, 0, 255)).max() <= 0.51


def test_only_points_seen_in_the_first_frame_are_usable_and_copies_are_whole():
    sample = coded_sample(6, 11)
    sample["tracks"] = torch.rand(sample["tracks"].shape, generator=torch.Generator().manual_seed(0)) * 5
    sample["queries"][:, 1:] = sample["tracks"][0]
    N = len(sample["queries"])
    sample["visibility"] = torch.rand(3, N, generator=torch.Generator().manual_seed(1)) < 0.5
    sample["queries"][0, 1:] = torch.tensor([10.6, 0.0])  # seen, but beyond the border
    sample["visibility"][0, :3] = torch.tensor([True, True, False])
    good = usable(sample)
    assert good.tolist() == [n > 0 and bool(sample["visibility"][0, n]) for n in range(N)]
    filled = refill(sample, torch.Generator().manual_seed(2))
    drawn = set()
    for n in range(N):
        same = [
            m
            for m in range(N)
            if torch.equal(filled["tracks"][:, n], sample["tracks"][:, m])
            and torch.equal(filled["visibility"][:, n], sample["visibility"][:, m])
            and torch.equal(filled["queries"][n], sample["queries"][m])
        ]
        assert len(same) == 1 and good[same[0]] and (not good[n] or same[0] == n)
        drawn |= set(same) if not good[n] else set()
    assert len(drawn) > 1


def test_crops_reach_all_there_is_and_no_further_than_the_shift():
    """A box of 24 rows and 12 columns in 48 by 72, by up to 0.25 of its own side beyond the frame."""
    sample, config = coded_sample(), AugmentConfig(flip_x=0, shift=0.25, crop=(24, 12))
    found = [origin(augment(sample, config, torch.Generator().manual_seed(seed))) for seed in range(150)]
    for starts, (low, high) in zip(zip(*found), ((-3, 63), (-6, 30))):
        assert low <= min(starts) <= low + 3 and high - 3 <= max(starts) <= high


def test_flips_are_drawn_each_by_its_own_chance():
    sample = coded_sample()
    for config, axis in ((AugmentConfig(1.0, 0.0), "x"), (AugmentConfig(0.0, 1.0), "y")):
        for seed in range(5):
            changed = augment(sample, config, torch.Generator().manual_seed(seed))
            assert torch.equal(changed["frames"], flip(sample, axis)["frames"])


def test_without_any_usable_point_the_middle_is_cut_out():
    sample = coded_sample()
    sample["visibility"] = torch.zeros_like(sample["visibility"])
    changed = augment(sample, AugmentConfig(flip_x=1, crop=(10, 20)), torch.Generator().manual_seed(0))
    assert origin(changed) == ((72 - 20) // 2, (48 - 10) // 2)


def test_colours_are_drawn_to_both_sides():
    frames = torch.full((1, 8, 8, 3), 100, dtype=torch.uint8)  # of one grey: only brightness changes it
    sample, config = coded_sample(8, 8, 1) | {"frames": frames}, AugmentConfig(flip_x=0, colour=0.5)
    drawn = [
        float(augment(sample, config, torch.Generator().manual_seed(seed))["frames"].float().mean())
        for seed in range(60)
    ]
    assert 50 <= min(drawn) < 60 and 140 < max(drawn) <= 150
