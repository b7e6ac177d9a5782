"""What an evaluation of actions says, in sentences a newcomer can follow and a reviewer can check."""

from __future__ import annotations

import numpy as np

from flowlib.quantities import counted
from flowlib.tasks.action.metrics import calibration_error, class_accuracy, mcnemar, wilson
from flowlib.tasks.protocol import Results


def summarise(results: Results, num_actions: int) -> list[str]:
    """The answer first; what is confused; each baseline beside it; how much must be seen; how sure it is."""
    main = results.main
    right = results.per_sample(main, "top1") == 1
    low, high = wilson(int(right.sum()), len(right))
    own = f"“{main}” names the action of {int(right.sum())} of {len(right)} sequences: {_percent(right.mean())}"
    own += f" [{_percent(low)}, {_percent(high)}] (Wilson's interval, which takes every sequence for independent); "
    own += f"chance is 1 of {num_actions}, {_percent(1 / num_actions)}."
    said = [*_answer(results), own, *_pairs(results)]
    said += [_against(results, name) for name in results.baselines]
    truth, guess, sure = (results.per_sample(main, name) for name in ("truth", "guess", "confidence"))
    off = calibration_error(sure, right)
    alike = class_accuracy(truth.astype(int), guess.astype(int))
    said += [
        f"Each action counting alike, {_percent(alike)} are right. It is "
        f"sure of {_percent(sure.mean())} on average; sureness and success are {_percent(off)} apart (ECE)."
    ]
    return [*said, *_observed(results), told_of(results)]


def told_of(results: Results) -> str:
    """What the methods were told, as a sentence."""
    poses = results.data.get("poses", "")
    if poses == "truth":
        return "The input is the truth: joints as they were annotated, none of them found by a network."
    return f"The input: {poses}." if poses else "Where the input comes from isn't told."


def _answer(results: Results) -> list[str]:
    main, best = results.main, results.best_baseline("top1")
    if best is None:
        return []
    ahead, behind, p = mcnemar(results.per_sample(main, "top1") == 1, results.per_sample(best, "top1") == 1)
    if ahead <= behind:
        return [f"Not yet: “{best}” is right at least as often as “{main}”."]
    if p >= 0.05:
        return [f"Ahead of all others here, but not by enough to rule out chance: “{main}”."]
    return [f"Better than all others here: “{main}” is right more often than every one of them."]


def _pairs(results: Results) -> list[str]:
    if not results.has("partner"):
        return []
    family, partner = (results.estimate(results.main, name).mean for name in ("family", "partner"))
    return [
        f"It names the right family in {_percent(family)}, and thinks the true action likelier than its partner in "
        f"{_percent(partner)} (chance: 50 %)."
    ]


def _against(results: Results, other: str) -> str:
    own, theirs = (results.per_sample(name, "top1") == 1 for name in (results.main, other))
    ahead, behind, p = mcnemar(own, theirs)
    alone = f"it alone in {counted(behind, 'sequence')}, “{results.main}” alone in {ahead}"
    sure = "more than chance" if p < 0.05 else "this may well be chance"
    return f"“{other}” is right in {_percent(theirs.mean())}: {alone} (McNemar's test: p = {p:.2g}, {sure})."


def _observed(results: Results) -> list[str]:
    half, whole = (results.estimate(results.main, f"observed_{share}").mean for share in (50, 100))
    if not np.isfinite(half):
        return []
    return [f"With half of a sequence seen it is right in {_percent(half)}, with all of it in {_percent(whole)}."]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
