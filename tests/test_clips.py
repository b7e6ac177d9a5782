"""ClipSample and ClipList: one type for all, cut and put together without losing where points are."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlib.clips import KEYS, Clip, ClipList, ClipSample, content_hash
from flowlib.tracks import Tracks


def sample(S=9, N=5, size=(6, 8), seed=0, name="clip", video="video", hidden=()):
    """Pictures whose first number is their frame's; points that walk; `hidden` are (frame, point) pairs."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 255, (S, *size, 3), np.uint8)
    frames[:, 0, 0, 0] = np.arange(S)
    tracks = rng.uniform(0, 5, (S, N, 2)).astype(np.float32)
    visibility = np.ones((S, N), bool)
    for frame, point in hidden:
        visibility[frame, point] = False
    truth = Tracks(tracks, visibility, np.insert(tracks[0], 0, 0, axis=1))
    return ClipSample(Clip.named(name, frames, video=video, num_points=N), frames, truth)


def test_as_a_mapping_it_gives_the_tensors_that_old_code_asks_for():
    one = sample()
    assert tuple(one) == KEYS and len(one) == 6 and (one["video"], one["clip"]) == ("video", "clip")
    assert one["frames"].dtype == torch.uint8 and one["visibility"].dtype == torch.bool
    assert np.array_equal(one["tracks"], one.truth.tracks) and np.array_equal(one["queries"], one.truth.queries)
    batch = next(iter(torch.utils.data.DataLoader([one, sample(seed=1)], batch_size=2)))
    assert batch["tracks"].shape == (2, 9, 5, 2) and batch["video"] == ["video", "video"]
    with pytest.raises(KeyError, match="expected one of frames, tracks"):
        one["labels"]


def test_two_samples_are_told_apart_by_what_they_are_and_compared_by_their_content():
    one, other = sample(), sample()
    assert one == one and one != other and len({one, other}) == 2 and ClipList([one, other]).index(other) == 1
    assert content_hash(one) == content_hash(other) != content_hash(sample(seed=1))


def test_a_dict_becomes_the_same_sample_and_what_lacks_is_named(refuses):
    one = sample()
    again = ClipSample.of(dict(one))
    assert content_hash(again) == content_hash(one) and again.name == "clip" and ClipSample.of(one) is one
    assert ClipSample.of({key: one[key] for key in KEYS[:4]}, 7).name == "7"
    with refuses(
        "sample: expected a ClipSample or a dict with frames, tracks, .* got dict without visibility, queries"
    ):
        ClipSample.of({"frames": one["frames"], "tracks": one["tracks"]})
    with refuses("got list without frames, tracks"):
        ClipSample.of([1, 2])
    with refuses("clip: expected the pictures of the frames .*, got 3 of them"):
        ClipSample(one.clip, one.frames[:3], one.truth)


def test_a_picture_that_was_not_stored_is_named(refuses):
    one = ClipSample.of(dict(sample()) | {"frames": sample()["frames"][:2]})
    assert one.has(1) and not one.has(2) and one.images((1, 0)).shape == (1, 2, 3, 6, 8)
    with refuses("clip: expected a picture of frame 3, got those of frames 0, 1 only"):
        one.pictures((0, 3))


@settings(max_examples=60, deadline=None)
@given(first=st.integers(0, 8), length=st.integers(1, 9), step=st.integers(1, 4), seed=st.integers(0, 99))
def test_a_piece_has_the_frames_it_says_and_the_points_seen_at_its_start(first, length, step, seed):
    last = first + (length - 1) * step
    hidden = [(first, seed % 5)]
    one = sample(seed=seed, hidden=hidden)
    if last > 8:
        with pytest.raises(ValueError, match="clip: expected frames of its 9, got first="):
            one.cut(first, length, step)
        return
    piece = one.cut(first, length, step)
    frames = [first + i * step for i in range(length)]
    kept = [point for point in range(5) if point != seed % 5]
    assert piece.frames[:, 0, 0, 0].tolist() == frames == piece.clip.frame_numbers
    assert np.array_equal(piece.truth.tracks, one.truth.tracks[frames][:, kept])
    assert np.array_equal(piece.truth.queries[:, 1:], one.truth.tracks[first, kept])
    assert not piece.truth.queries[:, 0].any() and piece.clip.num_points == 4


def test_a_list_of_clips_is_a_dataset(refuses):
    clips = ClipList([sample(9, name="a", video="u"), sample(4, name="b", video="v")], split="test")
    assert (len(clips), clips.num_frames, clips.size, clips.split) == (2, 9, (6, 8), "test")
    assert clips.videos == ["u", "v"] and [clip.key for clip in clips.clips] == ["a", "b"]
    pieces = ClipList(list(clips), num_frames=4)
    assert [piece.clip.num_frames for piece in pieces] == [4, 4, 4] and len({one.name for one in pieces}) == 3
    assert pieces.fingerprint != clips.fingerprint == ClipList(list(clips)).fingerprint
    with refuses("num_frames: expected clips of at least 12 frames"):
        ClipList(list(clips), num_frames=12)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda frames: frames.permute(0, 3, 1, 2), r"uint8 \[K H W 3\], got uint8 \[9, 3, 6, 8\]; move the channels"),
        (lambda frames: frames / 255, r"expected frames uint8 \[K H W 3\], got float32 .*; 0 is black, 255 is white"),
        (lambda frames: frames.permute(0, 3, 1, 2) / 255, "got float32 .*; move the channels to the end; 0 is black"),
        (lambda frames: frames.double().numpy(), "got float64"),
        (lambda frames: frames.to(torch.int16), "got int16"),
        (lambda frames: frames[..., :1], r"got uint8 \[9, 6, 8, 1\]"),
        (lambda frames: frames[..., 0], r"got uint8 \[9, 6, 8\]"),
        (lambda frames: frames[0], r"got uint8 \[6, 8, 3\]"),
        (lambda frames: torch.cat([frames, frames]), "expected pictures of some of its 9 frames, got those of frames"),
        (lambda frames: "no picture", "expected frames uint8"),
        (lambda frames: [[1], [2, 3]], "clip: expected arrays, or tensors on the CPU"),
        (lambda frames: torch.empty(9, 6, 8, 3, device="meta"), "clip: expected arrays, or tensors on the CPU"),
    ],
)
def test_pictures_of_another_kind_are_refused_at_once(change, message, refuses):
    one = dict(sample())
    with refuses(message):
        ClipSample.of(one | {"frames": change(one["frames"])})


@pytest.mark.parametrize(
    "wrong", [{"frame_step": 0}, {"frame_step": -1}, {"frame_step": 1.5}, {"num_frames": 0}, {"num_frames": -2}]
)
def test_lengths_and_steps_of_clips_are_whole_numbers(wrong, refuses):
    ((name, value),) = wrong.items()
    with refuses(f"{name}: expected a whole number from 1 on, got {value}"):
        ClipList([sample()], **({"num_frames": 3} | wrong))
    with refuses("clip: expected frames of its 9, got first=0"):
        sample().cut(0, **({"num_frames": 3} | wrong)) if isinstance(value, int) else sample().cut(0, 0)


def test_a_single_clip_will_do_as_a_dict_too():
    assert len(ClipList(dict(sample()))) == len(ClipList(sample())) == 1


def test_what_is_not_trusted_counts_as_hidden_and_that_is_said(refuses):
    tracks = Tracks.still(np.array([[0, 1.0, 1], [0, 2, 2]]), 2)
    tracks = replace(tracks, confidence=np.array([[1, 0.5], [0.25, 0.75]]))
    sample = ClipSample(Clip.named("a", PICTURES := np.zeros((2, 4, 4, 3), np.uint8), num_points=2), PICTURES, tracks)
    assert sample.trusted(0) is sample
    some = sample.trusted(0.5)
    assert some.truth.visibility.tolist() == [[True, True], [False, True]] and not some.occlusion_known
    assert sample.trusted(0.25).occlusion_known  # nothing is left out
    np.testing.assert_array_equal(some.truth.tracks, tracks.tracks)
    assert some["confidence"].shape == (2, 2)
    with refuses("min_confidence: expected tracks with a confidence, got some without"):
        replace(sample, truth=replace(tracks, confidence=None)).trusted(0.5)
    with refuses("min_confidence: expected a number from 0 to 1, got 2"):
        sample.trusted(2)


def test_confidence_goes_through_a_mapping_and_a_cut():
    tracks = Tracks.still(np.array([[0, 1.0, 1], [0, 2, 2]]), 3)
    marked = replace(tracks, confidence=np.arange(6).reshape(3, 2) / 8)
    visibility = np.array([[True, True], [False, True], [True, True]])
    frames = np.zeros((3, 4, 4, 3), np.uint8)
    sample = ClipSample(Clip.named("a", frames, num_points=2), frames, replace(marked, visibility=visibility))
    again = ClipSample.of(dict(sample))
    np.testing.assert_array_equal(again.truth.confidence, marked.confidence)
    np.testing.assert_array_equal(sample.cut(1, 2).truth.confidence, [[3 / 8], [5 / 8]])
    bare = replace(sample, truth=replace(sample.truth, confidence=None))
    assert "confidence" not in bare and len(bare) == len(sample) - 1 == len(list(bare))
    assert content_hash(bare) != content_hash(sample)
