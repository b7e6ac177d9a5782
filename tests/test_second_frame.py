"""What a second frame is worth: one list of trainings, one report, one picture; all of it kept."""

import numpy as np

from flowlib.clips import Clip, ClipList, ClipSample
from flowlib.flow import CachedFlow, DISFlow
from flowlib.geometry import cell_grid, inside
from flowlib.models.guided import GuidedTrajectories
from flowlib.models.one_frame import OneFrameTrajectories
from flowlib.second_frame import input_choices, make_model, second_frame_sweep
from flowlib.tracks import Tracks
from flowlib.training import TrainConfig

SIZE = (32, 48)
SMALL = {"widths": (8, 8, 8, 8), "cells": 384, "weights": "none"}


def moving(seed: int) -> ClipSample:
    """A smooth pattern that moves steadily, elsewhere in each video."""
    rng = np.random.default_rng(seed)
    velocity, y, x = rng.uniform(-1.5, 1.5, 2), *np.mgrid[: SIZE[0], : SIZE[1]]
    waves = rng.uniform(0.2, 0.6, (4, 2))
    frames = []
    for t in range(6):
        phase = sum(np.sin(a * (x - velocity[0] * t) + b * (y - velocity[1] * t)) for a, b in waves)
        frames.append(np.repeat((127 + 30 * phase)[..., None], 3, axis=-1).clip(0, 255).astype(np.uint8))
    queries = np.insert(cell_grid(SIZE, 4, 6), 0, 0, axis=1)
    tracks = (queries[None, :, 1:] + velocity * np.arange(6)[:, None, None]).astype(np.float32)
    truth = Tracks(tracks, inside(tracks, SIZE), queries)
    return ClipSample(Clip.named(f"v{seed}/0", np.stack(frames), video=f"v{seed}"), np.stack(frames), truth)


def test_choices_and_the_networks_for_them(refuses):
    assert input_choices(8) == {"0": (0,), "0+1": (0, 1), "0+3": (0, 3), "0+4": (0, 4), "0+1+3": (0, 1, 3)}
    assert list(input_choices(6)) == ["0", "0+1", "0+3", "0+1+3"]  # half of 6 is 3
    with refuses("num_frames: expected 6 or more"):
        input_choices(5)
    kinds = [type(make_model(input_frames=one, **SMALL)) for one in input_choices(8).values()]
    assert kinds == [OneFrameTrajectories, *[GuidedTrajectories] * 4]
    assert make_model(input_frames=(0, 1, 3), **SMALL).input_frames == (0, 1, 3)


def test_the_sweep_goes_on_where_it_stopped_and_says_what_the_frame_is_worth(tmp_path, refuses):
    train, test = ClipList([moving(seed) for seed in range(3)]), ClipList([moving(seed) for seed in range(3, 6)])
    base = TrainConfig(name="s", steps=2, batch_size=2, num_workers=0, device="cpu", channels_last=False)
    choices = {"0": (0,), "0+3": (0, 3)}
    options = {"runs": tmp_path / "runs", "folder": tmp_path / "report", "choices": choices, "model": SMALL}
    flow = CachedFlow(DISFlow(), tmp_path / "flows")
    found = second_frame_sweep(train, test, base, flow=flow, progress=False, **options)
    assert found.frames == (4, 5) and [row["status"] for row in found.runs.rows] == ["done", "done"]
    assert found.report.methods == ["sees 0 alone", "sees 0 and 3", "zero motion", "constant velocity"]
    gain = found.gain("sees 0 alone", "sees 0 and 3")
    assert gain.videos == 3 and gain.mean > 0, "untrained all but constant velocity, on what moves steadily"
    figure = found.figure()
    lines, bars = figure.axes[:2]
    assert len(lines.lines) == 4 and len(lines.collections) == 2, "a line for each, a band for the first and the best"
    assert lines.axison and bars.axison
    assert len(bars.patches) == 4 * 3
    assert "sees 0 and 3" in str(found) and "on their own" in str(found)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("last.pt")}
    again = second_frame_sweep(train, test, base, flow=flow, progress=False, **options)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("last.pt")} == before
    assert again.report.run["scores_reused"] == 4 * 3 and str(again) == str(found)
    with refuses("trained on 1 of the 1 videos"):
        second_frame_sweep(train, ClipList([moving(0)]), base, flow=flow, progress=False, **options)


def test_a_picture_in_the_notebook_or_the_reason_why_not(tmp_path, capsys):
    from flowlib.notebook_views import try_second_frame

    base = TrainConfig(name="s", steps=1, batch_size=1, num_workers=0, device="cpu", channels_last=False)
    splits = {"train": ClipList([moving(0), moving(1)])}
    options = {"runs": tmp_path / "runs", "folder": tmp_path / "report", "model": SMALL, "progress": False}
    assert try_second_frame(splits, base, 0, **options) is None and try_second_frame(splits, base, 3, **options) is None
    assert capsys.readouterr().out.count("No short trainings") == 2 and not (tmp_path / "runs").exists()
    brief = [dict(moving(seed)) for seed in range(3)]
    for one in brief:
        one |= {"tracks": one["tracks"][:2], "visibility": one["visibility"][:2], "frames": one["frames"][:2]}
    parts = {"train": [ClipSample.of(one) for one in brief[:2]], "val": [ClipSample.of(brief[2])]}
    assert try_second_frame(parts, base, 3, **options) is None
    assert "clips of 6 frames or more are needed, and these have 2" in capsys.readouterr().out
    shown = try_second_frame(splits | {"val": ClipList([moving(2)])}, base, 1, choices={"0+1": (0, 1)}, **options)
    assert shown is not None and "sees 0 and 1" in capsys.readouterr().out
