"""Label by Ray: an actor a GPU, or for some cores, each with its own tracker, gets batches of clips.

An actor that dies is replaced and its batch done again, less the clips that it had committed. What comes out is the
same as from one process, since partial shards are the same. Knows nothing of how a clip is labelled.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowlib.clips import Clip
from flowlib.labelling.pipeline import Clock, label_clips, tracker_of
from flowlib.labelling.plan import Plan
from flowlib.labelling.store import Store
from flowlib.trackers import Tracker
from flowlib.video import Skipped
from flowlib.workspace import Workspace

BATCHES_A_WORKER = 8  # long ones, for each decodes its way to the first frame; enough that none idles at the end
MOST_TRIES = 3  # actors that may die over one batch before the batch is to blame


class Labeller:
    """An actor: a tracker and a store, and one batch of clips after another."""

    def __init__(self, plan: Plan, root: Path, dataset: str, settings: dict, tracker: Tracker | None, device: str):
        self.plan, self.tracker = plan, tracker or tracker_of(plan, device)
        self.store = Store(Workspace(root), dataset, **settings)

    def label(self, clips: list[Clip]) -> tuple[Clock, list[Skipped]]:
        """Make partial shards of these clips; what took how long, and the videos that broke off."""
        clock, skipped = Clock(), []
        for _ in label_clips(self.plan, clips, self.tracker, self.store, self.store.write, clock, skipped):
            pass
        return clock, skipped


def label_clips_with_ray(
    plan: Plan,
    clips: list[Clip],
    store: Store,
    clock: Clock,
    skipped: list[Skipped],
    *,
    tracker: Tracker | None,
    device: str,
    workers: int,
) -> Iterator[Clip]:
    """As `pipeline.label_clips`, by several actors at once; counts each clip in.

    Args:
        plan, clips, store, clock, skipped: as there.
        tracker: used instead of the one the config names; must pickle.
        device: for the trackers.
        workers: how many actors; 0: one a GPU, or where there is none one for two cores.

    Raises:
        ImportError: Ray is not installed.
        RuntimeError: three actors have died over the same batch of clips.
    """
    ray, own = _connect()
    number, resources = _share(ray.cluster_resources(), workers)
    labeller = ray.remote(Labeller).options(**resources)
    spec = replace(plan, clips=[], skipped=[], skipped_clips=[])
    spawn = lambda: labeller.remote(  # noqa: E731
        spec, store.workspace.root, store.dataset, store.settings, tracker, device
    )
    pool = _Pool(ray, spawn, _batches(clips, number * BATCHES_A_WORKER), number)
    try:
        while pool.batches_left:
            for spent, broken in pool.work():
                clock.update({stage: clock[stage] + seconds for stage, seconds in spent.items()})
                skipped += broken
            for clip in pool.committed(lambda clip: store.partial(clip).exists()):
                store.add(clip)
                yield clip
    finally:
        pool.shutdown()
        if own:
            ray.shutdown()


class _Batch:
    """Clips that an actor gets at once."""

    def __init__(self, clips: list[Clip]) -> None:
        self.clips, self.open, self.tries, self.finished = clips, deque(clips), 0, False


class _Pool:
    """Actors, and the batches they work off."""

    def __init__(self, ray, spawn, batches: list[_Batch], number: int) -> None:
        self.ray, self.spawn, self.waiting = ray, spawn, deque(batches)
        self.idle = [spawn() for _ in range(min(number, len(batches)))]
        self.at_work: dict = {}  # task: (actor, batch)
        self.reporting: list[_Batch] = []  # begun, and not all of its clips are known to be committed

    @property
    def batches_left(self) -> bool:
        return bool(self.waiting or self.at_work or self.reporting)

    def work(self) -> Iterator[tuple[Clock, list[Skipped]]]:
        """Hand out what there is, wait a moment, and take what has been finished."""
        while self.waiting and self.idle:
            actor, batch = self.idle.pop(), self.waiting.popleft()
            self.at_work[actor.label.remote(batch.clips)] = actor, batch
            self.reporting += [batch] if batch not in self.reporting else []
        done, _ = self.ray.wait(list(self.at_work), timeout=0.5) if self.at_work else ([], [])
        for task in done:
            actor, batch = self.at_work.pop(task)
            try:
                yield self.ray.get(task)
            except self.ray.exceptions.RayActorError as error:
                self._replace(batch, error)
            else:
                batch.finished = True
                self.idle.append(actor)

    def committed(self, is_committed) -> Iterator[Clip]:
        """The clips committed since the last call; those of a batch in its order."""
        for batch in list(self.reporting):
            while batch.open and (is_committed(batch.open[0]) or batch.finished):
                clip = batch.open.popleft()
                if is_committed(clip):  # else its video broke off
                    yield clip
            if not batch.open and batch.finished:
                self.reporting.remove(batch)

    def shutdown(self) -> None:
        for actor in [*self.idle, *(actor for actor, _ in self.at_work.values())]:
            self.ray.kill(actor)

    def _replace(self, batch: _Batch, error: Exception) -> None:
        batch.tries += 1
        if batch.tries >= MOST_TRIES:
            place = f"{batch.clips[0].video} from frame {batch.clips[0].first_frame} on"
            raise RuntimeError(f"ray: {batch.tries} workers died over {place}: {error}") from error
        self.waiting.appendleft(batch)
        self.idle.append(self.spawn())


def _connect():
    """Ray, and whether this call has started it: a cluster that is there, named by $RAY_ADDRESS or joined, is used."""
    try:
        import ray
    except ImportError as error:
        raise ImportError("engine='ray' needs Ray: pip install 'flowlib[ray]', or use engine='local'") from error
    if ray.is_initialized():
        return ray, False
    here: dict[str, Any] = {} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
    ray.init(log_to_driver=False, logging_level=logging.WARNING, **here)
    return ray, True


def _share(resources: dict, workers: int) -> tuple[int, dict]:
    """How many actors, and what each may use."""
    gpus, cores = int(resources.get("GPU", 0)), resources.get("CPU", 1)
    number = workers or gpus or max(1, int(cores) // 2)
    share = cores / number
    return number, {"num_gpus": gpus / number if gpus else 0, "num_cpus": int(share) if share >= 1 else share}


def _batches(clips: list[Clip], number: int) -> list[_Batch]:
    """The clips in about `number` contiguous batches."""
    length = max(1, -(-len(clips) // number))
    return [_Batch(clips[i : i + length]) for i in range(0, len(clips), length)]
