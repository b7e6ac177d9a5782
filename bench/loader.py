"""How many samples a second training can read: from shards, from the unpacked cache, and from many small files.

    python bench/loader.py                          # 360×640, 8 frames, 100×100 points, 24 clips, this machine
    python bench/loader.py --rounds 9 --folder /mnt/disk

The clips are of the two sample videos, labelled by Lucas-Kanade. "files" is what one has without shards: a compressed
.npz a sample and a JPEG a frame, decoded with PIL; the pictures are the shard's own, byte for byte. "small files" are
the same with PIL's default JPEG (quality 75, half the colour resolution), which costs less and looks worse. Every
contender gives the same tensors; they take turns, each round in a new order of clips, and ratios are of the same round.
Cold: the pages were dropped from the page cache before (a virtual machine's host may have them). Warm and all others:
everything is there. Shards use as many threads as torch to decode a clip's pictures, so "1 thread" is told, too. CPU is
the process's own time, which other work on the machine lengthens less. The last line is JSON.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from flowlib.clips import Clip, ClipSample
from flowlib.dataset import TrajectoryDataset
from flowlib.geometry import cell_grid
from flowlib.shards import Shard, write_shard
from flowlib.trackers.lucas_kanade import LucasKanadeTracker
from flowlib.video import probe, read_frames

SAMPLE = Path(__file__).parents[1] / "flowlib" / "sample"
S = 8


class FileClips(Dataset):
    """One .npz a sample and one .jpg a frame."""

    def __init__(self, folder: Path) -> None:
        self.samples = sorted(folder.glob("*.npz"))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict:
        path = self.samples[index]
        with np.load(path) as content:
            tensors = {name: torch.from_numpy(content[name]) for name in ("tracks", "visibility", "queries")}
            pictures = [path.parent / name for name in content["pictures"]]
        frames = np.stack([np.asarray(Image.open(picture).convert("RGB")) for picture in pictures])
        return {"frames": torch.from_numpy(frames)} | tensors | {"video": "", "clip": path.stem}


def labelled_clips(count: int, size: tuple[int, int], points: int) -> Iterator[ClipSample]:
    """Clips of the sample videos in turns, spread over them."""
    videos = [probe(path) for path in sorted(SAMPLE.glob("*.mp4"))]
    queries = np.insert(cell_grid(size, points), 0, 0, axis=1).astype(np.float32)
    tracker = LucasKanadeTracker()
    for number in range(count):
        video = videos[number % len(videos)]
        place, places = number // len(videos), -(-count // len(videos))
        clip = Clip.of(video, (video.num_frames - S) * place // max(1, places - 1), 1, S).labelled(len(queries))
        frames = read_frames(video, clip.frame_numbers, size)
        yield ClipSample(clip, frames, tracker(frames, queries))


def write_files(shard: Path, folder: Path, *, exact: bool) -> None:
    """The clips of a shard as small files, the pictures byte for byte or as PIL saves them by default."""
    folder.mkdir()
    with Shard(shard) as source:
        for clip in source.clips:
            tracks = source.tracks(clip)
            names = [f"{clip.fingerprint[:8]}-{number}.jpg" for number in clip.frame_numbers]
            for index, (name, frame) in enumerate(zip(names, source.frames(clip))):
                if exact:
                    (folder / name).write_bytes(source.picture(clip, index).tobytes())
                else:
                    Image.fromarray(frame).save(folder / name)
            arrays = {"tracks": tracks.tracks, "visibility": tracks.visibility, "queries": tracks.queries}
            np.savez_compressed(folder / f"{clip.key}.npz", pictures=names, **arrays)


def forget(folder: Path) -> None:
    """Drop the pages of all files below a folder from the page cache; they are written already."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_alone(dataset: Dataset, order: list[int]) -> dict[str, float]:
    """Samples a second in one process, by the clock and by its CPU time."""
    clock, cpu = time.perf_counter(), time.process_time()
    for index in order:
        dataset[index]
    spent = {"clock": time.perf_counter() - clock, "cpu": time.process_time() - cpu}
    return {name: len(order) / seconds for name, seconds in spent.items()}


def read_with_workers(dataset: Dataset, order: list[int], workers: int) -> float:
    """Samples a second by a loader of several processes, batches of 2, from its first batch on."""
    batches = iter(DataLoader(dataset, batch_size=2, sampler=order * 3, num_workers=workers))
    next(batches)
    start, count = time.perf_counter(), 0
    for batch in batches:
        count += len(batch["clip"])
    return count / (time.perf_counter() - start)


def measure(make: Callable[[], Dataset], folder: Path, order: list[int], workers: int) -> dict[str, float]:
    """One round of one contender: samples a second, by circumstance."""
    forget(folder)
    cold = read_alone(make(), order)
    dataset, threads = make(), torch.get_num_threads()
    read_alone(dataset, order)
    warm = read_alone(dataset, order)
    torch.set_num_threads(1)
    single = read_alone(dataset, order)
    torch.set_num_threads(threads)
    results = {
        "cold": cold["clock"],
        "warm": warm["clock"],
        "1 thread": single["clock"],
        "1 thread, CPU": single["cpu"],
    }
    return results | {f"{workers} workers": read_with_workers(dataset, order, workers)}


def contenders(root: Path, arguments: argparse.Namespace) -> dict[str, tuple[Callable[[], Dataset], Path]]:
    """Name -> (makes the dataset, the folder it reads); makes the files, too."""
    size = tuple(arguments.size)
    clips = labelled_clips(arguments.clips, size, arguments.points)
    config = {"height": size[0], "width": size[1]}
    shard = write_shard(root / "dataset" / "shards" / "a.h5", clips, tracker={"name": "lucas_kanade"}, config=config)
    for name, exact in (("files", True), ("small files", False)):
        write_files(shard, root / name, exact=exact)
    cache = root / "cache"
    TrajectoryDataset(root / "dataset", "all", unpacked=cache, progress=False)
    return {
        "files": (lambda: FileClips(root / "files"), root / "files"),
        "small files": (lambda: FileClips(root / "small files"), root / "small files"),
        "shards": (lambda: TrajectoryDataset(root / "dataset", "all"), root / "dataset"),
        "unpacked": (lambda: TrajectoryDataset(root / "dataset", "all", unpacked=cache), cache),
    }


def table(rounds: dict[str, list[dict[str, float]]], sizes: dict[str, float]) -> dict:
    """Print medians, and the median of each round's ratio to "files"; return them."""
    results = {}
    circumstances = list(rounds["files"][0])
    print(f"{'samples/s':12}" + "".join(f"{name:>22}" for name in circumstances) + f"{'MB a clip':>12}")
    for name, values in rounds.items():
        results[name], cells = {"mb": sizes[name]}, ""
        for what in circumstances:
            ratio = statistics.median(one[what] / files[what] for one, files in zip(values, rounds["files"]))
            speed = statistics.median(one[what] for one in values)
            results[name][what] = {"samples_per_second": speed, "ratio": ratio}
            cells += f"{speed:12.1f} ({ratio:6.2f}×)"
        print(f"{name:12}{cells}{sizes[name]:12.2f}")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(360, 640), metavar=("H", "W"))
    parser.add_argument("--points", type=int, default=100, help="points along a side of the grid")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", default=None, help="on the disk to read from; the temporary folder by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        entries = contenders(Path(folder), arguments)
        rounds = {name: [] for name in entries}
        for number in range(arguments.rounds):
            order = np.random.default_rng(number).permutation(arguments.clips).tolist()
            for name, (make, place) in entries.items():
                rounds[name].append(measure(make, place, order, arguments.workers))
        bytes_of = {name: sum(path.stat().st_size for path in place.rglob("*")) for name, (_, place) in entries.items()}
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    machine += f", load {os.getloadavg()[0]:.1f}"
    shape = f"{S} frames of {arguments.size[0]}×{arguments.size[1]}, {arguments.points}×{arguments.points} points"
    print(f"{arguments.clips} clips, {shape}; {machine}\n")
    results = table(rounds, {name: count / arguments.clips / 1e6 for name, count in bytes_of.items()})
    print(json.dumps({"machine": machine, "arguments": vars(arguments), "results": results}))


if __name__ == "__main__":
    main()
