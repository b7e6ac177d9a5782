"""What a report's numbers say, in sentences a newcomer can follow and a reviewer can check."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowlib.evaluation.statistics import Estimate

if TYPE_CHECKING:
    from flowlib.evaluation.report import Report


def sentences(report: Report) -> list[str]:
    """The main predictor's error, how it compares with the best rival, what it means for the rebuilt frames."""
    if "ade" not in report.measured:
        return ["No point was visible after frame 0 in any video, so there is no error to report."]
    ade = report.overall[report.main]["ade"]
    said = [
        f"“{report.main}” puts points {_with_interval(ade)} px from where they truly are, on average over "
        f"{ade.videos} {'video' if ade.videos == 1 else 'videos'} and all frames."
    ]
    rivals = [name for name in report.predictors[1:] if not is_ceiling(report, name)]
    if rivals:
        said.append(_against(report, min(rivals, key=lambda name: report.overall[name]["ade"].mean)))
    said += _frames(report, rivals)
    return said


def is_ceiling(report: Report, name: str) -> bool:
    """Does this one see the answer?"""
    return report.run.get("predictors", {}).get(name, {}).get("class") == "OwnTracks"


def _against(report: Report, rival: str) -> str:
    ours, theirs = report.overall[report.main]["ade"].mean, report.overall[rival]["ade"].mean
    difference = report.difference(report.main, rival, "ade")
    share = abs(difference.mean) / theirs if theirs else float("nan")
    word = "less" if ours < theirs else "more"
    start = f"That is {share:.0%} {word} than the best of the others, “{rival}” ({theirs:.2f} px)"
    if not difference.has_interval:
        return f"{start}; with a single video nobody can say whether that is chance."
    interval = f"difference {difference.mean:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}] px, video by video"
    if difference.low <= 0 <= difference.high:
        return f"{start}; {interval}: the interval holds zero, so this may well be chance."
    return f"{start}; {interval}: more than chance."


def _frames(report: Report, rivals: list[str]) -> list[str]:
    if "psnr_all" not in report.measured:
        return []
    ours = report.overall[report.main]["psnr_all"].mean
    said = f"The frame rebuilt from its motion reaches {ours:.2f} dB"
    best = max(rivals, key=lambda name: report.overall[name]["psnr_all"].mean, default=None)
    if best:
        said += f", that of the best of the others (“{best}”) {report.overall[best]['psnr_all'].mean:.2f} dB"
    ceiling = [name for name in report.predictors[1:] if is_ceiling(report, name)]
    if ceiling:
        said += f"; with the true motion it is {report.overall[ceiling[0]]['psnr_all'].mean:.2f} dB"
    return [said + "."]


def _with_interval(value: Estimate) -> str:
    return f"{value.mean:.2f}" + (f" [{value.low:.2f}, {value.high:.2f}]" if value.has_interval else "")
