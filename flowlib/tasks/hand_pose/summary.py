"""What an evaluation of hand poses says, in sentences a newcomer can follow and a reviewer can check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowlib.tasks.protocol import Estimate, Results


def summarise(results: Results) -> list[str]:
    """The answer first; the error, of seen and of hidden joints, beside each baseline's; what truth the input has."""
    main, error = results.main, results.estimate(results.main, "mpjpe")
    own = f"“{main}” puts joints {_mm(error)} from where they truly are, on average"
    own += f" (each frame counting alike: {results.pooled(main, 'mpjpe', 'frames'):.1f} mm)."
    said = [*_answer(results), own, *_parts(results)]
    said += [_against(results, name) for name in results.baselines]
    return [*said, truth_told(results.data)]


def truth_told(data: Mapping[str, Any]) -> str:
    """What truth the input of all methods contains, as a sentence; `data` as `PoseTask.describe_data` has it."""
    crop = data.get("crop", {})
    if not crop:
        return "Where the crops come from isn't told, so they may contain truth."
    size = f"crops are cubes of {crop['cube']:g} mm"
    if crop["truth"] == "estimated":
        return f"The input contains no truth: {size} around a centre that was estimated from the depth."
    return f"The input contains truth, the same for all methods: {size}, centre: {crop['truth']}."


def _answer(results: Results) -> list[str]:
    main, best = results.main, results.best_baseline("mpjpe")
    if best is None:
        return []
    ahead = results.difference(main, best, "mpjpe")
    if not ahead.mean < 0:
        return [f"Not yet: “{best}” comes nearer to the truth than “{main}”."]
    if not ahead.excludes_zero:
        return [f"Ahead of all others here, but not by enough to rule out chance: “{main}”."]
    return [f"Better than all others here: “{main}” comes nearer to the truth than every one of them."]


def _parts(results: Results) -> list[str]:
    seen, hidden = (results.estimate(results.main, f"mpjpe_{part}") for part in ("seen", "hidden"))
    if seen.videos == 0:
        return []
    if hidden.videos == 0:
        return [f"No joint was hidden; the seen ones are {_mm(seen)} off."]
    return [f"Joints that the camera sees are {_mm(seen)} off, those that it doesn't see {_mm(hidden)}."]


def _against(results: Results, other: str) -> str:
    part, what = ("mpjpe_seen", "on seen joints") if results.has("mpjpe_seen") else ("mpjpe", "on all joints")
    own, theirs = (results.estimate(name, part).mean for name in (results.main, other))
    difference = results.difference(results.main, other, part)
    times = f"{own / theirs:.2f} of" if theirs > 0 else "not comparable with"
    start = f"Its error {what} is {times} that of “{other}” ({theirs:.1f} mm)"
    if not difference.has_interval:
        return f"{start}."
    interval = f"difference {difference.mean:+.1f} [{difference.low:+.1f}, {difference.high:+.1f}] mm"
    return f"{start}; {interval}: {'more than chance' if difference.excludes_zero else 'this may well be chance'}."


def _mm(value: Estimate) -> str:
    interval = f" [{value.low:.1f}, {value.high:.1f}]" if value.has_interval else ""
    return f"{value.mean:.1f}{interval} mm"
