"""`label`: one chunk of a plan made part of a dataset, by this process or by many."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flowlib.clips import Clip
from flowlib.labelling.pipeline import Clock, is_long, label_clips, tracker_of
from flowlib.labelling.plan import Plan
from flowlib.labelling.store import Store
from flowlib.progress import Progress
from flowlib.quantities import counted
from flowlib.trackers import Tracker
from flowlib.video import Skipped
from flowlib.workspace import Workspace

logger = logging.getLogger(__name__)

ENGINES = ("local", "ray")


@dataclass
class LabelReport:
    """What a run of `label` found, did and skipped.

    Attributes:
        folder: the dataset's folder.
        planned: clips of this chunk.
        found: clips of them that were there already.
        labelled: clips labelled now.
        skipped: videos skipped, with a reason each.
        skipped_clips: clips of the plan with nothing to learn from.
        renamed: videos that are called otherwise in the dataset, since another one has their name there.
        damaged: shards that are damaged; they were quarantined and this chunk's clips in them done again.
        stale: shards with clips of videos that have another content now; they were quarantined.
        clock: seconds spent tracking, and waiting for "decoding" and "writing"; of all workers together.
        seconds: from beginning to end.
    """

    folder: Path
    planned: int
    found: int = 0
    labelled: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    skipped_clips: list[Skipped] = field(default_factory=list)
    renamed: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)
    seconds: float = 0.0

    def __str__(self) -> str:
        lines = [
            f"{self.folder}: {counted(self.planned, 'clip')} in this chunk, {self.found} there before, "
            f"{self.labelled} labelled now"
        ]
        if self.labelled:
            lines += [f"{self.seconds / self.labelled:.2f} s a clip; of the tracker's time: {self.clock}"]
        lines += [f"skipped: {one.name}: {one.reason}" for one in self.skipped]
        lines += [f"skipped: {counted(len(self.skipped_clips), 'clip')}, black or frozen"] if self.skipped_clips else []
        lines += [f"renamed: {one}" for one in self.renamed[:8]]
        lines += [f"renamed: {len(self.renamed) - 8} more, see videos.json"] if len(self.renamed) > 8 else []
        lines += [f"quarantined, labelled again: {reason}" for reason in self.damaged]
        lines += [f"quarantined: {reason}" for reason in self.stale]
        return "\n".join(lines + [f"{counted(len(self.skipped), 'video')} skipped"] if self.skipped else lines)


def label(
    plan: Plan,
    workspace: Workspace,
    *,
    dataset: str = "default",
    chunk: int = 0,
    num_chunks: int = 1,
    device: str = "auto",
    tracker: Tracker | None = None,
    engine: str = "local",
    workers: int = 0,
    verify: bool = False,
    strict: bool = False,
    progress: bool = True,
) -> LabelReport:
    """Label one chunk of a plan into the dataset's folder; what is done already is not done again.

    Killed at any moment, it leaves nothing half done, and the same call goes on where it stopped: at most the clip that
    was being tracked is tracked twice, and of a long clip (over 64 MB of pictures) its last frames alone. Ctrl-C and
    SIGTERM write what is tracked and end within seconds.

    Args:
        plan: from `make_plan`; taken `into` the dataset, if there is one.
        workspace: where the dataset's folder `datasets/<dataset>` is or will be.
        dataset: name of the dataset; one config each.
        chunk, num_chunks: which part of the plan, see `Plan.chunk`.
        device: for the tracker: "auto", "cpu", "cuda", "cuda:1".
        tracker: used instead of the one the config names.
        engine: "local", this process; "ray", workers of a Ray cluster that all see the workspace, or of this machine.
        workers: how many, with "ray"; 0: one a GPU, or where there is none one for two cores.
        verify: read every shard there is to the last byte first, and do again what is damaged.
        strict: raise when a video had to be skipped, after the others are done.
        progress: show a bar with the time left.

    Raises:
        ValueError: bad chunk, unknown engine, or a dataset of that name was made with another config.
        OSError: the workspace can't be written.
        RuntimeError: with `strict`, something was skipped; with "ray", three workers died over the same clips.
        ImportError: "ray" is not installed.

    >>> from flowlib.dataset import TrajectoryDataset
    >>> from flowlib.labelling import LabelConfig, make_plan
    >>> from flowlib.sources import SAMPLE
    >>> plan = make_plan(SAMPLE / "bikes.mp4", LabelConfig(max_clips=2, grid=16, height=72, width=160, fit="crop"))
    >>> report = label(plan, Workspace("example"), progress=False)
    >>> sample = TrajectoryDataset(report.folder, "all")[0]
    >>> sample["frames"].shape, sample["tracks"].shape
    (torch.Size([8, 72, 160, 3]), torch.Size([8, 256, 2]))
    """
    if engine not in ENGINES:
        raise ValueError(f"engine: expected one of {', '.join(ENGINES)}, got {engine!r}")
    start, clips, plan = time.perf_counter(), plan.chunk(chunk, num_chunks), plan.into(workspace.dataset(dataset))
    if engine == "local":
        tracker = tracker or tracker_of(plan, device)
    about = _describe(plan, tracker, device)
    store = Store(workspace, dataset, config=plan.config.content(), tracker=about)
    report = LabelReport(store.folder, len(clips), skipped=list(plan.skipped), skipped_clips=plan.skipped_clips)
    report.damaged = store.quarantine_damaged(verify=verify, progress=progress)
    names, replaced = store.register(plan.videos.values(), plan.config.seed)
    report.renamed = [f"{plan.videos[old].path}: is {new!r} in the dataset" for old, new in names.items() if old != new]
    report.stale = store.quarantine_stale(replaced)
    plan = plan.renamed(names)
    store.clear_merged()
    _work_off(plan, plan.chunk(chunk, num_chunks), store, report, _engine(engine, tracker, device, workers), progress)
    report.seconds = time.perf_counter() - start
    logger.info("%s: chunk %d of %d done in %.1f s", store.folder, chunk, num_chunks, report.seconds)
    if strict and report.skipped:
        raise RuntimeError(f"strict: {len(report.skipped)} were skipped\n{report}")
    return report


def _work_off(plan: Plan, clips: list[Clip], store: Store, report: LabelReport, engine, progress: bool) -> None:
    """Label what is missing; a second round only where another process has taken away what this one wrote."""
    for last_round in (False, True):
        todo = _missing(plan, clips, store, report)
        report.found = report.found if last_round else len(clips) - len(todo)
        if todo:
            _one_round(plan, todo, store, report, engine, progress)
    if missing := _missing(plan, clips, store, report):
        raise OSError(f"{store.folder}: {len(missing)} clips were written but can't be found there; run it again")


def _missing(plan: Plan, clips: list[Clip], store: Store, report: LabelReport) -> list[Clip]:
    there, broken = store.keys(), {one.name for one in report.skipped[len(plan.skipped) :]}
    return [clip for clip in clips if clip.key not in there and clip.video not in broken]


def _one_round(plan: Plan, todo: list[Clip], store: Store, report: LabelReport, engine, progress: bool) -> None:
    missing, done = [], Counter[str]()  # frames of clips that are counted
    # Of long clips frames are counted, or the time left would be known only when the first of them is done.
    length, unit = (plan.config.frames, "frame") if is_long(plan.config) else (1, "clip")
    with (
        Progress(None, "labelling", len(todo) * length, unit=unit, disable=not progress) as bar,
        _closing_on_sigterm(),
    ):

        def advance(clip: Clip, frames: int) -> None:
            done[clip.key] += frames
            bar.update(frames)

        for clip in todo:
            if store.has(clip):  # an earlier run was ended before it could merge
                store.add(clip)
                report.labelled += 1
                advance(clip, length)
            else:
                missing.append(clip)
        for clip in engine(plan, missing, store, report.clock, report.skipped, advance):
            report.labelled += 1
            bar.set_postfix_str(str(report.clock), refresh=False)
            advance(clip, length - done[clip.key])
        with report.clock("writing"):
            store.merge()


def _engine(name: str, tracker: Tracker | None, device: str, workers: int):
    """What labels clips and yields each once it is committed, given plan, clips, store, clock, broken videos and what
    is told of frames that are tracked."""
    if name == "ray":
        from flowlib.labelling.cluster import label_clips_with_ray

        return lambda *work: label_clips_with_ray(*work[:-1], tracker=tracker, device=device, workers=workers)
    return lambda plan, clips, store, *books: label_clips(
        plan, clips, tracker or tracker_of(plan, device), store, store.keep, *books
    )


def _describe(plan: Plan, tracker: Tracker | None, device: str) -> dict:
    return (tracker or tracker_of(plan, "cpu" if device == "auto" else device)).describe()


class _Terminated(BaseException):
    """SIGTERM has come."""


@contextmanager
def _closing_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, that is with everything closed, and then the process."""

    def stop(*_) -> None:
        raise _Terminated

    main = threading.current_thread() is threading.main_thread()  # others may not handle signals
    before = signal.signal(signal.SIGTERM, stop) if main else None
    try:
        yield
    except _Terminated:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)
