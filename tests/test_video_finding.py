"""What lies in a folder is found, or named with a reason; pictures are in order; none is kept of a changed video."""

import os
import random
import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowlib import video
from flowlib.labelling import LabelConfig, make_plan
from flowlib.video import describe_videos, find_all, find_videos, probe, probe_all, write_frames, writing
from flowlib.video.images import in_order

APPLE_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(100)


def frame(i: int) -> np.ndarray:
    picture = np.full((24, 32, 3), 8 * i, np.uint8)
    picture[:4, :4] = 255
    return picture


def numbers(path: Path) -> list[int]:
    return [round(one[16, 16].mean() / 8) for one in video.iterate_frames(path)]


def pictures(folder: Path, names: list[str]) -> Path:
    """A video of pictures, by these names in this order; they are made in another."""
    (folder / "frames").mkdir(parents=True, exist_ok=True)
    for i in random.Random(0).sample(range(len(names)), len(names)):
        (folder / "frames" / names[i]).write_bytes(video.encode_image(frame(i), "png"))
    return folder


@pytest.fixture(scope="module")
def mp4(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("one")
    return video.write_video(folder / "clip.mp4", [frame(i) for i in range(4)]).read_bytes()


def test_the_report_names_every_file_of_a_mixed_folder(mp4, tmp_path):
    source, shared = tmp_path / "in", tmp_path / "shared"
    names = "ok.mp4 twin.mp4 twin.mov twin.mov.mp4 Case.mp4 case.MKV dvd.vob cam.mxf x.asf y.DIVX z.qt deep/er/a.webm"
    good = [source / name for name in names.split()]
    names = "empty.mp4 text.avi rotten.zip locked.m2p"
    bad = [source / name for name in names.split()]
    names = (
        "README.md notes.txt deep/labels.csv sound.wav noend more.tar.gz a.7z poster.jpg scan/1.tif scan/2.tif x.srt"
    )
    names += " .hidden.mp4 ._ok.mp4 .DS_Store Thumbs.db desktop.ini walk/labels.txt walk/frames/notes.txt"
    names += " walk/frames/._1.png walk/frames/Thumbs.db lost.txt~ raw.yuv old.mp4.part"
    other = [source / name for name in names.split()]
    for path in (*good, *bad, *other, shared / "linked.mp4", source / ".Trash-1000/files/gone.mp4"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(mp4 if path in good or "linked" in path.name else b"nothing to be seen")
    pictures(source / "walk", ["1.png", "2.png"])
    (source / "shortcut").symlink_to(shared)
    (source / "again").symlink_to(source / "deep")
    (source / "loop").symlink_to(tmp_path)
    (source / "dead.mp4").symlink_to(source / "nothing.mp4")
    (source / "self.txt").symlink_to(source / "self.txt")
    os.mkfifo(source / "pipe.mp4")
    with zipfile.ZipFile(source / "walk.zip", "w") as archive:
        archive.writestr("walk/frames/1.png", video.encode_image(frame(0), "png"))

    videos, skipped = probe_all(source)
    text = describe_videos(videos, skipped)
    assert len([*good, *bad, *other]) >= 39
    assert {Path(one.path) for one in videos} == {*good, source / "walk", source / "shortcut" / "linked.mp4"}
    assert len({one.name for one in videos}) == len(videos) == len(good) + 2
    assert {one.name for one in skipped if one.is_video} == {"empty", "text", "rotten", "locked", "dead"}
    left = {one.name for one in skipped if not one.is_video}
    assert {str(path.relative_to(source)) for path in other} <= left
    assert left >= {"walk.zip", "again", "loop", "self.txt", "pipe.mp4", ".Trash-1000 (1 file)"}
    assert len(left) == len(other) + 6
    assert all(one.name in text and one.reason in text for one in [*skipped]) and all(
        one.name in text for one in videos
    )
    assert text.endswith(f"{len(videos)} videos, 5 skipped, {len(left)} other files and folders")


def test_only_videos_are_skipped_by_a_job(tmp_path):
    moving = [np.roll(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8), i, 1) for i in range(6)]
    video.write_video(tmp_path / "a.mkv", moving, lossless=True)
    (tmp_path / "notes.txt").touch()
    plan = make_plan(tmp_path, LabelConfig(height=24, width=32, frames=4))
    assert plan.skipped == [] and plan.num_others == 1
    assert "left out: 1 file or folder that is no video" in str(plan)


@pytest.mark.parametrize("suffix", [".tif", ".TIFF", ".ppm", ".pnm", ".avif", ".jp2", ".bmp", ".webp", ".jpe", ".ras"])
def test_folders_and_zips_of_every_kind_of_picture(tmp_path, suffix):
    folder = tmp_path / "a" / "frames"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        for i in range(3):
            picture = np.full((64, 64, 3), [200, 100, 20 * i], np.uint8)
            content = cv2.imencode(suffix.lower(), picture[..., ::-1])[1].tobytes()
            (folder / f"{i}{suffix}").write_bytes(content)
            archive.writestr(f"{i}{suffix}", content)
    good, bad = probe_all(tmp_path)
    assert not bad and [(one.name, one.num_frames) for one in good] == [("a", 3), ("b", 3)]
    for one in good:
        np.testing.assert_allclose(video.read_frames(one, [2])[0, 32, 32], [200, 100, 40], atol=8)


@pytest.mark.parametrize(
    "codec, name", [("mpeg2video", "a.vob"), ("mpeg4", "a.divx"), ("mpeg4", "a.3g2"), ("ffv1", "a.nut")]
)
def test_more_kinds_of_files(tmp_path, codec, name):
    import av

    kind = {".divx": "avi", ".3g2": "3g2", ".vob": "vob", ".nut": "nut"}[Path(name).suffix]
    with av.open(str(tmp_path / name), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for i in range(9):
            picture = frame(i).repeat(2, 0).repeat(2, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")))
        container.mux(stream.encode())
    assert find_videos(tmp_path) == {"a": tmp_path / name} and probe(tmp_path / name).num_frames == 9


def test_names_stay_unique(mp4, tmp_path):
    given = ["x.mp4", "x.mov", "x.mov.mp4", "x.MP4.mkv", "Y.mp4", "y.mov", "z.mp4", b"\xff.mp4", "\\xff.mp4"]
    for name in given:
        Path(os.fsdecode(tmp_path / os.fsdecode(name))).write_bytes(mp4)
    pictures(tmp_path / "z", ["1.png"])
    found = find_videos(tmp_path)
    assert len(found) == len(given) + 1 and len(set(found.values())) == len(found)
    assert {"x.mp4", "x.mov", "x.mov.mp4", "x.MP4.mkv", "Y.mp4", "y.mov", "z", "z.mp4"} <= set(found)


def test_links_are_followed_once(mp4, tmp_path):
    source, outside = tmp_path / "in", tmp_path / "outside"
    pictures(outside / "walk", ["1.png"])
    (outside / "far.mp4").write_bytes(mp4)
    pictures(source / "z", ["1.png", "2.png"])
    links = {
        "a": outside,
        "b": outside,
        "up": "..",
        "here": ".",
        "root": "/",
        "z/back": source,
        "y/frames": source / "z/frames",
    }
    for name, target in links.items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).symlink_to(target)
    (outside / "back").symlink_to(source)
    (outside / "mutual").symlink_to(outside)
    found, others = find_all(source)
    assert sorted(found) == ["a/far", "a/walk", "z"]
    assert {one.name for one in others} == {"b", "up", "here", "root", "z/back", "y/frames", "a/back", "a/mutual"}
    loose = pictures(tmp_path / "other", ["1.png"]) / "frames"
    (source / "w").mkdir()
    (source / "w" / "frames").symlink_to(loose.rename(source / "loose"))
    assert "w" in find_videos(source)  # pictures that only the link makes a video


def test_a_folder_that_is_a_video_hides_no_other(mp4, tmp_path, monkeypatch):
    folder = pictures(tmp_path / "walk", ["1.png", "2.png"])
    assert find_videos(folder) == {"walk": folder}
    monkeypatch.chdir(folder)
    assert find_videos(".") == {"walk": Path(".")} and probe_all(".")[0][0].num_frames == 2
    (folder / "more.mp4").write_bytes(mp4)
    (folder / "walk.mp4").write_bytes(mp4)
    assert sorted(find_videos(folder)) == ["more", "walk", "walk.mp4"]


def test_nothing_found_says_what_is_there(tmp_path):
    for name in ("1.jpg", "2.jpg", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(
        FileNotFoundError, match=r"found none; left out: 1.jpg, 2.jpg: a picture, but not in .*notes.txt"
    ):
        find_videos(tmp_path)


def test_a_folder_that_cannot_be_opened_is_listed(mp4, tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(mp4)
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found, others = find_all(tmp_path)
    assert (
        list(found) == ["a"]
        and others[0].is_video
        and "closed: expected a folder, can't be opened (Perm" in others[0].reason
    )


@pytest.mark.parametrize("style", ["mac", "windows", "plain"])
def test_files_of_systems_are_no_pictures(tmp_path, style):
    folder = pictures(tmp_path / "a", [f"{i}.png" for i in range(12)])
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        for path in (folder / "frames").iterdir():
            name = {"mac": "a/frames/", "windows": "a\\frames\\", "plain": ""}[style] + path.name
            info = zipfile.ZipInfo("x")
            info.filename = name  # as it is: on Windows the constructor would turn it
            archive.writestr(info, path.read_bytes())
            junk = {
                "mac": f"__MACOSX/a/frames/._{path.name}",
                "windows": f"a\\{path.stem}\\Thumbs.db",
                "plain": f"._{path.name}",
            }[style]
            archive.writestr(junk, APPLE_DOUBLE)
    for name in ("._1.png", "~$1.png", ".DS_Store", "Thumbs.db", "desktop.ini", ".1.png.host.12.part"):
        (folder / "frames" / name).write_bytes(APPLE_DOUBLE)
    assert numbers(folder) == numbers(tmp_path / "b.zip") == list(range(12))
    assert probe(folder).fingerprint == probe(tmp_path / "b.zip").fingerprint


def test_a_zip_of_several_videos_or_none_is_named(mp4, tmp_path):
    for name, entries in {"two": ["a\\1.png", "b\\1.png"], "none": ["clip.mp4", "__MACOSX/._1.png"]}.items():
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            for entry in entries:
                info = zipfile.ZipInfo("x")
                info.filename = entry
                archive.writestr(info, mp4)
    reasons = {one.name: one.reason for one in probe_all(tmp_path)[1]}
    assert "got 2 folders of pictures; unpack it" in reasons["two"]
    assert "none.zip: expected pictures, found none among 2 files; unpack it" in reasons["none"]


ORDERS = {
    "natural": "1 2 10 100",
    "padded": "0001 0002 0010",
    "times": "1700000000.0 1700000000.04 1700000000.1 1700000000.123 1700000000.2 1700000001.0",
    "words and times": "t_0.0 t_0.04 t_0.1 t_0.5 t_10.25",
    "comma times": "t_0,0 t_0,04 t_0,1 t_0,5 t_10,25",
    "comma shots": "1,1 1,2 1,9 1,10 1,11 2,1",
    "small times": "1e-05 0.0001 0.5 1.0",
    "fixed point": "1.05 1.10 1.50 2.00",
    "shots": "1.1 1.2 1.9 1.10 1.11 2.1",
    "dotted": "clip.1 clip.9 clip.10",
    "versions": "1.2.3 1.2.10 1.10.1",
    "negative": "-10 -2 -1 0 1 12",
    "only negative": "-10 -2 -1",
    "negative times": "-1.5 -1.25 -0.5 0.0 0.25 0.5",
    "negative after a word": "t-10 t-2 t0 t3",
    "negative after a line": "frame_-2 frame_-1 frame_0 frame_1",
    "minus sign": "\N{MINUS SIGN}2 \N{MINUS SIGN}1 0",
    "plus": "-1 +0 +1",
    "hyphens": "frame-1 frame-2 frame-10",
    "dates": "2026-11-27_9 2026-11-27_10 2026-12-01_1",
    "copies": "IMG IMG(1) IMG(2) IMG(10)",
    "copies of numbered": "IMG_1 IMG_1(1) IMG_2",
    "case": "IMG_1 img_2 IMG_3",
    "superscript": "²0 ²1 ²2 ²10",
    "circled": "①1 ①2 ①10",
    "other digits": "٢ ٣ ١٠",
    "very long": f"{'9' * 200} 1{'0' * 200}",
}


@pytest.mark.parametrize("kind", ORDERS)
def test_pictures_are_in_the_order_of_their_numbers(tmp_path, kind):
    names = ORDERS[kind].split()
    given = [f"{name}.png" for name in names]
    assert in_order(random.Random(1).sample(given, len(given))) == given
    assert numbers(pictures(tmp_path / "a", given)) == list(range(len(given)))


@given(st.lists(st.text(st.characters(exclude_characters="/"), min_size=1), unique=True), st.randoms())
def test_no_name_stops_the_ordering(names, shuffler):
    shuffled = list(names)
    shuffler.shuffle(shuffled)
    assert in_order(names) == in_order(shuffled) and sorted(names) == sorted(in_order(names))


def test_a_picture_with_a_name_in_no_utf8_ends_nothing(mp4, tmp_path):
    folder = pictures(tmp_path / "a", ["1.png", "2.png"])
    shutil.copy(folder / "frames" / "2.png", os.fsdecode(os.path.join(os.fsencode(folder), b"frames/\xff3.png")))
    (tmp_path / "b.mp4").write_bytes(mp4)
    good, bad = probe_all(tmp_path)
    assert [(one.name, one.num_frames) for one in good] == [("a", 3), ("b", 4)] and not bad


@pytest.mark.parametrize("layout", ["folder", "zip", "both"])
@pytest.mark.parametrize("change", ["other", "longer", "shorter", "quality", "interrupted"])
def test_no_picture_of_a_changed_video_is_kept(tmp_path, layout, change):
    def written(first: int, stop: int, layout: str, quality: int = 95) -> list[Path]:
        video.write_video(tmp_path / "in" / "a.mkv", [frame(i) for i in range(first, stop)], lossless=True)
        return write_frames(probe_all(tmp_path / "in")[0], out, layout=layout, quality=quality)

    out = tmp_path / "out"
    (tmp_path / "in").mkdir()
    written(0, 6, "both")
    first, stop = {"other": (10, 16), "longer": (0, 9), "shorter": (3, 5), "quality": (0, 6), "interrupted": (8, 14)}[
        change
    ]
    if change == "interrupted":  # in the middle of deleting
        (out / "a" / "frames" / "00000.jpg").unlink()
    before = (out / "a" / "frames" / "00001.jpg").read_bytes()
    quality = 50 if change == "quality" else 95
    paths = written(first, stop, layout, quality)
    assert [numbers(path) for path in paths] == [list(range(first, stop))] * len(paths)
    assert list(find_videos(out)) == ["a"] and numbers(find_videos(out)["a"]) == list(range(first, stop))
    if change == "quality" and layout != "zip":
        assert len((out / "a" / "frames" / "00001.jpg").read_bytes()) < len(before)
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert write_frames(probe_all(tmp_path / "in")[0], out, layout=layout, quality=quality) == paths
    assert stamps == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize("stop_after", range(6))
def test_an_interrupted_call_goes_on_with_the_new_video(tmp_path, monkeypatch, stop_after):
    def replaced(first: int) -> list[video.Video]:
        video.write_video(tmp_path / "in" / "a.mkv", [frame(first + i) for i in range(5)], lossless=True)
        return probe_all(tmp_path / "in")[0]

    (tmp_path / "in").mkdir()
    write_frames(replaced(0), tmp_path / "out", layout="both")
    encode, calls = writing.encode_image, []

    def stops(*args, **kwargs):
        calls.append(1)
        if len(calls) > stop_after:
            raise KeyboardInterrupt
        return encode(*args, **kwargs)

    new = replaced(10)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(writing, "encode_image", stops)
        write_frames(new, tmp_path / "out", layout="both")
    folder, archive = write_frames(new, tmp_path / "out", layout="both")
    assert numbers(folder) == numbers(archive) == [10, 11, 12, 13, 14]


def test_pictures_added_to_ours_are_moved_away_when_the_video_changes(mp4, tmp_path):
    (tmp_path / "a.mp4").write_bytes(mp4)
    folder = write_frames([probe(tmp_path / "a.mp4")], tmp_path / "out")[0]
    pictures(folder, ["mine.png"])
    with pytest.warns(UserWarning, match="found others; they are now .*frames.old"):
        write_frames([probe(tmp_path / "a.mp4")], tmp_path / "out", quality=50)
    assert os.listdir(folder / "frames.old") == ["mine.png"] and probe(folder).num_frames == 4


def test_what_was_not_written_here_is_moved_away_not_deleted(mp4, tmp_path):
    (tmp_path / "a.mp4").write_bytes(mp4)
    one, out = probe(tmp_path / "a.mp4"), tmp_path / "out"
    for old in ("frames.old", "frames.old2"):
        pictures(out / "a", ["00007.jpg", "mine.png"])
        with pytest.warns(UserWarning, match=rf"expected pictures written here, found others; they are now .*{old}$"):
            write_frames([one], out)
        assert sorted(path.name for path in (out / "a" / old).iterdir()) == ["00007.jpg", "mine.png"]
        assert probe(out / "a").num_frames == 4
        shutil.rmtree(out / "a" / "frames")
    (out / "a.zip").write_bytes(b"mine")
    with pytest.warns(UserWarning, match="a.zip.old"):
        write_frames([one], out, layout="zip")
    assert (out / "a.zip.old").read_bytes() == b"mine" and probe(out / "a.zip").num_frames == 4


@pytest.mark.parametrize("layout", ["folder", "zip", "both"])
def test_pictures_that_are_the_source_are_left_as_they_are(tmp_path, layout):
    folder = pictures(tmp_path / "a", ["00000.jpg", "00001.jpg"])
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.write(folder / "frames" / "00000.jpg", "0.jpg")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    paths = write_frames(probe_all(tmp_path)[0], tmp_path, layout=layout)
    assert before.items() <= {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}.items()
    assert [probe(path).num_frames for path in paths] == {"folder": [2, 1], "zip": [2, 1], "both": [2, 2, 1, 1]}[layout]
