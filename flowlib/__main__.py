"""The command line: `flowlib probe | label | train | evaluate | predict | view | export`, also as `python -m flowlib`.

Each command is a function whose arguments tyro turns into options; settings come from the dataclasses that the
notebooks use, so that a dataset or a run begun in a notebook goes on here, and the other way round. Imports stand
inside the commands: `flowlib --help` loads no library that is slow to load.
"""

# No `from __future__ import annotations`: tyro reads the annotations of functions that are made when they are needed.

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import flowlib

logger = logging.getLogger(__name__)

COMMANDS = {
    "probe": "list the videos of a folder: what can be used, what can't and why",
    "label": "make a dataset of labelled clips from videos",
    "train": "train a network on labelled clips; also under accelerate launch, on any number of processes",
    "evaluate": "measure a checkpoint beside baselines, and write a report",
    "predict": "predict from one picture, two, or a video",
    "view": "write a labelled clip, or a prediction on it, as an HTML page that plays anywhere",
    "export": "write a labelled clip's tracks as NPZ and CSV, and the clip as a video",
}
USAGE, INTERRUPTED = 2, 130  # exit codes, beside 0 and 1
Split = Literal["train", "val", "test", "all"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code: 0 done, 1 failed with a sentence on stderr, 2 wrong usage, 130 interrupted."""
    parser = argparse.ArgumentParser("flowlib", add_help=False, allow_abbrev=False)
    parser.add_argument("--debug", action="store_true")
    parser.add_argument("--log-level", default="warning", choices=("debug", "info", "warning", "error"))
    options, rest = parser.parse_known_args(sys.argv[1:] if arguments is None else list(arguments))
    if not rest or rest[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if rest else USAGE
    if rest[0] == "--version":
        print(f"flowlib {flowlib.__version__}")
        return 0
    if rest[0] not in COMMANDS:
        print(f"flowlib: expected one of {', '.join(COMMANDS)}, got {rest[0]!r}", file=sys.stderr)
        return USAGE
    logging.basicConfig(level=options.log_level.upper(), format="%(levelname)s %(name)s: %(message)s", force=True)
    logging.captureWarnings(True)
    try:
        run_command(rest[0], rest[1:])
    except KeyboardInterrupt:
        print("flowlib: interrupted; run the same command again to go on", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        if options.debug:
            raise
        print(f"flowlib: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 1
    return 0


def usage() -> str:
    """What `flowlib --help` says."""
    lines = [f"  {name:10}{what}" for name, what in COMMANDS.items()]
    return "\n".join(
        ["usage: flowlib COMMAND [options]", "", *lines, "", "  flowlib COMMAND --help     lists its options"]
        + ["  --version                  says which flowlib this is"]
        + ["  --log-level LEVEL          debug, info, warning (default) or error"]
        + ["  --debug                    shows where an error comes from"]
    )


def run_command(name: str, arguments: Sequence[str]) -> None:
    """Make the command's function, and call it with its arguments read from text."""
    import tyro

    makers: dict[str, Callable[[], Callable[..., None]]] = {
        **{"probe": make_probe, "label": make_label, "train": make_train, "evaluate": make_evaluate},
        **{"predict": make_predict, "view": make_view, "export": make_export},
    }
    tyro.cli(makers[name](), prog=f"flowlib {name}", args=list(arguments), config=(tyro.conf.AvoidSubcommands,))


def make_probe() -> Callable[..., None]:
    """The command `probe`."""
    import tyro

    from flowlib.progress import Progress
    from flowlib.sources import find_source
    from flowlib.video import describe_videos, probe_all
    from flowlib.workspace import Workspace

    def probe(source: Annotated[str, tyro.conf.Positional] = "sample", root: str = "") -> None:
        """List the videos that can be used, and those that can't, with the reason.

        Args:
            source: sample, synthetic, a folder or a video; "" for videos/ in the workspace.
            root: the workspace; "" finds it: $FLOWLIB_ROOT, the mounted Drive, or workspace/ in the clone.
        """
        videos, skipped = probe_all(find_source(source, Workspace(root), progress=Progress), progress=Progress)
        print(describe_videos(videos, skipped))
        print(f"{len(videos)} videos can be used, {len(skipped)} can't.")

    return probe


def make_label() -> Callable[..., None]:
    """The command `label`."""
    import tyro

    from flowlib.labelling import LabelConfig, label, make_plan
    from flowlib.progress import Progress
    from flowlib.sources import find_source
    from flowlib.workspace import Workspace

    def label_videos(
        source: Annotated[str, tyro.conf.Positional] = "sample",
        config: Annotated[LabelConfig, tyro.conf.arg(name="")] = LabelConfig(),
        root: str = "",
        dataset: str = "default",
        chunk: int = 0,
        num_chunks: int = 1,
        device: str = "auto",
        engine: Literal["local", "ray"] = "local",
        workers: int = 0,
        verify: bool = False,
        strict: bool = False,
    ) -> None:
        """Make a dataset of labelled clips. Stop it and run it again: it goes on where it was.

        Args:
            source: sample, synthetic, a folder or a video; "" for videos/ in the workspace.
            root: the workspace; "" finds it: $FLOWLIB_ROOT, the mounted Drive, or workspace/ in the clone.
            dataset: name of the dataset; other settings want another name.
            chunk: the part of the job to do here, 0 to num_chunks - 1.
            num_chunks: how many parts the job is cut into.
            device: auto, cpu, cuda.
            engine: local, or ray for several GPUs or machines at once.
            workers: with ray: how many; 0: one a GPU, or where there is none one for two cores.
            verify: read what is labelled already to the last byte, and do again what is damaged.
            strict: fail at the end if a video had to be skipped.
        """
        workspace = Workspace(root).writable()
        found = find_source(source, workspace, progress=Progress)
        plan = make_plan(found, config, cache=workspace.surveys, progress=True)
        print(plan)
        options: dict[str, Any] = {"chunk": chunk, "num_chunks": num_chunks, "device": device, "engine": engine}
        print(label(plan, workspace, dataset=dataset, workers=workers, verify=verify, strict=strict, **options))

    return label_videos


def make_train() -> Callable[..., None]:
    """The command `train`."""
    import tyro

    from flowlib.augmentation import AugmentConfig
    from flowlib.dataset import describe_splits, open_splits
    from flowlib.models.fcn import TrajectoryFCN
    from flowlib.notebook import parse_frames, parse_size
    from flowlib.notebook_views import highest_motion_clips
    from flowlib.tasks.trajectories import TrajectoryTask
    from flowlib.training import TrainConfig, fit
    from flowlib.training.runs import run_folder
    from flowlib.workspace import Workspace

    def train(
        config: Annotated[TrainConfig, tyro.conf.arg(name="")] = TrainConfig(
            name="two_frames", steps=2000, batch_size=4
        ),
        task: Annotated[TrajectoryTask, tyro.conf.arg(name="")] = TrajectoryTask(),
        augmented: bool = False,
        augmentation: AugmentConfig = AugmentConfig(),
        root: str = "",
        dataset: str = "default",
        unpacked: bool = False,
        clips: int = 0,
        input_frames: str = "0,3",
        input_size: str = "",
        backbone: str = "fcn_resnet50",
        weights: str = "auto",
        stride_in: str = "3x3",
        conv1: str = "difference",
        head: str = "fine",
        batch_norm: str = "train",
    ) -> None:
        """Train a network. Stop it and run it again: it goes on, step for step as if nothing had happened.

        Args:
            augmented: change the clips at random, as the augmentation's options say.
            root: the workspace; "" finds it: $FLOWLIB_ROOT, the mounted Drive, or workspace/ in the clone.
            dataset: name of the dataset.
            unpacked: read clips from an unpacked cache: the same, many times as fast.
            clips: train on so many of the clips with the highest motion; 0: on all.
            input_frames: frames the network sees: "0", or two like "0,3".
            input_size: the network works at, height x width like "120x240"; "" for the clips' own.
            backbone: of the network.
            weights: to start from: auto (ImageNet if it can be had), none, imagenet, coco, a path, URL or Drive id.
            stride_in: of these weights: 3x3 as torchvision's, or 1x1 as the first ResNets'.
            conv1: how the first layer's weights serve two frames: difference, duplicate, mean or zero.
            head: fine, or torchvision (stride 8: smooth and grid-like).
            batch_norm: train, frozen or group.
        """
        workspace = Workspace(root).writable()
        splits = open_splits(workspace.dataset(dataset), unpacked=unpacked)
        training = highest_motion_clips(splits["train"], clips or len(splits["train"]))
        first = os.environ.get("RANK", "0") == "0"  # of the processes of a launcher
        if first:
            print(describe_splits(splits))
        model = TrajectoryFCN(
            num_frames=splits["train"].num_frames,
            input_frames=parse_frames(input_frames),
            working_size=parse_size(input_size),
            backbone=backbone,
            weights=weights,
            stride_in=stride_in,
            conv1=conv1,
            head=head,
            batch_norm=batch_norm,
        )
        chosen = replace(task, augment=augmentation) if augmented else task
        folder = run_folder(config.name, workspace.runs)
        result = fit(model, chosen, training, splits.get("val"), config, folder=folder)
        if first:
            print(f"{result.step} of {config.steps} steps; {result.finished or 'run it again to go on'}")
            print(f"Checkpoint: {result.best}")

    return train


def make_evaluate() -> Callable[..., None]:
    """The command `evaluate`."""
    import tyro

    from flowlib.dataset import TrajectoryDataset
    from flowlib.evaluation import EvalConfig, evaluate
    from flowlib.models.baselines import all_baselines
    from flowlib.notebook import parse_frames
    from flowlib.tasks.trajectories import ScoringConfig, TrajectoryTask
    from flowlib.training.checkpoints import find_checkpoint, load_checkpoint
    from flowlib.workspace import Workspace

    def evaluate_run(
        config: Annotated[EvalConfig, tyro.conf.arg(name="")] = EvalConfig(),
        scoring: Annotated[ScoringConfig, tyro.conf.arg(name="")] = ScoringConfig(),
        root: str = "",
        dataset: str = "default",
        run: str = "two_frames",
        checkpoint: str = "",
        split: Split = "test",
        report: str = "two_frames",
        input_frames: str = "0,3",
        raft_weights: str = "none",
        allow_leak: bool = False,
        device: str = "auto",
    ) -> None:
        """Measure a checkpoint beside baselines. Stop it and run it again: it goes on where it was.

        Args:
            root: the workspace; "" finds it: $FLOWLIB_ROOT, the mounted Drive, or workspace/ in the clone.
            dataset: name of the dataset.
            run: name of the run that was trained.
            checkpoint: a file instead of the run's best.pt.
            split: which videos.
            report: name of the report's folder.
            input_frames: frames that constant velocity sees.
            raft_weights: for constant velocity by RAFT, too: "" for the published ones, a path, URL or Drive id.
            allow_leak: evaluate on videos the checkpoint was trained on, and say so in the report.
            device: auto, cpu or cuda.
        """
        workspace = Workspace(root).writable()
        train = TrajectoryDataset(workspace.dataset(dataset), split="train")
        test = TrajectoryDataset(workspace.dataset(dataset), split=split)
        model, about = load_checkpoint(find_checkpoint(workspace.runs, run, checkpoint), device=device)
        frames = parse_frames(input_frames)
        baselines = all_baselines(train, num_frames=test.num_frames, input_frames=frames, raft_weights=raft_weights)
        task, folder = TrajectoryTask(scoring=scoring), workspace.report(report)
        options: dict[str, Any] = {"about": {"model": about}, "allow_leak": allow_leak}
        result = evaluate(
            {"model": model} | baselines, task, test, folder=folder, config=config, train=train, **options
        )
        page = result.save(folder)
        print(result.markdown())
        print(f"Report: {page}")

    return evaluate_run


def make_predict() -> Callable[..., None]:
    """The command `predict`."""
    import tyro

    from flowlib.training.checkpoints import find_checkpoint, load_checkpoint
    from flowlib.workspace import Workspace

    def predict(
        inputs: tyro.conf.Positional[tuple[Path, ...]],
        root: str = "",
        run: str = "two_frames",
        checkpoint: str = "",
        report: str = "prediction",
        first_frame: int = 0,
        height: int = 360,
        width: int = 640,
        grid: int = 32,
        device: str = "auto",
    ) -> None:
        """Predict where everything goes, from pictures or from a video's frames.

        Args:
            inputs: one picture or two, or a video.
            root: the workspace; "" finds it: $FLOWLIB_ROOT, the mounted Drive, or workspace/ in the clone.
            run: name of the run that was trained.
            checkpoint: a file instead of the run's best.pt.
            report: name of the folder in reports/ that the pages and pictures go to.
            first_frame: of the video.
            height: the pictures are brought to, pixels.
            width: the pictures are brought to, pixels.
            grid: grid × grid points are drawn.
            device: auto, cpu or cuda.
        """
        workspace = Workspace(root).writable()
        model, _ = load_checkpoint(find_checkpoint(workspace.runs, run, checkpoint), device=device)
        frames, after = _input_frames(inputs, model, first_frame, (height, width))
        for path in _write_prediction(model, frames, after, grid, workspace.report(report)):
            print(path)

    return predict


def _input_frames(inputs: Sequence[Path], model: Any, first_frame: int, size: tuple[int, int]) -> tuple[Any, Any]:
    """The frames that the model sees, and those of the whole clip where there is a video; else None."""
    from flowlib.video import decode_image, read_frames, resize_frame

    asked = tuple(model.input_frames)
    pictures = all(path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp", ".bmp") for path in inputs)
    if pictures and inputs:
        if len(inputs) not in (1, len(asked)):
            raise ValueError(f"inputs: expected 1 or {len(asked)} pictures, for the frames {asked}, got {len(inputs)}")
        frames = [resize_frame(decode_image(path.expanduser().read_bytes()), size) for path in inputs]
        return frames * (len(asked) // len(frames)), None
    if len(inputs) != 1:
        raise ValueError(f"inputs: expected one picture, two, or one video, got {len(inputs)} files")
    clip = read_frames(inputs[0].expanduser(), range(first_frame, first_frame + model.num_frames), size)
    return [clip[frame] for frame in asked], clip


def _write_prediction(model: Any, frames: Any, after: Any, grid: int, folder: Path) -> list[Path]:
    """The prediction as a page, a picture and its rebuilt frames; returns where they are."""
    import numpy as np
    import torch

    from flowlib.geometry import cell_grid
    from flowlib.models.protocols import device_of
    from flowlib.tracks import Tracks
    from flowlib.viewer import TrajectoryViewer
    from flowlib.warp import rebuild
    from flowlib.workspace import atomic_write

    images = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)[None].to(device_of(model))
    points = cell_grid(frames[0].shape[:2], grid)
    with torch.inference_mode():
        prediction = model(images)
        moved, logits = (part[0].cpu() for part in prediction.at(torch.from_numpy(points)[None].to(images.device)))
    dense, seen = prediction.displacement[0].cpu().numpy(), prediction.visibility_logits[0].cpu().numpy()
    ahead = [i for i, frame in enumerate(prediction.frames) if frame > 0]
    rebuilt = [frames[0], *(rebuild(frames[0], dense[i], seen[i], fill="frame").frame for i in ahead)]
    # A model that predicts the last frame alone gives no frame 0; there every point stands where it is asked for.
    places = np.concatenate([points[None], points + moved.numpy()[ahead]]).astype(np.float32)
    visible = np.concatenate([np.ones((1, len(points)), bool), logits.numpy()[ahead] > 0])
    tracks = Tracks(places, visible, np.insert(points, 0, 0, axis=1).astype(np.float32))
    if after is None:
        viewer = TrajectoryViewer(np.stack(rebuilt), tracks, title="prediction", frame=len(rebuilt) - 1)
    else:
        shown = after[[0, *(prediction.frames[i] for i in ahead)]]
        viewer = TrajectoryViewer(shown, tracks, rebuilt=np.stack(rebuilt), title="prediction", frame=len(rebuilt) - 1)
    written = [viewer.to_html(folder / "prediction.html")]
    pictures = {"prediction.png": bytes(viewer.snapshot())}
    pictures |= {f"rebuilt/{number:03d}.png": _png(frame) for number, frame in enumerate(rebuilt)}
    for name, data in pictures.items():
        with atomic_write(folder / name) as temporary:
            temporary.write_bytes(data)
        written.append(folder / name)
    return written


def _png(frame: Any) -> bytes:
    """A picture's PNG bytes."""
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, format="PNG")
    return stream.getvalue()


def make_view() -> Callable[..., None]:
    """The command `view`."""
    from flowlib.notebook_views import label_viewer, prediction_viewer, save_viewer
    from flowlib.workspace import Workspace

    def view(
        root: str = "",
        dataset: str = "default",
        split: Split = "all",
        clip: str = "",
        run: str = "",
        checkpoint: str = "",
        report: str = "view",
        device: str = "auto",
    ) -> None:
        """Write a labelled clip as an HTML page; with a run or a checkpoint, its prediction beside the labels.

        Args:
            root: the workspace; "" finds it: $FLOWLIB_ROOT, the mounted Drive, or workspace/ in the clone.
            dataset: name of the dataset.
            split: which of its videos.
            clip: number or key of a clip; "" for the one with the highest motion.
            run: name of a run whose prediction is shown, too.
            checkpoint: a file whose prediction is shown, too.
            report: name of the folder in reports/ that the page goes to.
            device: of the prediction: auto, cpu or cuda.
        """
        workspace = Workspace(root).writable()
        labelled = _open(workspace.dataset(dataset), split)
        index = _find_clip(labelled, clip)
        if run or checkpoint:
            from flowlib.training.checkpoints import find_checkpoint, load_checkpoint

            model: Any = load_checkpoint(find_checkpoint(workspace.runs, run, checkpoint), device=device)[0]
            viewer = prediction_viewer(model, labelled, index)
        elif split == "all":
            viewer = label_viewer(workspace.dataset(dataset), index)
        else:
            viewer = _label_viewer(labelled, _find_clip(labelled, clip or "0"))
        assert viewer is not None, "the dataset was opened above, so there are clips"
        save_viewer(viewer, workspace.report(report), "viewer")

    return view


def make_export() -> Callable[..., None]:
    """The command `export`."""
    import csv

    import numpy as np

    from flowlib.workspace import Workspace, atomic_write

    def export(
        root: str = "",
        dataset: str = "default",
        split: Split = "all",
        clip: str = "0",
        report: str = "export",
        video: bool = True,
    ) -> None:
        """Write a labelled clip's tracks as NPZ and as CSV (frame, point, x, y, visible), and the clip as an mp4.

        Args:
            root: the workspace; "" finds it: $FLOWLIB_ROOT, the mounted Drive, or workspace/ in the clone.
            dataset: name of the dataset.
            split: which of its videos.
            clip: number or key of the clip.
            report: name of the folder in reports/ that the files go to.
            video: write the mp4, too.
        """
        workspace = Workspace(root).writable()
        folder, labelled = workspace.report(report), _open(workspace.dataset(dataset), split)
        index = _find_clip(labelled, clip or "0")
        assert index is not None
        tracks = labelled.tracks(index)
        with atomic_write(folder / "tracks.npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, tracks=tracks.tracks, visibility=tracks.visibility, queries=tracks.queries)
        with atomic_write(folder / "tracks.csv") as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("frame", "point", "x", "y", "visible"))
            for (frame, point), visible in np.ndenumerate(tracks.visibility):
                x, y = tracks.tracks[frame, point]
                writer.writerow((frame, point, f"{x:.4f}", f"{y:.4f}", int(visible)))
        print(f"{folder / 'tracks.npz'}\n{folder / 'tracks.csv'}")
        if video:
            print(_label_viewer(labelled, index).to_video(folder / "clip.mp4"))

    return export


def _open(folder: Path, split: str) -> Any:
    from flowlib.dataset import TrajectoryDataset

    if not (folder / "shards").is_dir():
        raise FileNotFoundError(f"dataset: expected labelled clips, found none in {folder}")
    return TrajectoryDataset(folder, split=split)


def _find_clip(dataset: Any, clip: str) -> int | None:
    """The number of the clip with that number or key; None for ""."""
    keys = [one.key for one in dataset.clips]
    if not clip:
        return None
    if clip in keys:
        return keys.index(clip)
    if clip.isdecimal() and int(clip) < len(keys):
        return int(clip)
    raise ValueError(f"clip: expected a number from 0 to {len(keys) - 1} or a key such as {keys[0]!r}, got {clip!r}")


def _label_viewer(dataset: Any, index: int | None) -> Any:
    from flowlib.clips import ClipSample
    from flowlib.viewer import TrajectoryViewer

    assert index is not None
    one = ClipSample.of(dataset[index], index)
    return TrajectoryViewer(one.frames, one.truth, title=one.name)


if __name__ == "__main__":
    sys.exit(main())
