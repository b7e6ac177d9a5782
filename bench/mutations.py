"""Break the code on purpose, one plausible bug at a time, and see whether the module's own tests notice.

    python bench/mutations.py                     # all modules, one mutation after another
    python bench/mutations.py --only geometry     # one of them
    python bench/mutations.py --list              # the table alone, nothing is run

Package and tests are copied into a temporary folder; the checkout stays as it is. A mutation replaces one piece of
text, which must be there exactly once: after a change of the code the table fails loudly instead of testing nothing.
Prints killed and survived for each module, survivors with the reason where they can't be told apart; last line JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TIME_LIMIT = 120  # seconds for a module's tests; a mutation that makes them hang is noticed, too
# Loaded once, before the tests of each mutation run in a fork of this process: most of a short test's time.
WARM = ("numpy", "torch", "scipy.stats", "torchmetrics.functional.image", "pytest", "hypothesis", "jaxtyping")


@dataclass(frozen=True)
class Mutation:
    """One bug: `old` becomes `new`. `reason`: why no test can, or need, notice it. `file`: if not the module's own."""

    old: str
    new: str
    reason: str = ""
    file: str = ""


@dataclass(frozen=True)
class Module:
    """A file of the package, the test files that answer for it, and what is done to it."""

    file: str
    tests: tuple[str, ...]
    mutations: tuple[Mutation, ...]


M = Mutation
BATCH, TASK = "tasks/trajectories/batch.py", "tasks/trajectories/task.py"
MODULES = {
    "metrics": Module(
        "metrics.py",
        ("test_metrics.py",),
        (
            M("seen, claimed = true.visibility & measured,", "seen, claimed = true.visibility,"),
            M("near = squared < threshold**2", "near = squared <= threshold**2"),
            M("return frames > asked  # S N", "return frames >= asked  # S N"),
            M("np.asarray(visible)[1:], np.asarray(visible)[-1]", "np.asarray(visible)[1:], np.asarray(visible)[0]"),
            M("errors[-1][last] > miss_distance", "errors[-1][last] >= miss_distance"),
            M('"fde": _mean(errors[-1][last])', '"fde": _mean(errors[-1])'),
            M("[1:].mean(axis=-1)", "[1:].sum(axis=-1)"),
            M('"mse": _mean(squares[seen])', '"mse": _mean(squares)'),
            M("np.asarray(visible)[s]])", "np.asarray(visible)[s - 1]])"),
            M("counted = seen.any(axis=0)", "counted = seen.all(axis=0)"),
            M("(errors * seen).sum(axis=1)", "errors.sum(axis=1)"),
            M("visible[1:].ravel(), logits[1:].ravel()", "visible.ravel(), logits.ravel()"),
            M("(scores > 0) == truth", "(scores >= 0) == truth"),
            M("return _mean(np.asarray(visible)[1:])", "return _mean(np.asarray(visible))"),
            M("np.log10(255**2 / error)", "np.log10(255 / error)"),
            M(" & seen[..., :-1, 1:]\n", "\n"),
            M("[..., :-1, :] / spacing[1]", "[..., :-1, :] / spacing[0]"),
            M("along_x[..., 1, :, :] - along_y", "along_x[..., 1, :, :] + along_y"),
            M("np.median(columns[phase::period])", "np.mean(columns[phase::period])"),
            M("_mean(values[mask]) for kind", "_mean(values) for kind"),
        ),
    ),
    "statistics": Module(
        "evaluation/statistics.py",
        ("test_evaluation_statistics.py",),
        (
            M("row.get(name, np.nan)", "row.get(name, 0.0)"),
            M("{name: nan_mean(np.array(", "{name: np.nanmedian(np.array("),
            M("sorted({name for row in own for name in row})", "sorted(own[0])"),
            M("default_rng(seed)", "default_rng(0)"),
            M("integers(0, max(", "integers(1, max("),
            M("known = int(np.isfinite(values).sum())", "known = len(values)"),
            M("left_out = len(values) - known", "left_out = int(np.isinf(values).sum())"),
            M("if known < 2:", "if known < 1:"),
            M("if known < 2:", "if known <= 2:"),
            M("np.nan, np.nan, known, left_out", "np.nan, np.nan, len(values), left_out"),
            M("nan_mean(values[draws], axis=1)", "nan_mean(values[draws], axis=0)"),
            M("nan_mean(values[draws], axis=1)", "np.nanmedian(values[draws], axis=1)"),
            M("(1 - confidence) / 2 * 100", "(1 - confidence) * 100"),
            M("(1 - confidence) / 2 * 100", "(1 - confidence) / 4 * 100"),
            M("[tail, 100 - tail]", "[tail, 100 - 2 * tail]"),
            M("means[np.isfinite(means)]", "means"),
            M("return Estimate(nan_mean(values), float(low)", "return Estimate(float(np.nanmean(means)), float(low)"),
            M('"R V"], confidence: float = 0.95', '"R V"], confidence: float = 0.9'),
            M("if np.size(values) else np.nan", "if np.size(values) else 0.0"),
            M('warnings.simplefilter("ignore", RuntimeWarning)', 'warnings.simplefilter("default", RuntimeWarning)'),
        ),
    ),
    "losses": Module(
        "tasks/trajectories/loss.py",
        ("test_tasks_trajectories_loss.py",),
        (
            M("return self.visible & self.ahead[:, None]", "return self.visible"),
            M("[self.counted(masked), self.told,", "[self.counted(masked), self.visible,"),
            M("self.told, self.measured,", "self.told, self.visible,"),
            M('batch["queries"][..., 1:]', 'batch["queries"][..., :2]'),
            M('batch["frames"][0] > 0', 'batch["frames"][0] >= 0'),
            M('batch["frames"][0] > 0', 'torch.arange(batch["frames"].shape[1]) > 0'),
            M('clip["visibility"][list(predicted)]', 'clip["visibility"][: len(predicted)]', file=BATCH),
            M("return self.measured if ", "return self.visible if "),
            M("- unit.log()", "+ unit.log()"),
            M("error / unit", "error * unit"),
            M("error.norm(dim=-1), 0.0)", "error.abs().sum(dim=-1), 0.0)"),
            M(" & targets.ahead[:, None]).sum()", ").sum()"),
            M('reduction="sum"', 'reduction="mean"'),
            M("values = error**2", "values = error**2 / 2"),
            M(".sqrt() - CHARBONNIER_EPSILON", ".sqrt()"),
            M("values.mean(dim=-1)", "values.sum(dim=-1)"),
            M(".clamp(min=1)", ".clamp(min=0)"),
            M("visibility_weight * means[1]", "visibility_weight * sums[1]"),
            M("(moved**2).sum()", "moved.abs().sum()", file=TASK),
            M("count + moved.numel()", "count + len(moved)", file=TASK),
        ),
    ),
    "geometry": Module(
        "geometry.py",
        ("test_geometry.py",),
        (
            M("side < 1 for side", "side < 0 for side"),
            M("* width / columns - 0.5", "* width / columns"),
            M("(np.arange(rows) + 0.5) * height", "np.arange(rows) * height"),
            M("columns = rows if columns is None else columns", "columns = rows"),
            M("np.stack(np.meshgrid(x, y), axis=-1)", 'np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1)'),
            M("(x >= ", "(x > "),
            M("(y <= ", "(y < "),
            M("scale_vectors(xy + 0.5, source, target)", "scale_vectors(xy, source, target)"),
            M("scaled = vectors * 1.0", "scaled = vectors"),
            M("target[1] / source[1]", "target[0] / source[0]"),
            M("self._carry(xy, self.target_box, self.source_box)", "self._carry(xy, self.source_box, self.target_box)"),
            M("np.array([origin[1], origin[0]])", "np.array([origin[0], origin[1]])"),
            M("np.array([destination[1], destination[0]])", "np.array([destination[0], destination[1]])"),
            M("max(1, round(shape[0] * scale))", "max(1, int(shape[0] * scale))"),
            M("(outer[0] - height) // 2", "(outer[0] - height)"),
            M("_centred_box(source, target), whole_target", "(0, 0, *_centred_box(source, target)[2:]), whole_target"),
            M("(2 * xy + 1) / size - 1", "2 * xy / (size - 1) - 1"),
            M("[image.shape[-1], image.shape[-2]]", "[image.shape[-2], image.shape[-1]]"),
            M('"bilinear", padding,', '"bilinear", "border",'),
            M("(height, width), size).movedim(-1, 1)", "(width, height), size[::-1]).movedim(-1, 1)"),
        ),
    ),
    "augmentation": Module(
        "augmentation.py",
        ("test_augmentation.py",),
        (
            M("side - 1 - xy[..., column]", "side - xy[..., column]"),
            M('sample["queries"][:, :1], tracks[0]]', 'sample["queries"][:, :1], tracks[-1]]'),
            M('sample["visibility"].flip(0)', 'sample["visibility"]'),
            M("rescale_points(xy, source, ", "rescale_points(xy + 0.5, source, "),
            M("antialias=True", "antialias=False"),
            M("frames = images.round().clamp(0, 255)", "frames = images.clamp(0, 255)"),
            M("min(W, left + width)", "min(W, left + height)"),
            M('inside(sample["tracks"], (H, W))', 'inside(sample["tracks"], (W, H))'),
            M('sample["visibility"] & on_picture', "on_picture"),
            M("grey + saturation * (images - grey)", "images + saturation * (images - grey)"),
            M("grey.mean() + contrast * (images - grey.mean())", "128 + contrast * (images - 128)"),
            M('& sample["visibility"][0]', '& sample["visibility"][-1]'),
            M("torch.randint(len(kept),", "torch.randint(1,"),
            M("config.colour * draw.between(-1, 1)", "config.colour * draw.between(0, 1)"),
            M("beyond = shift * target", "beyond = shift * side"),
            M("(width - target[1]) // 2", "(width - target[0]) // 2"),
            M("draw.chance(config.flip_y)", "draw.chance(config.flip_x)"),
            M("(0.299, 0.587, 0.114)", "(0.114, 0.587, 0.299)"),
            M("if not usable(changed).any()", "if not usable(changed).all()"),
            M("config.shift) for axis in (1, 0)", "config.shift) for axis in (0, 1)"),
        ),
    ),
    "warp": Module(
        "warp.py",
        ("test_warp.py",),
        (
            M("coverage >= min_coverage", "total >= min_coverage"),
            M("left + 1 - x), (left + 1, x - left)", "x - left), (left + 1, left + 1 - x)"),
            M("(column >= 0) & (column < W)", "(column >= 0) & (column < H)"),
            M("weights * visible.reshape(B, 1, -1)", "weights * (visible.reshape(B, 1, -1) == 0)"),
            M('landed, "amax")', 'landed, "amin")'),
            M("logits > 0 if visibility", "logits >= 0 if visibility"),
            M(" & inside(moved, size)", ""),
            M("distance <= reach", "distance <= 2 * reach"),
            M("kept = np.sort(order[::-1][last])", "kept = np.sort(order[last])"),
            M("np.clip(np.round(values), 0, 255)", "np.clip(values, 0, 255)"),
        ),
    ),
    "splits": Module(
        "splits.py",
        ("test_splits.py",),
        (
            M("splits = dict(known or {})", "splits = {}"),
            M('f"{seed}/{name}"', 'f"{name}"'),
            M("total = Counter(splits.values()), len(splits) + len(new)", "total = Counter(splits.values()), len(new)"),
            M('counts["test"] < max(1, round(0.1 * total))', 'counts["test"] < max(1, round(0.2 * total))'),
            M('counts["val"] < max(1, round(0.1 * total))', 'counts["val"] < round(0.1 * total)'),
            M('counts["test"] < max(1, round(0.1 * total))', 'counts["test"] <= max(1, round(0.1 * total))'),
            M("return {name: known[name] for name in videos}", "return known"),
            M("assign_splits(videos, seed=seed or 0, known=splits)", "assign_splits(videos, seed=seed or 0)"),
            M("assign_splits(videos, seed=seed or 0, known=splits)", "assign_splits(videos, known=splits)"),
            M("if assigned != _read_splits(folder):", "if assigned == _read_splits(folder):"),
        ),
    ),
    "averages": Module(
        "training/optim.py",
        ("test_training_averages_and_spikes.py",),
        (
            M("min(decay, done / (9 + done))", "decay"),
            M("done / (9 + done)", "(done - 1) / (9 + done)"),
            M("mean.lerp_(weight, 1 - min(decay", "mean.lerp_(weight, min(decay"),
            M("n_averaged.fill_(step + 1)", "n_averaged.fill_(step)"),
        ),
    ),
    "spikes": Module(
        "training/diagnostics.py",
        ("test_training_averages_and_spikes.py",),
        (
            M("factor: float = 2.0", "factor: float = 20.0"),
            M('> 3 * usual["grad_norm"]', '> 30 * usual["grad_norm"]'),
            M("> 3 * usual.get", "> 30 * usual.get"),
            M('< 1.5 * same[-1]["loss"]', '< 15 * same[-1]["loss"]'),
            M("<= factor * usual", "< factor * usual"),
        ),
    ),
    "camera": Module(
        "camera.py",
        ("test_camera.py",),
        (
            M("y * (self.fy / z) + self.uy", "y * (self.fx / z) + self.uy"),
            M("(y - self.uy) * (z / self.fy)", "(y - self.uy) * (z / self.fx)"),
            M("(x - self.ux) * (z / self.fx)", "(y - self.ux) * (z / self.fx)"),
            M("y * (self.fy / z) + self.uy, z]", "self.uy - y * (self.fy / z), z]"),
            M("return before & inside(xy, self.size)", "return inside(xy, self.size)"),
            M("if (z <= 0).any():", "if (z < -1e9).any():"),
        ),
    ),
    # What went wrong in readers of hands before: frames by their place in a listing, x for y, y up, the wrong line.
    "hand_reading": Module(
        "hands/reading.py",
        ("test_hands_reading.py", "test_hands_msra15.py"),
        (
            M("sorted((int(match[1]), path) for match, path in found if match)", "enumerate(p for m, p in found if m)"),
            M(
                "sorted((int(match[1]), path) for match, path in found if match)",
                "enumerate(sorted(p for m, p in found if m))",
            ),
            M("tuple(files[number] for number in kept)", "tuple(files.values())"),
            M("numbers=np.array(kept), ", ""),
            M("seen[:, 2] - shown", "shown - seen[:, 2]"),
            M("(shown > 0) & (behind >= BEHIND[0])", "(behind >= BEHIND[0])", "no joint is within 80 mm of a camera"),
            M("(behind >= BEHIND[0]) & ", ""),
            M(" & (behind <= BEHIND[1])", ""),
            M(".sum() / len(joints)", ".mean()"),
            M("if check.near < LEAST_NEAR:", "if check.near < 0.1:"),
            M("np.array(telling) > 0", "np.array(telling) < 0"),
            M("<= 0:\n                raise FrameError", "<= -9e9:\n                raise FrameError"),
            M("if not np.isfinite(numbers).all():", "if False:"),
            M("if len(words) != count:", "if len(words) < count:"),
            M("key=lambda key: hashlib.sha256(key.encode()).digest()", "reverse=True"),
        ),
    ),
    "fpha": Module(
        "hands/fpha.py",
        ("test_hands_fpha.py",),
        (
            M("[1:].reshape(-1, 3)", "[1:].reshape(-1, 3)[:, [1, 0, 2]]"),
            M("[1:].reshape(-1, 3)", "[1:].reshape(-1, 3) * [1, -1, 1]"),
            M("if _frame_number(line) != row:", "if False:"),
            M("if take.is_dir()), key=natural", "if take.is_dir())"),
            M("reshape(-1, 4, 4).swapaxes(1, 2)", "reshape(-1, 4, 4)"),
            M("if take.subject not in TRAINING_SUBJECTS", "if take.subject in TRAINING_SUBJECTS"),
        ),
    ),
    "msra15": Module(
        "hands/msra15.py",
        ("test_hands_msra15.py",),
        (
            M("TO_OPENCV = np.array([1, -1, -1])", "TO_OPENCV = np.array([1, 1, -1])"),
            M("TO_OPENCV = np.array([1, -1, -1])", "TO_OPENCV = np.array([-1, -1, -1])"),
            M("reshape(-1, 3) * TO_OPENCV", "reshape(-1, 3)[:, [1, 0, 2]] * TO_OPENCV"),
            M("lines[1 + number]", "lines[number]"),
            M("depth[top:bottom, left:right]", "depth[left:right, top:bottom]"),
            M("range(345, 355)", "range(345, 354)"),
        ),
    ),
    "icvl": Module(
        "hands/icvl.py",
        ("test_hands_icvl.py",),
        (
            M("return ICVL.unproject(pixels)", "return pixels"),
            M("UNMEASURED = 32000", "UNMEASURED = 65000"),
            M("<= LONGEST_ANGLE", "< 3"),
            M("dict(sorted(lines.items()))", "lines"),
        ),
    ),
    "nyu": Module(
        "hands/nyu.py",
        ("test_hands_nyu.py",),
        (
            M("TO_OPENCV = np.array([1, -1, 1])", "TO_OPENCV = np.array([1, 1, 1])"),
            M("if not np.isfinite(joints_of_frame).all():", "if False:", file="hands/reading.py"),
            M("256 * rgb[..., 1] + rgb[..., 2]", "256 * rgb[..., 2] + rgb[..., 1]"),
            M("joints[number - 1]", "joints[number % len(joints)]"),
        ),
    ),
    "highest_motion": Module(
        "notebook_views.py",
        ("test_notebook_views.py",),
        (
            M(" * one.visibility[-1]) for one", ") for one"),
            M("* one.visibility[-1]) for one", "* one.visibility[0]) for one"),
            M("np.lexsort((moved, clear))[::-1]", "np.lexsort((moved, clear))"),
            M("np.lexsort((moved, clear))", "np.argsort(moved)"),
            M("(seen >= IN_SIGHT) & ", ""),
            M(" & (detail >= IN_FOCUS * np.median(detail))", ""),
        ),
    ),
}


def copy_checkout(root: Path, folder: Path) -> Path:
    """Package, tests and settings of pytest in `folder`/copy, the reference data beside it as beside a checkout."""
    copy = folder / "copy"
    for name in ("flowlib", "tests"):
        shutil.copytree(root / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".hypothesis"))
    shutil.copy(root / "pyproject.toml", copy)
    if (root.parent / "shared").is_dir():
        (folder / "shared").symlink_to(root.parent / "shared")
    return copy


def mutated(source: str, mutation: Mutation, file: str) -> str:
    """The file's text with the bug in it.

    Raises:
        ValueError: the old text is not there exactly once, or what comes out is no Python.
    """
    found = source.count(mutation.old)
    if found != 1:
        raise ValueError(f"{file}: expected {mutation.old!r} once, got it {found} times")
    text = source.replace(mutation.old, mutation.new)
    compile(text, file, "exec")
    return text


def mutated_texts(root: Path, module: Module) -> list[str]:
    """Of each of a module's mutations, the text of the file it is in."""
    files = [mutation.file or module.file for mutation in module.mutations]
    sources = {file: (root / "flowlib" / file).read_text() for file in files}
    return [mutated(sources[file], mutation, file) for file, mutation in zip(files, module.mutations)]


def run_tests(copy: Path, tests: tuple[str, ...], limit: float = TIME_LIMIT) -> int:
    """pytest's exit status in a fork of this process; 1 if it ran into the limit."""
    process = multiprocessing.get_context("fork").Process(target=_pytest, args=(copy, tests))
    process.start()
    process.join(limit)
    if process.is_alive():
        process.kill()
        process.join()
        return 1
    return process.exitcode or 0


def _pytest(copy: Path, tests: tuple[str, ...]) -> None:
    import pytest
    from hypothesis import settings

    # Without deadlines: a slow moment of the machine is no test that noticed something.
    settings.register_profile("mutations", derandomize=True, deadline=None)
    os.chdir(copy)
    sys.dont_write_bytecode = True
    sys.path[:0] = [str(copy), str(copy / "tests")]
    with open(copy / "output.txt", "w") as output, contextlib.redirect_stdout(output):
        options = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=mutations"]
        status = pytest.main([*options, *(f"tests/{name}" for name in tests)])
    os._exit(int(status))


def run_module(copy: Path, name: str) -> list[bool]:
    """Which of a module's mutations were noticed.

    Raises:
        RuntimeError: the tests fail without any mutation, or could not be run.
    """
    module = MODULES[name]
    texts = mutated_texts(copy, module)
    start = time.monotonic()
    if status := run_tests(copy, module.tests):
        said = (copy / "output.txt").read_text()[-2000:]
        raise RuntimeError(f"{name}: expected tests that pass before anything is changed, got status {status}\n{said}")
    print(f"{name}: tests pass unchanged in {time.monotonic() - start:.1f} s", flush=True)
    killed = []
    for mutation, text in zip(module.mutations, texts):
        path = copy / "flowlib" / (mutation.file or module.file)
        source = path.read_text()
        path.write_text(text)
        try:
            status = run_tests(copy, module.tests)
        finally:
            path.write_text(source)
        if status not in (0, 1, 2):  # 2: the tests could not even be collected
            raise RuntimeError(f"{name}: expected pytest to pass or to fail, got status {status}")
        killed.append(status != 0)
        print(f"  {'killed  ' if killed[-1] else 'SURVIVED'}  {_short(mutation)}", flush=True)
        if killed[-1]:
            print(f"            by {_noticed_by(copy)}", flush=True)
    return killed


def _noticed_by(copy: Path) -> str:
    lines = [line for line in (copy / "output.txt").read_text().splitlines() if line.startswith(("FAILED", "ERROR"))]
    return lines[-1].split(" ", 1)[1][:100] if lines else "the time limit"


def _short(mutation: Mutation) -> str:
    return f"{mutation.old.strip()}  ->  {mutation.new.strip() or '(nothing)'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=MODULES, help="one module")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout that is tested")
    parser.add_argument("--list", action="store_true", help="print the mutations and check that their text is there")
    options = parser.parse_args()
    names = [options.only] if options.only else list(MODULES)
    if options.list:
        for name in names:
            mutated_texts(options.root, MODULES[name])
            for mutation in MODULES[name].mutations:
                print(f"{name:14} {_short(mutation)}")
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in WARM:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        copy = copy_checkout(options.root.resolve(), Path(folder))
        results = {name: run_module(copy, name) for name in names}
    print(f"\n{'module':14} {'killed':>7} {'of':>4}   survivors")
    summary = {}
    for name, killed in results.items():
        left = [m for m, dead in zip(MODULES[name].mutations, killed) if not dead]
        print(f"{name:14} {sum(killed):7} {len(killed):4}")
        for mutation in left:
            print(f"{'':29}{_short(mutation)}: {mutation.reason or 'no reason known, a test is missing'}")
        summary[name] = {"killed": sum(killed), "of": len(killed), "survived": [_short(m) for m in left]}
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
