"""Videos as people really have them: cut, mirrored, interlaced, in HDR, uneven in time, damaged, or made to harm."""

import json
import math
import os
import struct
import subprocess
import sys
import zipfile
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from flowlib import video
from flowlib.labelling import LabelConfig, make_plan
from flowlib.shots import scan
from flowlib.video import VideoError, probe

HEIGHT, WIDTH = 48, 64
CORNERS = np.array([[[200, 40, 40], [40, 180, 40]], [[40, 40, 200], [200, 200, 40]]], np.uint8)


def picture(number: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """Four colours, red top left, and the number as bits in the middle rows."""
    frame = CORNERS.repeat(size[0] // 2, axis=0).repeat(size[1] // 2, axis=1)
    for bit in range(8):
        width = size[1] // 8
        frame[size[0] // 3 : size[0] * 2 // 3, bit * width : (bit + 1) * width] = 255 * (number >> bit & 1)
    return frame


def number_of(frame: np.ndarray) -> int:
    row = frame[frame.shape[0] // 2, frame.shape[1] // 16 :: frame.shape[1] // 8, 1]
    return sum(int(value > 128) << bit for bit, value in enumerate(row))


def write(path: Path, frames, codec: str = "libx264", times=None, rate: int = 25, prepare=None, **options: str) -> Path:
    """Code frames (arrays, or frames of FFmpeg) at `times`, counted in frames of `rate`."""
    with av.open(str(path), "w", options=options.pop("container", None) or {}) as container:
        stream = container.add_stream(
            codec, rate=rate, options={"qp": "1"} | options if codec == "libx264" else options
        )
        for i, (frame, time) in enumerate(zip(frames, times or range(10**6))):
            if isinstance(frame, np.ndarray):
                frame = av.VideoFrame.from_ndarray(frame, format="rgb24")
            if not i:
                stream.height, stream.width = frame.height, frame.width
                stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8"}.get(codec, "yuv420p")
                if frame.format.name != "rgb24":
                    stream.pix_fmt = frame.format.name
                if prepare:
                    prepare(stream)
            frame.pts, frame.time_base = time, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_cut(path: Path, cut: int, bframes: int, total: int = 60) -> Path:
    """As `ffmpeg -ss … -c copy`: all packets from the key frame on, and an edit list that begins at frame `cut`."""
    whole = write(path.with_name("whole.mp4"), map(picture, range(total)), g="100", bf=str(bframes))
    with av.open(str(whole)) as old, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as new:
        source = old.streams.video[0]
        stream = new.add_stream_from_template(source)
        shift = int(cut / 25 / source.time_base)
        for packet in old.demux(source):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                new.mux(packet)
    whole.unlink()
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("cut, bframes", [(1, 0), (20, 0), (20, 2), (55, 2)])
def test_what_an_edit_list_cuts_away_is_not_missed(tmp_path, suffix, cut, bframes):
    path = write_cut(tmp_path / f"cut{suffix}", cut, bframes)
    found = probe(path)
    assert found.num_frames == 60 - cut and not found.notes
    assert [number_of(frame) for frame in video.iterate_frames(path)] == list(range(cut, 60))


@pytest.mark.parametrize(
    "kept", [range(1, 200, 2), [i for i in range(200) if i % 10 not in (4, 5, 6, 7)], [*range(60), 199]]
)
def test_empty_packets_are_no_pictures(tmp_path, kept):
    path = write(tmp_path / "dropped.avi", map(picture, kept), "mjpeg", kept)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames > len(kept)
    assert probe(path).num_frames == len(kept)


@pytest.mark.parametrize(
    "codec, suffix", [("libx264", ".mp4"), ("libx264", ".mov"), ("mjpeg", ".avi"), ("libx264", ".avi")]
)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_what_breaks_off_is_refused(tmp_path, codec, suffix, share):
    index_first = {} if suffix == ".avi" else {"container": {"movflags": "faststart"}}
    noise = np.random.default_rng(0).integers(0, 256, (30, HEIGHT, WIDTH, 3), np.uint8)
    path = write(tmp_path / f"whole{suffix}", noise, codec, **index_first)
    assert probe(path).num_frames == 30
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(VideoError, match=r"breaks off after \d+ of 30 frames|can't be decoded|is corrupt"):
        probe(path)


def test_a_file_that_is_shorter_than_it_says_is_noted(tmp_path):
    path = write(tmp_path / "long.mkv", np.random.default_rng(0).integers(0, 256, (250, HEIGHT, WIDTH, 3), np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (note,) = probe(path).notes
    assert "of 10.0 s: it is cut short, or only sound goes on" in note


# x' = ax + cy, y' = bx + dy, and what is then seen of the picture as it is stored.
MATRICES = {
    (1, 0, 0, 1): lambda f: f,
    (-1, 0, 0, 1): lambda f: f[:, ::-1],
    (1, 0, 0, -1): lambda f: f[::-1],
    (-1, 0, 0, -1): lambda f: f[::-1, ::-1],
    (0, 1, -1, 0): lambda f: np.rot90(f, -1),
    (0, -1, 1, 0): lambda f: np.rot90(f),
    (0, 1, 1, 0): lambda f: f.swapaxes(0, 1),
    (0, -1, -1, 0): lambda f: f[::-1, ::-1].swapaxes(0, 1),
    (0, 2, -2, 0): lambda f: np.rot90(f, -1),
    (0, 0, 0, 0): lambda f: f,
}


def turned(folder: Path, matrix) -> Path:
    path = write(folder / "turned.mp4", map(picture, range(5)))
    content = bytearray(path.read_bytes())
    a, b, c, d = (round(65536 * value) for value in matrix)
    struct.pack_into(">9i", content, content.find(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("matrix", MATRICES)
def test_display_matrices_are_obeyed(tmp_path, matrix):
    path = turned(tmp_path, matrix)
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    want = MATRICES[matrix](stored)
    assert probe(path).size == want.shape[:2] and not probe(path).notes
    np.testing.assert_array_equal(next(video.iterate_frames(path)), want)


@pytest.mark.parametrize("angle", [10, 45, 200])
def test_odd_angles_are_turned_and_noted(tmp_path, angle):
    sine, cosine = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    path = turned(tmp_path, (cosine, sine, -sine, cosine))
    assert "black corners" in probe(path).notes[0] and probe(path).size == (HEIGHT, WIDTH)
    frame = next(video.iterate_frames(path))
    away = np.array([[cosine, -sine], [sine, cosine]]) @ [-16, -16]  # where the red quarter's middle comes to
    x, y = (np.array([WIDTH, HEIGHT]) / 2 + away).round().astype(int)
    assert np.abs(frame[y, x].astype(int) - CORNERS[0, 0]).max() < 30


def test_a_cover_is_not_the_video(tmp_path):
    cover = cv2.imencode(".jpg", np.zeros((300, 300, 3), np.uint8))[1].tobytes()
    (tmp_path / "cover.jpg").write_bytes(cover)
    clip = write(tmp_path / "clip.mp4", map(picture, range(30)))
    for suffix, marked in ((".mkv", False), (".mp4", False), (".mp4", True)):
        path = tmp_path / f"covered{suffix}"
        with av.open(str(path), "w") as new, av.open(str(clip)) as old, av.open(str(tmp_path / "cover.jpg")) as still:
            streams = [new.add_stream_from_template(one.streams.video[0]) for one in (still, old)]
            if marked:
                streams[0].disposition = av.stream.Disposition.attached_pic
            for source, stream in zip((still, old), streams):
                for packet in source.demux(source.streams.video[0]):
                    if packet.dts is not None:
                        packet.stream = stream
                        new.mux(packet)
        found = probe(path)
        assert (found.size, found.num_frames, found.fps) == ((HEIGHT, WIDTH), 30, 25.0)
        assert number_of(video.read_frames(path, [7])[0]) == 7


@pytest.mark.parametrize(
    "name", ["12:30:45.mp4", "file:x.mp4", "http://x.mp4", "%03d.mp4", "-i.mp4", "a|b.mp4", "pipe:0.mp4"]
)
def test_names_are_no_addresses(tmp_path, monkeypatch, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    write(tmp_path / "clip.mp4", map(picture, range(9))).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for source in (".", tmp_path):
        assert [one.num_frames for one in video.probe_all(source)[0]] == [9]
    assert next(video.iterate_frames(name)).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("title", ["Müller".encode("latin-1"), "日本".encode("shift-jis"), b"\xff\xfe\x00"])
def test_titles_may_be_in_any_encoding(tmp_path, title):
    with av.open(str(tmp_path / "clip.avi"), "w") as container:
        container.metadata["title"] = "T" * len(title)
        stream = container.add_stream("mjpeg", rate=25, options={})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuvj420p"
        for i in range(9):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(i), format="rgb24")))
        container.mux(stream.encode())
    content = (tmp_path / "clip.avi").read_bytes()
    assert content.count(b"T" * len(title)) == 1
    (tmp_path / "clip.avi").write_bytes(content.replace(b"T" * len(title), title))
    assert probe(tmp_path / "clip.avi").num_frames == 9


def png_of(height: int, width: int) -> bytes:
    """A PNG that claims a size."""
    content = bytearray(cv2.imencode(".png", picture())[1].tobytes())
    struct.pack_into(">II", content, 16, width, height)
    struct.pack_into(">I", content, 29, zipfile.crc32(content[12:29]))
    return bytes(content)


def zip_of(
    path: Path, content: bytes = b"", *, version: int = 0, method: int = 0, size: int = 0, flags: int = 0
) -> None:
    """A zip of one picture that says what isn't so."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("0.jpg", content or video.encode_image(picture()))
    data = bytearray(path.read_bytes())
    entry, listed = 0, data.index(b"PK\x01\x02")
    for at, value in ((4, version), (6, flags), (8, method)):
        for start in (entry, listed + 2) if value else ():
            struct.pack_into("<H", data, start + at, value)
    if size:
        for start in (entry + 18, entry + 22, listed + 20, listed + 24):
            struct.pack_into("<I", data, start, size)
    path.write_bytes(data)


def one_picture(path: Path, content: bytes) -> None:
    (path / "frames").mkdir(parents=True)
    (path / "frames" / "0.png").write_bytes(content)


def wide_pixels(path: Path, aspect: int = 100000) -> Path:
    write(path, map(picture, range(3)), prepare=lambda stream: setattr(stream, "sample_aspect_ratio", Fraction(2)))
    content = bytearray(path.read_bytes())
    struct.pack_into(">II", content, content.index(b"pasp") + 4, aspect, 1)
    path.write_bytes(content)
    return path


FAULTS = {
    "huge60000": lambda folder: one_picture(folder / "huge60000", png_of(60000, 60000)),
    "huge2e9": lambda folder: one_picture(folder / "huge2e9", png_of(2**31 - 1, 2**31 - 1)),
    "no_size": lambda folder: one_picture(folder / "no_size", png_of(0, 0)),
    "version": lambda folder: zip_of(folder / "version.zip", version=99),
    "method": lambda folder: zip_of(folder / "method.zip", method=97),
    "encrypted": lambda folder: zip_of(folder / "encrypted.zip", flags=1),
    "patched": lambda folder: zip_of(folder / "patched.zip", flags=32),
    "longer": lambda folder: zip_of(folder / "longer.zip", size=2**20),
    "bomb": lambda folder: zip_of(folder / "bomb.zip", size=3 * 2**30),
    "empty_zip": lambda folder: (folder / "empty_zip.zip").write_bytes(b"PK\x05\x06" + bytes(18)),
    "pipe": lambda folder: os.mkfifo(folder / "pipe.mp4"),
    "pipe_zip": lambda folder: os.mkfifo(folder / "pipe_zip.zip"),
    "linked_pipe": lambda folder: (folder / "linked_pipe.mkv").symlink_to(folder / "pipe.mp4"),
    "device": lambda folder: (folder / "device.mp4").symlink_to("/dev/zero"),
    "picture_pipe": lambda folder: (
        one_picture(folder / "picture_pipe", png_of(48, 64)),
        os.mkfifo(folder / "picture_pipe/frames/1.png"),
    ),
    "aspect": lambda folder: wide_pixels(folder / "aspect.mp4"),
    "digits": lambda folder: one_picture(folder / "digits", b"no picture"),
    "playlist": lambda folder: (folder / "playlist.ts").write_text("#EXTM3U\n#EXTINF:1,\nok.mp4\n#EXT-X-ENDLIST\n"),
}  # fmt: skip


def test_a_bad_file_costs_that_file(tmp_path):
    """All of them in one folder, in a process of its own that may take 2 GB and 20 s."""
    write(tmp_path / "ok.mp4", map(picture, range(9)))
    for make in FAULTS.values():
        make(tmp_path)
    code = """
import json, pathlib, re, sys
from flowlib.video import probe_all
good, bad = probe_all(sys.argv[1])
# Not ru_maxrss: that starts at the size of the process that started this one.
status = pathlib.Path("/proc/self/status").read_text()
most = int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) / 2**20
print(json.dumps([[one.name for one in good], {one.name: one.reason for one in bad}, most]))
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    good, bad, gigabytes = json.loads(done.stdout)
    assert good == ["ok"] and gigabytes < 2
    assert {Path(name).stem for name in bad} == set(FAULTS)  # what is no file is known by its whole name
    for name, reason in bad.items():
        named = reason.startswith(str(tmp_path / name.split(".")[0])) or reason.startswith("no file but a pipe")
        assert named and "\n" not in reason and len(reason) < 400
    for name, said in {"pipe.mp4": "a pipe", "bomb": "bytes of a picture", "aspect": "100000:1"}.items():
        assert said in bad[name], bad[name]


def test_limits_can_be_set(tmp_path, monkeypatch):
    path = write(tmp_path / "clip.mp4", map(picture, range(9)))
    monkeypatch.setenv("FLOWLIB_MAX_PIXELS", str(HEIGHT * WIDTH))
    assert probe(path).num_frames == 9
    monkeypatch.setenv("FLOWLIB_MAX_PIXELS", str(HEIGHT * WIDTH - 1))
    with pytest.raises(VideoError, match="expected pictures of at most 3,071 pixels, got 64×48.*FLOWLIB_MAX_PIXELS"):
        probe(path)
    monkeypatch.setenv("FLOWLIB_MAX_PIXELS", "many")
    with pytest.raises(ValueError, match="FLOWLIB_MAX_PIXELS: expected a whole number above 0, got 'many'"):
        probe(path)
    monkeypatch.setenv("FLOWLIB_MAX_PIXELS", str(2**31))
    assert probe(wide_pixels(tmp_path / "wide.mp4", 1000)).size == (HEIGHT, 1000 * WIDTH)


def test_a_picture_that_never_comes_is_not_waited_for(tmp_path, monkeypatch):
    path = write(tmp_path / "clip.mp4", map(picture, range(9)))
    clock = iter(range(0, 10**6, 40))
    monkeypatch.setattr("flowlib.video.reading.time.monotonic", lambda: next(clock))
    with pytest.raises(VideoError, match="expected a picture within 60 s.*FLOWLIB_MAX_SECONDS"):
        probe(path)
    monkeypatch.setenv("FLOWLIB_MAX_SECONDS", "100000")
    assert probe(path).num_frames == 9


def moving_fields(count: int) -> np.ndarray:
    """Fields of a bright box that moves by 2 pixels from one to the next, grey [count H W]."""
    fields = np.full((count, HEIGHT, WIDTH), 60, np.uint8)
    for i in range(count):
        fields[i, 8:40, 2 + 2 * i : 18 + 2 * i] = 220
    return fields


def weave(fields: np.ndarray, interlaced: bool = True) -> list[np.ndarray]:
    frames = fields[::2].copy()
    if interlaced:
        frames[:, 1::2] = fields[1::2, 1::2]
    return list(frames[..., None].repeat(3, axis=3))


@pytest.mark.parametrize(
    "codec, suffix", [("libx264", ".mp4"), ("mpeg2video", ".mpg"), ("libx264", ".ts"), ("libx264", ".mkv")]
)
def test_interlaced_video_is_deinterlaced_and_noted(tmp_path, codec, suffix):
    def prepare(stream):
        stream.codec_context.flags |= av.codec.context.Flags.interlaced_dct | av.codec.context.Flags.interlaced_me

    extra = {"x264-params": "tff=1"} if codec == "libx264" else {"q:v": "1"}
    path = write(tmp_path / f"fields{suffix}", weave(moving_fields(20)), codec, prepare=prepare, **extra)
    found = probe(path)
    assert found.num_frames == 10 and not found.runs and found.fps == 25
    assert sum("interlaced" in note for note in found.notes) == 1
    frames = list(video.iterate_frames(path))
    assert len(frames) == 10
    for frame in frames:
        edges = [np.flatnonzero(frame[row, :, 1] > 140)[[0, -1]] for row in range(16, 32)]
        assert np.ptp(edges, axis=0).max() <= 1  # 2 where the fields are woven
    np.testing.assert_array_equal(video.read_frames(path, [5])[0], frames[5])


@pytest.mark.parametrize("codec, suffix", [("libx264", ".mp4"), ("mjpeg", ".avi"), ("ffv1", ".mkv")])
def test_interlaced_video_that_is_not_marked_is_noted(tmp_path, codec, suffix):
    path = write(tmp_path / f"fields{suffix}", weave(moving_fields(20)), codec)
    assert ["looks interlaced" in note for note in probe(path).notes] == [True]
    folder = video.write_frames([probe(path)], tmp_path / "pictures")[0]
    assert ["looks interlaced" in note for note in probe(folder).notes] == [True]
    for frames in (
        weave(moving_fields(20), interlaced=False),
        np.random.default_rng(0).integers(0, 256, (9, 48, 64, 3), np.uint8),
    ):
        assert not probe(write(path, frames, codec)).notes


def test_progressive_video_is_left_alone(tmp_path):
    path = write(tmp_path / "frames.mp4", weave(moving_fields(20), interlaced=False))
    with av.open(str(path)) as container:
        plain = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    np.testing.assert_array_equal(list(video.iterate_frames(path)), plain)
    assert not probe(path).notes


def hdr_frame(rgb: np.ndarray, transfer: int) -> av.VideoFrame:
    """A picture graded for SDR's white at 203 cd/m², coded as PQ or HLG in BT.2020."""
    to_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    light = (rgb / 255.0) ** 2.2 @ to_2020.T * 203  # cd/m²
    if transfer == 16:
        power = (light / 10000) ** 0.1593017578125
        code = ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    else:
        bright = (light @ [0.2627, 0.6780, 0.0593])[..., None] / 1000
        scene = light / 1000 * np.maximum(bright, 1e-9) ** (1 / 1.2 - 1)
        upper = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
        code = np.where(scene <= 1 / 12, np.sqrt(3 * scene), upper)
    frame = av.VideoFrame.from_ndarray(np.round(code * 65535).astype(np.uint16), format="rgb48le")
    frame = frame.reformat(format="yuv444p10le", dst_colorspace=9)
    frame.colorspace, frame.color_trc, frame.color_primaries = 9, transfer, 9
    return frame


@pytest.mark.parametrize("transfer, name", [(16, "PQ"), (18, "HLG")])
@pytest.mark.parametrize("codec, suffix", [("libx264", ".mp4"), ("ffv1", ".mkv")])
def test_hdr_is_tone_mapped_and_noted(tmp_path, transfer, name, codec, suffix):
    def prepare(stream):
        about = stream.codec_context
        about.colorspace, about.color_trc, about.color_primaries, about.color_range = 9, transfer, 9, 1

    path = write(tmp_path / f"hdr{suffix}", [hdr_frame(picture(i), transfer) for i in range(3)], codec, prepare=prepare)
    assert f"HDR ({name})" in probe(path).notes[0]
    frame = video.read_frames(path, [1])[0].astype(int)
    for row, column in np.ndindex(2, 2):
        np.testing.assert_allclose(frame[4 + 40 * row, 4 + 56 * column], CORNERS[row, column], atol=12)
    assert frame[24, 4].min() > 235 and frame[24, 12].max() < 6  # white and black


def test_tone_mapping_keeps_order_and_hues():
    from flowlib.video.hdr import tone_map

    ramp = np.linspace(0, 65535, 2000).astype(np.uint16)[None, :, None].repeat(3, axis=2)
    for transfer in (16, 18):
        grey = tone_map(ramp, transfer, 9).astype(int)
        assert (np.diff(grey[0, :, 0]) >= 0).all() and grey[0, 0].max() == 0 and grey[0, -1].min() == 255
        assert np.ptp(grey, axis=2).max() <= 1
        assert len(np.unique(grey[grey > 243])) > 5  # what is brighter than white is still told apart


@pytest.mark.parametrize(
    "suffix, codec", [(".mp4", "libx264"), (".mkv", "libx264"), (".ts", "libx264"), (".webm", "libvpx")]
)
@pytest.mark.parametrize("times, runs", [
    ([*range(30), *range(30, 150, 5)], ((0, 31), (31, 54))),  # every frame, then every fifth
    ([*range(20), *range(21, 50)], ((0, 20), (20, 49))),  # one frame is missing
    ([*range(20), *range(80, 100)], ((0, 20), (20, 40))),  # a hole
])  # fmt: skip
def test_clips_are_evenly_spaced_in_time(tmp_path, suffix, codec, times, runs):
    path = write(tmp_path / f"uneven{suffix}", map(picture, times), codec, times)
    found = probe(path)
    assert found.runs == runs and "apart" in found.notes[0] and "ffmpeg" in found.notes[0]
    assert found.fps == pytest.approx(25 * (len(times) - 1) / (times[-1] - times[0]), rel=0.01)
    assert video.Video.from_dict(found.to_dict()) == found
    for split_shots in (True, False):
        plan = make_plan(path, LabelConfig(skip_still=False, split_shots=split_shots))
        assert plan.clips
        for clip in plan.clips:
            assert len(set(np.diff([times[i] for i in clip.frame_numbers]))) == 1


def test_even_video_has_one_run(tmp_path):
    for suffix, codec, rate in (
        (".mkv", "libx264", 30),
        (".webm", "libvpx", 60),
        (".avi", "libx264", 25),
        (".gif", "gif", 30),
    ):
        path = write(tmp_path / f"even{suffix}", map(picture, range(40)), codec, rate=rate)
        assert (probe(path).runs, probe(path).notes) == ((), ()), suffix
        assert probe(path).fps == pytest.approx(rate, rel=0.12 if suffix == ".gif" else 0.03)  # a GIF counts in 10 ms


def test_frames_without_any_order_in_time_give_no_clip(tmp_path):
    times = np.cumsum([1 + 4 * (i % 2) for i in range(30)]).tolist()
    path = write(tmp_path / "wild.mkv", map(picture, times), times=times)
    with pytest.raises(ValueError, match="longest shot has 2 frames"):
        make_plan(path, LabelConfig(skip_still=False, split_shots=False))


@pytest.fixture(scope="module")
def sent(tmp_path_factory) -> tuple[bytes, list[np.ndarray]]:
    """A transport stream of a moving pattern, and its frames."""
    noise = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (96, 400), np.uint8), (0, 0), 2)
    noise = cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX)[..., None].repeat(3, axis=2)
    moving = [np.ascontiguousarray(np.roll(noise, 2 * i, 1)[:, :128]) for i in range(100)]
    return write(tmp_path_factory.mktemp("sent") / "sent.ts", moving, g="25", sc_threshold="0").read_bytes(), moving


LOST = [(0.06, 0.07), (0.1, 0.11), (0.3, 0.32), (0.3, 0.5), (0.55, 0.56), (0.7, 0.71), (0.9, 0.95)]


@pytest.mark.parametrize("lost", LOST)
def test_lost_packets_cost_the_frames_they_smear(sent, tmp_path, lost):
    content, moving = sent
    packets = [content[i : i + 188] for i in range(0, len(content), 188)]
    first, stop = (int(share * len(packets)) for share in lost)
    path = tmp_path / "lost.ts"
    path.write_bytes(b"".join(packets[:first] + packets[stop:]))
    found = scan(path)
    runs = found.video.runs
    assert runs and any("misses data" in note for note in found.video.notes)
    sound = [i for run in runs for i in range(*run)]
    assert 20 <= len(sound) < 100
    frames = [frame[..., 0].astype(np.int16) for frame in video.iterate_frames(path)]
    for i in sound:
        assert min(np.abs(frames[i] - want[..., 0]).mean() for want in moving[i : i + 30]) < 1, i
    assert found.shots and all(any(a <= c and d <= b for a, b in runs) for c, d in found.shots)


@pytest.mark.parametrize("size, matrix", [((720, 1280), 1), ((600, 800), 1), ((576, 720), 6), ((48, 64), 6)])
def test_video_without_a_tag_is_read_as_players_do(tmp_path, size, matrix):
    frame = av.VideoFrame.from_ndarray(picture(0, size), format="rgb24")
    frame = frame.reformat(format="yuv444p", dst_colorspace=1 if matrix == 1 else 5)
    frame.colorspace = 2
    path = write(tmp_path / "untagged.mkv", [frame], "ffv1")
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.colorspace == 2
    np.testing.assert_allclose(next(video.iterate_frames(path)), picture(0, size), atol=2)


@pytest.mark.parametrize("size, tag", [((720, 1280), 1), ((48, 64), 6)])
def test_video_is_written_with_tags(tmp_path, size, tag):
    path = video.write_video(tmp_path / "tagged.mp4", [picture(0, size)])
    with av.open(str(path)) as container:
        about = container.streams.video[0].codec_context
        assert (about.colorspace, about.color_primaries, about.color_trc, about.color_range) == (tag, tag, tag, 1)
    corners = video.read_frames(path, [0])[0][[4, 4, -4, -4], [4, -4, 4, -4]]
    np.testing.assert_allclose(corners, CORNERS.reshape(4, 3), atol=6)


def test_what_each_video_loses_is_said(tmp_path):
    tall = probe(write(tmp_path / "tall.mp4", [picture(0, (128, 72))]))
    wide = probe(write(tmp_path / "wide.mp4", [picture(0, (72, 128))]))
    both = [tall, wide]
    for fit, said in (
        ("crop", "loses 69% of its picture and is enlarged 1.8 times"),
        ("pad", "fills 31% of the frame"),
        ("stretch", "is enlarged 1.8 times"),
    ):
        text = video.describe_videos(both, size=(72, 128), fit=fit)
        assert f"note: tall {said} by fit={fit!r}; fit='auto' takes a size that suits\n" in text
        assert "note: wide" not in text and f"working size: height 72, width 128, fit='{fit}'" in text
    assert "note" not in video.describe_videos(both) and "size" not in video.describe_videos(both)
    assert video.working_size(both, (360, 640), "crop") == (360, 640)
    size = video.working_size([*both, wide], (360, 640), "auto")
    assert size == (72, 128)
    lines = video.describe_videos(both, size=size, fit="auto").splitlines()
    assert lines[0].endswith("1 frame; scaled by 0.56, fills 31% of the frame, the rest is black")
    assert lines[1].endswith("1 frame; not scaled")
    assert lines[2].startswith("note: tall fills 31% of the frame by fit='auto'; the other videos have another shape")


def test_a_frame_may_be_thrown_away_in_a_forked_process(tmp_path):
    """A DataLoader's worker collects what was garbage before it was forked, such as frames in a cycle."""
    path = write(tmp_path / "clip.mp4", map(picture, range(4)))
    code = """
import gc, os, sys
from flowlib.video.reading import open_video
from pathlib import Path
gc.disable()
with open_video(Path(sys.argv[1])) as reader:
    for frame in reader:
        frame.read(), frame.thumbnail(), frame.grey()
        cycle = [frame]
        cycle.append(cycle)
del frame, cycle, reader
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
gc.collect()
os._exit(0)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code, path], env=environment, check=True, timeout=60)
