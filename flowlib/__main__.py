"""The command line: `flowlib probe | label | train | …` (`flowlib --help` lists all), also as `python -m flowlib`.

A command is a frozen dataclass whose fields tyro makes options of, with their comments as help; shared ones are
inherited. Settings are the notebooks' dataclasses, so either goes on with what the other began. What a command needs
is imported, and its class made, when it is called: `flowlib --help` loads no library that is slow to load.
"""

import argparse
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from shutil import rmtree
from typing import Annotated, Any, Literal  # no `annotations` of `__future__`: tyro can't evaluate a local class's

import flowlib
from flowlib.hand_commands import HANDS
from flowlib.options import InWorkspace, Split, WithModel
from flowlib.quantities import counted
from flowlib.workspace import Workspace, check_name, find_clone

Conventions = Literal["flowlib", "cotracker", "pips", "tapnet", "tapvid"]
USAGE, INTERRUPTED = 2, 130  # exit codes, beside 0 and 1
OPTIONS = """
  flowlib COMMAND --help     lists its options
  --version                  says which flowlib this is
  --log-level LEVEL          debug, info, warning (default) or error
  --debug                    shows where an error comes from"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code: 0 done, 1 failed with a sentence on stderr, 2 a wrong option, 130 interrupted."""
    parser = argparse.ArgumentParser("flowlib", add_help=False, allow_abbrev=False)
    parser.add_argument("--debug", action="store_true")
    parser.add_argument("--log-level", default="warning", choices=("debug", "info", "warning", "error"))
    options, rest = parser.parse_known_args(sys.argv[1:] if arguments is None else list(arguments))
    of_group = {name: make for name, make in COMMANDS.items() if rest and name.startswith(f"{rest[0]} ")}
    asked = rest[1:] if of_group else rest
    if not asked or asked[0] in ("-h", "--help", "help"):
        print("usage: flowlib COMMAND [options]\n")
        told = (of_group or COMMANDS).items()
        print("\n".join(f"  {name:16}{make.__doc__}" for name, make in told), OPTIONS, sep="\n")
        return 0 if asked else USAGE
    if rest[0] == "--version":
        print(f"flowlib {flowlib.__version__}")
        return 0
    words = 2 if of_group else 1  # "hands train" is one command
    name = " ".join(rest[:words])
    if name not in COMMANDS:
        print(f"flowlib: expected one of {', '.join(of_group or COMMANDS)}, got {name!r}", file=sys.stderr)
        return USAGE
    logging.basicConfig(level=options.log_level.upper(), format="%(levelname)s %(name)s: %(message)s", force=True)
    logging.captureWarnings(True)
    warnings.formatwarning = lambda message, *_, **__: str(message)  # without the line of code that it came from
    try:
        run_command(name, rest[words:])
    except KeyboardInterrupt:
        print("flowlib: interrupted; run the same command again to go on", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        if options.debug:
            raise
        missing = error.filename if isinstance(error, FileNotFoundError) else None
        said = f"{missing}: expected a file or folder, found none" if missing else str(error)
        print(f"flowlib: {' '.join(said.split()) or type(error).__name__}", file=sys.stderr)
        return USAGE if isinstance(error, UsageError) else 1
    return 0


class UsageError(ValueError):
    """An option has a wrong value."""


def run_command(name: str, arguments: Sequence[str]) -> None:
    """Fill the command's class from the arguments, and call it.

    Raises:
        UsageError: a `ValueError` that names an option, or that comes of the arguments alone.
    """
    import tyro

    found, config = COMMANDS[name], (tyro.conf.AvoidSubcommands, tyro.conf.PositionalRequiredArgs)
    make = found if isinstance(found, type) else found()
    command = None
    try:
        command = tyro.cli(make, prog=f"flowlib {name}", description=found.__doc__, args=list(arguments), config=config)
        command()
    except ValueError as error:
        if command is None or str(error).partition(":")[0] in _options(command):
            raise UsageError(str(error)) from error
        raise


def _options(config: Any) -> set[str]:
    """The names of a command's options, those of its settings among them."""
    inner = [_options(value) for value in vars(config).values() if is_dataclass(value)]
    return set(vars(config)).union(*inner)


@dataclass(frozen=True)
class OnDataset(InWorkspace):
    dataset: str = "default"  # name of the dataset; other settings of labelling want another name

    def open(self, split: str) -> Any:
        """The clips of a split."""
        from flowlib.dataset import TrajectoryDataset

        return TrajectoryDataset(self.workspace.dataset(self.dataset), split=split)


@dataclass(frozen=True)
class OnClip(OnDataset):
    split: Split = "all"  # which of its videos
    clip: str = ""  # number or key of a clip; "" for the one with the highest motion

    def find(self) -> tuple[Any, int]:
        """The clips of the split, and the number of the one that is meant."""
        from flowlib.notebook_views import highest_motion

        clips = self.open(self.split)
        if not self.clip:
            return clips, highest_motion(clips)
        keys = [one.key for one in clips.clips]
        known = {name: number for number, key in enumerate(keys) for name in (str(number), key)}
        if self.clip not in known:
            raise ValueError(f"clip: expected 0 to {len(keys) - 1} or a key such as {keys[0]!r}, got {self.clip!r}")
        return clips, known[self.clip]


def make_probe() -> type:
    """list the videos of a folder: what can be used, what can't and why"""
    import tyro

    from flowlib.geometry import FitRule, check_size
    from flowlib.progress import Progress
    from flowlib.sources import find_source
    from flowlib.video import describe_videos, probe_all, working_size

    @dataclass(frozen=True)
    class Probe(InWorkspace):
        source: tyro.conf.Positional[str] = "sample"  # sample, synthetic, a folder or a video; "" for videos/ in root
        height: int = 360  # of the working size, pixels; with fit auto it has at most height × width pixels
        width: int = 640
        fit: FitRule = "auto"  # auto chooses a size that keeps pictures whole; crop, pad and stretch take the one above

        def __post_init__(self) -> None:
            super().__post_init__()
            check_size((self.height, self.width), "height and width")

        def __call__(self) -> None:
            found = find_source(self.source, Workspace(self.root), progress=Progress)
            videos, skipped = probe_all(found, progress=Progress)
            size = working_size(videos, (self.height, self.width), self.fit)
            print(describe_videos(videos, skipped, size=size, fit=self.fit))
            print(f"{counted(len(videos), 'video')} can be used, {sum(one.is_video for one in skipped)} can't.")

    return Probe


def make_label() -> type:
    """make a dataset of labelled clips from videos; run again, it goes on where it was"""
    import tyro

    from flowlib.labelling import LabelConfig, estimate, label, make_plan
    from flowlib.labelling.plan import check_chunk
    from flowlib.progress import Progress
    from flowlib.sources import find_source
    from flowlib.splits import reserve_calibration

    @dataclass(frozen=True)
    class Label(OnDataset):
        source: tyro.conf.Positional[str] = "sample"  # sample, synthetic, a folder or a video; "" for videos/ in root
        config: Annotated[LabelConfig, tyro.conf.arg(name="")] = LabelConfig()
        chunk: int = 0  # the part of the job to do here, 0 to num_chunks - 1
        num_chunks: int = 1  # how many parts the job is cut into
        device: str = "auto"  # auto, cpu, cuda
        engine: Literal["local", "ray"] = "local"  # ray: on several GPUs or machines at once
        workers: int = 0  # with ray: how many; 0: one a GPU, or where there is none one for two cores
        verify: bool = False  # read what is labelled already to the last byte, and do again what is damaged
        strict: bool = False  # fail at the end if a video had to be skipped
        calibration: int = 0  # videos kept apart for regions: 90 % needs 9, better 20; before anything is trained
        estimate: bool = False  # only say how long it will take and how large it gets, by a few clips

        def __post_init__(self) -> None:
            super().__post_init__()
            check_chunk(self.chunk, self.num_chunks)

        def __call__(self) -> None:
            found = find_source(self.source, self.workspace, progress=Progress)
            plan = make_plan(found, self.config, cache=self.workspace.scans, progress=True)
            plan = plan.into(self.workspace.dataset(self.dataset))
            print(plan)
            if self.estimate:
                print(estimate(plan, device=self.device, chunk=self.chunk, num_chunks=self.num_chunks))
                return
            own = ("root", "source", "config", "calibration", "estimate")
            options = {name: value for name, value in vars(self).items() if name not in own}
            print(label(plan, self.workspace, **options))
            kept = reserve_calibration(self.workspace.dataset(self.dataset), self.calibration)
            print(f"{counted(len(kept), 'video')} kept for calibration.")

    return Label


def make_train() -> type:
    """train a network on labelled clips, also under accelerate launch; run again, it goes on where it was"""
    import tyro

    from flowlib.augmentation import AugmentConfig
    from flowlib.dataset import describe_splits, open_splits
    from flowlib.models.networks import NetworkConfig
    from flowlib.notebook_views import highest_motion_clips
    from flowlib.tasks.futures import task_for
    from flowlib.tasks.trajectories import TrajectoryTask
    from flowlib.training import TrainConfig, fit
    from flowlib.training.runs import run_folder

    @dataclass(frozen=True)
    class Train(OnDataset):
        unpacked: bool = False  # read clips from an unpacked cache: the same, many times as fast
        clips: int = 0  # train on so many of the clips with the highest motion; 0: on all
        network: Annotated[NetworkConfig, tyro.conf.arg(name="")] = NetworkConfig()
        config: Annotated[TrainConfig, tyro.conf.arg(name="")] = TrainConfig("two_frames", steps=2000, batch_size=4)
        task: Annotated[TrajectoryTask, tyro.conf.arg(name="")] = TrajectoryTask()
        augmented: bool = False  # change the clips at random, as the augmentation's options say
        augmentation: AugmentConfig = AugmentConfig()

        def __post_init__(self) -> None:
            super().__post_init__()
            check_name("name", self.config.name)

        def __call__(self) -> None:
            splits = open_splits(self.workspace.dataset(self.dataset), unpacked=self.unpacked)
            training = highest_motion_clips(splits["train"], self.clips or len(splits["train"]))
            first = os.environ.get("RANK", "0") == "0"  # of the processes of a launcher
            if first:
                print(describe_splits(splits))
            model = self.network.make(splits["train"].num_frames)
            augment = self.augmentation if self.augmented else self.task.augment
            task = task_for(model, **vars(self.task) | {"augment": augment})
            folder = run_folder(self.config.name, self.workspace.runs)
            result = fit(model, task, training, splits.get("val"), self.config, folder=folder)
            if first:
                print(result)
                print(f"Checkpoint: {result.best}")

    return Train


def make_evaluate() -> type:
    """measure a checkpoint beside baselines, and write a report; run again, it goes on where it was"""
    import tyro

    from flowlib.dataset.consensus import describe_labels, open_calibration, open_labels
    from flowlib.evaluation import EvalConfig, evaluate
    from flowlib.models.baselines import all_baselines
    from flowlib.models.futures import futures_of
    from flowlib.models.guided import default_methods
    from flowlib.tasks.futures import task_for
    from flowlib.tasks.trajectories import ScoringConfig
    from flowlib.tasks.trajectories.regions import with_regions
    from flowlib.training.checkpoints import describe_runs, load_runs

    @dataclass(frozen=True)
    class Evaluate(WithModel, OnDataset):
        config: Annotated[EvalConfig, tyro.conf.arg(name="")] = EvalConfig()
        scoring: Annotated[ScoringConfig, tyro.conf.arg(name="")] = ScoringConfig()
        runs: str = ""  # several runs to compare, divided by commas, the first one in front; "" for run alone
        second_labels: str = ""  # a dataset of the same videos by another tracker: what both agree on is the truth
        tolerance: float = 2.0  # pixels that the two may differ
        most_left_out: float = 1.0  # clips are passed over of which they leave out a larger share
        split: Split = "test"  # which of its videos
        regions: float = 0.9  # share of points that regions are to hold, where videos are kept for calibration; 0: none
        report: str = "two_frames"  # name of the report's folder
        input_frames: tuple[int, ...] = (0, 3)  # frames that constant velocity sees
        shipped: bool = True  # beside it the predictors that come with flowlib, for clips of up to 8 frames
        raft_weights: str = "none"  # for constant velocity by RAFT, too: "" (the published), a path, URL or Drive id
        allow_leak: bool = False  # evaluate on videos the checkpoint was trained on, and say so in the report

        def __call__(self) -> None:
            folder = self.workspace.report(self.report)
            train, chosen = self.open("train"), {"tolerance": self.tolerance, "most_left_out": self.most_left_out}
            second = self.workspace.dataset(self.second_labels) if self.second_labels else ""
            test = open_labels(self.workspace.dataset(self.dataset), self.split, second, **chosen)
            print(describe_labels(test))
            found = load_runs(self.workspace.runs, self.runs or self.run, self.checkpoint, device=self.device)
            models, about = found
            print(describe_runs(about))
            seen = {"num_frames": test.num_frames, "input_frames": self.input_frames}
            most = max(map(futures_of, models.values()))
            methods = models | (default_methods(**seen) if self.shipped else {})
            methods |= all_baselines(train, raft_weights=self.raft_weights, futures=most, **seen)
            task = task_for(max(models.values(), key=futures_of), scoring=self.scoring)
            kept = open_calibration(self.workspace.dataset(self.dataset), second, **chosen)
            methods, promise = with_regions(methods, kept, self.regions, folder=folder, about=about)
            print(promise)
            options: dict[str, Any] = {
                "calibration": kept if self.regions else None,
                "config": self.config,
                "allow_leak": self.allow_leak,
                "about": about,
            }
            report = evaluate(methods, task, test, folder=folder, train=train, **options)
            print(report.markdown(), f"Report: {report.save(folder)}", sep="\n")

    return Evaluate


@dataclass(frozen=True, kw_only=True)
class Predict(WithModel):
    """predict where everything goes from one picture, two, or a video's frames"""

    inputs: tuple[Path, ...]  # one picture or two, or a video
    run: str = ""  # name of the run that was trained; "" for the predictor that comes with flowlib
    flow: Literal["dis", "raft"] = "dis"  # of the predictor that comes with flowlib, between two pictures
    flow_weights: str = ""  # of RAFT: "" for torchvision's, else a path, URL or gdown id
    futures: int = 1  # of the predictor that comes with flowlib: 1, or 5 ways in which it may go on, from two pictures
    report: str = "prediction"  # name of the folder in reports/ that the page and pictures go to
    first_frame: int = 0  # of the video
    height: int = 0  # the pictures are brought to, pixels; 0: as they are, but no side longer than 640
    width: int = 0
    grid: int = 32  # grid × grid points are drawn
    scale: float = 20.0  # pixels at which the colours of a displacement are full

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.scale > 0:
            raise ValueError(f"scale: expected more than 0 pixels, got {self.scale:g}")
        if not self.inputs:
            raise ValueError("inputs: expected a picture, two of them, or a video, got none")
        if self.run or self.checkpoint:
            for name, value in {"flow": "dis", "flow_weights": "", "futures": 1}.items():
                if vars(self)[name] != value:
                    raise ValueError(f"{name}: expected none with a run, which has its own, got {vars(self)[name]}")
        if self.futures != 1 and len(self.inputs) == 1:
            from flowlib.video.images import is_picture

            if is_picture(self.inputs[0].name):
                raise ValueError(f"futures: expected 1 with one picture, which shows no motion, got {self.futures}")
        least = {"first_frame": 0, "height": 0, "width": 0, "grid": 1}
        for name, value in least.items():
            if vars(self)[name] < value:
                raise ValueError(f"{name}: expected {value} or more, got {vars(self)[name]}")
        if bool(self.height) != bool(self.width):
            raise ValueError(f"height and width: expected both or neither, got {self.height} and {self.width}")

    def __call__(self) -> None:
        from flowlib.own_pictures import predict

        model: Any = None
        size = (self.height, self.width) if self.height else None
        if self.run or self.checkpoint:
            model, _ = self.model()
        elif (self.flow, self.flow_weights, self.futures) != ("dis", "", 1):
            from flowlib.models.guided import load_default

            model = load_default(2, flow=self.flow, flow_weights=self.flow_weights, futures=self.futures)
        found = predict(self.inputs, model, size=size, first_frame=self.first_frame, grid=self.grid)
        print(*found.save(self.workspace.report(self.report), self.scale), sep="\n")
        print(f"{found}; colours are full at {self.scale:g} px")


@dataclass(frozen=True)
class View(WithModel, OnClip):
    """write a labelled clip, or a run's prediction beside its labels, as an HTML page that plays anywhere"""

    run: str = ""  # name of a run whose prediction is shown, too
    checkpoint: str = ""  # a file whose prediction is shown, too
    report: str = "view"  # name of the folder in reports/ that the page goes to

    def __call__(self) -> None:
        from flowlib.notebook_views import clip_viewer, prediction_viewer, save_viewer

        clips, index = self.find()
        predicts = self.run or self.checkpoint
        viewer = prediction_viewer(self.model()[0], clips, index) if predicts else clip_viewer(clips, index)
        save_viewer(viewer, self.workspace.report(self.report), "viewer")


@dataclass(frozen=True)
class Export(OnClip):
    """write a labelled clip's tracks as NPZ and CSV (frame, point, x, y, visible, confidence), and as a video"""

    clip: str = "0"  # number or key of a clip; "" for the one with the highest motion
    report: str = "export"  # name of the folder in reports/ that the files go to
    video: bool = True  # write the mp4, too
    formats: tuple[Literal["npz", "csv", "parquet"], ...] = ("npz", "csv")  # what to write the tracks as
    convention: Conventions = "flowlib"  # whose arrays, and where (0, 0) is: see flowlib.tracks.conventions

    def __call__(self) -> None:
        from flowlib.notebook_views import clip_viewer
        from flowlib.tracks import write_tracks

        clips, index = self.find()
        folder, tracks = self.workspace.report(self.report), clips.tracks(index)
        for suffix in self.formats:
            path = folder / f"tracks.{suffix}"
            print(write_tracks(tracks, path, convention=self.convention, size=clips.size))
        if self.video:
            print(clip_viewer(clips, index).to_video(folder / "clip.mp4"))


def make_convert() -> type:
    """carry a file of tracks (.npz, .csv, .parquet) over to another format, or another program's convention"""
    import tyro

    from flowlib.tracks import read_tracks, write_tracks

    @dataclass(frozen=True)
    class Convert:
        source: tyro.conf.Positional[Path]  # the file to read
        target: tyro.conf.Positional[Path]  # the file to write
        read_as: Literal[Conventions, ""] = ""  # whose convention source is in; "": an NPZ's names tell, else flowlib's
        write_as: Conventions = "flowlib"  # whose convention target is in
        height: int = 0  # of the frames in pixels; for tapvid, which has shares of them
        width: int = 0

        def __call__(self) -> None:
            if bool(self.height) != bool(self.width) or min(self.height, self.width) < 0:
                raise ValueError(f"height: expected both it and width, or neither, got {self.height} and {self.width}")
            if not self.height and "tapvid" in (self.read_as, self.write_as):
                raise ValueError("height: expected the frames', for tapvid has shares of them, got none")
            size = (self.height, self.width) if self.height else None
            tracks = read_tracks(self.source, convention=self.read_as, size=size)
            print(write_tracks(tracks, self.target, convention=self.write_as, size=size))

    return Convert


def make_track() -> type:
    """follow points that you choose through a video; leaves a table of them and the video with them on it"""
    import tyro

    from flowlib.progress import Progress
    from flowlib.trackers import make_tracker
    from flowlib.trackers.confidence import ConfidentTracker
    from flowlib.trackers.streaming import track_video
    from flowlib.tracks import write_tracks
    from flowlib.video import iterate_frames, probe, write_video
    from flowlib.viewer.overlay import draw_points

    @dataclass(frozen=True, kw_only=True)
    class Track(InWorkspace):
        video: tyro.conf.Positional[Path]  # a file, or a folder of pictures
        points: tuple[str, ...] = ()  # x,y or x,y,t each: pixels, (0, 0) the middle of the first, and a frame from 0 on
        tracker: str = "lucas_kanade"  # or raft, pips, alltracker, alltracker-full
        weights: str = ""  # "": the published ones; else a path, URL or gdown id
        device: str = "auto"  # auto, cpu, cuda
        num_frames: int = 0  # from the video's first on; 0: all
        longest: int = 0  # pixels of the longer side while tracking; 0: as it is
        reanchor: int = 0  # pips, alltracker: ask anew for a point that isn't seen for so many last frames; 0: never
        confidence: bool = False  # say of each place how sure it is; takes several times as long
        formats: tuple[Literal["npz", "csv", "parquet"], ...] = ("csv",)  # what to write the tracks as
        convention: Conventions = "flowlib"  # whose arrays, and where (0, 0) is in what is written
        overlay: bool = True  # write the video with the points on it, too
        report: str = "track"  # name of the folder in reports/ that the files go to

        def __call__(self) -> None:
            queries = parse_points(self.points)
            tracker = make_tracker(self.tracker, weights=self.weights, device=self.device)
            tracker = ConfidentTracker(tracker) if self.confidence else tracker
            video, folder = probe(self.video.expanduser()), self.workspace.report(self.report)
            options: dict[str, Any] = {
                "num_frames": self.num_frames,
                "longest": self.longest,
                "reanchor": self.reanchor,
            }
            keep = folder / "unfinished"
            with Progress(title=self.tracker, total=self.num_frames or video.num_frames, unit="frame") as bar:
                tracks = track_video(tracker, video, queries, **options, keep=keep, progress=bar.update)
            for suffix in self.formats:
                path = folder / f"tracks.{suffix}"
                print(write_tracks(tracks, path, convention=self.convention, size=video.size))
            if self.overlay:
                frames = draw_points(iterate_frames(video, 0, tracks.num_frames), tracks)
                print(write_video(folder / "tracks.mp4", frames, fps=video.fps or 25.0))
            rmtree(keep, ignore_errors=True)
            seen = tracks.visibility.sum(axis=0).tolist()
            print("\n".join(f"point {i}: seen in {n} of {tracks.num_frames} frames" for i, n in enumerate(seen[:30])))

    return Track


def parse_points(words: Sequence[str]) -> Any:
    """Points as they are typed, "x,y" or "x,y,t", as queries [N 3] (t, x, y)."""
    import numpy as np

    number = r"\s*([-+]?\d+(?:\.\d*)?|[-+]?\.\d+)\s*"
    found = [re.fullmatch(rf"{number},{number}(?:,\s*(\d+)\s*)?", word) for word in words]
    if None in found or not words:
        got = repr(words[found.index(None)]) if words else "none"
        raise ValueError(f"points: expected x,y or x,y,t (t a frame's number), got {got}")
    return np.array([(int(one[3] or 0), float(one[1]), float(one[2])) for one in found if one], np.float32)


@dataclass(frozen=True)
class Notebooks:
    """copy the notebooks into a folder; what is there already stays"""

    folder: Path  # where to

    def __call__(self) -> None:
        from flowlib.notebook_files import copy_notebooks

        for path, copied in copy_notebooks(self.folder).items():
            print(path if copied else f"{path} is there already, and stays")


@dataclass(frozen=True)
class Contents(InWorkspace):
    """write index.html into the workspace: one page that opens reports, viewers, notebooks, runs and datasets"""

    def __call__(self) -> None:
        from flowlib.contents import write_contents

        print(write_contents(self.workspace))


@dataclass(frozen=True)
class Badges:
    """write the address of a clone's remote into its notebooks' Colab badges and set-up cells, and into README.md"""

    repository: str = ""  # another address than that of the remote called origin
    ref: str = "main"  # the branch, tag or commit that badges open
    remove: bool = False  # take all addresses out

    def __call__(self) -> None:
        from flowlib.notebook_files import remote_address, web_address, write_address

        clone = find_clone()
        if clone is None:
            raise ValueError(f"expected to be called in a clone of flowlib, got {Path.cwd()}")
        address = web_address(self.repository) if self.repository else "" if self.remove else remote_address(clone)
        if not address and not self.remove:
            raise ValueError(f"repository: {clone} has no remote called origin; expected the address of your copy")
        changed = write_address(clone, address, self.ref)
        print(*changed, sep="\n")
        print(f"{counted(len(changed), 'file')} changed; flowlib comes from {address or 'no address'}")


COMMANDS: dict[str, type | Callable[[], type]] = {
    **{"probe": make_probe, "label": make_label, "train": make_train, "evaluate": make_evaluate},
    **{"predict": Predict, "view": View, "export": Export, "convert": make_convert, "track": make_track},
    **{"contents": Contents, "notebooks": Notebooks, "badges": Badges},
    **HANDS,
}

if __name__ == "__main__":
    sys.exit(main())
