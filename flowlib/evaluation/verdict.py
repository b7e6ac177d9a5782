"""What a comparison's numbers say, in sentences a newcomer can follow and a reviewer can check."""

from __future__ import annotations

from flowlib.evaluation.comparison import FEW, Comparison
from flowlib.evaluation.statistics import Estimate


def sentences(report: Comparison) -> list[str]:
    """The answer first; then the main predictor's error, beside the best rival's and that of moving nothing, and what
    it means for the rebuilt frames."""
    if "ade" not in report.measured or report.overall[report.main]["ade"].videos == 0:
        return ["No point was visible after frame 0 in any video, so there is no error to report."]
    ade = report.overall[report.main]["ade"]
    error = (
        f"“{report.main}” puts points {_with_interval(ade)} px from where they truly are, on average over "
        f"{ade.videos} {'video' if ade.videos == 1 else 'videos'} and all frames."
    )
    best = report.best_rival("ade")
    if best is None:
        return [error, *_frames(report)]
    said = [_answer(report, best), error, _against(report, best, "the best of the others")]
    still = _still(report)
    if still and still != best:
        said.append(_against(report, still, "moving nothing at all"))
    return said + _frames(report)


def _answer(report: Comparison, best: str) -> str:
    """Yes, perhaps or no, against the best rival and against moving nothing."""
    ahead = report.difference(report.main, best, "ade")
    if ahead.mean < 0 and _is_sure(ahead):
        return f"Better than all others here: “{report.main}” comes nearer to the truth than every one of them."
    if ahead.mean < 0:
        return f"Ahead of all others here, but not by enough to rule out chance: “{report.main}”."
    still = _still(report)
    gained = report.difference(report.main, still, "ade") if still else None
    if gained is not None and gained.mean < 0 and _is_sure(gained):
        return f"Better than moving nothing, but “{best}” comes nearer to the truth than “{report.main}”."
    if gained is not None:
        return f"Not yet: “{report.main}” is no better than moving nothing at all, as far as these videos can tell."
    return f"Not yet: “{best}” comes nearer to the truth than “{report.main}”."


def _against(report: Comparison, rival: str, what: str) -> str:
    theirs, difference = report.overall[rival]["ade"].mean, report.difference(report.main, rival, "ade")
    share = abs(difference.mean) / theirs if theirs else float("nan")
    if share != share:
        start = f"That of {what}, “{rival}”, is zero"
    elif f"{share:.0%}" == "0%":
        start = f"That is as much as {what}, “{rival}” ({theirs:.2f} px)"
    else:
        word = "less" if difference.mean < 0 else "more"
        start = f"That is {share:.0%} {word} than {what}, “{rival}” ({theirs:.2f} px)"
    if not difference.has_interval:
        return f"{start}; with a single video nobody can say whether that is chance."
    interval = f"difference {difference.mean:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}] px, video by video"
    if not _is_sure(difference):
        return f"{start}; {interval}: the interval holds zero, so this may well be chance."
    few = f", though {difference.videos} videos are few to judge by" if difference.videos < FEW else ""
    return f"{start}; {interval}: more than chance{few}."


def _frames(report: Comparison) -> list[str]:
    if "psnr_all" not in report.measured or report.overall[report.main]["psnr_all"].videos == 0:
        return []
    mean = {name: report.overall[name]["psnr_all"].mean for name in report.predictors}
    said = f"The frame rebuilt from its motion reaches {mean[report.main]:.2f} dB"
    best = report.best_rival("psnr_all")
    if best:
        said += f", that of the best of the others (“{best}”) {mean[best]:.2f} dB"
    ceiling = [name for name in report.predictors[1:] if report.is_ceiling(name)]
    if ceiling:
        said += f"; with the true motion it is {mean[ceiling[0]]:.2f} dB"
    return [said + " (more is better)."]


def _still(report: Comparison) -> str | None:
    """The rival that moves nothing, if it takes part."""
    return next((name for name in report.rivals if report.told(name).get("class") == "ZeroMotion"), None)


def _is_sure(difference: Estimate) -> bool:
    return difference.has_interval and not difference.low <= 0 <= difference.high


def _with_interval(value: Estimate) -> str:
    return f"{value.mean:.2f}" + (f" [{value.low:.2f}, {value.high:.2f}]" if value.has_interval else "")
