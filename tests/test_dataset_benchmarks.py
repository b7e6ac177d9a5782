"""Benchmarks: what is read, what is refused, and that their long clips become clips to train with."""

import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from flowlib.clips import ClipList
from flowlib.dataset.benchmarks import load_arrays, read_badja, read_flo, read_flow_pair, read_kitti_flow, read_tapvid
from flowlib.geometry import pixel_grid
from flowlib.synthetic import synthetic_clip
from flowlib.trackers.benchmark import StillTracker, evaluate_tracker


def test_flo_round_trip_and_bad_files(tmp_path, refuses):
    flow = np.random.default_rng(0).normal(size=(5, 7, 2)).astype("<f4")
    flow[2, 3] = 1e10
    data = struct.pack("<fii", 202021.25, 7, 5) + flow.tobytes()
    (tmp_path / "a.flo").write_bytes(data)
    read, known = read_flo(tmp_path / "a.flo")
    assert known.sum() == 34 and not known[2, 3] and (read[:, 2, 3] == 0).all()
    np.testing.assert_array_equal(read[:, known], flow.transpose(2, 0, 1)[:, known])
    cut = (data[:-4], "expected 292 bytes for 7×5")
    for broken, message in (cut, (b"PIEH", "expected a .flo file"), (b"\0" * 300, "expected a .flo file")):
        (tmp_path / "b.flo").write_bytes(broken)
        with refuses(message):
            read_flo(tmp_path / "b.flo")


def test_suffixes_are_read_in_capitals_too(tmp_path):
    import cv2

    for name in ("a.PNG", "b.JPG"):
        cv2.imwrite(str(tmp_path / name), np.zeros((5, 7, 3), np.uint8))
    flow = np.ones((5, 7, 2), "<f4")
    (tmp_path / "a.FLO").write_bytes(struct.pack("<fii", 202021.25, 7, 5) + flow.tobytes())
    clip = read_flow_pair(tmp_path / "a.PNG", tmp_path / "b.JPG", tmp_path / "a.FLO")
    assert clip.truth.num_points == 35 and (clip.truth.displacement[1] == 1).all()
    annotations = badja_files(tmp_path, True)
    for number, suffix in enumerate((".JPG", ".jpeg", ".Jpg")):
        (tmp_path / "frames" / f"{number:05d}.jpg").rename(tmp_path / "frames" / f"{number:05d}{suffix}")
    assert read_badja(annotations, tmp_path / "frames").truth.num_frames == 4


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        "3",
        "null",
        "[1]",
        "[null]",
        '["image_path"]',
        '[{"image_path": "1.jpg"}]',
        "[" * 5000,
        "\x00",
    ]
    + ["NaN", "J:5", "J:[[1, 2], [3]]", 'J:"ab"', "J:[[1, 2, 3]]", "J:null", "V:[true]", 'V:{"a": 1}', "P:7", "P:null"],
)
def test_annotations_edited_by_hand_are_told_by_their_file(text, tmp_path, refuses):
    path = badja_files(tmp_path, False)
    if text[1:2] == ":":
        entries = json.loads(path.read_text())
        entries[1][{"J": "joints", "V": "visibility", "P": "image_path"}[text[0]]] = json.loads(text[2:])
        text = json.dumps(entries)
    path.write_text(text)
    with refuses(r"horse\.json: expected "):
        read_badja(path, tmp_path / "frames")


def test_kitti_flow(tmp_path, refuses):
    import cv2

    flow = np.round(np.random.default_rng(0).uniform(-500, 500, (4, 6, 2)) * 64) / 64
    known = np.random.default_rng(1).random((4, 6)) > 0.3
    stored = np.concatenate([flow * 64 + 2**15, known[..., None]], axis=-1).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "flow.png"), stored[..., ::-1])  # OpenCV writes blue first
    read, valid = read_kitti_flow(tmp_path / "flow.png")
    np.testing.assert_array_equal(valid, known)
    np.testing.assert_array_equal(read[:, known], flow.transpose(2, 0, 1)[:, known])
    cv2.imwrite(str(tmp_path / "grey.png"), stored[..., 0] // 256)
    with refuses("three channels with 16 bits"):
        read_kitti_flow(tmp_path / "grey.png")


def tapvid_entry(S=8, size=(64, 96), N=3):
    frames, scene = synthetic_clip(S, size, seed=2)
    tracks = scene.tracks(np.array([[0, 20.0, 30], [0, 50, 20], [0, 70, 40]][:N]))
    shares = (tracks.tracks + 0.5) / np.array([size[1], size[0]])
    return {"video": frames, "points": shares.swapaxes(0, 1), "occluded": ~tracks.visibility.T}, tracks


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_tapvid_files(tmp_path, protocol):
    entry, tracks = tapvid_entry()
    (tmp_path / "davis.pkl").write_bytes(pickle.dumps({"clip": entry}, protocol))
    (clip,) = read_tapvid(tmp_path / "davis.pkl", size=None)
    np.testing.assert_allclose(clip.truth.tracks, tracks.tracks, atol=1e-4)
    np.testing.assert_array_equal(clip.truth.visibility, tracks.visibility)
    np.testing.assert_allclose(clip.truth.queries, tracks.queries, atol=1e-4)
    (small,) = read_tapvid(tmp_path / "davis.pkl")
    np.testing.assert_allclose(small.truth.tracks, tracks.resize((64, 96), (256, 256)).tracks, atol=1e-3)
    assert small.frames.shape == (8, 256, 256, 3)


def test_tapvid_kinetics_and_strided_queries(tmp_path):
    from flowlib.video import encode_image

    entry, tracks = tapvid_entry()
    entry["occluded"][0, :2], entry["occluded"][1] = True, True
    kinetics = [entry | {"video": [encode_image(frame) for frame in entry["video"]]}]
    (tmp_path / "k.pkl").write_bytes(pickle.dumps(kinetics))
    (first,) = read_tapvid(tmp_path / "k.pkl", size=None)
    assert first.name == "k_0000" and first.truth.queries[:, 0].tolist() == [2, 0]  # the one never seen is skipped
    np.testing.assert_allclose(first.truth.queries[0, 1:], tracks.tracks[2, 0], atol=1e-4)
    (strided,) = read_tapvid(tmp_path / "k.pkl", size=None, query_mode="strided")
    expected = [(t, point) for t in (0, 5) for point in range(3) if not entry["occluded"][point, t]]
    assert strided.truth.queries[:, 0].tolist() == [t for t, _ in expected] and strided.query_mode == "strided"


class Danger:
    def __reduce__(self):
        return Path.touch, (Path("/tmp/flowlib_was_here"),)


@pytest.mark.parametrize(
    "content",
    [Danger(), {"video": Danger()}, [np.array([Danger()], dtype=object)], np.random.default_rng(0), print, Path],
)
def test_a_pickle_of_anything_but_arrays_is_refused(content, tmp_path, refuses):
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(content))
    with refuses(f"{tmp_path}.*expected a pickle of NumPy arrays only"):
        list(read_tapvid(tmp_path / "bad.pkl"))
    assert not Path("/tmp/flowlib_was_here").exists()


def test_pickles_that_are_none_or_not_tapvid(tmp_path, refuses):
    for data in (b"", b"hello", pickle.dumps({"a": np.zeros(3)})[:-5]):
        (tmp_path / "bad.pkl").write_bytes(data)
        with refuses("expected a pickle of NumPy arrays only"):
            load_arrays(tmp_path / "bad.pkl")
    (tmp_path / "other.pkl").write_bytes(pickle.dumps({"a": {"points": np.zeros(3)}}))
    with refuses("expected video, points and occluded for 'a'"):
        list(read_tapvid(tmp_path / "other.pkl"))
    (tmp_path / "number.pkl").write_bytes(pickle.dumps(3))
    with refuses("expected a dict or a list of clips, as TAP-Vid has it, got int"):
        list(read_tapvid(tmp_path / "number.pkl"))
    entry, _ = tapvid_entry()
    (tmp_path / "pixels.pkl").write_bytes(pickle.dumps({"a": entry | {"points": entry["points"] * 96}}))
    with refuses("a: expected points as shares of the frame, got up to"):
        list(read_tapvid(tmp_path / "pixels.pkl"))
    (tmp_path / "short.pkl").write_bytes(pickle.dumps({"a": entry | {"occluded": entry["occluded"][:, 1:]}}))
    with refuses("expected points"):
        list(read_tapvid(tmp_path / "short.pkl"))


def badja_files(folder: Path, masks: bool) -> Path:
    """An animal whose joints walk 10 px of the annotation's 1920×1080 to the right in each frame."""
    import cv2

    (folder / "frames").mkdir()
    (folder / "masks").mkdir()
    entries = []
    for number in range(4):
        cv2.imwrite(str(folder / "frames" / f"{number:05d}.jpg"), np.zeros((54, 96, 3), np.uint8))
        if number == 2:
            continue
        joints = [[100, 200 + 10 * number], [300, 400 + 10 * number], [500, 100], [0, 0]]
        visible = [True, number < 3, True, False]
        path = f"DAVIS/JPEGImages/Full-Resolution/horse/{number:05d}.jpg"
        entries.append({"image_path": path, "segmentation_path": "", "joints": joints, "visibility": visible})
        if masks:
            mask = np.zeros((54, 96), np.uint8)
            mask[:10, :10] = 255
            cv2.imwrite(str(folder / "masks" / f"{number:05d}.png"), mask)
    (folder / "horse.json").write_text(json.dumps(entries))
    return folder / "horse.json"


def test_badja(tmp_path, refuses):
    clip = read_badja(badja_files(tmp_path, True), tmp_path / "frames", tmp_path / "masks")
    assert clip.truth.tracks.shape == (4, 3, 2) and clip.name == "horse" and not clip.occlusion_known
    np.testing.assert_allclose(clip.truth.tracks[3, 0], [(230.5) / 20 - 0.5, 100.5 / 20 - 0.5])
    assert clip.truth.visibility.tolist() == [[True] * 3, [True] * 3, [False] * 3, [True, False, True]]
    np.testing.assert_array_equal(clip.area, [100, 100, np.nan, 100])
    row = evaluate_tracker(StillTracker(), [clip]).rows[0]
    np.testing.assert_allclose(row["mean_error"], (0.5 + 0.5 + 0 + 1.5 + 0) / 5, rtol=1e-5)
    assert row["pck_t"] == 1 and "average_jaccard" not in row
    half = read_badja(tmp_path / "horse.json", tmp_path / "frames", tmp_path / "masks", size=(27, 48))
    assert half.frames.shape == (4, 27, 48, 3) and half.area[0] == 25
    assert "hull" in read_badja(tmp_path / "horse.json", tmp_path / "frames").note
    (tmp_path / "frames" / "00002.jpg").unlink()
    with refuses("00002 is missing", FileNotFoundError):
        read_badja(tmp_path / "horse.json", tmp_path / "frames")
    (tmp_path / "horse.json").write_text('[{"image_path": "no number", "joints": [], "visibility": []}]')
    with refuses("expected paths of numbered pictures"):
        read_badja(tmp_path / "horse.json", tmp_path / "frames")
    (tmp_path / "horse.json").write_text("[{}]")
    with refuses("as BADJA has it"):
        read_badja(tmp_path / "horse.json", tmp_path / "frames")


def test_real_ground_truth_is_read(shared):
    data = shared / "data"
    camel = read_badja(
        data / "gt/badja/camel.json", data / "davis480/camel/frames", data / "davis480/camel/masks", size=(96, 170)
    )
    assert camel.truth.tracks.shape == (84, 20, 2) and np.isfinite(camel.area).sum() == 18
    assert 0 < evaluate_tracker(StillTracker(), [camel]).rows[0]["pck_t"] < 1
    folder = data / "gt/middlebury/Urban2"
    pair = read_flow_pair(folder / "frame10.png", folder / "frame11.png", folder / "flow10.flo")
    assert pair.name == "Urban2" and pair.dense and pair.truth.num_points == pair.size[0] * pair.size[1]
    assert np.abs(pair.truth.displacement).max() < 30


def test_flow_pairs_are_clips_of_two_frames(tmp_path, refuses):
    from flowlib.video import encode_image

    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / f"{name}.jpg").write_bytes(encode_image(rng.integers(0, 255, (5, 7, 3), np.uint8)))
    flow = rng.normal(size=(5, 7, 2)).astype("<f4")
    flow[2, 3] = 1e10
    (tmp_path / "a.flo").write_bytes(struct.pack("<fii", 202021.25, 7, 5) + flow.tobytes())
    pair = read_flow_pair(tmp_path / "a.jpg", tmp_path / "b.jpg", tmp_path / "a.flo", "pair")
    known = np.abs(flow).max(axis=-1) < 1e9
    assert (pair.name, pair.dense, pair.truth.num_points, pair.frames.shape) == ("pair", True, 34, (2, 5, 7, 3))
    np.testing.assert_array_equal(pair.truth.queries[:, 1:], pixel_grid((5, 7))[known])
    np.testing.assert_allclose(pair.truth.displacement[1], flow[known], rtol=0, atol=1e-12)
    (tmp_path / "b.jpg").write_bytes(encode_image(np.zeros((5, 8, 3), np.uint8)))
    with refuses("expected pictures and flow of one size"):
        read_flow_pair(tmp_path / "a.jpg", tmp_path / "b.jpg", tmp_path / "a.flo")


def test_badja_becomes_clips_to_train_with(tmp_path):
    clips = ClipList(read_badja(badja_files(tmp_path, False), tmp_path / "frames"), num_frames=2)
    assert [clip.name for clip in clips] == ["horse-00000-1-2"]  # frames 2 and 3 begin without an annotation
    assert clips[0].truth.num_points == 3 and clips[0].truth.visibility.all() and not clips[0].occlusion_known
    assert clips.num_frames == 2 and clips.size == (54, 96) and clips.videos == ["horse"]
    later = ClipList(read_badja(tmp_path / "horse.json", tmp_path / "frames"), num_frames=1)
    assert [clip.clip.first_frame for clip in later] == [0, 1, 3]
    assert later[2].truth.num_points == 2  # those seen in frame 3


@pytest.mark.parametrize("query_mode", ["first", "strided"])
def test_tapvid_becomes_clips_to_train_with(tmp_path, query_mode):
    entry, tracks = tapvid_entry(S=12)
    (tmp_path / "davis.pkl").write_bytes(pickle.dumps({"a": entry, "b": entry}))
    clips = ClipList(read_tapvid(tmp_path / "davis.pkl", size=None, query_mode=query_mode), num_frames=4)
    assert [clip.name for clip in clips] == [f"{video}-{first:05d}-1-4" for video in "ab" for first in (0, 4, 8)]
    for sample, first in zip(clips, (0, 4, 8)):
        seen = tracks.visibility[first]
        assert sample.truth.num_points == seen.sum()  # each point once, however many queries it had
        np.testing.assert_allclose(sample.truth.tracks, tracks.tracks[first : first + 4, seen], atol=1e-4)
        np.testing.assert_array_equal(sample.truth.visibility, tracks.visibility[first : first + 4, seen])
        np.testing.assert_allclose(sample.truth.queries[:, 1:], sample.truth.tracks[0])
        assert (sample.truth.queries[:, 0] == 0).all() and sample.query_mode == "first"
        assert sample["frames"].shape == (4, 64, 96, 3) and sample["video"] == "a"
