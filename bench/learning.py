"""What the models can learn, as one would want to see it before trusting a long training.

    python bench/learning.py overfit --dataset DIR --weights resnet50.pth   # one real batch, 360×640
    python bench/learning.py two_frames --weights resnet50.pth --minutes 30   # unseen rendered clips

"overfit" trains on two clips of a labelled dataset, once at the clips' size and then, for as many steps, with a working
size of 120×240; pictures and curves lie in the run folders. "two_frames" trains a two-frame and a one-frame model on
rendered clips of linear motion for the same number of steps, keeps the weights that do best on scenes of other seeds,
and measures these, zero motion and constant velocity by optical flow on clips of scenes that nothing else has seen.
A call that is repeated goes on where it stopped. The last line is JSON.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Subset

from flowlib.augmentation import AugmentConfig
from flowlib.dataset import TrajectoryDataset
from flowlib.geometry import cell_grid
from flowlib.models.baselines import ConstantVelocity, ZeroMotion
from flowlib.models.fcn import TrajectoryFCN
from flowlib.notebook_views import highest_motion_clips
from flowlib.synthetic import Scene, random_scene
from flowlib.tasks.trajectories import TrajectoryTask, predict_clips
from flowlib.tasks.trajectories.loss import Targets
from flowlib.training import TrainConfig, TrainingRun, fit, load_checkpoint, overfit

NUM_FRAMES = 8
FRAME_STEP = 2  # frames of a scene from one of a clip to the next: between two, too little moves to be seen at 48×64
PER_SCENE = 8  # clips, one after another: a scene's textures take longer than its frames
VALIDATION, UNSEEN = range(10**5, 10**5 + 16), range(10**6, 10**6 + 48)  # seeds


class RenderedClips(list):
    """Clips of linear motion of sprites and camera, some from each seed's scene."""

    num_frames = NUM_FRAMES

    def __init__(self, seeds: range, size: tuple[int, int], per_scene: int) -> None:
        super().__init__()
        self.size, self.fingerprint = size, f"linear {seeds} {size} {per_scene}"
        length = NUM_FRAMES * FRAME_STEP
        for seed in seeds:
            scene = random_scene(length * per_scene, size, seed, motion="linear", camera="linear")
            self.extend(self._clip(scene, length * part, f"seed {seed}.{part}") for part in range(per_scene))

    def _clip(self, scene: Scene, first: int, name: str) -> dict:
        queries = np.insert(cell_grid(self.size, self.size[0] // 4, self.size[1] // 4), 0, 0, axis=1)
        tracks = scene.tracks(queries, NUM_FRAMES, first, FRAME_STEP)
        arrays = {"frames": scene.clip(NUM_FRAMES, first, FRAME_STEP), "tracks": tracks.tracks}
        arrays |= {"visibility": tracks.visibility, "queries": queries.astype(np.float32)}
        return {key: torch.from_numpy(np.array(value)) for key, value in arrays.items()} | {"clip": name}


def mean_error(predictor, clips: list[dict]) -> float:
    """ADE in pixels, on visible points after frame 0."""
    batch, prediction = predict_clips(predictor, clips)
    targets = Targets.of(batch)
    displacement, _ = prediction.at(targets.positions)
    return float((displacement - targets.displacement).norm(dim=-1)[targets.measured].mean())


def common_config(arguments: argparse.Namespace, **options) -> TrainConfig:
    """The settings that both parts share."""
    return TrainConfig(
        learning_rate=arguments.learning_rate, session_minutes=arguments.minutes, precision=arguments.precision,
        channels_last=True, num_workers=1, **options,
    )  # fmt: skip


def minutes_spent(run: TrainingRun, steps: int | None = None) -> float:
    """Of the first `steps` training steps, without looks at the error; all of them if None."""
    return sum(line["step_seconds"] for line in run.metrics("timings.jsonl")[:steps]) / 60


def run_overfit(arguments: argparse.Namespace) -> dict:
    dataset, results = TrajectoryDataset(arguments.dataset, "all"), {}
    batch = highest_motion_clips(dataset, 2) if arguments.clips == "highest_motion" else Subset(dataset, range(2))
    results["zero_motion"] = mean_error(ZeroMotion(dataset.num_frames), batch)
    steps = arguments.steps or 150
    for name, size in (("full", None), ("120x240", (120, 240))):
        torch.manual_seed(0)
        model = TrajectoryFCN(
            num_frames=dataset.num_frames, head=arguments.head, weights=arguments.weights,
            stride_in=arguments.stride_in, batch_norm=arguments.batch_norm, working_size=size,
        )  # fmt: skip
        config = common_config(arguments, steps=steps, warmup_steps=10, validate_every=10, save_every=50)
        folder = arguments.runs / f"overfit_{arguments.clips}_{name}"
        result = overfit(model, TrajectoryTask(), batch, config, target=arguments.target, folder=folder)
        TrajectoryTask().figure(model, batch, 2).savefig(folder / "prediction.png", dpi=80)
        print(f"{name}: {result}", flush=True)
        results[name] = {"ade": result.score, "steps": result.steps, "minutes": result.minutes}
        for bound in (1.0, 0.5):
            below = [step for step, ade in result.curve if ade < bound]
            reached = [below[0], round(minutes_spent(result.run, below[0]), 1)] if below else None
            results[name][f"steps_and_minutes_to_{bound:g}_px"] = reached
        steps = result.steps
    return results


def run_two_frames(arguments: argparse.Namespace) -> dict:
    size, start = tuple(arguments.size), time.process_time()
    train = RenderedClips(range(arguments.scenes), size, PER_SCENE)
    validation, unseen = (RenderedClips(seeds, size, 2) for seeds in (VALIDATION, UNSEEN))
    results = {"clips": len(train), "rendering_cpu_seconds": round(time.process_time() - start)}
    results["zero_motion"] = mean_error(ZeroMotion(NUM_FRAMES), unseen)
    results["constant_velocity"] = mean_error(ConstantVelocity(num_frames=NUM_FRAMES, input_frames=(0, 3)), unseen)
    print(results, flush=True)
    for name, frames in (("two_frames", (0, 3)), ("one_frame", (0,))):
        torch.manual_seed(0)
        model = TrajectoryFCN(
            num_frames=NUM_FRAMES, input_frames=frames, backbone=arguments.backbone, head="fine",
            conv1=arguments.conv1, weights=arguments.weights, stride_in=arguments.stride_in, batch_norm="train",
        )  # fmt: skip
        augment = AugmentConfig(flip_x=0.5, flip_y=0.5, reverse=0.5, colour=0.2)
        config = common_config(
            arguments, steps=arguments.steps or 2000, batch_size=arguments.batch, warmup_steps=50, validate_every=100,
            save_every=100,
        )  # fmt: skip
        run = fit(model, TrajectoryTask(augment=augment), train, validation, config, folder=arguments.runs / name)
        best = load_checkpoint(run.best)[0]
        ade = mean_error(best, unseen)
        results[name] = {"ade": ade, "steps": run.step, "minutes": minutes_spent(run), "validation": run.best_score}
        results[name]["share_of_zero_motion"] = ade / results["zero_motion"]
        results[name]["training_clips"] = mean_error(best, train[:: max(1, len(train) // 96)])
        TrajectoryTask().figure(best, unseen, 3).savefig(run.folder / "unseen.png", dpi=80)
        print(f"{name}: {results[name]}", flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["overfit", "two_frames"])
    parser.add_argument("--runs", type=Path, default=None, help="default: workspace/runs/learning_<part>")
    parser.add_argument("--minutes", type=float, default=20.0, help="of each training, in this session")
    parser.add_argument("--steps", type=int, default=0, help="at most; 0: 150 of overfit, 2000 of two_frames")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--precision", choices=["no", "bf16"], default="bf16", help="bf16 where the CPU has it")
    parser.add_argument("--weights", default="none")
    parser.add_argument("--stride-in", choices=["3x3", "1x1"], default="3x3", help="of the weights; see TrajectoryFCN")
    parser.add_argument("--head", choices=["torchvision", "fine"], default="fine", help="of overfit")
    parser.add_argument("--batch-norm", choices=["train", "frozen", "group"], default="train", help="of overfit")
    parser.add_argument("--target", type=float, default=0.25, help="pixels to stop at, of overfit")
    parser.add_argument("--clips", choices=["first", "highest_motion"], default="first", help="two of them, of overfit")
    parser.add_argument("--dataset", type=Path, help="a labelled dataset's folder, of overfit")
    parser.add_argument("--size", type=int, nargs=2, default=(48, 64), metavar=("H", "W"), help="of two_frames")
    parser.add_argument("--scenes", type=int, default=300, help="to train on, of two_frames; each gives 8 clips")
    parser.add_argument("--batch", type=int, default=16, help="of two_frames")
    parser.add_argument("--conv1", default="difference", help="how the stem takes two frames; see TrajectoryFCN")
    parser.add_argument("--backbone", default="fcn_resnet50", help="of two_frames")
    arguments = parser.parse_args()
    arguments.runs = arguments.runs or Path("workspace/runs") / f"learning_{arguments.part}"
    start = time.perf_counter()
    results = run_overfit(arguments) if arguments.part == "overfit" else run_two_frames(arguments)
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    about = {"part": arguments.part, "machine": machine, "load": round(os.getloadavg()[2], 1)}
    print(json.dumps(about | {"seconds": round(time.perf_counter() - start)} | results))


if __name__ == "__main__":
    main()
