"""`Comparison`: the scores of several predictors on the same clips, with intervals. Draws and writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from flowlib.evaluation.measures import BY_NAME, HEADLINE, MEASURES, Measure, frames_ahead
from flowlib.evaluation.pictures import ClipPictures
from flowlib.evaluation.scoring import EvalConfig
from flowlib.evaluation.statistics import Estimate, Row, estimate, per_video, resamples

FEW = 10  # videos below which a bootstrap interval tends to be too narrow
WHOLE = 0.5  # of its points that a clip must show to stand for others


@dataclass(frozen=True)
class ClipRow:
    """One clip's numbers for one predictor."""

    clip: str
    video: str
    scores: Row


@dataclass
class Comparison:
    """The scores of several predictors on the same clips. The first predictor is the one it is about.

    Attributes:
        rows: predictor -> its clips, in the same order for all.
        run: what made the numbers: predictors' fingerprints, data, config, versions.
        config: how they were measured.
        warnings: what a reader has to know before believing them.
        pictures: the best, the median and the worst clip.
    """

    rows: Mapping[str, list[ClipRow]]
    run: dict[str, Any]
    config: EvalConfig = field(default_factory=EvalConfig)
    warnings: list[str] = field(default_factory=list)
    pictures: list[ClipPictures] = field(default_factory=list)

    @property
    def predictors(self) -> list[str]:
        return list(self.rows)

    @property
    def main(self) -> str:
        """The predictor the report is about."""
        return self.predictors[0]

    @property
    def rivals(self) -> list[str]:
        """The predictors that the main one has to beat."""
        return [name for name in self.predictors[1:] if not self.is_ceiling(name)]

    def is_ceiling(self, name: str) -> bool:
        """Does this one see the answer?"""
        return self.told(name).get("class") == "OracleTracks"

    def best_rival(self, measure: str) -> str | None:
        """Which of the rivals has the best mean; None where none has any."""
        means = {name: self.overall[name][measure].mean for name in self.rivals if measure in self.measured}
        known = [name for name, mean in means.items() if mean == mean]
        return min(known, key=lambda name: BY_NAME[measure].rank(means[name]), default=None)

    def told(self, name: str) -> dict[str, Any]:
        """What the run says of a predictor; empty if nothing."""
        return self.run.get("predictors", {}).get(name, {})

    @cached_property
    def per_video(self) -> dict[str, dict[str, Row]]:
        """Predictor -> video -> its numbers, each the mean over the video's clips."""
        return {
            name: per_video([row.scores for row in rows], [row.video for row in rows])
            for name, rows in self.rows.items()
        }

    @cached_property
    def videos(self) -> list[str]:
        return list(self.per_video[self.main])

    @cached_property
    def measured(self) -> list[str]:
        """Names of all numbers that some predictor has for some video, known ones first, then `epe_1`, `epe_2`, …"""
        rows = [row for videos in self.per_video.values() for row in videos.values()]
        have = {name for row in rows for name, value in row.items() if value == value}
        return [m.name for m in MEASURES if m.name in have] + [f"epe_{frame}" for frame in frames_ahead(have)]

    @cached_property
    def overall(self) -> dict[str, dict[str, Estimate]]:
        """Predictor -> number -> mean over videos with its bootstrap interval."""
        return {name: {m: self._estimate(self.values(name, m)) for m in self.measured} for name in self.predictors}

    @cached_property
    def differences(self) -> dict[str, dict[str, Estimate]]:
        """Other predictor -> number -> the main predictor's minus the other's, paired video by video."""
        others = self.predictors[1:]
        return {name: {m: self.difference(self.main, name, m) for m in self.measured} for name in others}

    def difference(self, first: str, second: str, measure: str) -> Estimate:
        """`first` minus `second` in one number, paired video by video, with its interval."""
        return self._estimate(self.values(first, measure) - self.values(second, measure))

    def values(self, predictor: str, measure: str) -> np.ndarray:
        """One number of one predictor for each of `videos`; NaN where there is none."""
        if predictor not in self.rows:
            raise ValueError(f"predictor: expected one of {', '.join(self.predictors)}, got {predictor!r}")
        return np.array([self.per_video[predictor][video].get(measure, np.nan) for video in self.videos])

    def frames_ahead(self, predictor: str | None = None) -> list[int]:
        """The frames in which an error was measured, of one predictor or of any."""
        names = [predictor] if predictor else self.predictors
        rows = [row for name in names for row in self.per_video[name].values()]
        return frames_ahead({name for row in rows for name, value in row.items() if value == value})

    def extreme_clips(self, measure: str = "ade") -> dict[str, int]:
        """Indices of the best, the median and the worst clip of the main predictor; fewer if there are fewer clips.

        A clip of whose points less than half can be seen (a scene cut, a tracker that got lost) says little about a
        predictor; it is taken only if there is no other.
        """
        scores = [row.scores for row in self.rows[self.main]]
        values = np.array([row.get(measure, np.nan) for row in scores])
        whole = np.array([row.get("visible", 1.0) >= WHOLE for row in scores])
        values = np.where(whole, values, np.nan) if np.isfinite(values[whole]).any() else values
        order = [int(index) for index in np.argsort(values) if np.isfinite(values[index])]
        if not order:
            return {}
        picked = {order[-1]: "Worst", order[len(order) // 2]: "Median", order[0]: "Best"}  # the last of equals
        return {title: index for index, title in reversed(picked.items())}

    def headline(self) -> list[Measure]:
        return [BY_NAME[name] for name in HEADLINE if name in self.measured]

    def interval_note(self, shown_as: str = "Brackets") -> str:
        """How far the intervals can be trusted."""
        percent, count = f"{self.config.confidence:.0%}", len(self.videos)
        if count < 2:
            return "There is only one video, so no interval can be given: nothing is known about how videos differ."
        note = f"{shown_as} hold the {percent} interval of the mean over {count} videos (bootstrap over videos)."
        few = f" With so few videos it tends to be too narrow; from about {FEW} on it can be relied on."
        return note + (few if count < FEW else "")

    def left_out_note(self) -> str:
        """Which numbers some video could not give, for any predictor or for single ones."""
        missing: dict[tuple[int, str], list[str]] = {}
        for name in (name for name in self.measured if name in BY_NAME):
            counts = {predictor: self.overall[predictor][name].left_out for predictor in self.predictors}
            least = min(counts.values())
            alone = [(count, f" of “{predictor}”") for predictor, count in counts.items() if count > least]
            for key in [(least, "")] * bool(least) + alone:
                missing.setdefault(key, []).append(BY_NAME[name].label)
        of = f"of {len(self.videos)} videos for"
        told = [f"{count} {of} {', '.join(labels)}{whose}" for (count, whose), labels in missing.items()]
        return f"Left out, for there was nothing to measure: {'; '.join(told)}." if told else ""

    @cached_property
    def _draws(self) -> np.ndarray:
        return resamples(len(self.videos), self.config.resamples, self.config.seed)

    def _estimate(self, values: np.ndarray) -> Estimate:
        return estimate(values, self._draws, self.config.confidence)
