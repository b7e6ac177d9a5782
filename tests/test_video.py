"""Videos: every kind is read upright and whole, every broken one is named with a reason."""

import os
import shutil
import zipfile

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowlib import video
from flowlib.geometry import FIT_RULES, fit_frame
from flowlib.video import VideoError, probe


@pytest.fixture
def clip() -> np.ndarray:
    """Nine frames 48×72 that differ from one another, with a red top left corner."""
    frames = np.stack([np.full((48, 72, 3), 10 * i, np.uint8) for i in range(9)])
    frames[:, :12, :12] = [255, 0, 0]
    return frames


@pytest.fixture
def mp4(clip, tmp_path):
    return video.write_video(tmp_path / "clip.mp4", clip, fps=12)


def remux(source, target, change) -> None:
    """Copy a video without coding it again, after `change` was applied to the new stream."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        change(stream)
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)


def test_probe_says_what_there_is(mp4):
    found = probe(mp4)
    assert (found.name, found.size, found.fps, found.num_frames) == ("clip", (48, 72), 12.0, 9)
    assert video.Video.from_dict(found.to_dict()) == found


def test_lossless_video_gives_every_value_back(clip, tmp_path):
    path = video.write_video(tmp_path / "clip.mkv", clip, lossless=True)
    np.testing.assert_array_equal(np.stack(list(video.iterate_frames(path))), clip)


def test_frames_are_the_ones_asked_for(clip, tmp_path):
    path = video.write_video(tmp_path / "clip.mkv", clip, lossless=True)
    np.testing.assert_array_equal(video.read_frames(path, [2, 5, 8]), clip[[2, 5, 8]])
    np.testing.assert_array_equal(np.stack(list(video.iterate_frames(path, 1, 8, 3))), clip[1:8:3])


@pytest.mark.parametrize("turn, corner", [(90, (-6, 5)), (-90, (5, -6)), (180, (-6, -6))])
def test_rotation_flag_is_obeyed(mp4, tmp_path, turn, corner):
    turned = tmp_path / "turned.mp4"
    remux(mp4, turned, lambda stream: stream.set_display_rotation(turn))
    frame = next(video.iterate_frames(turned))
    assert frame.shape[:2] == probe(turned).size == ((72, 48) if turn % 180 else (48, 72))
    assert frame[corner][0] > 200 and frame[corner][1] < 50


@pytest.mark.parametrize("pixel_format", ["yuv444p", "yuv422p10le", "gray"])
def test_pixel_formats_become_rgb(clip, tmp_path, pixel_format):
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 72, pixel_format
        for frame in clip:
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pixel_format))
            )
        container.mux(stream.encode())
    np.testing.assert_allclose(video.read_frames(path, [4])[0, 30, 30], 40, atol=2)


def test_pictures_and_their_zip_are_one_and_the_same_video(clip, mp4, tmp_path):
    source = probe(mp4, "Söö 1")
    folder, archive = video.write_frames([source], tmp_path / "frames", layout="both")
    assert archive == tmp_path / "frames" / "Söö 1.zip"
    assert probe(folder).fingerprint == probe(archive).fingerprint
    np.testing.assert_array_equal(video.read_frames(folder, [3]), video.read_frames(archive, [3]))
    np.testing.assert_allclose(video.read_frames(folder, [3])[0, 30, 30], 30, atol=4)
    assert list(video.find_videos(tmp_path / "frames")) == ["Söö 1"]
    (folder / "frames" / "00004.jpg").unlink()
    before = archive.stat().st_mtime_ns
    video.write_frames([source], tmp_path / "frames", layout="both")
    assert probe(folder).num_frames == 9 and archive.stat().st_mtime_ns == before


def test_layouts(mp4, tmp_path, refuses):
    assert video.write_frames([probe(mp4)], tmp_path / "none", layout="none") == [] and not (tmp_path / "none").exists()
    assert video.write_frames([probe(mp4)], tmp_path, layout="zip") == [tmp_path / "clip.zip"]
    with refuses("layout: expected none, folder, zip or both, got 'tar'"):
        video.write_frames([probe(mp4)], tmp_path, layout="tar")


def test_videos_are_described(mp4):
    text = video.describe_videos([probe(mp4)], [video.Skipped("bad", "bad.mp4: is empty")])
    assert text.splitlines() == [
        "clip: 72×48, 12 frames/s, 9 frames",
        "skipped: bad: bad.mp4: is empty",
        "1 video, 1 skipped",
    ]
    assert [frame.shape for frame in video.middle_frames([probe(mp4)], (20, 30))] == [(20, 30, 3)]


def test_pictures_are_ordered_by_number(clip, tmp_path):
    (tmp_path / "v" / "frames").mkdir(parents=True)
    for i in (2, 10, 1):
        (tmp_path / "v" / "frames" / f"{i}.jpg").write_bytes(video.encode_image(clip[i % 9]))
    means = [frame[30, 30, 0] for frame in video.iterate_frames(tmp_path / "v")]
    np.testing.assert_allclose(means, [10, 20, 10], atol=2)


def test_names_are_unique_and_stay_readable(mp4, tmp_path):
    for name in ("a b é.mp4", "twin.mp4", "twin.mov", "deep/twin.mp4", "notes.txt", ".hidden.mp4"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(mp4, tmp_path / "in" / name)
    assert list(video.find_videos(tmp_path / "in")) == ["a b é", "deep/twin", "twin.mov", "twin.mp4"]
    assert list(video.find_videos(mp4)) == ["clip"]


def test_every_bad_video_is_listed_with_its_reason_and_the_others_go_on(mp4, clip, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    shutil.copy(mp4, source / "good.mp4")
    (source / "text.mp4").write_text("not a video")
    (source / "empty.mp4").touch()
    (source / "cut.mp4").write_bytes(mp4.read_bytes()[:600])
    (source / "bad.zip").write_text("not a zip")
    video.write_video(source / "tiny.mkv", clip[:, :1, :1], lossless=True)
    with zipfile.ZipFile(source / "rotten.zip", "w") as file:
        file.writestr("rotten/frames/1.jpg", b"not a picture")
    good, bad = video.probe_all(source)
    assert [one.name for one in good] == ["good"]
    reasons = {one.name: one.reason for one in bad}
    assert sorted(reasons) == ["bad", "cut", "empty", "rotten", "text", "tiny"]
    assert "1×1" in reasons["tiny"] and "1.jpg is not a picture" in reasons["rotten"]
    assert all(str(source / name) in reason for name, reason in reasons.items())


def test_what_an_archive_or_the_disk_refuses_is_listed(mp4, tmp_path):
    picture = next((video.write_frames([probe(mp4)], tmp_path)[0] / "frames").iterdir())
    for name, kind in (("damaged", zipfile.ZIP_LZMA), ("bz2", zipfile.ZIP_BZIP2), ("locked", zipfile.ZIP_STORED)):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w", kind) as archive:
            archive.write(picture, "0.jpg")
        content = bytearray((tmp_path / f"{name}.zip").read_bytes())
        if name == "locked":  # the flag of an encrypted entry, where the entry and where the directory begins
            content[6] |= 1
            content[content.index(b"PK\x01\x02") + 8] |= 1
        else:
            content[60:90] = bytes(30)
        (tmp_path / f"{name}.zip").write_bytes(content)
    (tmp_path / "clip" / "frames" / "99.jpg").mkdir()
    shutil.copy(mp4, os.path.join(os.fsencode(tmp_path), b"latin\xe9.mp4"))
    good, bad = video.probe_all(tmp_path)
    assert [one.path for one in good] == [str(mp4)]
    assert sorted(one.name for one in bad) == ["bz2", "clip", "damaged", "latin\\xe9", "locked"]
    assert all(text.isprintable() for one in bad for text in (one.name, one.reason))


def test_a_video_that_breaks_off_is_refused(shared, tmp_path):
    whole = (shared / "data/videos/basketball.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    with pytest.raises(VideoError, match=r"cut.mp4: breaks off after \d+ of 333 frames"):
        probe(tmp_path / "cut.mp4")


def test_flipped_bytes_are_noticed(shared, tmp_path):
    content = bytearray((shared / "data/videos/cat.mp4").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000 : 7] = bytes(0x5A ^ byte for byte in content[middle : middle + 2000 : 7])
    (tmp_path / "flipped.mp4").write_bytes(content)
    with pytest.raises(VideoError, match="flipped.mp4"):
        probe(tmp_path / "flipped.mp4")


def test_no_videos_no_quiet_success(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected video files.*found none"):
        video.find_videos(tmp_path)
    with pytest.raises(FileNotFoundError, match="found nothing at"):
        video.find_videos(tmp_path / "missing")
    with pytest.raises(VideoError, match="found nothing there"):
        probe(tmp_path / "missing.mp4")


def test_asking_for_too_many_frames_is_refused(mp4, refuses):
    with refuses("expected at least 13 frames"):
        video.read_frames(mp4, [1, 12])
    with refuses("ascending"):
        video.read_frames(mp4, [3, 1])


@given(st.tuples(st.integers(1, 90), st.integers(1, 90)), st.sampled_from(FIT_RULES))
def test_resizing_always_gives_the_size_asked_for(size, fit):
    assert video.resize_frame(np.zeros((30, 50, 3), np.uint8), size, fit).shape == (*size, 3)


def test_resizing_agrees_with_the_geometry_of_the_fit():
    frame = np.zeros((60, 80, 3), np.uint8)
    frame[20:24, 40:44] = 255
    for fit in FIT_RULES:
        resized = video.resize_frame(frame, (90, 160), fit)[..., 0].astype(float)
        y, x = (np.mgrid[:90, :160] * resized).sum(axis=(1, 2)) / resized.sum()
        expected = fit_frame((60, 80), (90, 160), fit).to_target(np.array([41.5, 21.5]))
        np.testing.assert_allclose([x, y], expected, atol=0.05)


def test_image_bytes(clip, refuses):
    for lossless in ("webp", "png"):
        np.testing.assert_array_equal(video.decode_image(video.encode_image(clip[5], lossless)), clip[5])
    assert np.abs(video.decode_image(video.encode_image(clip[5])).astype(int) - clip[5]).max() < 12
    with refuses("expected the bytes of a picture"):
        video.decode_image(b"no")
    with refuses("expected 'jpeg', 'webp' or 'png', got 'bmp'"):
        video.encode_image(clip[0], "bmp")


def test_gif_and_progress(clip, tmp_path, refuses):
    seen = []
    video.write_video(tmp_path / "a.gif", clip, progress=lambda frames: (seen.append(1) or f for f in frames))
    assert len(seen) == 9 and probe(tmp_path / "a.gif").num_frames == 9
    with refuses("at least one frame"):
        video.write_video(tmp_path / "b.mp4", [])
    with refuses("expected a name ending in"):
        video.write_video(tmp_path / "b.xyz", clip)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gif"]


def test_a_list_of_files_is_no_video(mp4):
    """FFmpeg would play the file it names, whose content could change under the list's fingerprint."""
    listed = mp4.with_name("list.mp4")
    listed.write_text(f"ffconcat version 1.0\nfile {mp4.name}\n")
    with pytest.raises(VideoError, match="list.mp4: expected a video, got a list of other files .concat."):
        probe(listed)


def test_probing_shows_a_thumbnail_of_every_frame(clip, mp4, tmp_path):
    folder = video.write_frames([probe(mp4, "a")], tmp_path / "frames")[0]
    for path, size in ((mp4, (48, 72)), (folder, (48, 72))):
        seen = []
        probe(path, watch=seen.append)
        assert len(seen) == 9 and all(one.shape == (*size, 3) for one in seen)
        np.testing.assert_allclose([one[30, 30, 0] for one in seen], clip[:, 30, 30, 0], atol=6)
    large = video.write_video(tmp_path / "large.mp4", np.zeros((2, 300, 640, 3), np.uint8))
    probe(large, watch=lambda one: seen.append(one.shape))
    assert seen[-1] == (120, 256, 3)


def test_stretches_of_a_video_go_on_where_reading_stopped(tmp_path, monkeypatch, refuses):
    frames = np.random.default_rng(0).integers(0, 255, (30, 32, 32, 3), np.uint8)
    path = tmp_path / "v.mkv"
    there, opened, open_video = (
        probe(video.write_video(path, frames, fps=10, lossless=True)),
        [],
        video.videos.open_video,
    )
    monkeypatch.setattr("flowlib.video.videos.open_video", lambda path: opened.append(path) or open_video(path))
    reader = video.OnwardReader(there)
    for start, stop, step, times in (
        (0, 8, 1, 2),  # its fingerprint, and the first way
        (8, 20, 3, 2),
        (0, 4, 1, 3),  # from the beginning again
        (20, 30, 1, 3),  # by the first decoder
        (4, 6, 1, 3),  # by the second
        (5, 7, 1, 4),
    ):
        found = np.stack(list(reader.read(start, stop, step)))
        np.testing.assert_array_equal(found, frames[start:stop:step])
        assert len(opened) == times, (start, stop)
    broken_off = reader.read(6, 30)
    np.testing.assert_array_equal(next(broken_off), frames[6])
    broken_off.close()
    np.testing.assert_array_equal(next(reader.read(7, 30)), frames[7])
    assert len(opened) == 4 and not list(reader.read(9, 30, stopped=lambda: True))
    with refuses("v.mkv: ended before frame 30, it had 30 frames"):
        list(reader.read(28, 31))
    video.write_video(path, frames[::-1], fps=10, lossless=True)
    with refuses("v.mkv: has changed since the plan was made"):
        list(reader.read(0, 2))
    path.unlink()
    with refuses("v.mkv: expected a video, can't be read"):
        list(reader.read(0, 2))
