"""The ladder of two-frame prediction: what little says, what the shipped predictor says, and what could be said.

    python bench/ladder.py --labels DIR --raft-weights FILE [--part test] [--every N] [--fit-every N]

`--labels` is the workspace of `bench/train_default.py`: measured are its clips of `--part`, all by two trackers; those
of "test" are labelled from `--videos` if they aren't there. Any other clips: `--raft DIR ... --lucas-kanade DIR ...`,
datasets of the same clips by each tracker. Gains are fitted on the training clips and on no others. Each method's error
over frames 4 to 7 is divided by that of constant velocity by RAFT (and by DIS): pooled and as the geometric mean over
videos, with 95 % intervals over videos, the worst video, by kind of motion, and by whose labels are the truth. Oracles
are told what no two frames show. Flows lie in `--labels`. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset
from train_default import INPUT_FRAMES, LEFT_OUT, NUM_FRAMES, PARTS, TOLERANCE, label_part, read_part

from flowlib.clips import ClipSample
from flowlib.dataset import TrajectoryDataset
from flowlib.dataset.consensus import Consensus
from flowlib.evaluation.statistics import EvalConfig, estimate, per_group, ratio, resamples
from flowlib.flow import CachedFlow, DISFlow, OpticalFlow, RAFTFlow
from flowlib.geometry import bilinear_sample, pixel_grid
from flowlib.models.baselines import ConstantVelocity, MeanMotion, Scaled, ZeroMotion, densify, l1_gain
from flowlib.models.guided import load_default
from flowlib.models.protocols import TrajectoryPrediction
from flowlib.tasks.trajectories import ScoringConfig, TrajectoryTask
from flowlib.tracks import Tracks
from flowlib.workspace import Workspace

LAST = INPUT_FRAMES[-1]
AHEAD = (LAST + 1, NUM_FRAMES - 1)
LABELS = ("consensus", "raft", "lucas_kanade")
NUMBERS = ("ade", "ade_still", "ade_camera", "ade_own")
EDGES = (0.25, 0.5, 1.0, 2.0)  # pixels that the flow there and back misses by: the bins of confidence
RADIUS = 8  # pixels of the windows in which flow is smoothed
LEAST = 50  # sightings in the frames ahead, without which a clip says nothing


# Candidates: another velocity made of the same flow


def blurred(flow: np.ndarray, miss: np.ndarray) -> np.ndarray:
    """A Gaussian of a quarter of the window's side."""
    return np.stack([cv2.GaussianBlur(part, (0, 0), RADIUS / 2) for part in flow])


def median(flow: np.ndarray, miss: np.ndarray) -> np.ndarray:
    """Of 5×5 pixels, the largest window that OpenCV has for floats, three times."""
    for _ in range(3):
        flow = np.stack([cv2.medianBlur(part, 5) for part in flow])
    return flow


def locally_affine(flow: np.ndarray, miss: np.ndarray) -> np.ndarray:
    """The affine motion of a window around each pixel, least squares, the less of a pixel the more its flow misses."""
    x, y = np.moveaxis(pixel_grid((flow.shape[1], flow.shape[2])).astype(np.float64), -1, 0)
    weight = 1 / (1 + np.square(miss, dtype=np.float64))
    side = 2 * RADIUS + 1

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(weight * values, -1, (side, side), borderType=cv2.BORDER_REFLECT_101)

    total = mean(np.ones_like(x))
    at = [mean(axis) / total for axis in (x, y)]
    xx, yy, xy = (mean(p * q) / total - m * n for p, q, m, n in ((x, x, *at[:1] * 2), (y, y, *at[1:] * 2), (x, y, *at)))
    determinant = xx * yy - xy * xy + 1e-9
    found = []
    for part in flow.astype(np.float64):
        level = mean(part) / total
        by_x, by_y = (mean(axis * part) / total - middle * level for axis, middle in zip((x, y), at))
        slope_x, slope_y = (yy * by_x - xy * by_y) / determinant, (xx * by_y - xy * by_x) / determinant
        found.append(level + slope_x * (x - at[0]) + slope_y * (y - at[1]))
    return np.stack(found).astype(np.float32)


class Changed:
    """A flow, smoothed in some way."""

    def __init__(self, flow: OpticalFlow, change: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
        self.flow, self.change, self.name = flow, change, f"{flow.name}, {change.__name__}"

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        flow = np.asarray(self.flow(first, second), np.float32)
        return self.change(flow, missed(flow, self.flow(second, first)))


def missed(flow: np.ndarray, back: np.ndarray) -> np.ndarray:
    """[H W] Pixels between where each pixel starts and where the flow there and back ends."""
    xy = pixel_grid((flow.shape[1], flow.shape[2]))
    there = torch.from_numpy((xy + flow.transpose(1, 2, 0)).reshape(1, -1, 2))
    read = bilinear_sample(torch.from_numpy(np.ascontiguousarray(back, np.float32))[None], there)[0]
    return np.linalg.norm(flow + read.reshape(flow.shape).numpy(), axis=0)


class Advected:
    """Every point takes, at each step, the velocity that the flow has where the point has got to."""

    input_frames = INPUT_FRAMES

    def __init__(self, flow: OpticalFlow) -> None:
        self.linear = ConstantVelocity(flow, input_frames=INPUT_FRAMES)

    def __call__(self, images: Tensor) -> TrajectoryPrediction:
        linear = self.linear(images)
        step = linear.displacement[:, 1]
        xy = torch.from_numpy(pixel_grid((step.shape[-2], step.shape[-1]))).reshape(1, -1, 2)
        ways, moved = [torch.zeros_like(step)], torch.zeros_like(step)
        for frame in range(1, NUM_FRAMES):
            there = xy + moved.movedim(1, -1).reshape(1, -1, 2)
            moved = moved + (step if frame <= LAST else bilinear_sample(step, there).reshape(step.shape))
            ways.append(moved)
        return replace(linear, displacement=torch.stack(ways, dim=1))


# Gains


class Damped:
    """Constant velocity times one gain for each frame and bin of confidence, fitted for the least mean distance.

    Args:
        flow: what velocity is measured by.
        edges: pixels of forward-backward error between the bins.
        gains: [bins S].
    """

    input_frames = INPUT_FRAMES

    def __init__(self, flow: OpticalFlow, edges: Sequence[float], gains: np.ndarray) -> None:
        self.flow, self.edges, self.gains = flow, tuple(edges), np.asarray(gains, np.float32)
        self.linear = ConstantVelocity(flow, input_frames=INPUT_FRAMES)

    @classmethod
    def fit(cls, flow: OpticalFlow, edges: Sequence[float], samples: Iterator[ClipSample]) -> Damped:
        """Every clip counts alike in each frame, however many of its points are seen."""
        bins = len(edges) + 1
        made = cls(flow, edges, np.ones((bins, NUM_FRAMES)))
        found: list[list[list[np.ndarray]]] = [[[] for _ in range(NUM_FRAMES)] for _ in range(bins)]
        for sample in samples:
            images = sample.images(INPUT_FRAMES)
            xy = torch.from_numpy(sample.truth.queries[None, :, 1:])
            moved = made.linear(images).at(xy)[0][0].numpy()
            which = bilinear_sample(made.bins(images)[None, None].float(), xy)[0, 0].round().int().numpy()
            for frame in range(1, NUM_FRAMES):
                seen = sample.truth.visibility[frame]
                share = np.full(seen.sum(), 1 / max(seen.sum(), 1))
                rows = np.column_stack([moved[frame][seen], sample.truth.displacement[frame][seen], share])
                for number in range(bins):
                    found[number][frame].append(rows[which[seen] == number].astype(np.float32))
        for number in range(bins):
            for frame in range(1, NUM_FRAMES):
                rows = np.concatenate(found[number][frame])
                made.gains[number, frame] = l1_gain(rows[:, :2], rows[:, 2:4], rows[:, 4])
        return made

    def bins(self, images: Tensor) -> Tensor:
        """[H W] Which bin a pixel is in, of the one clip given."""
        first, second = images[0].movedim(1, -1).cpu().numpy()
        miss = missed(np.asarray(self.flow(first, second), np.float32), self.flow(second, first))
        return torch.from_numpy(np.digitize(miss, self.edges))

    def __call__(self, images: Tensor) -> TrajectoryPrediction:
        linear = self.linear(images)
        gains = torch.from_numpy(self.gains)[self.bins(images)].movedim(-1, 0)  # S H W
        return replace(linear, displacement=linear.displacement * gains[None, :, None])


# Oracles


class LastVelocity:
    """The true way up to the last frame seen, and the true velocity there kept."""

    def from_sample(self, sample: ClipSample) -> TrajectoryPrediction:
        truth = sample.truth
        tracks = truth.tracks.copy()
        for frame in range(LAST + 1, truth.num_frames):
            tracks[frame] = truth.tracks[LAST] + (frame - LAST) * (truth.tracks[LAST] - truth.tracks[LAST - 1])
        return densify(replace(sample, truth=replace(truth, tracks=tracks)), sample.size)


class BestGain:
    """Another method's motion times the gain that is best for this clip and frame."""

    def __init__(self, method: Any) -> None:
        self.method = method

    def from_sample(self, sample: ClipSample) -> TrajectoryPrediction:
        found = self.method(sample.images(self.method.input_frames))
        moved = found.at(torch.from_numpy(sample.truth.queries[None, :, 1:]))[0][0].numpy()
        true, seen = sample.truth.displacement, sample.truth.visibility.astype(float)
        gains = [1.0, *(l1_gain(moved[frame], true[frame], seen[frame]) for frame in range(1, len(moved)))]
        scaled = found.displacement * found.displacement.new_tensor(gains)[:, None, None, None]
        return replace(found, displacement=scaled)


class Tracker:
    """What one tracker saw of all frames, as if it were a prediction: the floor under which errors say nothing.

    Args:
        tracks: clip's key -> its tracks.
    """

    def __init__(self, tracks: Callable[[str], Tracks]) -> None:
        self.tracks = tracks

    def from_sample(self, sample: ClipSample) -> TrajectoryPrediction:
        return densify(replace(sample, truth=self.tracks(sample.clip.key)), sample.size)


# The measure


class Labelled:
    """Clips by each kind of labels, from pairs of datasets of the same clips by two trackers."""

    def __init__(self, pairs: Sequence[tuple[Any, Any]], every: int = 1) -> None:
        self.both = [Consensus(first, second, tolerance=TOLERANCE) for first, second in pairs]
        known = [(one, index) for one in self.both for index in range(len(one))]
        self.chosen = known[::every]
        self.places = {one.clips[index].key: (one, index) for one, index in known}

    def __iter__(self) -> Iterator[dict[str, ClipSample]]:
        for one, index in self.chosen:
            sample = one[index]
            truths = {name: self.tracks(name, sample.clip.key) for name in LABELS[1:]}
            yield {"consensus": sample} | {name: replace(sample, truth=truth) for name, truth in truths.items()}

    def tracks(self, tracker: str, key: str) -> Tracks:
        one, index = self.places[key]
        return (one.first if tracker == "raft" else one.second).tracks(one.pairs[index][tracker != "raft"])


def measure(clips: Labelled, methods: Mapping[str, Any], task: TrajectoryTask) -> dict[str, Any]:
    """Label kind -> method -> video -> mean error in pixels, of all points and by kind of motion."""
    rows: dict[str, dict[str, list[dict[str, float]]]] = {kind: {name: [] for name in methods} for kind in LABELS}
    videos: dict[str, list[str]] = {kind: [] for kind in LABELS}
    for samples in clips:
        cases = {kind: task.case(sample) for kind, sample in samples.items()}
        ahead = slice(AHEAD[0], AHEAD[1] + 1)
        cases = {kind: case for kind, case in cases.items() if case.sample.truth.visibility[ahead].sum() >= LEAST}
        for kind, case in cases.items():
            videos[kind].append(case.sample.clip.video)
        for name, method in methods.items():
            oracle = hasattr(method, "from_sample")  # whose answer is another one for other labels
            found = None
            for kind, case in cases.items():
                found = task.predict(method, case, name) if oracle or found is None else found
                answer = task.answer(found, case)
                numbers = answer.displacement | answer.by_motion
                rows[kind][name].append({key: numbers[key] for key in NUMBERS if numbers[key] == numbers[key]})
    return {
        kind: {name: per_group(own, videos[kind]) for name, own in by_name.items()} for kind, by_name in rows.items()
    }


def ladder(errors: Mapping[str, Mapping[str, Any]], base: str, number: str = "ade") -> dict[str, dict[str, Any]]:
    """Method -> its error, and the ratio to that of `base`, over videos."""
    config, videos = EvalConfig(), sorted(errors[base])
    draws = resamples(len(videos), config.resamples, config.seed)
    below = np.array([errors[base][video].get(number, np.nan) for video in videos])
    found = {}
    for name, own in errors.items():
        above = np.array([own[video].get(number, np.nan) for video in videos])
        one = ratio(above, below, draws, config.confidence)
        mean = estimate(above, draws, config.confidence)
        found[name] = {"px": mean.mean, "videos": one.pooled.videos}
        for kind, value in (("pooled", one.pooled), ("geometric", one.geometric)):
            found[name] |= {kind: value.mean, f"{kind} interval": [value.low, value.high]}
        found[name] |= {"worst": one.worst[0], "worst video": videos[one.worst[1]] if one.pooled.videos else ""}
    return found


def table(found: Mapping[str, Mapping[str, Any]], base: str) -> str:
    """Of all labels against one base, as Markdown."""
    lines = ["| | px | pooled | geometric | worst | still, camera, own | RAFT labels | Lucas-Kanade labels |"]
    lines.append("| --- " + "| ---: " * 7 + "|")
    rows = {kind: ladder(errors, base) for kind, errors in found.items()}
    parts = [ladder(found["consensus"], base, number) for number in NUMBERS[1:]]
    for name, row in rows["consensus"].items():
        both = ("{:.3f} [{:.2f}, {:.2f}]".format(row[key], *row[f"{key} interval"]) for key in ("pooled", "geometric"))
        motion = ", ".join(f"{part[name]['pooled']:.2f}" for part in parts)
        other = (f"{rows[k][name]['pooled']:.3f}, {rows[k][name]['geometric']:.3f}" for k in LABELS[1:])
        worst = f"{row['worst']:.2f} {row['worst video']}"
        lines.append(f"| {name} | {row['px']:.2f} | {' | '.join((*both, worst, motion, *other))} |")
    return "\n".join(lines)


def training(labels: Workspace, every: int = 1) -> Subset:
    """Every so manieth of the training clips, without the sample's videos."""
    sets = [read_part("train", labels, step)["consensus"] for step in PARTS["train"]]
    clips = [clip for one in sets for clip in one.clips]
    kept = [index for index, clip in enumerate(clips) if clip.video not in LEFT_OUT]
    return Subset(ConcatDataset(sets), kept[::every])


def methods_of(args: argparse.Namespace, labels: Workspace, clips: Labelled) -> dict[str, Any]:
    """By name, from what knows least to what knows the answer."""
    raft = CachedFlow(RAFTFlow(args.raft_weights), labels.root / "flows")
    dis, wide = (CachedFlow(DISFlow(preset), labels.root / "flows") for preset in ("medium", "wide"))
    train = training(labels, args.fit_every)
    methods: dict[str, Any] = {"zero motion": ZeroMotion(NUM_FRAMES), "mean motion": MeanMotion.fit(train)}
    for name, flow in (("RAFT", raft), ("DIS", dis), ("DIS, wide", wide)):
        linear = ConstantVelocity(flow, input_frames=INPUT_FRAMES)
        methods[f"constant velocity ({name})"] = linear
        scaled = Scaled.fit(linear, train)
        damped = Damped.fit(flow, EDGES, (ClipSample.of(train[index]) for index in range(len(train))))
        for title, made, gains in (("gains", scaled, [scaled.gains]), ("gains by confidence", damped, damped.gains)):
            methods[f"{title} ({name})"] = made
            shown = np.round(np.array(gains, float)[:, AHEAD[0] :], 3).tolist()
            print(f"{title} ({name}), {len(train)} clips: {shown}", flush=True)
        for change in (blurred, median, locally_affine):
            changed = ConstantVelocity(Changed(flow, change), input_frames=INPUT_FRAMES)
            methods[f"flow {change.__name__.replace('_', ' ')} ({name})"] = changed
        methods[f"flow advected ({name})"] = Advected(flow)
        methods[f"shipped ({name})"] = load_default(2)
        methods[f"shipped ({name})"].flow = flow
    methods["oracle: best gain (RAFT)"] = BestGain(methods["constant velocity (RAFT)"])
    methods["oracle: true last velocity"] = LastVelocity()
    for name, title in zip(LABELS[1:], ("RAFT", "Lucas-Kanade")):
        methods[f"floor: {title}'s tracks"] = Tracker(lambda key, name=name: clips.tracks(name, key))
    return methods


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, default=Path("workspace/default_model"))
    parser.add_argument("--part", default="test", choices=("develop", "test"))
    parser.add_argument(
        "--videos", type=Path, default=Path("../shared/data/clips/test"), help="of --part, if not labelled"
    )
    parser.add_argument("--raft", type=Path, nargs="+", default=[], help="datasets to measure on, labelled by RAFT")
    parser.add_argument("--lucas-kanade", type=Path, nargs="+", default=[], help="the same clips by Lucas-Kanade")
    parser.add_argument("--raft-weights", required=True)
    parser.add_argument("--raft-iters", type=int, default=6, help="of the labels")
    parser.add_argument("--precision", default="bfloat16", help="of the labels: float32 or bfloat16")
    parser.add_argument("--every", type=int, default=1, help="measure on every so manieth clip")
    parser.add_argument("--fit-every", type=int, default=4, help="fit on every so manieth of the training clips")
    args = parser.parse_args()
    if len(args.raft) != len(args.lucas_kanade):
        parser.error(f"--lucas-kanade: expected as many as of --raft, {len(args.raft)}, got {len(args.lucas_kanade)}")
    labels = Workspace(args.labels)
    if args.raft:
        both = zip(args.raft, args.lucas_kanade)
        pairs: list[tuple[Any, Any]] = [(TrajectoryDataset(a, "all"), TrajectoryDataset(b, "all")) for a, b in both]
    else:
        if not all(labels.dataset(f"{args.part}-s{step}-raft").is_dir() for step in PARTS[args.part]):
            label_part(args.part, args.videos, labels, args)
        sets = [read_part(args.part, labels, step) for step in PARTS[args.part]]
        pairs = [(one["raft"], one["lucas_kanade"]) for one in sets]
    clips = Labelled(pairs, args.every)
    for one in clips.both:
        print(f"{len(one)} clips of {len(one.videos)} videos: {one.agreement}")
    task = TrajectoryTask(scoring=ScoringConfig(frames=AHEAD, rebuild=()))
    found = measure(clips, methods_of(args, labels, clips), task)
    for base in ("constant velocity (RAFT)", "constant velocity (DIS)"):
        print(f"\nratio to {base}, frames {AHEAD[0]} to {AHEAD[1]}, {len(clips.chosen)} clips\n{table(found, base)}")
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    bases = ("constant velocity (RAFT)", "constant velocity (DIS)")
    told = {base: {kind: ladder(errors, base) for kind, errors in found.items()} for base in bases}
    print(json.dumps({"errors": found, "ratios": told}))


if __name__ == "__main__":
    main()
