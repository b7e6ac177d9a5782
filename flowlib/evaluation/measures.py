"""What is measured, in words: the label, unit, direction and explanation of every number in a report."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Measure:
    """One kind of number.

    Attributes:
        name: key in report.json.
        label: heading in tables.
        better: which values are good ones; "zero" means those near 0, on either side.
        digits: decimals shown.
        group: heading it stands under.
        meaning: one sentence for a reader who has not met it.
        scale: 100 for shares that are shown in per cent.
    """

    name: str
    label: str
    better: Literal["low", "high", "zero"]
    digits: int
    group: str
    meaning: str
    scale: float = 1.0

    @property
    def arrow(self) -> str:
        return {"low": "↓", "high": "↑", "zero": "→0"}[self.better]

    def rank(self, value: float) -> float:
        """The smaller, the better the value."""
        return {"low": value, "high": -value, "zero": abs(value)}[self.better]

    def show(self, value: float) -> str:
        """The number as a table has it; a dash where there is none."""
        return "–" if value != value else f"{round(value * self.scale, self.digits) + 0.0:.{self.digits}f}"  # no "-0"


_POINTS, _SEEN, _FIELD, _FRAMES = "Where points go", "Which points can be seen", "Shape of the motion", "Rebuilt frames"

MEASURES: tuple[Measure, ...] = (
    Measure(
        "ade",
        "ADE px",
        "low",
        2,
        _POINTS,
        "Average distance between predicted and true place, over all points that can be seen and all frames.",
    ),
    Measure("fde", "FDE px", "low", 2, _POINTS, "The same in the last frame only, where it is hardest."),
    Measure(
        "miss_rate",
        "Missed %",
        "low",
        1,
        _POINTS,
        "Share of points that are too far off in the last frame (8 px by default).",
        100,
    ),
    Measure("mse", "MSE px²", "low", 1, _POINTS, "Mean squared error of a coordinate; few large misses dominate it."),
    Measure("mse_last", "MSE last px²", "low", 1, _POINTS, "The same in the last frame only."),
    Measure(
        "average_pts_within_thresh",
        "δ_avg %",
        "high",
        1,
        _POINTS,
        "Share of points less than 1 px off, less than 2, 4, 8 and 16 px, averaged over the five (TAP-Vid).",
        100,
    ),
    Measure(
        "average_jaccard",
        "AJ %",
        "high",
        1,
        _POINTS,
        "Place and visibility in one number (TAP-Vid): a point counts if it is near and rightly called visible.",
        100,
    ),
    Measure(
        "visibility_accuracy",
        "Visibility %",
        "high",
        1,
        _SEEN,
        "Share of points that are rightly called visible or hidden.",
        100,
    ),
    Measure(
        "visibility_auroc",
        "AUROC",
        "high",
        3,
        _SEEN,
        "Chance that a visible point gets a higher visibility than a hidden one; 0.5 is guessing.",
    ),
    Measure(
        "roughness",
        "Roughness %",
        "zero",
        0,
        _FIELD,
        "How much the motion changes from place to place, against the truth: -100 all places move alike, "
        "-33 half as rough as the truth, 0 as rough, 33 twice as rough, 100 no end to it.",
        100,
    ),
    Measure("divergence_error", "Divergence err.", "low", 3, _FIELD, "Wrong growing and shrinking, px per px."),
    Measure("curl_error", "Curl err.", "low", 3, _FIELD, "Wrong turning, px per px."),
    Measure(
        "grid_artefacts",
        "Grid artefacts %",
        "low",
        0,
        _FIELD,
        "Share of the predicted motion's bending that sits on one grid of 8 px (the stride of many networks), beyond "
        "chance: 0 no such grid, 100 nothing but the grid. The true motion may have some, too.",
        100,
    ),
    Measure(
        "psnr_all",
        "PSNR dB",
        "high",
        2,
        _FRAMES,
        "Likeness of the rebuilt frame to the true one, pixel by pixel, in decibels: 6 dB more is half the error.",
    ),
    Measure("psnr_covered", "PSNR covered", "high", 2, _FRAMES, "The same where pixels arrived, holes left out."),
    Measure("psnr_moving", "PSNR moving", "high", 2, _FRAMES, "The same on what truly moves, the still rest left out."),
    Measure(
        "ssim_all",
        "SSIM",
        "high",
        3,
        _FRAMES,
        "Likeness of edges and texture rather than of single pixels; 1 for equal frames.",
    ),
    Measure("ssim_covered", "SSIM covered", "high", 3, _FRAMES, "The same where pixels arrived."),
    Measure("ssim_moving", "SSIM moving", "high", 3, _FRAMES, "The same on what truly moves."),
    Measure("lpips_all", "LPIPS", "low", 3, _FRAMES, "Difference as a network trained on human judgement sees it."),
    Measure("lpips_covered", "LPIPS covered", "low", 3, _FRAMES, "The same where pixels arrived."),
    Measure("lpips_moving", "LPIPS moving", "low", 3, _FRAMES, "The same on what truly moves."),
    Measure("holes", "Holes %", "low", 1, _FRAMES, "Share of the new frame that no pixel was moved to.", 100),
)
BY_NAME = {measure.name: measure for measure in MEASURES}
GROUPS = (_POINTS, _SEEN, _FIELD, _FRAMES)
HEADLINE = ("ade", "fde", "average_pts_within_thresh", "visibility_accuracy", "psnr_all", "ssim_all")


def frames_ahead(names) -> list[int]:
    """The frames that `epe_…` is measured at, ascending."""
    found = (re.fullmatch(r"epe_(\d+)", name) for name in names)
    return sorted(int(match[1]) for match in found if match)
