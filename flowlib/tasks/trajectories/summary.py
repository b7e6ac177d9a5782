"""What an evaluation of trajectories says, in sentences a newcomer can follow and a reviewer can check."""

from __future__ import annotations

from flowlib.tasks.protocol import Estimate, Results

FEW = 10  # videos below which a bootstrap interval tends to be too narrow


def summarise(results: Results) -> list[str]:
    """The answer first; then the main method's error, beside the best baseline's and that of moving nothing, and what
    it means for the rebuilt frames."""
    main = results.main
    if not results.has("ade"):
        return ["No point was visible after frame 0 in any video, so there is no error to report."]
    ade = results.estimate(main, "ade")
    interval = f" [{ade.low:.2f}, {ade.high:.2f}]" if ade.has_interval else ""
    error = (
        f"“{main}” puts points {ade.mean:.2f}{interval} px from where the labels have them, on average over "
        f"{ade.videos} {'video' if ade.videos == 1 else 'videos'} and all frames."
    )
    if results.role(main) == "oracle":
        return [f"“{main}” sees the answer, so it predicts nothing: it shows how good a result can get.", error]
    best = results.best_baseline("ade")
    if best is None:
        return [error, *_frames(results)]
    said = [_answer(results, best), error, _against(results, best, "the best of the others")]
    still = _still(results)
    if still and still != best:
        said.append(_against(results, still, "moving nothing at all"))
    return said + _labels(results) + _frames(results)


def _labels(results: Results) -> list[str]:
    """How far the trackers that labelled the videos differ, if two did."""
    if not results.has("labels_apart"):
        return []
    apart = results.estimate(results.main, "labels_apart").mean
    return [f"The two trackers that labelled these videos differ by {apart:.2f} px: below that little can be told."]


def _answer(results: Results, best: str) -> str:
    """Yes, perhaps or no, against the best baseline and against moving nothing."""
    main = results.main
    ahead = results.difference(main, best, "ade")
    if ahead.mean < 0 and ahead.excludes_zero:
        return f"Better than all others here: “{main}” comes nearer to the labels than every one of them."
    if ahead.mean < 0:
        return f"Ahead of all others here, but not by enough to rule out chance: “{main}”."
    still = _still(results)
    gained = results.difference(main, still, "ade") if still else None
    if gained is not None and gained.mean < 0 and gained.excludes_zero:
        return f"Better than moving nothing, but “{best}” comes nearer to the labels than “{main}”."
    if gained is not None:
        return f"Not yet: “{main}” is no better than moving nothing at all, as far as these videos can tell."
    return f"Not yet: “{best}” comes nearer to the labels than “{main}”."


def _against(results: Results, other: str, what: str) -> str:
    theirs, difference = results.estimate(other, "ade").mean, results.difference(results.main, other, "ade")
    share = abs(difference.mean) / theirs if theirs else float("nan")
    if share != share:
        start = f"That of {what}, “{other}”, is zero"
    elif f"{share:.0%}" == "0%":
        start = f"That is as much as {what}, “{other}” ({theirs:.2f} px)"
    else:
        word = "less" if difference.mean < 0 else "more"
        start = f"That is {share:.0%} {word} than {what}, “{other}” ({theirs:.2f} px)"
    return f"{start}; {told_apart(difference)}."


def told_apart(difference: Estimate) -> str:
    """Whether a difference in pixels is more than chance."""
    if not difference.has_interval:
        return "with a single video nobody can say whether that is chance"
    interval = f"difference {difference.mean:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}] px, video by video"
    if not difference.excludes_zero:
        return f"{interval}: the interval holds zero, so this may well be chance"
    few = f", though {difference.videos} videos are few to judge by" if difference.videos < FEW else ""
    return f"{interval}: more than chance{few}"


def _frames(results: Results) -> list[str]:
    if not results.has("psnr_all"):
        return []
    mean = {name: results.estimate(name, "psnr_all").mean for name in results.methods}
    said = f"The frame rebuilt from its motion reaches {mean[results.main]:.2f} dB"
    best = results.best_baseline("psnr_all")
    if best:
        said += f", that of the best of the others (“{best}”) {mean[best]:.2f} dB"
    oracles = [name for name in results.methods[1:] if results.role(name) == "oracle"]
    if oracles:
        said += f"; with the labels' motion it is {mean[oracles[0]]:.2f} dB"
    return [said + " (more is better)."]


def _still(results: Results) -> str | None:
    """The baseline that moves nothing, if it takes part."""
    return next((name for name in results.baselines if results.role(name) == "null"), None)
