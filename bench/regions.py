"""Do regions keep their promise, and how wide are they? On rendered scenes, and on real videos nothing was trained on.

    python bench/regions.py --workspace DIR                                      # rendered scenes alone
    python bench/regions.py --workspace DIR --labels DIR [--second-frame DIR]    # real videos, too

Rendered: the shipped predictor's errors on `--scenes` scenes, each a video of its own; then `--repeats` times a
calibration on some of them and a test on the others. Real: labels of `bench/train_default.py` (what RAFT and
Lucas-Kanade agree on), frame steps 2 and 3. The shipped predictor is calibrated on videos that it has not seen and that
are not to test on; constant velocity, which learns nothing, on all of these; the small network of
`bench/second_frame.py` on those that were kept from it. "test" is only measured. Errors are kept in `--workspace`, so a
call that is repeated goes on. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from second_frame import clips_of, half
from train_default import LEFT_OUT

from flowlib.clips import Clip, ClipSample
from flowlib.flow import CachedFlow, DISFlow
from flowlib.geometry import cell_grid
from flowlib.models.baselines import ConstantVelocity
from flowlib.models.guided import load_default
from flowlib.synthetic import synthetic_clip
from flowlib.tasks.trajectories.regions import Conformal, VideoErrors, measure_errors
from flowlib.training import load_checkpoint
from flowlib.training.runs import run_folder
from flowlib.workspace import Workspace, atomic_write

LEVEL, STEPS = 0.9, (2, 3)
SIZE = (96, 160)  # of rendered scenes
MOTIONS, CAMERAS = ("linear", "affine", "wander"), ("still", "linear")

# Of rendered scenes: videos to calibrate on, by the model's scale or with one radius, strict or as near as can be.
TRIED = ((9, True, False), (20, True, False), (20, False, False), (50, True, False), (20, True, True), (50, True, True))


class Scenes(Sequence[ClipSample]):
    """Rendered clips, each made when it is asked for: three kinds of motion, before a still or a moving camera."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: Any) -> ClipSample:
        motion, camera = MOTIONS[index % 3], CAMERAS[index // 3 % 2]
        frames, scene = synthetic_clip(8, SIZE, index, motion=motion, camera=camera)
        truth = scene.tracks(np.insert(cell_grid(SIZE, 16, 24), 0, 0, axis=1))
        return ClipSample(Clip.named(f"scene_{index}/0", frames, video=f"scene_{index}"), frames, truth)


def errors_of(name: str, method: Any, dataset: Any, workspace: Workspace) -> tuple[dict[str, VideoErrors], tuple]:
    """`measure_errors`, kept in a file."""
    path = workspace.root / "errors" / f"{name}.npz"
    if not path.exists():
        spent = time.process_time()
        found, frames = measure_errors(method, dataset() if callable(dataset) else dataset, points=384)
        parts = {f"{video}\n{part}": values for video, one in found.items() for part, values in vars(one).items()}
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, frames=frames, **{k: v for k, v in parts.items() if v is not None})
        print(f"{name}: {len(found)} videos, {time.process_time() - spent:.0f} CPU s", flush=True)
    with np.load(path, allow_pickle=False) as file:
        videos: dict[str, dict[str, Any]] = {}
        for key in file.files:
            video, _, part = key.partition("\n")
            if part:
                videos.setdefault(video, {"scales": None})[part] = file[key]
        return {video: VideoErrors(**parts) for video, parts in videos.items()}, tuple(file["frames"].tolist())


def repeat(
    videos: Sequence[VideoErrors],
    frames: Sequence[int],
    count: int,
    repeats: int,
    *,
    scaled: bool,
    strict: bool = False,
) -> np.ndarray:
    """[repeats 2] Share of points (mean over frames) and of paths of the other videos inside, when calibrated on
    `count` of them drawn at random."""
    found, generator = [], np.random.default_rng(0)
    kept = [(one, one.scores(one.unit(frames, scaled))) for one in videos]
    for _ in range(repeats):
        order = generator.permutation(len(kept))
        made = Conformal.of_scores([kept[i][1] for i in order[:count]], frames, LEVEL, strict=strict)
        radii = np.array([*made.frames, made.path])
        inside = [(counts * (values <= radii)).sum(axis=0) for values, counts in (kept[i][1] for i in order[count:])]
        shares = np.array([np.append(one[:-1].mean(), one[-1]) for one in inside])
        found.append(shares.mean(axis=0))
    return np.array(found)


def table(
    name: str, made: Conformal, tested: Mapping[str, VideoErrors], scaled: bool, draws: int = 4000
) -> dict[str, Any]:
    """Coverage of points and of paths over the test videos with its interval, the worst of them, and mean radii."""
    covered = np.array([made.covered(one, scaled=scaled) for one in tested.values()])
    wide = np.array([made.widths(one, scaled=scaled) for one in tested.values()])
    points, paths = covered[:, :-1].mean(axis=1), covered[:, -1]
    picked = np.random.default_rng(0).integers(len(points), size=(draws, len(points)))
    row: dict[str, Any] = {"method": name, "unit": "scale" if scaled else "constant", "videos": len(tested)}
    for what, values in (("points", points), ("paths", paths)):
        low, high = np.percentile(values[picked].mean(axis=1), [2.5, 97.5])
        row |= {what: values.mean(), f"{what} interval": [low, high]}
    worst = int(points.argmin())
    row |= {"worst": points[worst], "worst video": list(tested)[worst]}
    row |= {"radius": wide[:, :-1].mean(), "last radius": wide[:, -2].mean(), "path radius": wide[:, -1].mean()}
    return {key: float(value) if isinstance(value, np.floating) else value for key, value in row.items()}


def show(row: Mapping[str, Any], count: int) -> None:
    points, paths = (
        f"{row[what]:.3f} [{row[f'{what} interval'][0]:.2f}, {row[f'{what} interval'][1]:.2f}]"
        for what in ("points", "paths")
    )
    print(f"  {row['method']:18s} {row['unit']:8s} K={count:3d}  points {points}  paths {paths}  "
          f"worst {row['worst']:.2f} {row['worst video']:16s} radius {row['radius']:.2f} px, "
          f"last frame {row['last radius']:.2f}, paths {row['path radius']:.2f}")  # fmt: skip


def rendered(args: Any, workspace: Workspace) -> list[dict[str, Any]]:
    errors, frames = errors_of(f"rendered_{args.scenes}", load_default(), Scenes(args.scenes), workspace)
    rows = []
    for count, scaled, strict in TRIED:
        got = repeat(list(errors.values()), frames, count, args.repeats, scaled=scaled, strict=strict)
        mean, error, spread = got.mean(axis=0), got.std(axis=0) / len(got) ** 0.5, got.std(axis=0)
        row = {"K": count, "unit": "scale" if scaled else "constant", "strict": strict, "repeats": len(got)}
        rows.append(row | {"points": mean[0], "paths": mean[1], "spread": spread[0]})
        print(f"  rendered, K={count:2d}, {row['unit']:8s}{', strict' if strict else ''}: points {mean[0]:.4f} ± "
              f"{error[0]:.4f}, paths {mean[1]:.4f} ± {error[1]:.4f}; from one calibration to the next ± "
              f"{spread[0]:.3f}", flush=True)  # fmt: skip
    return rows


def real(args: Any, workspace: Workspace) -> list[dict[str, Any]]:
    labels, rows = Workspace(args.labels), []
    flow = CachedFlow(DISFlow("refined"), workspace.root / "flows")
    shipped: Any = load_default()
    constant = ConstantVelocity(flow, num_frames=8, input_frames=(0, 3))
    shipped.flow = flow
    methods: dict[str, Any] = {"shipped": shipped, "constant velocity": constant}
    if args.second_frame is not None:
        small: Any = load_checkpoint(run_folder("second-0+3", Workspace(args.second_frame).runs) / "last.pt")[0]
        small.flow = flow
        methods["small guided"] = small
    for name, method in methods.items():
        key = name.replace(" ", "_")
        unseen, frames = errors_of(f"{key}_develop", method, lambda: clips_of("develop", labels, STEPS), workspace)
        tested, _ = errors_of(f"{key}_test", method, lambda: clips_of("test", labels, STEPS), workspace)
        chosen = {"shipped": lambda v: v in LEFT_OUT, "small guided": lambda v: not half(v)}.get(name, lambda _: True)
        more, _ = errors_of(f"{key}_train", method, lambda: clips_of("train", labels, STEPS, chosen), workspace)
        few = unseen | {video: one for video, one in more.items() if video in LEFT_OUT}
        for videos in [few] + [unseen | more] * (len(unseen | more) > len(few)):
            for scaled in (True, False) if next(iter(videos.values())).scales is not None else (False,):
                row = table(name, Conformal.of(list(videos.values()), frames, LEVEL), tested, scaled)
                rows.append(row | {"K": len(videos)})
                show(row, len(videos))
                if len(videos) >= 40:
                    everything = list((videos | tested).values())
                    got = repeat(everything, frames, 20, args.repeats, scaled=scaled)
                    rows[-1] |= {"20 of all": got.mean(axis=0).tolist()}
                    print(f"    calibrated on 20 of all {len(everything)} videos, {len(got)} times: "
                          f"points of the others {got[:, 0].mean():.4f}, paths {got[:, 1].mean():.4f}")  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, default=Path("workspace/regions"))
    parser.add_argument("--scenes", type=int, default=150)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--labels", type=Path, help="workspace with the labels of train_default.py")
    parser.add_argument("--second-frame", type=Path, help="workspace of second_frame.py")
    args = parser.parse_args()
    workspace = Workspace(args.workspace)
    result: dict[str, Any] = {"real": real(args, workspace) if args.labels else []}
    result["rendered"] = rendered(args, workspace) if args.scenes else []
    print(json.dumps(result))


if __name__ == "__main__":
    main()
