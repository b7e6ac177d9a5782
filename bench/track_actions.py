"""Actions from tracks, and trajectories that are told the action: synthetic motions, scenes unseen.

    python bench/track_actions.py actions --scenes 30 --steps 300      # does an LSTM tell the motions from tracks?
    python bench/track_actions.py trajectories --steps 800             # what is the action worth, from one frame?

`actions` renders videos of ten motions, follows points by Lucas-Kanade, and learns from most scenes; `trajectories`
learns where every pixel goes from one frame, in which opposite motions look alike, with the action told and without.
Everything goes on where it was when it is called again. Seconds are CPU seconds of this call. The last line is JSON.
"""

import argparse
import json
import os
import platform
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from flowlib.clips import Clip, ClipList, ClipSample
from flowlib.evaluation import evaluate
from flowlib.geometry import cell_grid
from flowlib.models.action_baselines import LastFrame, Majority, NearestSequence
from flowlib.models.actions import ActionLSTM
from flowlib.models.baselines import MeanMotion, ZeroMotion
from flowlib.models.fcn import TrajectoryFCN
from flowlib.models.film import Retold
from flowlib.progress import Progress
from flowlib.sources import write_actions
from flowlib.splits import SPLITS
from flowlib.synthetic import ACTIONS, action_scene
from flowlib.tasks.action import ActionTask
from flowlib.tasks.action.task import training_set
from flowlib.tasks.action.tracks import TrackConfig, TrackedVideo, TrackedVideos, TrackSequences, track_videos
from flowlib.tasks.trajectories import ScoringConfig, TrajectoryTask
from flowlib.training import TrainConfig, fit, load_checkpoint

CPU = {"device": "cpu", "num_workers": 0}
PAIRS = ACTIONS[:6]  # three pairs of opposites that go on as they began
SIZE, FRAMES = (32, 48), 4
COMPARED = (("true", "uniform"), ("true", "unconditioned"), ("wrong", "uniform"), ("wrong", "unconditioned"))
COMPARED += (("uniform", "unconditioned"), ("uniform", "nothing moves"))


def follow(args: argparse.Namespace) -> TrackedVideos:
    """The tracks of all videos: two thirds of the scenes to learn from, a tenth to choose by, the rest to test on."""
    config = TrackConfig(tracker=args.tracker)
    if args.tracker == "exact":  # nobody has to see a picture
        scenes = [(seed, k) for seed in Progress(range(args.scenes), "scenes") for k in range(len(ACTIONS))]
        made = [(f"{ACTIONS[k]}/scene_{seed:03d}", k, action_scene(ACTIONS[k], 16, (96, 128), seed, camera="linear"))
                for seed, k in scenes]  # fmt: skip
        videos = tuple(TrackedVideo(key, k, key, scene.tracks(config.queries), "") for key, k, scene in made)
        tracked = TrackedVideos(config, {"name": "exact"}, ACTIONS, videos, ())
    else:
        folder = write_actions(args.folder / "videos", count=args.scenes, progress=Progress)
        tracked = track_videos(folder, args.folder / "tracks", config, actions=ACTIONS, progress=Progress)
    ends = (args.scenes * 2 // 3, args.scenes * 2 // 3 + args.scenes // 10)
    parts = [sum(int(video.key[-3:]) >= end for end in ends) for video in tracked.videos]
    videos = tuple(replace(video, split=SPLITS[part]) for video, part in zip(tracked.videos, parts))
    return replace(tracked, videos=videos)


def actions(args: argparse.Namespace) -> dict:
    """Accuracy over scenes unseen, beside baselines and with classes at random."""
    began, tracked = time.process_time(), follow(args)
    train, validation, test = (TrackSequences(tracked, split) for split in ("train", "val", "test"))
    made, found = time.process_time() - began, {}
    for labels in ("true", "random"):
        task = ActionTask(ACTIONS, labels=labels)
        torch.manual_seed(args.seed)
        model = ActionLSTM(train.inputs, len(ACTIONS))
        name, every = f"actions_{args.tracker}_{args.scenes}_{labels}_{args.steps}", max(1, args.steps // 10)
        config = TrainConfig(
            name, args.steps, 32, validate_every=every, save_every=every, seed=args.seed, optimizer="amsgrad",
            learning_rate=3e-3, weight_decay=0.0, schedule="cosine", **CPU,
        )  # fmt: skip
        run = fit(model, task, train, validation, config, folder=args.folder / "runs" / name)
        best, about = load_checkpoint(run.best)
        methods = {"lstm": best}
        for kind in (Majority, LastFrame, NearestSequence) if labels == "true" else (Majority,):
            methods[kind.__name__] = kind.fit(*training_set(task, train))
        folder = args.folder / "reports" / name
        report = evaluate(methods, task, test, folder=folder, about={"lstm": about})
        report.save(folder)
        print(report.table(), *report.summary(), sep="\n")
        found[labels] = {method: list(vars(report.estimate(method, "top1")).values())[:3] for method in methods}
    splits = {part.split: len(part) for part in (train, validation, test)}
    return {"top1": found, "chance": 1 / len(ACTIONS), "videos": splits, "made_cpu_s": made}


def clips(seeds: range, split: str) -> ClipList:
    """Scenes that move as a whole, each with every motion of `PAIRS`; points on a grid, followed exactly."""
    queries, found = np.insert(cell_grid(SIZE, 16, 24), 0, 0, axis=1), []
    for seed in Progress(seeds, f"rendering {split}"):
        for number, action in enumerate(PAIRS):
            scene = action_scene(action, FRAMES, SIZE, seed, whole=True)
            frames, name = scene.clip(), f"{action}/{seed}"
            clip = Clip.named(name, frames, video=f"scene {seed}", num_points=len(queries))
            found.append(ClipSample(clip, frames, scene.tracks(queries), action=np.eye(len(PAIRS))[number]))
    return ClipList(found, split=split)


def trajectories(args: argparse.Namespace) -> dict:
    """Errors from one frame: told the true action, nothing, the opposite, and by a network without actions."""
    n = args.scenes
    train, validation, test = (clips(range(*ends), name) for name, ends in (
        ("train", (0, n)), ("val", (10_000, 10_000 + n // 10)), ("test", (20_000, 20_000 + n // 5))))  # fmt: skip
    task = TrajectoryTask(loss=args.loss, scoring=ScoringConfig(rebuild=()))
    methods, began = {}, time.process_time()
    told = {"num_actions": len(PAIRS), "film": args.film}
    for name, options in (("told", told), ("unconditioned", {})):
        torch.manual_seed(args.seed)
        model = TrajectoryFCN(
            num_frames=FRAMES, backbone=args.backbone, head="fine", weights=args.weights, batch_norm=args.batch_norm,
            **options,
        )  # fmt: skip
        run, every = f"{name}_{args.backbone}_{args.loss}_{n}_{args.steps}_seed{args.seed}", max(1, args.steps // 8)
        config = TrainConfig(
            run, args.steps, 16, validate_every=every, save_every=every, seed=args.seed, trained=args.trained,
            learning_rate=args.learning_rate, schedule="one_cycle", **CPU,
        )  # fmt: skip
        done = fit(model, task, train, validation, config, folder=args.folder / "runs" / run)
        methods[name], _ = load_checkpoint(done.best)
    seconds = time.process_time() - began
    best = methods.pop("told")
    methods = {telling: Retold(best, telling) for telling in ("true", "uniform", "wrong")} | methods
    methods |= {"nothing moves": ZeroMotion(num_frames=FRAMES), "mean motion": MeanMotion.fit(train)}
    report = evaluate(methods, task, test, folder=args.folder / "reports" / run, pictures=False)
    report.save(args.folder / "reports" / run)
    print(report.table(), sep="\n")
    means = {m: {name: report.estimate(m, name).mean for name in ("ade", "fde")} for m in methods}
    against = {}
    for first, second in COMPARED:
        difference = report.difference(first, second, "ade")
        against[f"{first} - {second}"] = [round(v, 3) for v in (difference.mean, difference.low, difference.high)]
    print(json.dumps(against, indent=1))
    return {"means": means, "ade_differences": against, "train_cpu_s": seconds, "clips": [len(train), len(test)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("actions", "trajectories"))
    parser.add_argument("--folder", type=Path, default=Path("workspace/bench_track_actions"))
    parser.add_argument("--scenes", type=int, default=30)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tracker", default="lucas_kanade")
    parser.add_argument("--backbone", default="lraspp_mobilenet_v3_large")
    parser.add_argument("--weights", default="none")
    parser.add_argument("--film", nargs="+", default=["head"])
    parser.add_argument("--loss", default="l1")
    parser.add_argument("--batch-norm", default="train")
    parser.add_argument("--trained", default="all")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    found = {"actions": actions, "trajectories": trajectories}[args.what](args)
    machine = {"machine": platform.machine(), "load": os.getloadavg()[0], "cpu_s": time.process_time() - began}
    print(json.dumps({"bench": f"track_actions {args.what}", **machine, **found}))


if __name__ == "__main__":
    main()
