"""Five hundred videos, 25 of them broken: the others are labelled, each of these is listed with its reason."""

import os
import re
import shutil
import struct
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
from fixtures.labelling_faults import Job, samples

from flowlib.video import encode_image, write_video

GOOD, BROKEN = 475, 25
SMALL = {"config": {"height": 24, "width": 32, "grid": 2}, "shard_bytes": 10**9, "pause": 0}
ONE_CORE = 400.0  # seconds until a job of 500 videos counts as stuck


def moving(num_frames: int = 5, size: tuple[int, int] = (24, 32), seed: int = 0) -> np.ndarray:
    """Coarse noise that moves to the right, uint8 [S H W 3]."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[0] // 4, size[1] // 4, 3), np.uint8)
    picture = noise.repeat(4, axis=0).repeat(4, axis=1)
    return np.stack([np.roll(picture, 2 * i, axis=1) for i in range(num_frames)])


def labelled_apart(content: bytes, number: int) -> bytes:
    """The same video with another content: MP4 readers skip a box called "free"."""
    return content + struct.pack(">I4sI", 12, b"free", number)


def sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
        container.mux(stream.encode())


def archive_with_password(path: Path) -> None:
    """A zip of pictures that says it is encrypted, where its entry and where its directory begins."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("0.jpg", encode_image(moving()[0]))
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)


def with_a_corrupt_frame(path: Path) -> None:
    """In the middle of the pictures, long before the index at the end."""
    write_video(path, moving(40, (96, 128)), lossless=True)
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 400] = bytes(range(200)) * 2
    path.write_bytes(content)


def broken(folder: Path, good: bytes) -> dict[str, str]:
    """Write 25 broken videos; name -> what the reason must say."""
    names = {}

    def add(name: str, reason: str, make) -> None:
        names[Path(name).stem] = reason
        make(folder / name)

    undecodable = "can't be decoded"
    for i in range(2):
        add(f"empty{i}.mp4", undecodable, Path.touch)
        add(f"text{i}.mp4", undecodable, lambda path: path.write_text("to be filmed on Monday"))
        add(f"page{i}.mp4", undecodable, lambda path: path.write_text("<!DOCTYPE html><title>Quota exceeded</title>"))
        add(f"noise{i}.avi", undecodable, lambda path: path.write_bytes(np.random.default_rng(0).bytes(4000)))
        add(f"head{i}.mp4", undecodable, lambda path: path.write_bytes(good[:40]))
        add(f"half{i}.mp4", undecodable, lambda path: path.write_bytes(good[: len(good) // 2]))
        add(f"sound{i}.mp4", "without a picture stream", sound)
        add(f"tiny{i}.mp4", "at least 16 pixels, got 8×8", lambda path: write_video(path, moving(9, (8, 8))))
        add(f"short{i}.mp4", "has 3 frames, a clip needs 4", lambda path: write_video(path, moving(3)))
        add(f"twin{i}.mp4", "same content as", lambda path: path.write_bytes(good))
    add("corrupt.mp4", "corrupt|can't be decoded", with_a_corrupt_frame)
    add("link.mp4", "found nothing there", lambda path: path.symlink_to(folder / "gone.mp4"))
    add("locked.zip", "encrypted", archive_with_password)
    add("still.mp4", "black or frozen", lambda path: write_video(path, moving(1).repeat(9, axis=0)))
    add("picture.mp4", "has 1 frames", lambda path: path.write_bytes(encode_image(moving()[0])))
    return names


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """500 videos, and a folder that has a video's name; which are broken, and the pattern of each reason."""
    folder = tmp_path_factory.mktemp("many")
    kinds = [write_video(folder / "kind.mp4", moving(seed=seed)).read_bytes() for seed in range(5)]
    (folder / "kind.mp4").unlink()
    for number in range(GOOD):
        (folder / f"good{number:03d}.mp4").write_bytes(labelled_apart(kinds[number % 5], number))
    (folder / "folder.mp4").mkdir()
    names = broken(folder, (folder / "good000.mp4").read_bytes())
    assert len(names) == BROKEN and len(os.listdir(folder)) == GOOD + BROKEN + 1
    return folder, names


def test_500_videos_of_which_25_are_broken(source, tmp_path, capsys):
    folder, names = source
    known = {"surveys": str(tmp_path / "surveys.json")}  # so that the second job plans in no time
    report = Job(folder, tmp_path, **known, **SMALL).finish(ONE_CORE)
    assert report["labelled"] == GOOD == len(samples(tmp_path))
    assert report["skipped"].keys() == names.keys()
    for name, reason in names.items():
        assert re.search(reason, report["skipped"][name]), report["skipped"][name]
        assert f"skipped: {name}: {folder / name}" in report["summary"]
    assert report["summary"].endswith(f"{BROKEN} videos skipped")
    assert f"strict: {BROKEN} were skipped" in Job(folder, tmp_path, strict=True, **known, **SMALL).fail(ONE_CORE)
    with capsys.disabled():
        print(f"\n{GOOD + BROKEN} videos: {report['labelled']} labelled, {BROKEN} skipped for a reason each")


def test_strict_labels_the_good_ones_all_the_same(source, tmp_path):
    folder, names = source
    few = tmp_path / "few"
    few.mkdir()
    for name in ("good000.mp4", "good001.mp4", "text0.mp4"):
        shutil.copy(folder / name, few)
    job = Job(few, tmp_path / "root", strict=True, **SMALL)
    job.fail()
    assert "strict: 1 were skipped" in job.complaint() and "text0.mp4" in job.complaint()
    assert len(samples(tmp_path / "root")) == 2
