"""Measures several futures: what they cost, whether they find both of two, and what they are worth on real videos.

    python bench/futures.py cost                         # CPU time of a training step, K = 5 beside K = 1
    python bench/futures.py scenes                       # rendered scenes with two equally likely futures
    python bench/futures.py clips --workspace DIR        # real videos, labelled by bench/train_default.py
    python bench/futures.py profiles --workspace DIR     # the same videos' constant velocity, cross-validated

`clips` trains the futures of the shipped two-frame predictor, which itself stays as it is, and compares the best of
its five futures with the best of five guesses that take no training: constant velocity times 0, 0.5, 0.8, 1 and 1.2.
Settings are chosen on `develop`; `test` is only measured. Runs lie in `--runs`: a call that is repeated goes on where
it stopped. `profiles` asks the same of many more videos, without a network: five speeds, whose course over the frames
is learned from other videos, against five that stay as they are. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch.utils.data import ConcatDataset, Subset

sys.path.insert(0, str(Path(__file__).parent))
from train_default import INPUT_FRAMES, LEFT_OUT, PARTS, changed, read_part

from flowlib.augmentation import AugmentConfig
from flowlib.clips import Clip, ClipList, ClipSample
from flowlib.evaluation.statistics import estimate, per_group, ratio, resamples
from flowlib.flow import CachedFlow, DISFlow, RAFTFlow
from flowlib.geometry import cell_grid
from flowlib.models.baselines import ConstantVelocity, ManyGains, MotionDraws, ZeroMotion
from flowlib.models.futures import GAINS, add_futures, velocity_gains
from flowlib.models.guided import WEIGHTS, GuidedTrajectories, load_default
from flowlib.models.one_frame import OneFrameTrajectories
from flowlib.synthetic import OPEN_KINDS, open_future_scene
from flowlib.tasks.futures import FuturesTask
from flowlib.tasks.trajectories import ScoringConfig
from flowlib.training import TrainConfig, fit, load_checkpoint
from flowlib.workspace import Workspace

NUMBERS = ("ade", "min_ade", "min_ade_points", "expected_ade", "best_weight", "diversity", "nll")
AHEAD = slice(INPUT_FRAMES[-1] + 1, None)  # frames after the last one seen
DRAWS = 4000  # of the bootstrap


def cost(args: Any) -> dict[str, Any]:
    """Median CPU seconds of a training step (forward, loss, backward, optimiser), K by turns."""
    clips = [scene_clip(seed, "reverse", seed % 2, size=(192, 320)) for seed in range(8)]
    task, steps = FuturesTask(loss="laplace_2d"), {}
    for count in args.futures:
        model = add_futures(load_default(), count).train()
        batch = task.collate([{"name": clip.name} | task.example(clip, task.inputs(model), None) for clip in clips])
        steps[count] = model, torch.optim.AdamW(model.parameters(), 1e-4), batch
    spent: dict[int, list[float]] = {count: [] for count in steps}
    for _ in range(args.repeat + 1):
        for count, (model, optimiser, batch) in steps.items():
            start = time.process_time()
            sums = task.sums(model, batch, {"target_scale": 5.0})
            task.total_loss(sums, task.counts(batch)).backward()
            optimiser.step()
            optimiser.zero_grad()
            spent[count].append(time.process_time() - start)
    times = {count: median(values[1:]) for count, values in spent.items()}  # the first warms up
    base = times[args.futures[0]]
    for count, seconds in times.items():
        print(f"K = {count}: {seconds:.2f} CPU s a step of 8 clips of 192×320, {seconds / base:.2f} times K = 1")
    return {"seconds": times, "ratio": {count: seconds / base for count, seconds in times.items()}}


def scene_clip(seed: int, kind: str, future: int, size: tuple[int, int] = (96, 128), spacing: int = 4) -> ClipSample:
    """A rendered clip of one of two futures."""
    scene = open_future_scene(8, size, seed, kind=kind, future=future)
    queries = np.insert(cell_grid(size, size[0] // spacing, size[1] // spacing), 0, 0, axis=1).astype(np.float32)
    frames, name = scene.clip(), f"{kind}{seed}-{future}"
    clip = Clip.named(name, frames, video=f"{kind}{seed}", num_points=len(queries))
    return ClipSample(clip, frames, scene.tracks(queries))


def scenes(args: Any) -> dict[str, Any]:
    """One answer, two modes, and the latent variables, from frame 0 alone; scenes to test on are unseen."""
    result: dict[str, Any] = {}
    shipped: Any = load_default(frames=1)
    for kind in args.kinds:
        sides = np.random.default_rng(1).integers(2, size=args.scenes).tolist()
        train = ClipList([scene_clip(seed, kind, side) for seed, side in enumerate(sides)], num_frames=8)
        test = [scene_clip(10_000 + seed, kind, side) for seed in range(args.test_scenes) for side in (0, 1)]
        result[kind] = {}
        for name in args.models:
            torch.manual_seed(0)
            config = dict(shipped.config) | {"cells": args.cells, "weights": "none"}
            model = OneFrameTrajectories(**config)
            model.load_state_dict(shipped.state_dict())
            if name != "one answer":
                model = add_futures(model, 2 if name == "modes" else 8, "none" if name == "modes" else name)
            task = FuturesTask(loss="laplace_2d", visibility_weight=0.0)
            train_config = TrainConfig(
                name=f"{kind}-{name}", steps=args.steps, batch_size=8, learning_rate=2e-3, warmup_steps=20,
                num_workers=0, save_every=50, device="cpu", channels_last=False,
            )  # fmt: skip
            start = time.process_time()
            run = fit(model, task, train, None, train_config, folder=args.runs / f"{kind}-{name.replace(' ', '-')}")
            spent = time.process_time() - start
            trained = load_checkpoint(run.last)[0]
            rows = [numbers(task, trained, clip)[0] for clip in test]
            found = {number: float(np.mean([row[number] for row in rows])) for number in NUMBERS}
            found |= {"first weight": float(np.mean([row["first weight"] for row in rows])), "cpu seconds": spent}
            found["worst weight"] = max(abs(row["first weight"] - 0.5) for row in rows)
            result[kind][name] = found
            share = found["min_ade"] / result[kind]["one answer"]["min_ade"] if "one answer" in result[kind] else np.nan
            print(
                f"{kind}, {name}: joint minADE {found['min_ade']:.3f} px ({share:.2f} of one answer's), weight of "
                f"the first {found['first weight']:.3f} (at most {found['worst weight']:.3f} from 0.5), diversity "
                f"{found['diversity']:.2f} px, NLL {found['nll']:.2f}, {spent:.0f} CPU s",
                flush=True,
            )
    return result


@torch.inference_mode()
def numbers(task: FuturesTask, method: Any, *truths: ClipSample) -> list[dict[str, float]]:
    """What is measured of one prediction, against each of several labels of the same clip."""
    prediction, rows = task.predict(method, task.case(truths[0]), "method"), []
    for clip in truths:
        answer = task.answer(prediction, task.case(clip))
        row = {"first weight": float(answer.weights[0])}
        for name in NUMBERS:
            metric = task.metric(name)
            row[name] = metric.function(answer) if answer.available.issuperset(metric.needs) else float("nan")
        rows.append(row)
    return rows


def train_modes(args: Any, workspace: Workspace, name: str, videos: Callable[[str], bool], **futures: Any) -> Any:
    """The shipped predictor with several futures trained on the clips of `videos`, and the CPU seconds of this call."""
    parts = [read_part("train", workspace, step)["consensus"] for step in PARTS["train"]]
    chosen = [[i for i, clip in enumerate(part.clips) if videos(clip.video)] for part in parts]
    data = ConcatDataset([Subset(part, indices) for part, indices in zip(parts, chosen)])
    torch.manual_seed(0)
    model = add_futures(load_default(), **futures)
    for parameter_name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter_name.startswith(tuple(args.learn)))
    augment = AugmentConfig(flip_x=0.5, reverse=0.5, scale=(1.0, 1.5))
    task = FuturesTask(loss="laplace_2d", visibility_weight=0.0, augment=augment)
    config = TrainConfig(
        name=name, steps=args.steps, batch_size=4, learning_rate=args.rate, warmup_steps=20, weight_decay=1e-2,
        ema_decay=0.98, num_workers=0, save_every=25, device="cpu", channels_last=False,
    )  # fmt: skip
    start = time.process_time()
    run = fit(model, task, data, None, config, folder=args.runs / name)
    return load_checkpoint(run.last)[0], time.process_time() - start


def measure(part: str, workspace: Workspace, methods: Mapping[str, Any], kinds: tuple[str, ...]) -> dict[str, Any]:
    """Kind of labels -> method -> number -> mean of each video, over the frames after the last one seen."""
    task = FuturesTask(scoring=ScoringConfig(frames=(INPUT_FRAMES[-1] + 1, 7), rebuild=()))
    rows: dict[str, dict[str, list]] = {kind: {name: [] for name in methods} for kind in kinds}
    videos: dict[str, list[str]] = {kind: [] for kind in kinds}
    for step in PARTS[part]:
        sets = read_part(part, workspace, step)
        places = {kind: {clip.key: i for i, clip in enumerate(sets[kind].clips)} for kind in kinds}
        for clip in sets["consensus"].clips:
            truths = {kind: sets[kind][places[kind][clip.key]] for kind in kinds}
            truths = {kind: one for kind, one in truths.items() if one.truth.visibility[AHEAD].sum() >= 50}
            for kind in truths:
                videos[kind].append(clip.video)
            for name, method in methods.items() if truths else ():
                for kind, row in zip(truths, numbers(task, method, *truths.values())):
                    rows[kind][name].append(row)
    for kind in kinds:
        print(f"{part}, {kind} labels: {len(videos[kind])} clips of {len(set(videos[kind]))} videos", flush=True)
    return {kind: {name: per_group(own, videos[kind]) for name, own in rows[kind].items()} for kind in kinds}


def compare(by_video: Mapping[str, Mapping[str, Mapping[str, float]]], pairs: list[tuple[str, str, str, str]]) -> list:
    """Rows of (method, number) against (method, number): means, paired difference and ratio, with intervals."""
    rows = []
    for first, number, second, other in pairs:
        videos = sorted(by_video[first])
        draws = resamples(len(videos), DRAWS, 0)
        own, theirs = (
            np.array([by_video[name][video][what] for video in videos])
            for name, what in ((first, number), (second, other))
        )
        apart, over = estimate(own - theirs, draws), ratio(own, theirs, draws, 0.95)
        print(
            f"  {first}, {number} {own.mean():.3f} px against {second}, {other} {theirs.mean():.3f} px: difference "
            f"{apart.mean:+.3f} [{apart.low:+.3f}, {apart.high:+.3f}], ratio {over.pooled.mean:.3f} "
            f"[{over.pooled.low:.2f}, {over.pooled.high:.2f}], geometric {over.geometric.mean:.3f} "
            f"[{over.geometric.low:.2f}, {over.geometric.high:.2f}], worst {over.worst[0]:.2f} {videos[over.worst[1]]}"
        )
        rows.append([first, number, second, other, apart.mean, apart.low, apart.high, over.pooled.mean])
    return rows


def clips(args: Any) -> dict[str, Any]:
    """Five modes on real videos, against five gains."""
    workspace = Workspace(args.workspace)
    result: dict[str, Any] = {}
    trained = {}
    for latent in args.latents:
        name = "modes" if latent == "none" else latent
        trained[name], spent = train_modes(
            args, workspace, name, lambda video: video not in LEFT_OUT, futures=5, latent=latent
        )
        result[f"cpu seconds, {name}"] = spent
    if args.write:
        many = trained["modes"].many
        about = {"trained_with": f"bench/futures.py clips --learn {' '.join(args.learn)} --rate {args.rate}"}
        learned = {"drive.weight": many.drive.weight, "weigh.bias": many.weigh.bias}
        learned = {name: tensor.detach().contiguous() for name, tensor in learned.items()}
        save_file(learned, WEIGHTS / "guided_2f_futures.safetensors", metadata=about)
    motions = ConcatDataset([read_part("train", workspace, step)["consensus"] for step in PARTS["train"]])
    motions = Subset(motions, range(0, len(motions), 3))  # of every video one clip or more
    flows: dict[str, Any] = {"DIS": CachedFlow(DISFlow("wide"), args.flows)}
    if args.raft_weights:
        flows["RAFT"] = CachedFlow(RAFTFlow(args.raft_weights), args.flows)
    gains = ManyGains.fit(ConstantVelocity(flows["DIS"], input_frames=INPUT_FRAMES), motions)
    print(f"gains {GAINS}: weights {np.round(gains.weights, 3).tolist()}, scales {np.round(gains.scales or [], 2)}")
    draws = MotionDraws.fit(motions, 5)
    for part in args.parts:
        methods: dict[str, Any] = {"zero motion": ZeroMotion(8), "draws of training motions": draws}
        for flow_name, flow in flows.items():
            single = changed(as_guided(load_default()))
            single.flow = flow
            methods[f"single answer ({flow_name})"] = single
            control = ConstantVelocity(flow, input_frames=INPUT_FRAMES)
            methods[f"five gains ({flow_name})"] = ManyGains(control, weights=gains.weights, scales=gains.scales)
            methods[f"gains of the single answer ({flow_name})"] = ManyGains(single, weights=gains.weights)
            for name, model in trained.items():
                methods[f"{name} ({flow_name})"] = changed(model)
                methods[f"{name} ({flow_name})"].flow = flow
        measured = measure(part, workspace, methods, tuple(args.labels))
        result[part] = {"videos": measured, "compared": {}}
        for kind, by_method in measured.items():
            print(f"{part}, {kind} labels, px, means over videos")
            for name, videos in by_method.items():
                means = {n: np.mean([row[n] for row in videos.values()]) for n in NUMBERS}
                print("  " + f"{name:36s}" + "  ".join(f"{n} {value:.3f}" for n, value in means.items()))
            pairs = []
            for flow_name in flows:
                for name in trained:
                    own = f"{name} ({flow_name})"
                    pairs += [(own, "min_ade", f"five gains ({flow_name})", "min_ade")]
                    pairs += [(own, "min_ade_points", f"five gains ({flow_name})", "min_ade_points")]
                    pairs += [(own, "min_ade", f"gains of the single answer ({flow_name})", "min_ade")]
                    pairs += [(own, "ade", f"single answer ({flow_name})", "ade")]
            result[part]["compared"][kind] = compare(by_method, pairs)
    return result


def profiles(args: Any) -> dict[str, Any]:
    """Constant velocity times five courses over the frames, learned from other videos, against five gains."""
    workspace, rng = Workspace(args.workspace), np.random.default_rng(0)
    control = ConstantVelocity(CachedFlow(DISFlow("wide"), args.flows), input_frames=INPUT_FRAMES)
    seen: list[Sighted] = []
    for part in ("train", "develop"):
        for step in PARTS[part]:
            data = read_part(part, workspace, step)["consensus"]
            seen += [one for sample in data if (one := Sighted.of(sample, control, rng)) is not None]
    videos = sorted({one.video for one in seen})
    fold_of = {video: fold % args.folds for fold, video in enumerate(rng.permutation(videos).tolist())}
    rows: dict[str, list[dict[str, float]]] = {"five courses": [], "five gains": []}
    told, start = [], time.process_time()
    for fold in range(args.folds):
        courses = learn_courses([one for one in seen if fold_of[one.video] != fold])
        for one in (one for one in seen if fold_of[one.video] == fold):
            told.append(one.video)
            constant = torch.tensor(GAINS)[:, None].expand_as(courses)
            for name, guesses in (("five courses", courses), ("five gains", constant)):
                rows[name].append({"min_ade": float(one.errors(guesses).min())})
        print(f"fold {fold + 1} of {args.folds}: courses {np.round(courses.numpy(), 2).tolist()}", flush=True)
    by_video = {name: per_group(own, told) for name, own in rows.items()}
    print(f"{len(seen)} clips of {len(videos)} videos, {time.process_time() - start:.0f} CPU s of learning")
    return {"compared": compare(by_video, [("five courses", "min_ade", "five gains", "min_ade")])}


@dataclass(frozen=True)
class Sighted:
    """Points of a clip in the frames after the last one seen: true [F N 2] and constant velocity's displacement, and
    where they are seen [F N]."""

    video: str
    true: torch.Tensor
    linear: torch.Tensor
    seen: torch.Tensor

    @classmethod
    def of(cls, sample: ClipSample, control: ConstantVelocity, rng: np.random.Generator) -> Sighted | None:
        """From a labelled clip, or None where fewer than 50 sightings are left."""
        truth = sample.truth
        kept = rng.choice(len(truth.queries), min(len(truth.queries), 200), replace=False)
        seen = truth.visibility[AHEAD][:, kept]
        if seen.sum() < 50:
            return None
        with torch.inference_mode():
            moved = control(sample.images(INPUT_FRAMES)).at(torch.from_numpy(truth.queries[None, kept, 1:]))[0][0]
        true = torch.from_numpy(truth.displacement[AHEAD][:, kept])
        return cls(sample.clip.video, true, moved[AHEAD].clone(), torch.from_numpy(seen))

    def errors(self, courses: torch.Tensor) -> torch.Tensor:
        """Mean error [K] of constant velocity times each of courses [K F]."""
        distance = (courses[:, :, None, None] * self.linear - self.true).norm(dim=-1)
        return torch.where(self.seen, distance, 0.0).sum(dim=(1, 2)) / self.seen.sum()


def learn_courses(clips: list[Sighted], count: int = 5, steps: int = 400, relaxed: float = 0.05) -> torch.Tensor:
    """Courses [K F], as modes learn: the best one of each clip learns from it, and the losers a little."""
    frames = len(clips[0].true)
    courses = torch.tensor(velocity_gains(count))[:, None].repeat(1, frames).requires_grad_()
    counts = Counter(one.video for one in clips)
    share = torch.tensor([1 / counts[one.video] for one in clips])
    optimiser = torch.optim.Adam([courses], 0.02)
    for _ in range(steps):
        errors = torch.stack([one.errors(courses) for one in clips])
        part = torch.full_like(errors, relaxed / (count - 1))
        part.scatter_(1, errors.argmin(dim=1, keepdim=True), 1 - relaxed)
        loss = ((part * errors).sum(dim=1) * share).sum() / share.sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return courses.detach()


def as_guided(model: Any) -> GuidedTrajectories:
    assert isinstance(model, GuidedTrajectories)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cost", "scenes", "clips", "profiles"))
    parser.add_argument("--runs", type=Path, default=Path("workspace/futures"))
    parser.add_argument("--workspace", type=Path, default=Path("workspace/default_model"), help="of train_default.py")
    parser.add_argument("--flows", type=Path, default=Path("workspace/default_model/flows"))
    parser.add_argument("--raft-weights", default="", help='for RAFT flow, too; "": DIS only')
    parser.add_argument("--futures", type=int, nargs="+", default=[1, 5], help="of cost")
    parser.add_argument("--repeat", type=int, default=5, help="of cost")
    parser.add_argument("--kinds", nargs="+", default=list(OPEN_KINDS), help="of scenes")
    parser.add_argument("--models", nargs="+", default=["one answer", "modes", "ae", "vae", "cvae"], help="of scenes")
    parser.add_argument("--scenes", type=int, default=96)
    parser.add_argument("--test-scenes", type=int, default=12)
    parser.add_argument("--cells", type=int, default=800, help="of the grid in scenes")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--latents", nargs="+", default=["none"], help="of clips")
    parser.add_argument("--write", action="store_true", help="of clips: write the futures to flowlib/weights/")
    parser.add_argument("--folds", type=int, default=5, help="of profiles")
    parser.add_argument("--rate", type=float, default=7e-4, help="of clips: learning rate")
    parser.add_argument("--learn", nargs="+", default=["many."], help="of clips: beginnings of the parameters trained")
    parser.add_argument("--parts", nargs="+", default=["develop", "test"], help="of clips")
    parser.add_argument("--labels", nargs="+", default=["consensus", "raft"], help="of clips")
    args = parser.parse_args()
    result = {"cost": cost, "scenes": scenes, "clips": clips, "profiles": profiles}[args.what](args)
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
