"""How fast the viewers redraw, and how heavy their pages are, in headless Chromium.

    python bench/viewer.py [--scene trajectories] [--redraws 200] [--zoom 1]

Trajectories: two panels with 10,000 points each. A clip of 8 frames of 360×640 with 100×100 points, truth and
prediction side by side, trails over all frames, at one canvas pixel per frame pixel. Every redraw shows another frame,
so the picture behind changes, too.
Hands: about 3,200 depth points and two skeletons, side by side; every redraw shows another frame, turned by 3° more.
Measured are the
milliseconds of the script until both panels are drawn and read back (wall, and CPU time of the page's main thread,
which other work on the machine lengthens less), and the time from one repaint of the browser to the next.
Prints a table, then one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from fixtures.browser import chromium
from fixtures.hand_example import hand_example

from flowlib.geometry import cell_grid
from flowlib.tracks import Tracks
from flowlib.viewer import HandViewer, TrajectoryViewer

SIZE, S = (360, 640), 8
IN_TIME = {"repaint to repaint": 17}  # ms; the screen's own rhythm is 16.7, everything else has 16
VIEWER = "document.querySelector('.tv').viewer"
REDRAW = f"""frame => {{
  const viewer = {VIEWER};
  viewer.redraw = () => 0;  // what setting the frame would have drawn is drawn here
  viewer.model.set('frame', frame);
  viewer.turnBy?.(3, 0);
  const began = performance.now();
  viewer.backStale = true;
  viewer.drawNow(false);  // as a repaint does: of many trails those that there is time for
  for (const panel of viewer.panels) for (const canvas of panel.canvases)
    canvas.getContext('2d').getImageData(0, 0, 1, 1);
  return performance.now() - began;
}}"""
INTERVALS = f"""count => new Promise(done => {{
  const viewer = {VIEWER}, intervals = [];
  delete viewer.redraw;
  let last = performance.now(), frame = 0;
  const tick = now => {{
    intervals.push(now - last);
    last = now;
    if (intervals.length > count) return done(intervals.slice(1));
    viewer.model.set('frame', frame = (frame + 1) % {S});
    viewer.turnBy?.(3, 0);
    requestAnimationFrame(tick);
  }};
  requestAnimationFrame(tick);
}})"""


def scene() -> tuple[np.ndarray, Tracks, Tracks]:
    """A smooth field that moves points by up to 25 pixels, hides a tenth of them, and a prediction that drifts away."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    waves = [127 + 80 * np.sin((x - 4 * s) / 19 + c) * np.cos((y + s) / 27 + c) for s in range(S) for c in range(3)]
    frames = np.stack(waves).reshape(S, 3, *SIZE).transpose(0, 2, 3, 1) + rng.normal(0, 8, (S, *SIZE, 3))
    xy = cell_grid(SIZE, 100)
    swirl = np.stack([np.sin(xy[:, 1] / 60) * 25, np.cos(xy[:, 0] / 80) * 15], axis=-1)
    time = (np.arange(S) / (S - 1))[:, None, None]
    queries = np.c_[np.zeros(len(xy)), xy]
    visibility = np.arange(S)[:, None] < rng.integers(1, 10 * S, len(xy))
    truth = xy + swirl * time + rng.normal(0, 0.15, (S, len(xy), 2)) * (time > 0)
    prediction = xy + 0.8 * swirl * time + rng.normal(0, 0.4, (S, len(xy), 2)).cumsum(axis=0) * (time > 0)
    sets = [Tracks(tracks.astype(np.float32), visibility, queries) for tracks in (truth, prediction)]
    return frames.clip(0, 255).astype(np.uint8), *sets


def hands() -> HandViewer:
    """A hand of about 3,200 depth points, and a prediction 5 mm off."""
    take = hand_example(S)
    return HandViewer(take, take.joints + np.float32([3, 4, 0]))


def measure(page, redraws: int) -> dict[str, list[float]]:
    """Milliseconds of every redraw but the first of each frame."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def busy() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return 1000 * next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")

    page.evaluate(f"(async () => {{ for (let s = 0; s < {S}; s++) await {VIEWER}.ready(s); }})()")
    for frame in range(S):
        page.evaluate(REDRAW, frame)
    wall, cpu = [], []
    for i in range(redraws):
        before = busy()
        wall.append(page.evaluate(REDRAW, i % S))
        cpu.append(busy() - before)
    return {"redraw, wall": wall, "redraw, CPU": cpu, "repaint to repaint": page.evaluate(INTERVALS, redraws)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scene", choices=("trajectories", "hands"), default="trajectories", help="what is drawn")
    parser.add_argument("--redraws", type=int, default=200, help="how many redraws are measured")
    parser.add_argument("--zoom", type=float, default=1.0, help="how far the picture is zoomed in")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        viewer = hands() if arguments.scene == "hands" else TrajectoryViewer(*scene())
        path = viewer.to_html(Path(folder) / "page.html")
        weight = path.stat().st_size
        with chromium(Path(folder) / "profile") as context:
            page = context.new_page()
            page.set_viewport_size({"width": 1380, "height": 900})
            page.goto(path.as_uri())
            page.wait_for_selector(".tv[data-ready]")
            page.evaluate(f"{VIEWER}.zoomBy({arguments.zoom})")
            canvas = page.evaluate(f"[{VIEWER}.panels[0].width, {VIEWER}.panels[0].height]")
            times = measure(page, arguments.redraws)
    report(arguments.scene, times, weight, canvas)


def report(name: str, times: dict[str, list[float]], weight: int, canvas: list[int]) -> None:
    load = os.getloadavg()[0]
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f}; panels of {canvas[0]}×{canvas[1]} pixels")
    print(f"page: {weight / 1e6:.2f} MB")
    print(f"{'ms':<22}{'median':>8}{'95 %':>8}{'99 %':>8}{'in time':>10}")
    summary = {}
    for what, values in times.items():
        median, p95, p99 = np.percentile(values, [50, 95, 99])
        share = float(np.mean(np.array(values) < IN_TIME.get(what, 16)))
        print(f"{what:<22}{median:>8.1f}{p95:>8.1f}{p99:>8.1f}{share:>9.0%}")
        summary[what] = {"median": round(median, 2), "p95": round(p95, 2), "in_time": round(share, 3)}
    facts = {"bench": "viewer", "scene": name, "page_bytes": weight, "canvas": canvas, "load": round(load, 1)}
    print(json.dumps(facts | {"ms": summary}))


if __name__ == "__main__":
    main()
