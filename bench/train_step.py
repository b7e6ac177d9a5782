"""Where a training step's time goes: waiting for data, forward, backward, optimiser; and what speeds it up.

    python bench/train_step.py                                   # FCN-ResNet50, 360×640, batch 2, this machine
    python bench/train_step.py --size 96 128 --backbone lraspp_mobilenet_v3_large --repeats 10
    python bench/train_step.py --variants plain bf16 compile --threads 2

The clips are rendered, kept as JPEG as in shards, and decoded by the loader's workers while the step computes. The
variants take turns, so that a machine that gets slower slows all of them; the table has medians. "waiting" is what
the loop waits for the loader, to which the turns of the others give time; "unaided" is the share of loading if the
training process read every batch itself. The last line is JSON.
"""

import argparse
import json
import os
import platform
import statistics
import time

import numpy as np
import torch
from torch.utils.data import Dataset

from flowlib.geometry import cell_grid
from flowlib.models.fcn import TrajectoryFCN
from flowlib.synthetic import synthetic_clip
from flowlib.tasks.trajectories import TrajectoryTask
from flowlib.tasks.trajectories.batch import Frames, make_batch, make_example
from flowlib.training.config import TrainConfig
from flowlib.training.optim import make_optimizer
from flowlib.training.stream import SampleStream, to_device, training_batches
from flowlib.video import decode_image, encode_image

VARIANTS = {
    "plain": {"channels_last": False},
    "channels_last": {"channels_last": True},
    "bf16": {"precision": "bf16", "channels_last": False},
    "bf16+channels_last": {"precision": "bf16", "channels_last": True},
    "compile": {"compile": True, "channels_last": False},
    "all": {"compile": True, "precision": "bf16", "channels_last": True},
}
TASK = TrajectoryTask()
PARTS = ("waiting", "forward", "backward", "optimiser")


class JpegClips(Dataset):
    """Rendered clips whose frames are JPEG until they are asked for."""

    def __init__(self, count: int, size: tuple[int, int], points: int) -> None:
        self.clips = [self._clip(seed, size, points) for seed in range(count)]

    @staticmethod
    def _clip(seed: int, size: tuple[int, int], points: int) -> dict:
        frames, scene = synthetic_clip(8, size, seed)
        grid = cell_grid(size, points, points)
        tracks = scene.tracks(np.insert(grid, 0, 0, axis=1), 8)
        arrays = {"tracks": tracks.tracks, "visibility": tracks.visibility, "queries": tracks.queries}
        tensors = {key: torch.from_numpy(np.array(value)) for key, value in arrays.items()}
        return tensors | {"pictures": [encode_image(frame) for frame in frames], "clip": str(seed)}

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict:
        clip = self.clips[index]
        frames = np.stack([decode_image(picture) for picture in clip["pictures"]])
        return {key: value for key, value in clip.items() if key != "pictures"} | {"frames": torch.from_numpy(frames)}


class Contender:
    """One variant: a model, its optimiser, and the seconds of its steps by part."""

    def __init__(self, name: str, arguments: argparse.Namespace, dataset: Dataset, device: torch.device) -> None:
        self.name, self.device = name, device
        self.config = TrainConfig(batch_size=arguments.batch, **VARIANTS[name])
        options = {"backbone": arguments.backbone, "head": arguments.head, "input_frames": (0, 3)}
        self.model = TrajectoryFCN(**options, weights="none", batch_norm="frozen").to(device)
        if self.config.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.network = torch.compile(self.model) if self.config.compile else self.model
        self.optimizer = make_optimizer(self.model, self.config)
        self.batches = training_batches(
            SampleStream(TASK, self.model, dataset, seed=0),
            steps=range(arguments.repeats + arguments.warmup),
            batch_size=arguments.batch,
            accumulate=1,
            process=0,
            processes=1,
            workers=arguments.workers,
        )
        self.network.train()
        self.seconds: list[dict[str, float]] = []

    def step(self) -> None:
        """One step, timed by part."""
        marks = [self._now()]
        batch = to_device(next(self.batches)[0], self.device)
        marks.append(self._now())
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            sums = TASK.sums(self.network, batch, {"target_scale": float(self.model.target_scale)})
        loss = TASK.total_loss(sums, TASK.counts(batch))
        marks.append(self._now())
        loss.backward()
        marks.append(self._now())
        self.optimizer.step()
        self.optimizer.zero_grad()
        marks.append(self._now())
        self.seconds.append({part: end - begin for part, begin, end in zip(PARTS, marks, marks[1:])})

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def loading_seconds(dataset: Dataset, batch: int) -> float:
    """What reading and decoding one batch costs in one process."""
    frames, times = Frames((0, 3), None), []
    for _ in range(5):
        start = time.perf_counter()
        make_batch([make_example(dataset[i % len(dataset)], frames) for i in range(batch)])
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(360, 640), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--points", type=int, default=90, help="points along a side of the labels' grid")
    parser.add_argument("--backbone", default="fcn_resnet50", help="as `TrajectoryFCN` takes it")
    parser.add_argument("--head", choices=["torchvision", "fine"], default="torchvision")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS)[:4])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    dataset = JpegClips(max(4, arguments.batch), tuple(arguments.size), arguments.points)
    loading = loading_seconds(dataset, arguments.batch)
    contenders = [Contender(name, arguments, dataset, device) for name in arguments.variants]
    for _ in range(arguments.warmup + arguments.repeats):
        for contender in contenders:
            contender.step()

    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{arguments.threads} threads"
    machine = f"{platform.machine()}, {name}, torch {torch.__version__}, load {os.getloadavg()[1]:.1f}"
    shape = f"{arguments.size[0]}×{arguments.size[1]}, batch {arguments.batch}"
    print(f"{arguments.backbone}, {arguments.head} head, {shape}")
    print(f"{machine}; loading a batch in one process: {loading * 1000:.0f} ms\n")
    heads = "".join(f"{part + ', s':>14}" for part in (*PARTS, "step"))
    print(f"{'variant':20}{heads}{'waiting':>10}{'unaided':>10}{'speed':>8}")
    results = {"machine": machine, "loading_seconds": loading, "arguments": vars(arguments), "variants": {}}
    for contender in contenders:
        kept = contender.seconds[arguments.warmup :]
        median = {part: statistics.median(step[part] for step in kept) for part in PARTS}
        median["step"] = statistics.median(sum(step.values()) for step in kept)
        results["variants"][contender.name] = median
        share = median["waiting"] / median["step"]
        median["loading_unaided"] = loading / (median["step"] - median["waiting"] + loading)
        speed = results["variants"][contenders[0].name]["step"] / median["step"]
        values = "".join(f"{median[part]:14.3f}" for part in (*PARTS, "step"))
        print(f"{contender.name:20}{values}{share:10.1%}{median['loading_unaided']:10.1%}{speed:7.2f}×")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
