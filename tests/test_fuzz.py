"""Five hundred damaged files of ten kinds: each gives an error of ours that names it, or what it held before."""

import json
import os
import random
import re
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import av
import pytest
from fixtures.dataset_shards import write_dataset
from fixtures.fuzz_reading import SECONDS
from fixtures.tiny_model import Tiny
from fixtures.training_clips import make_clips

from flowlib.evaluation.cache import Cache
from flowlib.shots import scan_all
from flowlib.sources import write_scene
from flowlib.splits import save_splits
from flowlib.synthetic import random_scene
from flowlib.tasks.trajectories import TrajectoryTask
from flowlib.training import TrainConfig, fit
from flowlib.video import encode_image, write_video

COUNT, SEED = 50, 0  # files of a kind
PICTURES = ("jpg", "png")
SEALED = ("shard", "checkpoint")  # what carries a hash: nothing else is ever read from it
OURS = ("builtins.ValueError", "builtins.FileNotFoundError", "builtins.OSError")


def make_files(folder: Path) -> dict[str, list[Path]]:
    """Whole files by their kind."""
    scene = random_scene(6, (48, 64), seed=1)
    film = write_scene(folder / "film.mkv", scene)
    frames = list(scene.clip(6))
    files = {"mkv": [film], "mp4": [write_video(folder / "film.mp4", frames)]}
    files["avi"] = [folder / "film.avi"]
    with av.open(str(files["avi"][0]), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 64, 48
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())
    for kind, coded in (("jpg", "jpeg"), ("png", "png")):
        path = folder / f"0.{kind}"
        path.write_bytes(encode_image(frames[0], coded))
        files[kind] = [path]
    with zipfile.ZipFile(folder / "film.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number, frame in enumerate(frames):
            archive.writestr(f"film/frames/{number}.jpg", encode_image(frame))
    files["zip"] = [folder / "film.zip"]
    files["shard"] = [write_dataset(folder, 1) / "shards" / "000.h5"]
    config = TrainConfig(steps=2, validate_every=2, save_every=1, num_workers=0, device="cpu")
    run = fit(Tiny(4), TrajectoryTask(), make_clips(2), make_clips(1), config, folder=folder / "runs" / "1_run")
    files["checkpoint"] = [run.last]
    scores = Cache(folder / "scores.jsonl")
    for number in range(8):
        scores.put(f"{number:064x}", {"ade 1": number / 7, "fde 1": None, "places 1": {"1": 0.25, "2": "inf"}})
    scan_all(film, cache=folder / "scans.json")
    scene_file = film.with_suffix(".scene.json")
    files["document"] = [folder / "scores.jsonl", folder / "scans.json", scene_file]
    files["document"] += [run.folder / "metrics.jsonl", run.folder / "config.json"]
    save_splits(folder, ["a", "b", "film 3", "d/e"])
    files["splits"] = [folder / "splits.json"]
    return files


def damaged(content: bytes, rng: random.Random, is_text: bool) -> bytes:
    """The bytes with one to three accidents, near the ends as often as anywhere."""
    for _ in range(rng.randint(1, 3)):
        size = len(content)
        if size < 4:
            break
        near = min(size, 600)
        at = rng.choice([rng.randrange(size), rng.randrange(near), size - 1 - rng.randrange(near)])
        length = min(rng.choice([1, 2, 4, 8, 64, 1000]), size - at)
        before, piece, after = content[:at], content[at : at + length], content[at + length :]
        accident = rng.choice(["flip", "flip", "noise", "fill", "number", "gone", "twice", "cut", "more"])
        tokens = list(re.finditer(rb'"(?:[^"\\]|\\.)*"|-?\d[\d.e+-]*|true|false|null', content))
        if is_text and tokens and rng.random() < 0.7:
            token = rng.choice(tokens)
            odd = [
                b"-1",
                b"1e999",
                b"NaN",
                b"10000000000000000000000",
                b"null",
                b"[]",
                b"{}",
                b'"x"',
                b"true",
                b"",
                b"0.5",
            ]
            content = content[: token.start()] + rng.choice(odd) + content[token.end() :]
        elif accident == "flip":
            content = before + bytes(byte ^ 1 << rng.randrange(8) for byte in piece[:4]) + piece[4:] + after
        elif accident == "noise":
            content = before + rng.randbytes(length) + after
        elif accident == "fill":
            content = before + rng.choice([b"\0", b"\xff", b" "]) * length + after
        elif accident == "number":
            value = rng.choice([2**31 - 1, 2**32 - 1, 60000, 2**16, 0, 2**24]).to_bytes(
                4, rng.choice(["big", "little"])
            )
            content = (before + value + content[at + 4 :])[:size]
        elif accident == "gone":
            content = before + after
        elif accident == "twice":
            content = before + piece + piece + after
        elif accident == "cut":
            content = before
        else:
            content = before + rng.randbytes(length) + piece + after
    return content


def write_damaged(files: dict[str, list[Path]], folder: Path) -> list[tuple[str, Path]]:
    """The damaged files, each with its neighbours in a folder of its own: (kind, what is to be read)."""
    jobs = []
    for kind, paths in files.items():
        for number in range(COUNT):
            path, rng = paths[number % len(paths)], random.Random(f"{SEED} {kind} {number}")
            content = damaged(path.read_bytes(), rng, kind in ("document", "splits"))
            place = folder / f"{kind}{number}"
            place = place / ("frames" if kind in PICTURES else "1_run" if path.name == "config.json" else "")
            place.mkdir(parents=True)
            (place / path.name).write_bytes(content)
            jobs.append((kind, folder / f"{kind}{number}" if kind in PICTURES else place / path.name))
    return jobs


def read_all(jobs: list[tuple[str, Path]]) -> list[dict]:
    """What came of each file; a crash or a standstill costs the file that caused it."""
    outcomes: dict[str, dict] = {}
    clone = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": f"{clone}{os.pathsep}{clone / 'tests'}", "MALLOC_ARENA_MAX": "2"}
    command = [sys.executable, "-m", "fixtures.fuzz_reading"]
    while left := [f"{kind} {path}" for kind, path in jobs if str(path) not in outcomes]:
        done = subprocess.run(
            command, input="\n".join(left), env=environment | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
        )
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert lines, done.stderr
        outcomes |= {line["path"]: line for line in lines if "path" in line}
        if done.returncode:
            assert "begins" in lines[-1], done.stderr
            reason = f"process ended with {done.returncode} (SIGALRM: over {SECONDS} s): {done.stderr[-300:]}"
            outcomes[lines[-1]["begins"]] = {"path": lines[-1]["begins"], "error": "crash", "message": reason}
    return [outcomes[str(path)] for _, path in jobs]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> list[tuple[str, dict, str]]:
    """Of each damaged file its kind, what came of it, and what the whole file holds."""
    folder = tmp_path_factory.mktemp("fuzz")
    files = make_files(folder / "whole")
    jobs = write_damaged(files, folder / "damaged")
    whole = [(kind, path) for kind, paths in files.items() if kind not in PICTURES for path in paths]
    first, rest = (found := read_all(whole + jobs))[: len(whole)], found[len(whole) :]
    assert not [one for one in first if "error" in one], "whole files can be read"
    held = {Path(one["path"]).name: one["content"] for one in first}
    return [(kind, one, held.get(path.name, "")) for (kind, path), one in zip(jobs, rest)]


def test_only_errors_of_ours_that_name_the_file(outcomes, capsys):
    assert len(outcomes) == 10 * COUNT
    foreign = [
        one
        for _, one, _ in outcomes
        if "error" in one
        and not (
            (one["error"] in OURS or one["error"].startswith("flowlib.")) and Path(one["path"]).name in one["message"]
        )
    ]
    told = "\n".join(f"{one['path']}: {one['error']}: {one['message'][:300]} {one.get('where', '')}" for one in foreign)
    assert not foreign, f"{len(foreign)} of {len(outcomes)}:\n{told}"
    refused = Counter(kind for kind, one, _ in outcomes if "error" in one)
    assert sum(refused.values()) > 5 * COUNT, refused  # most of what is damaged is seen to be
    with capsys.disabled():
        print(f"\n{len(outcomes)} damaged files: {sum(refused.values())} refused by name, the others read")


def test_no_file_takes_long_or_runs_out_of_memory(outcomes):
    assert max(one.get("seconds", SECONDS) for _, one, _ in outcomes) < SECONDS
    short = re.compile("allocate|memory", re.IGNORECASE)
    assert not [one for _, one, _ in outcomes if short.search(one.get("message", ""))]


def test_what_has_a_hash_is_read_right_or_not_at_all(outcomes):
    for kind, one, held in outcomes:
        if Path(one["path"]).name in ("scores.jsonl", "scans.json") and "error" not in one:
            assert json.loads(one["content"]).items() <= json.loads(held).items(), one["path"]
        elif kind in SEALED and "error" not in one:
            assert one["content"] == held, one["path"]
