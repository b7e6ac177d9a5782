"""Pictures as people have them: damaged, beside masks, of impossible sizes, of 12 bits; nothing is quietly taken."""

import os
import struct
import sys
import threading
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from flowlib.synthetic import random_scene
from flowlib.video import VideoError, decode_depth, decode_image, encode_image, probe, probe_all, probe_png, read_frames
from flowlib.video.headers import claimed_pixels
from flowlib.video.pictures import decode_whole, without_masks

PICTURE = random_scene(1, (48, 80), seed=0).render(0)
KINDS = {
    "jpg": (".jpg", []),
    "progressive": (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
    "png": (".png", []),
    "webp": (".webp", [cv2.IMWRITE_WEBP_QUALITY, 80]),
    "lossless": (".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]),
    **{name: (f".{name}", []) for name in ("bmp", "tiff", "ppm", "ras", "gif", "jp2", "avif")},
}


def coded(kind: str, picture: np.ndarray = PICTURE) -> bytes:
    suffix, options = KINDS[kind]
    try:
        done, data = cv2.imencode(suffix, picture[..., ::-1], options)
    except cv2.error:
        done, data = False, np.zeros(0)
    if not done:
        pytest.skip(f"this OpenCV writes no {kind}")
    return data.tobytes()


def suffix_of(kind: str) -> str:
    """What such a picture is called here; by its content it is known all the same."""
    return KINDS[kind][0] if KINDS[kind][0] in (".jpg", ".png", ".webp") else ".bmp"


def folder_of(path: Path, pictures: dict[str, bytes]) -> Path:
    (path / "frames").mkdir(parents=True)
    for name, content in pictures.items():
        (path / "frames" / name).write_bytes(content)
    return path


def zip_of(path: Path, pictures: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in pictures.items():
            archive.writestr(f"clip/frames/{name}", content)
    return path


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def claiming(width: int, height: int, kind: str = "png") -> bytes:
    """A small picture whose header says another size."""
    if kind == "png":
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        return (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(bytes(9)))
            + chunk(b"IEND", b"")
        )
    data = bytearray(coded(kind))
    at, form, sides = {
        "jpg": (data.find(b"\xff\xc0") + 5, ">HH", (height, width)),
        "bmp": (18, "<ii", (width, height)),
        "gif": (6, "<HH", (width, height)),
        "ras": (4, ">II", (width, height)),
        "webp": (26, "<HH", (width, height)),
        "lossless": (21, "<I", (width - 1 | (height - 1) << 14,)),
        "jp2": (data.find(b"ihdr") + 4, ">II", (height, width)),
        "avif": (data.find(b"ispe") + 8, ">II", (width, height)),
    }.get(kind, (0, "", ()))
    if kind == "ppm":
        return data.replace(b"80 48", f"{width} {height}".encode(), 1)
    if kind == "tiff":
        (at,) = struct.unpack_from("<I", data, 4)
        for entry in range(at + 2, at + 2 + 12 * int.from_bytes(data[at : at + 2], "little"), 12):
            tag = int.from_bytes(data[entry : entry + 2], "little")
            if tag in (256, 257):
                struct.pack_into("<HHII", data, entry, tag, 4, 1, width if tag == 256 else height)
        return bytes(data)
    struct.pack_into(form, data, at, *sides)
    return bytes(data)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read_and_its_size_known_before(kind):
    data = coded(kind)
    assert claimed_pixels(memoryview(data)) == 48 * 80
    assert np.array_equal(decode_whole(data)[0], decode_image(data))
    assert {claimed_pixels(memoryview(data[:end])) for end in range(0, min(len(data), 700))} <= {0, 48 * 80}


def damaged(kind: str, how: str) -> bytes:
    data = bytearray(coded(kind))
    middle = len(data) // 2
    if how == "flipped":
        for i in range(middle, middle + 40):
            data[i] ^= 0x5A
    elif how == "gap":
        del data[middle : middle + 100]
    return bytes(data[:middle] if how == "cut" else data)


@pytest.mark.parametrize("how", ["flipped", "gap", "cut"])
@pytest.mark.parametrize("kind", ["jpg", "progressive", "png"])
@pytest.mark.parametrize("place", ["folder", "zip"])
def test_a_damaged_picture_is_named(tmp_path, capfd, kind, how, place):
    suffix = suffix_of(kind)
    pictures = {f"{i:05d}{suffix}": coded(kind) for i in range(4)} | {f"00002{suffix}": damaged(kind, how)}
    path = folder_of(tmp_path / "clip", pictures) if place == "folder" else zip_of(tmp_path / "clip.zip", pictures)
    with pytest.raises(VideoError, match=rf"clip.*00002\{suffix} is not a picture that can be read \(expected .*"):
        probe(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["webp", "bmp", "ppm", "tiff", "avif"])
def test_a_picture_that_is_cut_off_is_named(tmp_path, kind):
    suffix = suffix_of(kind)
    path = folder_of(tmp_path / "clip", {f"0{suffix}": coded(kind), f"1{suffix}": damaged(kind, "cut")})
    assert probe(folder_of(tmp_path / "good", {f"0{suffix}": coded(kind)})).num_frames == 1
    with pytest.raises(VideoError, match=rf"clip: 1\{suffix} is not a picture that can be read"):
        probe(path)


def test_what_others_say_meanwhile_is_passed_on(capfd):
    """Only complaints about a picture are kept from the standard error."""
    stop = threading.Event()

    def talk() -> None:
        while not stop.is_set():
            os.write(2, b"spoken\n")
            stop.wait(0.0005)

    talker = threading.Thread(target=talk)
    talker.start()
    for _ in range(50):
        decode_whole(coded("jpg"))
        with pytest.raises(ValueError, match="Corrupt JPEG data"):
            decode_whole(damaged("jpg", "flipped"))
    stop.set()
    talker.join()
    said = capfd.readouterr().err
    assert set(said.split("\n")) == {"spoken", ""} and "Corrupt" not in said


def test_without_a_standard_error_pictures_are_read(tmp_path):
    (tmp_path / "a.jpg").write_bytes(coded("jpg"))
    code = "import os, pathlib, sys; os.close(2)\nfrom flowlib.video.pictures import decode_whole\n"
    code += f"print(decode_whole(pathlib.Path({str(tmp_path / 'a.jpg')!r}).read_bytes())[0].shape)"
    assert os.popen(f"{sys.executable} -c '{code.replace(chr(39), chr(34))}'").read() == "(48, 80, 3)\n"


MASKS = {
    "twins": ([f"{i:05d}.jpg" for i in range(6)], [f"{i:05d}.png" for i in range(6)]),
    "some": ([f"{i:05d}.jpeg" for i in range(6)], ["00003.bmp"]),
    "called": ([f"{i:05d}.png" for i in range(6)], [f"{i:05d}_mask.png" for i in range(6)]),
    "before": ([f"f{i}.jpg" for i in range(6)], [f"mask_f{i}.png" for i in range(6)]),
    "whole": ([f"{i:05d}.jpg" for i in range(6)], [f"{i:05d}.jpg.png" for i in range(5)] + ["00005.jpg_mask.png"]),
    "capitals": ([f"F{i}.JPG" for i in range(6)], [f"F{i}.PNG" for i in range(3)] + ["F4-GT.png"]),
    "none": ([f"mask_{i}.png" for i in range(6)] + ["photo.jpg"], []),
}


@pytest.mark.parametrize("case", MASKS)
def test_masks_beside_pictures_are_no_frames(tmp_path, case):
    frames, masks = MASKS[case]
    assert without_masks([*masks, *frames]) == frames
    mask = {name: encode_image(np.zeros_like(PICTURE), "png") for name in masks}
    pictures = {name: encode_image(PICTURE, "png" if name.endswith("png") else "jpeg") for name in frames}
    for path in (folder_of(tmp_path / "a", pictures | mask), zip_of(tmp_path / "a.zip", pictures | mask)):
        assert probe(path).num_frames == len(frames)
        assert read_frames(path, range(len(frames))).mean(axis=(1, 2, 3)).min() > 50
    with pytest.raises(VideoError, match=r"expected one picture a frame, got 1\.bmp and 1\.png; move one kind away"):
        probe(folder_of(tmp_path / "b", {"1.png": b"", "1.bmp": b""}))


SIZES = [("png", 60000, 60000), ("png", 2**31 - 1, 2**31 - 1), ("jpg", 30000, 30000), ("bmp", 30000, 30000)]
SIZES += [("gif", 60000, 60000), ("ras", 10**6, 10**5), ("webp", 16000, 16000), ("lossless", 16000, 16000)]
SIZES += [("jp2", 10**5, 10**5), ("avif", 60000, 60000), ("ppm", 10**6, 10**6), ("tiff", 60000, 30000)]


@pytest.mark.parametrize("kind, width, height", SIZES)
def test_a_picture_that_claims_too_much_costs_itself_alone(tmp_path, kind, width, height):
    suffix = suffix_of(kind)
    folder_of(tmp_path / "bad", {f"0{suffix}": claiming(width, height, kind)})
    folder_of(tmp_path / "good", {"0.jpg": coded("jpg")})
    good, bad = probe_all(tmp_path)
    assert [video.name for video in good] == ["good"]
    assert f"got {width * height:,}; make it smaller, or set FLOWLIB_MAX_PIXELS" in bad[0].reason


def test_the_limit_on_pixels_can_be_set(monkeypatch, refuses):
    monkeypatch.setenv("FLOWLIB_MAX_PIXELS", "3840")
    assert decode_image(coded("png")).shape == (48, 80, 3)
    monkeypatch.setenv("FLOWLIB_MAX_PIXELS", "3839")
    with refuses("at most 3,839 pixels, got 3,840; make it smaller, or set FLOWLIB_MAX_PIXELS"):
        decode_image(coded("png"))
    monkeypatch.setenv("FLOWLIB_MAX_PIXELS", "many")
    with refuses("FLOWLIB_MAX_PIXELS: expected a whole number above 0, got 'many'"):
        decode_image(coded("png"))


@pytest.mark.parametrize(
    "bits, dark, fine", [(10, 0, False), (12, 0, False), (14, 0, False), (16, 0, True), (12, 1, True), (12, 2, False)]
)
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_fewer_bits_than_16_are_not_shown_as_black(tmp_path, kind, bits, dark, fine):
    """12-bit cameras store 0 to 4095 in 16 bits; a dark frame of a film with 16 is dark."""
    suffix = suffix_of(kind)
    bright = PICTURE.astype(np.uint16) * 257
    bright[0, 0] = 65535
    pictures = {f"{i}{suffix}": coded(kind, bright >> (16 - bits)) for i in range(2)}
    pictures |= {f"9{suffix}": coded(kind, bright if dark == 1 else bright * 0)} if dark else {}
    path = folder_of(tmp_path / "clip", pictures)
    if fine:
        assert probe(path).num_frames == 2 + dark
    else:
        with pytest.raises(
            VideoError, match=rf"got pictures that use {bits} of 16; multiply them by {2 ** (16 - bits)}, or"
        ):
            probe(path)


def depth_png(depth: np.ndarray) -> bytes:
    return cv2.imencode(".png", depth)[1].tobytes()


def test_depth_of_16_bits_comes_back_exactly(tmp_path):
    depth = np.random.default_rng(0).integers(0, 2**16, (48, 80), np.uint16)
    depth[0, :2] = 0, 65535
    read = decode_depth(depth_png(depth))
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, depth)
    (tmp_path / "depth.png").write_bytes(depth_png(depth))
    assert probe_png(tmp_path / "depth.png") == ((48, 80), "16-bit grey")
    (tmp_path / "colour.png").write_bytes(depth_png(np.zeros((4, 6, 3), np.uint8)))
    assert probe_png(tmp_path / "colour.png") == ((4, 6), "8-bit RGB")


@pytest.mark.parametrize("shape, kind", [((4, 6), np.uint8), ((4, 6, 3), np.uint8), ((4, 6, 3), np.uint16)])
def test_what_holds_no_depth_is_refused(shape, kind):
    other = np.zeros(shape, kind)
    with pytest.raises(ValueError, match=rf"expected depth as a grey picture of 16 bits.*got {other.dtype} \[4, 6"):
        decode_depth(depth_png(other))


def test_damaged_depth_is_refused(tmp_path):
    whole = depth_png(np.random.default_rng(0).integers(0, 2**16, (48, 80), np.uint16))
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    ends = (0, 7, 20, 33, 100, len(whole) // 2, len(whole) - 13, len(whole) - 12, len(whole) - 1)
    cuts = [whole[:end] for end in ends]
    for broken in (*cuts[:-2], bytes(flipped), b"depth" * 99):
        with pytest.raises(ValueError, match="expected"):
            decode_depth(broken)
    for broken in (*cuts, whole + b"\0", b"depth" * 99):
        (tmp_path / "depth.png").write_bytes(broken)
        with pytest.raises(ValueError, match=r"depth.png: expected a (whole )?PNG, got"):
            probe_png(tmp_path / "depth.png")
