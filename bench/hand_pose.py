"""Hand pose on the synthetic hand, people unseen: what a small network reaches, and what it cost.

    python bench/hand_pose.py pose --seeds 0           # seen joints beside nearest crop and mean pose; estimated centre
    python bench/hand_pose.py overfit                  # does the full network learn 64 crops by heart?
    python bench/hand_pose.py lists --steps 300        # cube sizes and augmentations, three seeds each

The store of hands (10 people, 12 actions, 4 takes each) is made in `--folder` when it is first asked for. Everything
goes on where it was when it is called again. Seconds are CPU seconds of this call. The last line is JSON.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import torch
from torch.utils.data import Subset

from flowlib.evaluation import evaluate
from flowlib.hand_views import centre_cost, open_hands, parse_augment, pose_methods, try_settings
from flowlib.hands.crop import CropConfig
from flowlib.hands.dataset import HandFrames
from flowlib.hands.sources import find_hands
from flowlib.hands.store import write_hands
from flowlib.models.pose import PoseNet
from flowlib.tasks.hand_pose import PoseTask
from flowlib.training import TrainConfig, fit, load_checkpoint, overfit

AUGMENT = "rot 30,scale 0.1,trans"
LOSS = {"loss": "joints", "hidden_weight": 0.1}
ADAM = {"optimizer": "adam", "weight_decay": 0.0, "learning_rate": 1e-3, "device": "cpu", "num_workers": 0}
METRICS = ("mpjpe", "mpjpe_seen", "mpjpe_hidden", "hidden_4", "hidden_5", "auc")


def pose(args: argparse.Namespace, store: Path) -> dict:
    """The small net at 64×64, true centre: errors of seen and hidden joints beside the baselines; estimated centre."""
    crop, augment = CropConfig(size=args.size), parse_augment(AUGMENT)
    train, validation, test = open_hands(store, crop, unpacked=True)
    task, found = PoseTask(augment=augment, pca_augment=augment, **LOSS), {}
    for seed in args.seeds:
        name, began = f"pose_{args.size}_{args.steps}_seed{seed}", time.process_time()
        torch.manual_seed(seed)
        model = PoseNet.named("small", size=args.size, dropout=args.dropout)
        every = max(1, args.steps // 10)
        config = TrainConfig(name, args.steps, 64, validate_every=every, save_every=every, seed=seed, **ADAM)
        run = fit(model, task, train, validation, config, folder=args.folder / "runs" / name)
        trained = time.process_time() - began
        best, about = load_checkpoint(run.best)
        folder = args.folder / "reports" / name
        report = evaluate(pose_methods(best, train), task, test, folder=folder, about={"model": about})
        report.save(folder)
        cost = centre_cost(best, task, store, crop, folder)
        print(report.table(), *report.summary(), cost, f"{trained:.0f} CPU s of training", sep="\n")
        means = {m: {name: report.estimate(m, name).mean for name in METRICS} for m in report.methods}
        seen = {m: means["model"]["mpjpe_seen"] / means[m]["mpjpe_seen"] for m in report.baselines}
        interval = [cost.extra.mean, cost.extra.low, cost.extra.high]
        found[seed] = {"means": means, "seen_share": seen, "centre_mm": interval, "train_cpu_s": trained}
    return found


def learn_by_heart(args: argparse.Namespace, store: Path) -> dict:
    """The full net on 64 crops spread over the training set, until their mean error is below 2 mm."""
    train, began = HandFrames(store, "train", CropConfig(size=args.size)), time.process_time()
    chosen = Subset(train, [len(train) * i // 64 for i in range(64)])
    torch.manual_seed(args.seeds[0])
    model = PoseNet.named("deepprior++", size=args.size, dropout=0.0)
    config = TrainConfig("overfit", args.steps, validate_every=20, save_every=20, warmup_steps=10, **ADAM)
    folder = args.folder / "runs" / f"overfit_{args.size}"
    result = overfit(model, PoseTask(), chosen, config, samples=64, target=2.0, folder=folder)
    print(result, result.curve, sep="\n")
    return {"mm": result.score, "steps": result.steps, "cpu_s": time.process_time() - began, "curve": result.curve}


def lists(args: argparse.Namespace, store: Path) -> dict:
    """Cube sizes and augmentations by small runs, the spread over seeds."""
    crop, began = CropConfig(size=args.size), time.process_time()
    task = PoseTask(augment=parse_augment(AUGMENT), pca_augment=parse_augment(AUGMENT), **LOSS)
    every = max(1, args.steps // 3)
    config = TrainConfig("list", args.steps, 64, validate_every=every, save_every=every, **ADAM)
    shape = {key: value for key, value in PoseNet.named("small", size=args.size, dropout=args.dropout).config.items()}
    given = {"seeds": len(args.seeds), "unpacked": True, "runs": args.folder / "runs"}
    found = {}
    for name, text in (("cubes", args.cubes), ("augments", args.augments)):
        table = try_settings(store, crop, shape, task, config, **{name: text}, **given)
        if table is not None:
            found[name] = table.spread("cube", "augment").rows
            print(table.spread("cube", "augment"))
    return found | {"cpu_s": time.process_time() - began}


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pose", "overfit", "lists"))
    parser.add_argument("--folder", type=Path, default=Path("workspace/bench_hand_pose"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="2000; overfit 240; lists 300")
    parser.add_argument("--size", type=int, help="pixels of a crop: 64; overfit 128; lists 32")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--cubes", default="180,190,200,210,220")
    parser.add_argument("--augments", default=f"none;rot;rot 30;scale 0.1;trans;{AUGMENT}")
    args = parser.parse_args()
    steps, size = {"pose": (2000, 64), "overfit": (240, 128), "lists": (300, 32)}[args.what]
    args.steps, args.size = args.steps or steps, args.size or size
    torch.set_num_threads(1)
    store, began = args.folder / "store", time.process_time()
    write_hands(store, find_hands(), progress=True)
    print(f"store: {time.process_time() - began:.0f} CPU s")
    result = {"pose": pose, "overfit": learn_by_heart, "lists": lists}[args.what](args, store)
    about = {"what": args.what, "steps": args.steps, "size": args.size, "threads": 1, "load": os.getloadavg()[0]}
    print(json.dumps(about | {"result": result, "machine": platform.machine(), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
