"""One labelling job as a process of its own, which the fault tests disturb: `python labelling_job.py '{"source": …}'`.

What it does it says on standard output, a line each: "planned" with the clips' keys, "holding", at last "report". It
goes on from where it holds when it reads a line.
"""

import codecs
import json
import os
import resource
import select
import sys
import time

import numpy as np

CONFIG = {"frames": 4, "grid": 3, "height": 48, "width": 64, "tracker": "exact"}
DEFAULTS = {"chunk": 0, "num_chunks": 1, "verify": False, "strict": False}  # of `label`
DEFAULTS |= {
    "config": {},
    "surveys": "",
    "shard_bytes": 12_000,
    "retry_after": [],
    "clock": "",
    "largest_file": 0,
    "user": 0,
}
DEFAULTS |= {"pause": 0.005, "hold_at": [], "hold_when_planned": False, "hold_when_published": 0}


def say(word: str, content: object = None) -> None:
    print(word, json.dumps(content), flush=True)


def hold() -> None:
    say("holding")
    while not select.select([sys.stdin], [], [], 0.01)[0]:  # a signal just before a read that blocks would be unseen
        pass
    sys.stdin.readline()


def hold_after(module, name: str, times: int) -> None:
    """Hold when a function of a module has returned so often."""
    function, left = getattr(module, name), iter(range(times - 1, -1, -1))

    def holding(*arguments, **options):
        result = function(*arguments, **options)
        if next(left) == 0:
            hold()
        return result

    setattr(module, name, holding)


class SlowTracker:
    """Moves points by how bright the frames are, so that labels of other frames would be seen to be others."""

    def __init__(self, pause: float, hold_at: list[int]) -> None:
        self.pause, self.hold_at, self.calls = pause, hold_at, 0

    def __call__(self, frames, queries):
        from flowlib.tracks import Tracks

        self.calls += 1
        if self.calls in self.hold_at:
            hold()
        time.sleep(self.pause)
        brightness = frames.reshape(len(frames), -1).mean(axis=1)
        drift = (brightness - brightness[0]).astype(np.float32)
        visibility = (np.arange(len(queries)) + brightness[:, None].astype(int)) % 3 > 0
        say("tracked")
        return Tracks(queries[None, :, 1:] + drift[:, None, None], visibility, queries)

    def describe(self) -> dict:
        return {"name": "slow", "weights_sha256": ""}


def strange_clock(kind: str):
    """A clock that goes backwards, an hour whenever it is asked, or stands in 1970 or in 2100."""
    began, asked = time.time(), iter(range(1_000_000))
    return {"backwards": lambda: began - 3600.0 * next(asked), "1970": lambda: 1.0, "2100": lambda: 4.1e9}[kind]


def main(options: dict) -> None:
    """Plan and label, with the given options instead of `DEFAULTS`; "source" and "root" have none."""
    asked = DEFAULTS | options
    if asked["largest_file"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (asked["largest_file"],) * 2)
    if asked["clock"]:
        time.time = strange_clock(asked["clock"])
    from flowlib.labelling import LabelConfig, label, make_plan, store
    from flowlib.workspace import Workspace

    store.SHARD_BYTES = asked["shard_bytes"]
    store.PAUSES = tuple(asked["retry_after"]) or store.PAUSES
    if asked["hold_when_published"]:
        hold_after(store, "publish", asked["hold_when_published"])
    plan = make_plan(asked["source"], LabelConfig(**CONFIG | asked["config"]), cache=asked["surveys"] or None)
    say("planned", [clip.key for clip in plan.clips])
    if asked["hold_when_planned"]:
        hold()
    if asked["user"]:
        codecs.lookup("cp437")  # of zip files; that user may have no right to load it
        os.setuid(asked["user"])
    tracker = SlowTracker(asked["pause"], asked["hold_at"])
    part = {name: asked[name] for name in ("chunk", "num_chunks", "verify", "strict")}
    report = label(plan, Workspace(asked["root"]), tracker=tracker, progress=False, **part)
    counts = {name: getattr(report, name) for name in ("planned", "found", "labelled", "damaged", "stale")}
    say("report", counts | {"skipped": {one.name: one.reason for one in report.skipped}, "summary": str(report)})


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
