"""Confidence from forward-backward error: fit its curves on exact truth, check them on ground truth.

    python bench/confidence.py --data ../shared/data --trackers lucas_kanade raft --weights raft=raft_large.pth
    python bench/confidence.py --data ../shared/data --trackers lucas_kanade --parts check --size 480 854

`fit`: rendered clips of 8 frames, made harder by blur, noise, changing light and JPEG, give forward-backward errors and
true errors; prints the constants for `flowlib.trackers.confidence.CURVES`. `check`: the share of sightings within the
expected error on BADJA (whole videos, every annotated joint that the tracker sees, and what lies 4 to 8 frames from the
query) and on the pairs of Middlebury and Sintel; beside it the share within the margin that the other two animals ask
for. Prints tables and, last, one line of JSON. Lucas-Kanade takes minutes, RAFT an hour of one core.
"""

import argparse
import hashlib
import json
import platform
import time
from pathlib import Path

import cv2
import numpy as np
from ground_truth import badja, flow, make

from flowlib.geometry import cell_grid
from flowlib.synthetic import random_scene
from flowlib.trackers.confidence import CLAIM, CURVES, KNOTS, UNIT_SIZE, Curve, return_errors
from flowlib.tracks import Tracks
from flowlib.video import decode_image, encode_image

FRAMES, GRID, MOTIONS = 8, (12, 16), ("linear", "affine", "wander")
KERNEL = 0.35  # of ln px, how far around a knot errors count for it
SIZES = {"raft": (128, 192)}  # of the rendered clips; elsewhere UNIT_SIZE
POINTS = 4000  # of a pair
NEAR = (4, 8)  # frames from the query, as in clips that are labelled


def rendered(count: int, size: tuple[int, int]):
    """(frames, truth) of clips with exact truth, no two of the same difficulty."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        step = int(rng.integers(1, 4))
        words = {"motion": str(rng.choice(MOTIONS)), "camera": str(rng.choice(("still", *MOTIONS)))}
        scene = random_scene((FRAMES - 1) * step + 1, size, seed + 5000, num_sprites=int(rng.integers(3, 9)), **words)
        frames = spoiled(scene.clip(FRAMES, 0, step), rng)
        xy = cell_grid(size, *GRID) + rng.uniform(-2, 2, (GRID[0] * GRID[1], 2))
        t = np.where(rng.random(len(xy)) < 0.8, 0, rng.integers(0, FRAMES, len(xy)))
        yield frames, scene.tracks(np.column_stack([t, xy]).astype(np.float32), FRAMES, 0, step)


def spoiled(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A clip as a poor camera would have it: blur, noise, light that changes, JPEG."""
    noise, blur, brighter = rng.choice([0, 2, 5]), rng.choice([0, 0, 1.0]), rng.choice([0, 0, 0.02])
    out = []
    for index, frame in enumerate(frames.astype(np.float32)):
        frame = cv2.GaussianBlur(frame, (0, 0), float(blur)) if blur else frame
        frame = frame * (1 + brighter * index) + rng.normal(0, noise, frame.shape)
        code = encode_image(frame.clip(0, 255).astype(np.uint8), quality=int(rng.choice([50, 75, 95])))
        out.append(decode_image(code))
    return np.stack(out)


class Remembering:
    """Optical flow between frames that was computed before isn't computed again: half of what RAFT takes here."""

    def __init__(self, flow) -> None:
        self.flow, self.kept = flow, {}

    def __getattr__(self, name: str):
        return getattr(self.flow, name)

    def pairs(self, first, second):
        key = hashlib.sha256(np.ascontiguousarray(first).tobytes() + np.ascontiguousarray(second).tobytes()).digest()
        if key not in self.kept:
            self.kept = dict(list(self.kept.items())[-1:]) | {key: self.flow.pairs(first, second)}
        return self.kept[key]


def sightings(tracker, frames: np.ndarray, truth: Tracks) -> np.ndarray:
    """[3 n]: forward-backward error, frames from the query and true error of what both tracker and truth see."""
    tracks = tracker(frames, truth.queries.astype(np.float32))
    away = np.abs(np.arange(tracks.num_frames)[:, None] - truth.queries[:, 0])
    errors = np.linalg.norm(tracks.tracks - truth.tracks, axis=-1)
    seen = tracks.visibility & truth.visibility & (away > 0)
    return np.stack([values[seen] for values in (return_errors(tracker, frames, tracks), away, errors)])


def fit(found: np.ndarray, size: tuple[int, int]) -> tuple[float, ...]:
    """The errors of a curve at its knots: quantiles of what lies around each, per root of the frames."""
    unit = np.sqrt(size[0] * size[1] / (UNIT_SIZE[0] * UNIT_SIZE[1]))
    missed, away, errors = found
    ratio, at = errors / unit / np.sqrt(away), np.log(np.clip(missed / unit, KNOTS[0], KNOTS[-1]))
    order, curve = np.argsort(ratio), []
    for knot in np.log(KNOTS):
        weight = np.cumsum(np.exp(-0.5 * ((at[order] - knot) / KERNEL) ** 2))
        curve.append(float(ratio[order][np.searchsorted(weight, CLAIM * weight[-1])]))
    return tuple(np.maximum.accumulate(curve).round(3).tolist())


def shares(curve: Curve, clips: dict[str, tuple[np.ndarray, tuple[int, int]]]) -> dict[str, dict[str, float]]:
    """For each clip, all of them together, and what is near the query: how many sightings, and the share within."""
    ratio = {
        name: found[2] / np.maximum(curve(found[0], found[1], size), 1e-6) for name, (found, size) in clips.items()
    }
    away = {name: found[1] for name, (found, _) in clips.items()}
    near = {name: ratio[name][(away[name] >= NEAR[0]) & (away[name] <= NEAR[1])] for name in clips}
    rows = dict(ratio) | {"all": np.concatenate(list(ratio.values()))}
    rows |= (
        {f"all, {NEAR[0]} to {NEAR[1]} frames away": every} if len(every := np.concatenate(list(near.values()))) else {}
    )
    table = {name: {"sightings": len(values), "within": float((values <= 1).mean())} for name, values in rows.items()}
    for name in ratio if len(ratio) > 1 else ():
        others = np.quantile(np.concatenate([ratio[other] for other in ratio if other != name]), CLAIM)
        table[name]["within_by_others"] = float((ratio[name] <= others).mean())
    return table


def show(title: str, table: dict[str, dict[str, float]]) -> None:
    print(f"\n{title}: share within the expected error, claimed at least {100 * CLAIM:.0f} %")
    print("| clip | sightings | within | with the margin that the others ask for |\n| --- | ---: | ---: | ---: |")
    for name, row in table.items():
        others = f"{100 * row['within_by_others']:.0f} %" if "within_by_others" in row else "–"
        print(f"| {name} | {row['sightings']} | {100 * row['within']:.0f} % | {others} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--trackers", nargs="+", default=["lucas_kanade", "raft"])
    parser.add_argument("--parts", nargs="+", default=["fit", "check"], choices=["fit", "check"])
    parser.add_argument("--weights", nargs="*", default=[], metavar="TRACKER=FILE", help="not the published ones")
    parser.add_argument("--clips", type=int, default=60, help="rendered clips to fit on")
    parser.add_argument("--size", type=int, nargs=2, default=list(UNIT_SIZE), help="height and width for BADJA")
    options = parser.parse_args()
    report = {}
    for name, tracker in make(options.trackers, dict(item.split("=", 1) for item in options.weights)).items():
        if name == "raft":
            tracker.flow = Remembering(tracker.flow)
        curve, began, report[name] = CURVES.get(name), time.time(), {}
        if "fit" in options.parts:
            size = SIZES.get(name, UNIT_SIZE)
            found = np.concatenate([sightings(tracker, *clip) for clip in rendered(options.clips, size)], axis=1)
            errors = fit(found, size)
            stored = curve.errors if curve else "none"
            print(
                f"{name}: {found.shape[1]} sightings, {time.time() - began:.0f} s\n  fitted {errors}\n  stored {stored}"
            )
            curve = curve or Curve(errors)
            report[name]["fit"] = {"errors": errors, "sightings": found.shape[1]} | shares(
                curve, {"rendered": (found, size)}
            )
        if "check" in options.parts and curve is not None:
            size = tuple(options.size)
            animals = {c.name: (sightings(tracker, c.frames, c.truth), size) for c in badja(options.data, size)}
            pairs = {}
            for pair in flow(options.data):
                chosen = np.random.default_rng(0).choice(pair.truth.num_points, POINTS, replace=False)
                pairs[pair.name] = sightings(tracker, pair.frames, pair.truth.points(chosen)), pair.size
            report[name] |= {"badja": shares(curve, animals), "pairs": shares(curve, pairs)}
            show(f"{name}, BADJA at {size[0]}×{size[1]}", report[name]["badja"])
            show(f"{name}, pairs of frames", report[name]["pairs"])
            print(f"{time.time() - began:.0f} s")
    print(json.dumps({"machine": platform.processor() or platform.machine(), "claim": CLAIM, "trackers": report}))


if __name__ == "__main__":
    main()
