"""The synthetic hand: what a picture costs, and whether the data set is as hard as it was designed to be.

    python bench/hands.py rendering                 # ms per crop and per picture, one thread
    python bench/hands.py design                    # what single frames tell of covered fingers
    python bench/hands.py reading                   # a training pass from the store against decoding PNGs

"rendering" takes turns between contenders, the median of `--rounds` passes over hands in random poses. "design" uses
nearest neighbours only, so it says what the data allow, not what a network reaches (`bench/hand_actions.py` does, of
actions). "reading" makes crops (64×64 and 128×128) and poses of every `--thin`-th frame of a few takes before a wall,
from PNGs of the whole pictures and from the store, in turns, all files in the page cache. Seconds are CPU seconds
where they are called so. The last line is JSON.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from flowlib.camera import FPHA_DEPTH, Camera
from flowlib.hands.actions import ActionConfig
from flowlib.hands.augment import HandAugment
from flowlib.hands.crop import CropConfig, crop
from flowlib.hands.dataset import HandFrames
from flowlib.hands.kinematics import LIMITS, forward, place, random_shape, rotation
from flowlib.hands.rendering import render
from flowlib.hands.sensor import sense
from flowlib.hands.sequences import HandCollection, HandSequence
from flowlib.hands.store import write_hands
from flowlib.hands.synthetic import SyntheticConfig, SyntheticHands
from flowlib.video import decode_depth

CUBE = 200.0  # mm that a crop shows


def rendering(args: argparse.Namespace) -> dict:
    """Median ms of a 128×128 crop and of a whole picture, clean and through the sensor."""
    rng = np.random.default_rng(args.seeds[0])
    hands = []
    for _ in range(args.hands):
        shape = random_shape(rng)
        theta = LIMITS[..., 0] + rng.random((1, 5, 4)) * (LIMITS[..., 1] - LIMITS[..., 0])
        turn, position = rotation(0.5 * rng.random((1, 3))), np.array([[0.0, 60.0, 380 + 140 * rng.random()]])
        hands.append((place(forward(theta, shape), turn, position)[0], shape.radii))

    def crop(joints: np.ndarray, radii: np.ndarray) -> np.ndarray:
        x, y, z = joints[3]
        focal = 128 / CUBE * z
        middle = 127 / 2
        return render(joints, radii, Camera(focal, focal, middle - focal * x / z, middle - focal * y / z, (128, 128)))

    def picture(joints: np.ndarray, radii: np.ndarray) -> np.ndarray:
        return render(joints, radii, FPHA_DEPTH)

    contenders: dict[str, Callable[[np.ndarray, np.ndarray], object]] = {
        "crop 128×128": crop,
        "crop 128×128, sensor": lambda joints, radii: sense(crop(joints, radii), np.random.default_rng(0)),
        "picture 640×480": picture,
        "picture 640×480, sensor": lambda joints, radii: sense(picture(joints, radii), np.random.default_rng(0)),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(args.rounds + 1):
        for name, contender in contenders.items():
            start = time.process_time()
            for hand in hands:
                contender(*hand)
            if turn:
                times[name].append(1e3 * (time.process_time() - start) / len(hands))
    start = time.process_time()
    made = SyntheticHands(SyntheticConfig(seed=args.seeds[0]))
    seconds = time.process_time() - start
    result = {name: round(statistics.median(values), 2) for name, values in times.items()}
    for name, value in result.items():
        print(f"{name:28} {value:6.2f} CPU ms")
    print(f"{len(made)} sequences without pictures: {seconds:.1f} CPU s")
    return {"ms": result, "data_set_s": round(seconds, 2)}


def relative(hands: SyntheticHands, split: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Joints [S 21 3] of each sequence relative to the middle knuckle in mm, and the classes."""
    sequences = hands.split(split)
    return [s.joints - s.joints[:, 3:4] for s in sequences], np.array([s.action for s in sequences])


def design(args: argparse.Namespace) -> dict:
    """What single frames tell: nearest neighbours among true visible joints and among crops; PCA's floor."""
    rows = []
    for seed in args.seeds:
        hands = SyntheticHands(config(args, seed))
        gain = hands.expected_gain("test")
        train, test = (np.concatenate(relative(hands, split)[0]) for split in ("train", "test"))
        mean = np.linalg.norm(test - train.mean(axis=0), axis=-1).mean()
        flat, other = train.reshape(len(train), -1), test.reshape(len(test), -1)
        centre = flat.mean(axis=0)
        _, singular, basis = np.linalg.svd(flat - centre, full_matrices=False)
        kept = (other - centre) @ basis[:30].T @ basis[:30] + centre
        floor = np.linalg.norm((kept - other).reshape(test.shape), axis=-1).mean()
        share = (singular[:30] ** 2).sum() / (singular**2).sum()
        visible = np.concatenate([np.asarray(sequence.visible) for sequence in hands.sequences])
        rows.append(
            {
                "seed": seed,
                "without": gain.without,
                "family": gain.family,
                "action": gain.action,
                "partner": gain.partner,
                "gain_all_joints": gain.gain_all_joints,
                "member": gain.member,
                "mean_pose": float(mean),
                "pca30_floor": float(floor),
                "pca30_variance": float(share),
                "seen_share": float(visible.mean()),
                **(nearest_crop(hands, args.thin) if args.crops else {}),
            }
        )
        print("  ".join(f"{name} {value:.4g}" for name, value in rows[-1].items()), flush=True)
    return {"design": [{name: round(value, 4) for name, value in row.items()} for row in rows]}


def nearest_crop(hands: SyntheticHands, thin: int) -> dict:
    """What the training frame with the nearest 32×32 crop tells, of every `thin`-th frame.

    The mean error of its joints in mm, and how often its action is right where the fingers are covered and the search
    is among frames of the right family.
    """
    crops, joints, actions, covered = ({"train": [], "test": []} for _ in range(4))
    for split in crops:
        for sequence in hands.split(split):
            for frame in range(0, len(sequence), thin):
                crops[split].append(small_crop(sequence.depth(frame), sequence.joints[frame, 3], sequence.camera))
                joints[split].append(sequence.joints[frame] - sequence.joints[frame, 3])
                actions[split].append(sequence.action)
                covered[split].append(hands.occluded(sequence.key)[frame])
    train, test = (np.stack(crops[split]).reshape(len(crops[split]), -1) for split in ("train", "test"))
    distance = (train * train).sum(axis=1) - 2 * test @ train.T
    error = np.linalg.norm(np.stack(joints["train"])[distance.argmin(axis=1)] - np.stack(joints["test"]), axis=-1)
    known, asked = np.array(actions["train"]), np.array(actions["test"])
    among = (known // 2 == asked[:, None] // 2) & np.array(covered["train"])
    guess = known[np.where(among, distance, np.inf).argmin(axis=1)]
    return {
        "nearest_crop": float(error.mean()),
        "member_by_crop": float((guess == asked)[np.array(covered["test"])].mean()),
    }


def small_crop(depth: np.ndarray, centre: np.ndarray, camera: Camera, size: int = 32) -> np.ndarray:
    """Nearest pixels of the cube about the centre, scaled to -1 to 1, background 1."""
    x, y, z = centre.astype(np.float64)
    steps = (np.arange(size) - (size - 1) / 2) * (CUBE / size)
    columns = np.rint((x + steps) / z * camera.fx + camera.ux).astype(int).clip(0, camera.size[1] - 1)
    rows = np.rint((y + steps) / z * camera.fy + camera.uy).astype(int).clip(0, camera.size[0] - 1)
    box = depth[rows[:, None], columns]
    return np.where(box > 0, ((box - z) / (CUBE / 2)).clip(-1, 1), 1).astype(np.float32)


def reading(args: argparse.Namespace) -> dict:
    """CPU ms of a frame of a training pass, by where it is read from, and how many times as fast as from PNGs."""
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    made = SyntheticHands(SyntheticConfig(seed=args.seeds[0], subjects=3, takes=1))
    chosen = [thinned(one, args.thin) for one in made.split("train")]
    hands = HandCollection(tuple(chosen), {one.key: "train" for one in chosen}, made.actions)
    augment = HandAugment()
    with tempfile.TemporaryDirectory() as folder:
        root, pictures = Path(folder), []
        for one in chosen:
            for frame in range(len(one)):
                pictures.append(
                    (root / f"{len(pictures):05d}.png", one.camera, one.joints[frame, 3].astype(np.float64))
                )
                cv2.imwrite(str(pictures[-1][0]), one.depth(frame).astype(np.uint16))
        start = time.process_time()
        write_hands(root / "store", hands)
        writing = time.process_time() - start
        generator = torch.Generator().manual_seed(0)
        contenders: dict[str, Callable[[], None]] = {}

        def pngs(config: CropConfig) -> None:
            for path, camera, centre in pictures:
                crop(decode_depth(path.read_bytes()), camera, config, centre=centre)

        def samples(frames: HandFrames, augmented: bool) -> None:
            for sample in frames:
                sample = sample.augmented(augment, generator) if augmented else sample
                _ = sample["crop"], sample["pose"]

        for size in (64, 128):
            config = CropConfig(size=size)
            packed = HandFrames(root / "store", "train", config)
            unpacked = HandFrames(root / "store", "train", config, unpacked=True)
            contenders |= {
                f"{size}: PNGs": partial(pngs, config),
                f"{size}: store": partial(samples, packed, False),
                f"{size}: unpacked": partial(samples, unpacked, False),
                f"{size}: unpacked, augmented": partial(samples, unpacked, True),
            }
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(args.rounds + 1):
            for name, contender in contenders.items():
                start = time.process_time()
                contender()
                if turn:
                    times[name].append(1e3 * (time.process_time() - start) / len(pictures))
        store = root / "store"
        sizes = {"PNGs": root, "store": store, "unpacked": store / "unpacked"}
        bytes_of = {name: sum(path.stat().st_size for path in place.glob("*.*")) for name, place in sizes.items()}
    rows = {}
    for name, values in times.items():
        base = times[f"{name.split(':')[0]}: PNGs"]
        ratio = statistics.median(png / value for png, value in zip(base, values))
        rows[name] = {"ms": round(statistics.median(values), 3), "ratio": round(ratio, 1)}
        print(f"{name:28} {rows[name]['ms']:8.3f} CPU ms a frame {ratio:7.1f}×")
    kilobytes = {name: round(count / len(pictures) / 1e3) for name, count in bytes_of.items()}
    print(
        f"{len(pictures)} frames, kB a frame: {kilobytes}; writing: {1e3 * writing / len(pictures):.1f} CPU ms a frame"
    )
    return {"reading": rows, "frames": len(pictures), "kB": kilobytes, "writing_ms": 1e3 * writing / len(pictures)}


def thinned(sequence: HandSequence, step: int) -> HandSequence:
    """Every `step`-th frame of a take, before a slanting wall about a metre away, as noisy as the sensor has it."""
    rows = np.arange(0, len(sequence), step)
    height, width = sequence.camera.size
    wall = 1000 + 0.3 * np.arange(width)[None, :] + 0.2 * np.arange(height)[:, None]

    def read(frame: int) -> np.ndarray:
        depth = sequence.depth(int(rows[frame]))
        behind = sense(wall.astype(np.float32), np.random.default_rng(frame))
        return np.where(depth > 0, depth, behind)

    visible = None if sequence.visible is None else sequence.visible[rows]
    joints = sequence.joints[rows]
    return replace(sequence, joints=joints, visible=visible, numbers=None, read=read, source=f"{sequence.source} wall")


def config(args: argparse.Namespace, seed: int) -> SyntheticConfig:
    given = json.loads(args.actions)
    changes: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    return SyntheticConfig(seed=seed, subjects=args.subjects, actions=ActionConfig(**changes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=(rendering.__name__, design.__name__, reading.__name__))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--subjects", type=int, default=10)
    parser.add_argument("--actions", default="{}", help="JSON of ActionConfig values that differ from the default")
    parser.add_argument("--rounds", type=int, default=7, help="of rendering and reading")
    parser.add_argument("--hands", type=int, default=20, help="of rendering, per round")
    parser.add_argument("--crops", action="store_true", help="design: nearest crops, too (minutes)")
    parser.add_argument("--thin", type=int, default=3, help="design, reading: every how many frames a crop")
    args = parser.parse_args()
    result = {"rendering": rendering, "design": design, "reading": reading}[args.what](args)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, NumPy {np.__version__}"
    print(machine)
    print(json.dumps({"bench": f"hands {args.what}", "machine": machine, **result}))


if __name__ == "__main__":
    main()
