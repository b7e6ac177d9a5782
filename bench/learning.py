"""What the models can learn, as one would want to see it before trusting a long training.

    python bench/learning.py overfit --dataset DIR --weights resnet50.pth --minutes 20   # one real batch, 360×640
    python bench/learning.py two_frames --minutes 30                                     # unseen rendered clips

"overfit" trains on the first two clips of a labelled dataset until the error on visible points is below --target
pixels, once at the clips' size and once with a working size of 120×240; pictures and curves lie in the run folders.
"two_frames" trains a two-frame and a one-frame model on rendered clips of linear motion for the same number of steps
and measures both, and zero motion, on clips of other seeds. A call that is repeated goes on where it stopped.
The last line is JSON.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from flowlib.augmentation import AugmentConfig
from flowlib.dataset import TrajectoryDataset
from flowlib.geometry import cell_grid
from flowlib.models.fcn import TrajectoryFCN
from flowlib.synthetic import Scene, random_scene
from flowlib.training import FitConfig, fit, load_checkpoint, overfit, predict_clips
from flowlib.training.pictures import save_picture

NUM_FRAMES = 8


PER_SCENE = 5  # clips, one after another: a scene's textures take longer than its frames


class RenderedClips(list):
    """Clips of linear motion of sprites and camera, some from each seed's scene."""

    num_frames = NUM_FRAMES

    def __init__(self, seeds: range, size: tuple[int, int]) -> None:
        super().__init__()
        self.size, self.fingerprint = size, f"linear {seeds} {size}"
        for seed in seeds:
            scene = random_scene(NUM_FRAMES * PER_SCENE, size, seed, motion="linear", camera="linear")
            self.extend(self._clip(scene, NUM_FRAMES * part, f"seed {seed}.{part}") for part in range(PER_SCENE))

    def _clip(self, scene: Scene, first: int, name: str) -> dict:
        queries = np.insert(cell_grid(self.size, self.size[0] // 4, self.size[1] // 4), 0, 0, axis=1)
        tracks = scene.tracks(queries, NUM_FRAMES, first)
        arrays = {"frames": scene.clip(NUM_FRAMES, first), "tracks": tracks.tracks}
        arrays |= {"visibility": tracks.visibility, "queries": queries}
        return {key: torch.from_numpy(np.array(value)) for key, value in arrays.items()} | {"clip": name}


def zero_motion_error(clips: list[dict]) -> float:
    """ADE in pixels of the prediction that nothing moves, on visible points after frame 0."""
    moved = [(clip["tracks"] - clip["queries"][:, 1:]).norm(dim=-1)[1:][clip["visibility"][1:]] for clip in clips]
    return float(torch.cat(moved).mean())


def run_overfit(arguments: argparse.Namespace) -> dict:
    dataset, results = TrajectoryDataset(arguments.dataset, "all"), {}
    for name, size in (("full", None), ("120x240", (120, 240))):
        torch.manual_seed(0)
        model = TrajectoryFCN(
            num_frames=dataset.num_frames,
            head=arguments.head,
            weights=arguments.weights,
            stride_in=arguments.stride_in,
            batch_norm=arguments.batch_norm,
            working_size=size,
        )
        config = FitConfig(
            steps=arguments.steps, schedule="constant", learning_rate=arguments.learning_rate, validate_every=10,
            save_every=50, session_minutes=arguments.minutes, num_workers=1,
        )  # fmt: skip
        folder = arguments.runs / f"overfit_{name}"
        result = overfit(model, dataset, config, target=arguments.target, folder=folder)
        save_picture(folder / "prediction.png", result.batch, result.prediction)
        print(f"{name}: {result}", flush=True)
        results[name] = {"ade": result.ade, "steps": result.steps, "minutes": result.minutes}
        below_one = [step for step, ade in result.curve if ade < 1]
        results[name]["steps_to_1_px"] = below_one[0] if below_one else None
    return results


def run_two_frames(arguments: argparse.Namespace) -> dict:
    size = tuple(arguments.size)
    train, unseen = RenderedClips(range(arguments.scenes), size), RenderedClips(range(10**6, 10**6 + 12), size)
    results = {"zero_motion": zero_motion_error(unseen)}
    for name, frames in (("two_frames", (0, 3)), ("one_frame", (0,))):
        torch.manual_seed(0)
        model = TrajectoryFCN(
            num_frames=NUM_FRAMES, input_frames=frames, backbone=arguments.backbone, head="fine",
            conv1="duplicate", weights=arguments.weights, stride_in=arguments.stride_in, batch_norm="train",
        )  # fmt: skip
        config = FitConfig(
            steps=arguments.steps, batch_size=arguments.batch, learning_rate=arguments.learning_rate, warmup_steps=50,
            validate_every=100, save_every=100, session_minutes=arguments.minutes, num_workers=0, ema_decay=0.98,
            loss="mse", schedule="constant", augment=AugmentConfig(flip_x=0.5, flip_y=0.5, reverse=0.5),
        )  # fmt: skip
        run = fit(model, train, unseen, config, folder=arguments.runs / name)
        seconds = sum(line["step_seconds"] for line in run.metrics("timings.jsonl"))
        results[name] = {"ade": run.best_ade, "steps": run.step, "minutes": seconds / 60}
        save_picture(run.folder / "unseen.png", *predict_clips(load_checkpoint(run.best)[0], unseen, 3))
        reached = "not judged" if run.best_ade is None else f"{run.best_ade:.2f} px"
        print(f"{name}: {reached} after {run.step} steps; zero motion {results['zero_motion']:.2f} px", flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["overfit", "two_frames"])
    parser.add_argument("--runs", type=Path, default=None, help="default: workspace/runs/learning_<part>")
    parser.add_argument("--minutes", type=float, default=20.0, help="of each training, in this session")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--weights", default="none")
    parser.add_argument("--stride-in", choices=["3x3", "1x1"], default="3x3", help="of the weights; see TrajectoryFCN")
    parser.add_argument("--head", choices=["torchvision", "fine"], default="fine", help="of overfit")
    parser.add_argument("--batch-norm", choices=["train", "frozen", "group"], default="train", help="of overfit")
    parser.add_argument("--target", type=float, default=0.5, help="pixels, of overfit")
    parser.add_argument("--dataset", type=Path, help="a labelled dataset's folder, of overfit")
    parser.add_argument("--size", type=int, nargs=2, default=(48, 64), metavar=("H", "W"), help="of two_frames")
    parser.add_argument("--scenes", type=int, default=120, help="to train on, of two_frames; each gives 5 clips")
    parser.add_argument("--batch", type=int, default=8, help="of two_frames")
    parser.add_argument("--backbone", default="fcn_resnet50", help="of two_frames")
    arguments = parser.parse_args()
    arguments.runs = arguments.runs or Path("workspace/runs") / f"learning_{arguments.part}"
    start = time.perf_counter()
    results = run_overfit(arguments) if arguments.part == "overfit" else run_two_frames(arguments)
    print(json.dumps({"part": arguments.part, "seconds": round(time.perf_counter() - start)} | results))


if __name__ == "__main__":
    main()
