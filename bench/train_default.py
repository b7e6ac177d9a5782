"""Trains the predictors that come with flowlib again, from videos to `flowlib/weights/`, and measures them.

    python bench/train_default.py --train DIR --develop DIR --test DIR --raft-weights FILE --resnet-weights FILE

Videos are labelled by RAFT and by Lucas-Kanade at 192×320; what both agree on within 2 px is the truth. The two-frame
model is trained on DIS flow, and measured with DIS and with RAFT. Everything is chosen on `--develop`; `--test` is only
measured. Labels, flows and runs lie in `--workspace`: a call that is repeated goes on where it stopped. Prints the
ladder: for each method the ratio of its error to that of constant velocity, over the frames after the last one seen.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset, Subset

from flowlib.augmentation import AugmentConfig
from flowlib.dataset import TrajectoryDataset
from flowlib.dataset.about import videos_of
from flowlib.dataset.consensus import Consensus
from flowlib.flow import CachedFlow, DISFlow, RAFTFlow
from flowlib.geometry import bilinear_sample
from flowlib.labelling import LabelConfig, label, make_plan
from flowlib.metrics import auroc
from flowlib.models.baselines import ConstantVelocity, MeanMotion, ZeroMotion
from flowlib.models.guided import WEIGHTS, GuidedTrajectories, save_shipped
from flowlib.models.one_frame import OneFrameTrajectories
from flowlib.tasks.trajectories import TrajectoryTask
from flowlib.trackers.raft import RAFTTracker
from flowlib.training import TrainConfig, fit, load_checkpoint
from flowlib.workspace import Workspace

# Part -> frame step -> clips a video. From step 1 there is little to learn: what moves slowly goes on as it did.
PARTS = {"train": {2: 5, 3: 4}, "develop": {2: 2, 3: 2, 1: 2}, "test": {2: 3, 3: 3, 1: 3}}
FOR_ONE_FRAME = {2: 2, 3: 1}  # clips a video; with all of them it learns scenes by heart (bench/LOG.md)
LEFT_OUT = ("basketball", "bikes")  # the sample's videos, on which the demo shows what was not trained on
NUM_FRAMES, INPUT_FRAMES = 8, (0, 3)
SIZE = (192, 320)
SPACING = 4  # pixels between labelled points
TOLERANCE = 2.0  # pixels that two trackers may differ
RADIUS = 3.89  # of a plane Laplace density of scale 1 that holds 90 %
TRUST = 0.75  # share of the learned correction that is applied: all of it is best in the mean, less in the worst video
WIDER = 1.1  # what the learned scale is multiplied by, so that 90 % of the points of "develop" lie within its radius
MOVES = 1.0  # pixels in the last frame from which on a point moves
LOCAL_RATE = 3e-3  # learning rate of the design "local", whose network is small
SETTINGS = {
    "batch_size": 8,
    "learning_rate": 1e-3,
    "warmup_steps": 100,
    "weight_decay": 1e-2,
    "ema_decay": 0.995,
    "num_workers": 1,
    "validate_every": 250,
    "save_every": 50,
    "channels_last": False,
    "device": "cpu",
}


def label_part(part: str, source: Path, workspace: Workspace, args: Any) -> None:
    """Label a folder of videos by both trackers, one dataset for each frame step and tracker."""
    for step, most in PARTS[part].items():
        for tracker in ("raft", "lucas_kanade"):
            weights = args.raft_weights if tracker == "raft" else ""
            shape: dict[str, Any] = {"frames": NUM_FRAMES, "height": SIZE[0], "width": SIZE[1], "spacing": SPACING}
            shape |= {"fit": "crop"}
            config = LabelConfig(frame_step=step, tracker=tracker, weights=weights, max_clips=most, **shape)
            plan = make_plan(source, config, cache=workspace.scans)
            options: dict[str, Any] = {"iters": args.raft_iters, "precision": args.precision, "chunk": 7}
            made = RAFTTracker(weights, **options) if tracker == "raft" else None
            print(label(plan, workspace, dataset=f"{part}-s{step}-{tracker}", tracker=made, progress=False), flush=True)


def read_part(part: str, workspace: Workspace, step: int) -> dict[str, Any]:
    """The labels of one part and step: of both trackers, and what they agree on."""
    folders = {name: workspace.dataset(f"{part}-s{step}-{name}") for name in ("raft", "lucas_kanade")}
    found: dict[str, Any] = {name: TrajectoryDataset(folder, "all") for name, folder in folders.items()}
    return {"consensus": Consensus(found["raft"], found["lucas_kanade"], tolerance=TOLERANCE)} | found


def clips_of(workspace: Workspace, most: Mapping[int, int]) -> ConcatDataset:
    """The training clips, at most so many a video and frame step, spread as labelling spreads them."""
    chosen = []
    for step, count in most.items():
        part = read_part("train", workspace, step)["consensus"]
        videos: dict[str, list[int]] = {}
        for index in sorted(range(len(part)), key=lambda index: part.clips[index].first_frame):
            videos.setdefault(part.clips[index].video, []).append(index)
        kept = [own for video, own in videos.items() if video not in LEFT_OUT]
        spread = [np.linspace(0, len(own) - 1, min(count, len(own))).round().astype(int) for own in kept]
        chosen.append(Subset(part, sorted(own[place] for own, places in zip(kept, spread) for place in places)))
    return ConcatDataset(chosen)


def train(
    name: str, model: Any, data: Any, workspace: Workspace, steps: int, task: TrajectoryTask, **changes: Any
) -> tuple[Any, float]:
    """A trained model (averaged weights of the last step) and the CPU seconds of this call; `changes` of SETTINGS."""
    config = TrainConfig(name=name, steps=steps, **SETTINGS | changes)
    spent = time.process_time()
    run = fit(model, task, data, None, config, folder=workspace.runs / name)
    return load_checkpoint(run.last)[0].eval(), time.process_time() - spent


def measure(part: str, workspace: Workspace, methods: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
    """For each kind of labels, method and video: the mean error in pixels over the frames after the last one seen, the
    share within the 90 % radius, and (on the consensus) how well the expected motion tells what moves."""
    found: dict[str, Any] = {kind: {name: {} for name in methods} for kind in wanted}
    held: dict[str, list[float]] = {name: [] for name in methods}
    ranks: dict[str, list[float]] = {name: [] for name in methods}
    ahead = slice(INPUT_FRAMES[-1] + 1, None)
    for step in PARTS[part]:
        sets = read_part(part, workspace, step)
        places = {kind: {clip.key: i for i, clip in enumerate(sets[kind].clips)} for kind in wanted}
        for index, clip in enumerate(sets["consensus"].clips):
            sample = sets["consensus"][index]
            xy = torch.from_numpy(sample.truth.queries[None, :, 1:])
            truths = {kind: sets[kind][places[kind][clip.key]].truth for kind in wanted}
            for name, method in methods.items():
                with torch.inference_mode():
                    prediction = method(sample.images(method.input_frames))
                    moved = prediction.at(xy)[0][0].numpy()
                for kind, truth in truths.items():
                    seen = truth.visibility[ahead]
                    if seen.sum() < 50:
                        continue
                    error = np.linalg.norm(moved[ahead] - truth.displacement[ahead], axis=-1)
                    found[kind][name].setdefault(clip.video, []).append(float(error[seen].mean()))
                    if kind == "consensus" and prediction.log_scale is not None:
                        spread = np.exp(bilinear_sample(prediction.log_scale, xy)[0, ahead].numpy())
                        held[name].append(float((error <= RADIUS * spread)[seen].mean()))
                        expected = np.linalg.norm(moved[-1], axis=-1) + 2 * spread[-1]
                        true = np.linalg.norm(truth.displacement[-1], axis=-1) > MOVES
                        ranks[name].append(auroc(true[seen[-1]], expected[seen[-1]]))
    errors = {
        kind: {
            name: {video: float(np.mean(own)) for video, own in sorted(videos.items())} for name, videos in by.items()
        }
        for kind, by in found.items()
    }
    held_mean = {name: float(np.mean(values)) for name, values in held.items() if values}
    told = {name: float(np.nanmean(values)) for name, values in ranks.items() if values}
    return {"errors": errors, "within 90 % radius": held_mean, "moves, AUROC": told}


def ladder(errors: Mapping[str, Mapping[str, float]], base: str, draws: int = 4000) -> dict[str, dict[str, Any]]:
    """Method -> its error over that of `base`: pooled and as the geometric mean of the videos' ratios, with 95 %
    bootstrap intervals over videos, and the worst video."""
    videos = sorted(errors[base])
    picked = np.random.default_rng(0).integers(len(videos), size=(draws, len(videos)))
    below = np.array([errors[base][video] for video in videos])
    result: dict[str, dict[str, Any]] = {}
    for name, own in errors.items():
        above = np.array([own[video] for video in videos])
        logs = np.log(above / below)
        interval = [
            np.percentile(values, [2.5, 97.5]).tolist()
            for values in (above[picked].mean(axis=1) / below[picked].mean(axis=1), np.exp(logs[picked].mean(axis=1)))
        ]
        result[name] = {"px": above.mean(), "pooled": above.mean() / below.mean(), "pooled interval": interval[0]}
        result[name] |= {"geometric": math.exp(logs.mean()), "geometric interval": interval[1]}
        result[name] |= {"worst": math.exp(logs.max()), "worst video": videos[int(logs.argmax())]}
    return result


def show(part: str, measured: Mapping[str, Any]) -> None:
    for kind, errors in measured["errors"].items():
        for base in [name for name in errors if name.startswith("constant velocity")]:
            print(f"{part}, {kind} labels, ratio to {base}")
            for name, row in ladder(errors, base).items():
                pooled, geometric = (
                    "{:.3f} [{:.2f}, {:.2f}]".format(row[key], *row[f"{key} interval"])
                    for key in ("pooled", "geometric")
                )
                print(f"  {name:28s} {row['px']:6.2f} px  pooled {pooled}  geometric {geometric}  "
                      f"worst {row['worst']:.2f} {row['worst video']}")  # fmt: skip
    for what in ("within 90 % radius", "moves, AUROC"):
        print(f"{part}: {what}: " + ", ".join(f"{name} {value:.3f}" for name, value in measured[what].items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for part in PARTS:
        parser.add_argument(f"--{part}", type=Path, required=True, help="folder of videos")
    parser.add_argument("--raft-weights", required=True)
    parser.add_argument("--resnet-weights", required=True)
    parser.add_argument("--resnet-stride-in", default="1x1", help="3x3 for torchvision's own file")
    parser.add_argument("--workspace", type=Path, default=Path("workspace/default_model"))
    parser.add_argument("--raft-iters", type=int, default=6, help="of the labels")
    parser.add_argument("--precision", default="bfloat16", help="of the labels: float32 or bfloat16")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--steps-one-frame", type=int, default=400)
    parser.add_argument("--design", default="local")
    parser.add_argument("--write", action="store_true", help="write flowlib/weights/")
    args = parser.parse_args()
    workspace = Workspace(args.workspace)
    for part in PARTS:
        label_part(part, getattr(args, part), workspace, args)
    dis, plain = (CachedFlow(DISFlow(preset), workspace.root / "flows") for preset in ("wide", "medium"))
    augment = AugmentConfig(flip_x=0.5, reverse=0.5)
    task = TrajectoryTask(loss="relative", visibility_weight=0.0, augment=augment)
    torch.manual_seed(0)
    two = GuidedTrajectories(num_frames=NUM_FRAMES, input_frames=INPUT_FRAMES, design=args.design, flow="dis wide")
    two.flow = dis  # clips are mirrored and turned round, no more, so that their flows can be kept
    rate = LOCAL_RATE if args.design == "local" else SETTINGS["learning_rate"]
    clips = clips_of(workspace, PARTS["train"])
    two, cpu_two = train(f"guided_{args.design}", two, clips, workspace, args.steps, task, learning_rate=rate)
    two = widened(changed(two, trust=TRUST), WIDER)
    task = replace(task, loss="laplace_2d", augment=replace(augment, scale=(1.0, 1.5)))
    torch.manual_seed(0)
    one = OneFrameTrajectories(num_frames=NUM_FRAMES, weights=args.resnet_weights, stride_in=args.resnet_stride_in)
    clips = clips_of(workspace, FOR_ONE_FRAME)
    one, cpu_one = train("guided_one_frame", one, clips, workspace, args.steps_one_frame, task)
    exact = CachedFlow(RAFTFlow(args.raft_weights), workspace.root / "flows")
    result: dict[str, Any] = {"cpu_seconds": {"two frames": cpu_two, "one frame": cpu_one}}
    mean = MeanMotion.fit(ConcatDataset([read_part("train", workspace, step)["consensus"] for step in PARTS["train"]]))
    for part in ("develop", "test"):
        methods: dict[str, Any] = {"zero motion": ZeroMotion(NUM_FRAMES), "mean motion": mean, "one frame": one}
        methods["constant velocity (DIS, medium)"] = ConstantVelocity(plain, input_frames=INPUT_FRAMES)
        for name, flow in (("RAFT", exact), ("DIS", dis)):
            methods[f"constant velocity ({name})"] = ConstantVelocity(flow, input_frames=INPUT_FRAMES)
            methods[f"guided ({name})"] = changed(two)
            methods[f"guided ({name})"].flow = flow
        result[part] = measure(part, workspace, methods, ("consensus", "raft", "lucas_kanade"))
        show(part, result[part])
    if args.write:
        for name, model in (("guided_2f", two), ("guided_1f", one)):
            known = videos_of(read_part("train", workspace, 2)["consensus"])
            videos = [mark for video, mark in known.items() if video not in LEFT_OUT]
            about = {"config": model.config, "trained_with": "bench/train_default.py", "trained_on": videos}
            save_shipped(model, WEIGHTS / f"{name}.safetensors", about)
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(json.dumps(result))


def widened(model: GuidedTrajectories, factor: float) -> GuidedTrajectories:
    """The same, less sure of itself by a factor in all frames."""
    with torch.no_grad():
        model.head.said[-1].bias[3::5] += math.log(factor)  # the head's channels are as `unet.split_said` takes them
    return model


def changed(model: GuidedTrajectories, **changes: Any) -> GuidedTrajectories:
    """A copy of the model with some of its config changed, and a flow of its own."""
    copy = GuidedTrajectories(**model.config | changes)
    copy.load_state_dict(model.state_dict())
    return copy.eval()


if __name__ == "__main__":
    main()
