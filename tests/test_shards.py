"""Shards: what goes in comes out, twice the same bytes, and a damaged file is never taken for a whole one."""

import json
import tracemalloc
from dataclasses import replace

import cv2
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlib import shards
from flowlib.clips import Clip, ClipSample, UnreadSample
from flowlib.geometry import pixel_grid
from flowlib.shards import Shard, ShardError
from flowlib.tracks import Tracks
from flowlib.video import Video, encode_image

TRACKER, CONFIG = {"name": "test"}, {"grid": 5}


def labelled(
    first: int = 0, *, S: int = 4, N: int = 9, reach: float = 20, seed: int = 0, name: str = "é 1", sure: bool = False
) -> ClipSample:
    rng = np.random.default_rng(seed)
    video = Video(name, "somewhere", (48, 64), 25.0, 100, f"{name}".encode().hex().ljust(64, "0"))
    queries = np.concatenate([np.zeros((N, 1)), rng.uniform(0, 64, (N, 2))], axis=1)
    moved = queries[None, :, 1:] + rng.uniform(-reach, reach, (S, N, 2))
    moved[0] = queries[:, 1:]
    frames = np.random.default_rng(first).integers(0, 255, (100, 48, 64, 3), np.uint8)[first : first + S]
    tracks = Tracks(moved, rng.random((S, N)) > 0.3, queries, rng.random((S, N)) if sure else None)
    return ClipSample(Clip.of(video, first, 1, S).labelled(N), frames, tracks)


def assert_same(got: ClipSample, given: ClipSample) -> None:
    float32 = np.spacing(np.abs(given.truth.tracks).max(initial=1).astype(np.float32))  # 0.0005 px at 5,000 px
    assert np.abs(got.truth.tracks - given.truth.tracks).max(initial=0) <= 1 / 128 + float32
    np.testing.assert_array_equal(got.truth.visibility, given.truth.visibility)
    np.testing.assert_array_equal(got.truth.queries, given.truth.queries.astype(np.float32))
    assert (got.truth.displacement[0] == 0).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(0, 20), st.sampled_from([5.0, 511.0, 5000.0]), st.integers(0, 999))
def test_what_goes_in_comes_out(tmp_path_factory, S, N, reach, seed):
    path = tmp_path_factory.mktemp("shard") / "a.h5"
    given_ = labelled(S=S, N=N, reach=reach, seed=seed)
    shards.write_shard(path, [given_], tracker=TRACKER, config=CONFIG, encoding="webp")
    with Shard(path) as shard:
        (clip,) = shard.clips
        got = shard.read(clip)
        assert (shard.tracker, shard.config) == (TRACKER, CONFIG)
        steps = np.diff(np.round(given_.truth.displacement.astype(np.float64) * 64), axis=0, prepend=0)
        wide = np.abs(steps).max(initial=0) > 32767
        assert shard.file[f"clips/{clip.key}/steps"].dtype == (np.int32 if wide else np.int16)
    assert_same(got, given_)
    np.testing.assert_array_equal(got.frames, given_.frames)
    assert (clip.video, clip.kept, clip.num_points) == ("é 1", tuple(range(S)), N)


def test_pictures_that_come_one_by_one_give_the_same_file(tmp_path):
    one, settings = labelled(sure=True), {"tracker": TRACKER, "config": CONFIG}
    many = UnreadSample(one.clip, iter(one.frames), one.truth, one.size)
    few = replace(many, frames=iter(one.frames[:-1]))
    whole, unread = (shards.write_shard(tmp_path / f"{i}.h5", [s], **settings) for i, s in enumerate((one, many)))
    assert whole.read_bytes() == unread.read_bytes()
    with pytest.raises(ValueError, match="shorter"):
        shards.write_shard(tmp_path / "few.h5", [few], **settings)
    assert not (tmp_path / "few.h5").exists() and shards.check_shard(unread) == [one.clip]


def test_the_format_is_what_the_docstring_says(tmp_path):
    path = shards.write_shard(tmp_path / "a.h5", [labelled()], tracker=TRACKER, config=CONFIG)
    with h5py.File(path) as file:
        assert (file.attrs["format"], file.attrs["version"]) == ("flowlib-shard", 1)
        entry = json.loads(file["index"][()].tobytes())[0]
        group = file["clips"][entry["key"]]
        assert group["queries"].dtype == np.float32 and group["steps"].dtype == np.int16
        displacement = labelled().truth.displacement
        np.testing.assert_allclose(np.cumsum(group["steps"][()], axis=0) / 64, displacement, atol=1 / 128 + 1e-6)
        assert group["visibility"].shape == (4, 2)
        jpeg = file["frames"][entry["fingerprint"][:16]]["00000002"][()]
        assert bytes(jpeg[:2]) == b"\xff\xd8"


@settings(max_examples=10)
@given(st.integers(1, 5), st.integers(0, 20), st.integers(0, 999))
def test_confidence_is_kept_to_a_255th_and_only_where_there_is_one(tmp_path_factory, S, N, seed):
    path = tmp_path_factory.mktemp("shard") / "a.h5"
    sure, other = labelled(S=S, N=N, seed=seed, sure=True), labelled(50, S=S, N=N, seed=seed)
    shards.write_shard(path, [sure, other], tracker=TRACKER, config=CONFIG)
    shards.check_shard(path)
    with Shard(path) as shard:
        got, without = (shard.tracks(clip) for clip in shard.clips)
    assert got.confidence is not None and got.confidence.dtype == np.float32 and without.confidence is None
    assert np.abs(got.confidence - sure.truth.confidence).max(initial=0) <= 0.5 / 255 + 1e-7
    again = replace(sure, truth=got)
    shards.write_shard(path, [again], tracker=TRACKER, config=CONFIG)
    with Shard(path) as shard:
        np.testing.assert_array_equal(shard.tracks(shard.clips[0]).confidence, got.confidence)
    merged = shards.merge_shards([path], path.with_name("b.h5"))
    with Shard(merged) as shard:
        np.testing.assert_array_equal(shard.tracks(shard.clips[0]).confidence, got.confidence)


def test_a_wrong_confidence_is_damage(tmp_path):
    sample = labelled(sure=True)
    for wrong in (np.zeros((4, 8), np.uint8), np.zeros((4, 9), np.int16), np.zeros((4, 9), np.float32)):
        path = shards.write_shard(tmp_path / "a.h5", [sample], tracker=TRACKER, config=CONFIG)
        with h5py.File(path, "r+") as file:
            del file[f"clips/{sample.clip.key}/confidence"]
            file[f"clips/{sample.clip.key}/confidence"] = wrong
        with Shard(path) as shard, pytest.raises(ShardError, match=f"clip {sample.clip.key} is damaged"):
            shard.tracks(shard.clips[0])


def dense(
    S: int = 3, size: tuple[int, int] = (48, 64), *, reach: float = 20, seed: int = 0, sure: bool = False
) -> ClipSample:
    """A clip whose points are all pixels of frame 0, and move anyhow."""
    rng, N = np.random.default_rng(seed), size[0] * size[1]
    video = Video("dense", "somewhere", size, 25.0, 100, "d" * 64)
    queries = np.insert(pixel_grid(size).reshape(-1, 2), 0, 0, axis=1)
    moved = queries[None, :, 1:] + rng.uniform(-reach, reach, (S, N, 2)).astype(np.float32)
    moved[0] = queries[:, 1:]
    tracks = Tracks(moved, rng.random((S, N)) > 0.3, queries, rng.random((S, N)) if sure else None)
    frames = rng.integers(0, 255, (S, *size, 3), np.uint8)
    return ClipSample(Clip.of(video, 0, 1, S).labelled(N), frames, tracks)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 4), st.tuples(st.integers(1, 9), st.integers(1, 9)), st.sampled_from([0.0, 5.0, 511.9, 600.0, 5e3]),
    st.booleans(), st.integers(0, 99),
)  # fmt: skip
def test_a_field_is_exactly_what_its_points_would_be(tmp_path_factory, S, size, reach, sure, seed):
    """Even where steps from frame to frame are twice as long as int16 holds, and wrap around."""
    path, given_ = tmp_path_factory.mktemp("shard") / "a.h5", dense(S, size, reach=reach, seed=seed, sure=sure)
    shards.write_shard(path, [given_], tracker=TRACKER, config=CONFIG)
    shards.check_shard(path)
    with Shard(path) as shard:
        (clip,) = shard.clips
        got, dtype = shard.tracks(clip), shard.file[f"clips/{clip.key}/field"].dtype
        assert set(shard.file[f"clips/{clip.key}"]) == {"field", "visibility"} | ({"confidence"} if sure else set())
    displacement = np.round(given_.truth.displacement.astype(np.float64) * 64)
    assert dtype == (np.uint16 if -32768 <= displacement.min() and displacement.max() <= 32767 else np.uint32)
    as_points = (displacement / 64).astype(np.float32) + given_.truth.queries[:, 1:]
    np.testing.assert_array_equal(got.tracks, as_points)
    np.testing.assert_array_equal(got.queries, given_.truth.queries)
    np.testing.assert_array_equal(got.visibility, given_.truth.visibility)
    assert got.tracks.dtype == np.float32 and got.tracks.flags.c_contiguous and got.num_points == clip.num_points
    if sure:
        np.testing.assert_array_equal(got.confidence, np.rint(given_.truth.confidence * 255).astype(np.float32) / 255)


def test_a_field_reads_as_the_docstring_says(tmp_path):
    """By other means than the reader's: neighbour by neighbour, in whole numbers without end."""
    given_ = dense(3, (4, 5), sure=True)
    path = shards.write_shard(tmp_path / "a.h5", [given_], tracker=TRACKER, config=CONFIG)
    with h5py.File(path) as file:
        assert file.attrs["version"] == 2
        group = file["clips"][given_.clip.key]
        field, confidence = group["field"][()].astype(int), group["confidence"][()].astype(int)
    steps = np.zeros((3, 2, 4, 5), int)
    for at in np.ndindex(*field.shape):
        *plane, y, x = at
        told = field[at] // 2 if field[at] % 2 == 0 else -(field[at] + 1) // 2
        left = steps[(*plane, y, x - 1)] if x else 0
        steps[at] = (told + left + 2**15) % 2**16 - 2**15
    moved = np.cumsum(steps, axis=0).transpose(0, 2, 3, 1).reshape(3, 20, 2) / 64
    np.testing.assert_allclose(moved, given_.truth.displacement, atol=1 / 128 + 1e-5)
    first = confidence[0, 0, 0] // 2 if confidence[0, 0, 0] % 2 == 0 else -(confidence[0, 0, 0] + 1) // 2
    assert first % 256 == round(float(given_.truth.confidence[0, 0]) * 255)


def test_points_that_are_nearly_all_pixels_are_no_field(tmp_path):
    given_ = dense(2, (4, 5))
    later, moved = (given_.truth.queries.copy() for _ in range(2))
    later[3, 0], moved[3, 1] = 1, moved[3, 1] + 0.01
    versions = []
    for truth in (
        replace(given_.truth, queries=later), replace(given_.truth, queries=moved), given_.truth.points(slice(19)),
        given_.truth.points([1, 0, *range(2, 20)]),
    ):  # fmt: skip
        path = shards.write_shard(tmp_path / "a.h5", [replace(given_, truth=truth)], tracker=TRACKER, config=CONFIG)
        with Shard(path) as shard:
            assert not shard.is_dense(shard.clips[0])
            np.testing.assert_array_equal(shard.tracks(shard.clips[0]).queries, truth.queries)
            versions.append(shard.file.attrs["version"])
    assert versions == [1] * 4  # which any flowlib reads


def test_dense_clips_merge_with_others(tmp_path):
    pieces = [
        shards.write_shard(tmp_path / f"{i}.h5", [sample], tracker=TRACKER, config=CONFIG)
        for i, sample in enumerate((labelled(), dense(sure=True)))
    ]
    with Shard(shards.merge_shards(pieces, tmp_path / "merged.h5")) as shard:
        shards.check_shard(shard.path)
        assert [shard.is_dense(clip) for clip in shard.clips] == [False, True] and shard.file.attrs["version"] == 2
        with Shard(pieces[1]) as alone:
            expected, got = alone.tracks(alone.clips[0]), shard.tracks(shard.clips[1])
        for name, array in expected.arrays().items():
            np.testing.assert_array_equal(got.arrays()[name], array)


def test_a_wrong_field_is_damage(tmp_path):
    sample = dense(3, (4, 5))
    for wrong in (
        np.zeros((3, 2, 5, 5), np.uint16), np.zeros((2, 2, 4, 5), np.uint16), np.zeros((3, 2, 4, 5), np.float32),
        np.zeros((3, 2, 20), np.uint16), np.zeros((3, 2, 4, 5), np.int16), "field",
    ):  # fmt: skip
        path = shards.write_shard(tmp_path / "a.h5", [sample], tracker=TRACKER, config=CONFIG)
        with h5py.File(path, "r+") as file:
            del file[f"clips/{sample.clip.key}/field"]
            file[f"clips/{sample.clip.key}/field"] = wrong
        with Shard(path) as shard, pytest.raises(ShardError, match=f"clip {sample.clip.key} is damaged"):
            shard.tracks(shard.clips[0])


def test_a_field_takes_less_than_its_points(tmp_path):
    """A smooth motion with a tracker's noise, 160×240: as a field under two thirds of what single points take."""
    size, S, rng = (160, 240), 4, np.random.default_rng(0)
    sample = dense(S, size)
    x, y = sample.truth.queries[:, 1:].T
    flow = np.stack([np.sin(y / 30) * 3 + x / 90, np.cos(x / 25) * 2], axis=-1)
    moved = sample.truth.queries[:, 1:] + np.arange(S)[:, None, None] * flow
    noise = cv2.GaussianBlur(rng.normal(0, 1, (*size, 2 * S)), (0, 0), 4).reshape(-1, S, 2).transpose(1, 0, 2)
    moved[1:] += noise[1:]
    truth = replace(sample.truth, tracks=moved.astype(np.float32), visibility=np.ones((S, len(x)), bool))
    bytes_ = {}
    for name, order in (("field", slice(None)), ("points", [1, 0, *range(2, len(x))])):
        one = replace(sample, truth=truth.points(order))
        path = shards.write_shard(tmp_path / f"{name}.h5", [one], tracker=TRACKER, config=CONFIG)
        with Shard(path) as shard:
            group = shard.file[f"clips/{sample.clip.key}"]
            bytes_[name] = sum(item.id.get_storage_size() for item in group.values())
    assert bytes_["field"] < 0.65 * bytes_["points"], bytes_


def test_overlapping_clips_share_their_frames(tmp_path):
    path = shards.write_shard(tmp_path / "a.h5", [labelled(i) for i in range(5)], tracker=TRACKER, config=CONFIG)
    with Shard(path) as shard:
        assert sum(len(group) for group in shard.file["frames"].values()) == 8
        assert shard.frames(shard.clips[4]).shape == (4, 48, 64, 3)


def test_pieces_merge_into_what_one_go_would_have_written(tmp_path):
    samples = [labelled(0), labelled(2), labelled(0, name="other")]
    whole = shards.write_shard(tmp_path / "whole.h5", samples, tracker=TRACKER, config=CONFIG)
    pieces = [
        shards.write_shard(tmp_path / f"{i}.h5", [sample], tracker=TRACKER, config=CONFIG)
        for i, sample in enumerate(samples)
    ]
    merged = shards.merge_shards([*pieces, pieces[0]], tmp_path / "merged.h5")
    assert [clip.key for clip in shards.check_shard(merged)] == [clip.key for clip in shards.check_shard(whole)]
    with Shard(merged) as a, Shard(whole) as b:
        assert a.file.attrs["content_sha256"] == b.file.attrs["content_sha256"]


def test_pieces_of_other_settings_are_refused(tmp_path):
    pieces = [
        shards.write_shard(tmp_path / f"{i}.h5", [labelled(i)], tracker=TRACKER, config={"grid": i}) for i in range(2)
    ]
    with pytest.raises(ShardError, match="1.h5: expected the config and tracker of"):
        shards.merge_shards(pieces, tmp_path / "merged.h5")
    assert not (tmp_path / "merged.h5").exists()


def test_writing_twice_gives_the_same_bytes(tmp_path):
    paths = [
        shards.write_shard(tmp_path / name, [labelled()], tracker=TRACKER, config=CONFIG) for name in ("a.h5", "b.h5")
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes()


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1), st.sampled_from(["cut", "flip"]))
def test_no_damage_goes_unnoticed(tmp_path_factory, place, kind):
    folder = tmp_path_factory.mktemp("damage")
    path = shards.write_shard(folder / "a.h5", [labelled(N=200)], tracker=TRACKER, config=CONFIG)
    with Shard(path) as shard:
        expected = shard.read(shard.clips[0])
    content = bytearray(path.read_bytes())
    position = min(int(place * len(content)), len(content) - 1)
    if kind == "cut":
        content = content[:position]
    else:
        content[position] ^= 0x10
    path.write_bytes(content)
    try:
        shards.check_shard(path)
        with Shard(path) as shard:  # a flipped bit in unused space changes nothing that is read
            got = shard.read(shard.clips[0])
        np.testing.assert_array_equal(got.frames, expected.frames)
        np.testing.assert_array_equal(got.truth.tracks, expected.truth.tracks)
        assert kind == "flip"
    except ShardError as error:
        assert str(path) in str(error)


def test_what_is_no_shard_is_listed_apart(tmp_path):
    folder = tmp_path / "shards"
    good = shards.write_shard(folder / "good.h5", [labelled(0), labelled(2)], tracker=TRACKER, config=CONFIG)
    shards.write_shard(folder / "later.h5", [labelled(2), labelled(4)], tracker=TRACKER, config=CONFIG)
    (folder / "empty.h5").touch()
    (folder / "half.h5").write_bytes(good.read_bytes()[:2000])
    (folder / ".part.h5").touch()
    with h5py.File(folder / "other.h5", "w") as file:
        file["data"] = np.zeros(3)
    found, bad = shards.find_shards(tmp_path)
    assert [len(clips) for clips in found.values()] == [2, 1]
    assert len(bad) == 3 and all(name in " ".join(bad) for name in ("empty.h5", "half.h5", "other.h5"))


def test_size_at_ten_thousand_points(tmp_path):
    """A smoothly moving grid of 100×100 points with the noise of a real tracker: at most 170 KB a clip."""
    rng = np.random.default_rng(0)
    S, n = 8, 100
    y, x = np.mgrid[:n, :n] * 1.0
    queries = np.stack([np.zeros(n * n), x.ravel() * 6.4 + 2.7, y.ravel() * 3.6 + 1.3], axis=1)
    field = np.stack([np.sin(y / 20) * 3, np.cos(x / 15) * 2], axis=-1).reshape(-1, 2)
    walk = np.cumsum(rng.normal(0, 0.1, (S, n * n, 2)), axis=0) + np.arange(S)[:, None, None] * field
    tracks = Tracks(queries[None, :, 1:] + walk - walk[0], rng.random((S, n * n)) > 0.05, queries)
    sample = ClipSample(
        Clip.of(Video("v", "", (360, 640), 25.0, 8, "0" * 64), 0, 1, S).labelled(n * n),
        np.zeros((S, 16, 16, 3), np.uint8),
        tracks,
    )
    path = shards.write_shard(tmp_path / "a.h5", [sample], tracker=TRACKER, config=CONFIG)
    assert path.stat().st_size < 300_000


def test_a_frame_of_fine_texture_is_kept_small(tmp_path):
    """Smoothed noise of one strength more takes over 95 kB at quality 95; of one less, less."""
    rng, sizes = np.random.default_rng(0), {}
    video = Video("a", "a.mp4", (360, 640), 25.0, 2, "f" * 64)
    for strength in (40, 80):
        noise = cv2.GaussianBlur(rng.normal(0, strength, (360, 640, 1)).astype(np.float32), (0, 0), 1)
        frame = np.clip(128 + noise, 0, 255).astype(np.uint8)[..., None].repeat(3, axis=2)
        tracks = Tracks(np.zeros((1, 0, 2)), np.zeros((1, 0), bool), np.zeros((0, 3)))
        sample = ClipSample(Clip.of(video, 0, 1, 1).labelled(0), frame[None], tracks)
        path = shards.write_shard(tmp_path / f"{strength}.h5", [sample], tracker=TRACKER, config=CONFIG)
        with Shard(path) as shard:
            (clip,) = shard.clips
            error = np.abs(shard.frames(clip)[0].astype(int) - frame).mean()
            sizes[strength] = len(encode_image(frame)), shard.picture(clip, 0).size
            assert error < 2
    assert sizes[40][0] == sizes[40][1] < 95_000 < sizes[80][0] and sizes[80][1] <= 95_000


def test_clips_that_are_known_by_name_alone_are_refused(tmp_path, refuses):
    sample = labelled()
    for clip in (replace(sample.clip, name="bear"), replace(sample.clip, fingerprint="")):
        with refuses("expected a clip of a video with a fingerprint, got one known by name alone"):
            shards.write_shard(tmp_path / "a.h5", [replace(sample, clip=clip)], tracker=TRACKER, config=CONFIG)
    assert not (tmp_path / "a.h5").exists()


def test_the_index_says_what_it_always_said(tmp_path):
    path = shards.write_shard(tmp_path / "a.h5", [labelled()], tracker=TRACKER, config=CONFIG)
    with h5py.File(path) as file:
        (entry,) = json.loads(file["index"][()].tobytes())
    names = "key video fingerprint first_frame frame_step num_frames source_size fps source_frames num_points kept"
    assert list(entry) == names.split()


def with_index(change):
    """Spoils the entry of the first clip in the index."""

    def spoil(file):
        entries = json.loads(file["index"][()].tobytes())
        entries = change(entries)
        del file["index"]
        file["index"] = np.frombuffer(json.dumps(entries).encode(), np.uint8)

    return spoil


def entry(**values):
    return with_index(lambda entries: [entries[0] | values, *entries[1:]])


def instead(name, **dataset):
    """Another dataset in the place of one: `clip` stands for the first clip's group."""

    def spoil(file):
        path = name.replace("clip", f"clips/{next(iter(file['clips']))}")
        del file[path]
        file.create_dataset(path, **dataset) if dataset else file.create_group(path)

    return spoil


def attribute(name, value):
    return lambda file: file.attrs.__setitem__(name, value)


def without_attribute(name):
    return lambda file: file.attrs.__delitem__(name)


TERABYTES = {"shape": (4 * 2**40,), "dtype": "u1", "chunks": (2**20,)}
SPOILT = {
    "index is a group": instead("index"),
    "index of text": instead("index", data="[]"),
    "index of texts": instead("index", data=["[]", "{}"]),
    "index of floats": instead("index", data=np.zeros(9)),
    "index of two axes": instead("index", data=np.zeros((3, 3), np.uint8)),
    "index of 4 TB": instead("index", **TERABYTES),
    "index of 4 TB, packed": instead("index", **TERABYTES, compression="gzip"),
    "index of no axis": instead("index", data=np.uint8(3)),
    "index without shape": instead("index", data=h5py.Empty("u1")),
    "index is no JSON": instead("index", data=np.frombuffer(b"[{", np.uint8)),
    "index is no UTF-8": instead("index", data=np.frombuffer(b'["\xff"]', np.uint8)),
    "index is deep": instead("index", data=np.frombuffer(b"[" * 100_000, np.uint8)),
    "index is a number": with_index(lambda _: 3),
    "index is null": with_index(lambda _: None),
    "index is an object": with_index(lambda entries: entries[0]),
    "clips are numbers": with_index(lambda _: [1, 2]),
    "clips are lists": with_index(lambda _: [[], []]),
    "clips are empty": with_index(lambda _: [{}]),
    "a key more": entry(extra=1),
    "a key less": with_index(lambda entries: [{k: v for k, v in entries[0].items() if k != "kept"}]),
    "frames as text": entry(num_frames="4"),
    "frames as float": entry(num_frames=4.0),
    "no frames": entry(num_frames=0),
    "10^9 frames": entry(num_frames=10**9),
    "10^30 frames": entry(num_frames=10**30),
    "true frames": entry(num_frames=True),
    "negative first frame": entry(first_frame=-1),
    "no step": entry(frame_step=0),
    "points as null": entry(num_points=None),
    "negative points": entry(num_points=-1),
    "size as number": entry(source_size=48),
    "size of three": entry(source_size=[1, 2, 3]),
    "fps as text": entry(fps="25"),
    "video as number": entry(video=3),
    "video without name": entry(video=""),
    "fingerprint as null": entry(fingerprint=None),
    "fingerprint of another": entry(fingerprint="0" * 64),
    "kept as text": entry(kept="0123"),
    "kept as number": entry(kept=4),
    "kept beyond": entry(kept=[0, 1, 2, 4]),
    "kept twice": entry(kept=[0, 0, 1, 2]),
    "kept backwards": entry(kept=[3, 2, 1, 0]),
    "kept of texts": entry(kept=["0"]),
    "another key": entry(key="a"),
    "a name": entry(name="bear", key="bear"),
    "format as list": attribute("format", ["flowlib-shard"]),
    "version as text": attribute("version", "one"),
    "version of many": attribute("version", np.ones(1000)),
    "version 9": attribute("version", 9),
    "no version": without_attribute("version"),
    "no config": without_attribute("config"),
    "no content hash": without_attribute("content_sha256"),
    "content hash is a path": attribute("content_sha256", "../../" + "0" * 58),
    "config is a list": lambda file: file.attrs.update(hashed({"config": "[]", "tracker": "{}"})),
    "tracker is null": lambda file: file.attrs.update(hashed({"config": "{}", "tracker": "null"})),
}
SPOILT_CLIPS = {
    "steps of 4 TB": instead("clip/steps", **TERABYTES),
    "steps of floats": instead("clip/steps", data=np.zeros((4, 9, 2))),
    "steps of text": instead("clip/steps", data="steps"),
    "steps of fewer frames": instead("clip/steps", data=np.zeros((3, 9, 2), np.int16)),
    "queries of more points": instead("clip/queries", data=np.zeros((10, 3), np.float32)),
    "queries are a group": instead("clip/queries"),
    "visibility of one axis": instead("clip/visibility", data=np.zeros(9, np.uint8)),
    "no tracks": lambda file: file.__delitem__(f"clips/{next(iter(file['clips']))}"),
    "no frames": lambda file: file.__delitem__("frames"),
    "10^9 points": lambda file: (entry(num_points=10**9)(file), instead("clip/steps", **huge(4, 10**9, 2))(file)),
    "10^5 frames": lambda file: entry(num_frames=10**5)(file),
}


def huge(*shape):
    return {"shape": shape, "dtype": "i2", "chunks": (1, 2**20, 1), "compression": "gzip"}


def hashed(settings: dict) -> dict:
    return settings | {"settings_sha256": shards._hash_of_settings(settings).hexdigest()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "a.h5"
    return shards.write_shard(path, [labelled(), labelled(4)], tracker=TRACKER, config=CONFIG).read_bytes()


def spoilt(whole, path, spoil):
    path.parent.mkdir()
    path.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        spoil(file)
    return path


@pytest.mark.parametrize("what", SPOILT)
def test_a_shard_that_says_what_can_not_be_is_named(whole, tmp_path, what):
    path = spoilt(whole, tmp_path / "shards" / "a.h5", SPOILT[what])
    tracemalloc.start()
    for work in (Shard, shards.check_shard):
        with pytest.raises(ShardError, match="a.h5: "):
            work(path)
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()
    good, bad = shards.find_shards(tmp_path)
    assert not good and len(bad) == 1 and str(path) in bad[0] and len(bad[0]) < 800
    assert list(shards.verify_shards(tmp_path)) == [path]


@pytest.mark.parametrize("what", SPOILT_CLIPS)
def test_a_clip_that_is_not_what_the_index_says_is_named(whole, tmp_path, what):
    path = spoilt(whole, tmp_path / "shards" / "a.h5", SPOILT_CLIPS[what])
    tracemalloc.start()
    with pytest.raises(ShardError, match="a.h5: "):
        shards.check_shard(path)
    with pytest.raises(ShardError, match="a.h5: (clip .* is damaged|expected a clip)"), Shard(path) as shard:
        shard.read(shard.clips[0])
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()


def test_damage_does_not_get_into_a_merged_shard_unseen(whole, tmp_path):
    for number, spoil in enumerate((SPOILT_CLIPS["no frames"], SPOILT_CLIPS["no tracks"], flip_in_a_picture)):
        path = spoilt(whole, tmp_path / str(number) / "a.h5", spoil)
        with pytest.raises(ShardError, match="a.h5: "):
            shards.merge_shards([path], tmp_path / "merged.h5")
        assert not (tmp_path / "merged.h5").exists()


def flip_in_a_picture(file):
    group = next(iter(file["frames"].values()))
    place = next(iter(group.values())).id.get_chunk_info(0).byte_offset + 200
    name = file.filename
    file.close()
    with open(name, "r+b") as raw:
        raw.seek(place)
        byte = raw.read(1)[0]
        raw.seek(place)
        raw.write(bytes([byte ^ 1]))
