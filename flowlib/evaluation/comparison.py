"""`Comparison`: the scores of several methods on the same samples, with intervals. Draws and writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from flowlib.evaluation.statistics import EvalConfig, Ratio, Row, estimate, estimates, per_group, ratio, resamples
from flowlib.models.protocols import Role
from flowlib.quantities import counted
from flowlib.tasks.protocol import Estimate, MetricSpec, SeriesSpec, Strip, Task

FEW = 10  # groups below which a bootstrap interval tends to be too narrow
NOTHING = Estimate(float("nan"), float("nan"), float("nan"), 0, 0)


@dataclass(frozen=True)
class SampleRow:
    """One sample's numbers for one method."""

    name: str
    group: str
    scores: Row


@dataclass
class Comparison:
    """The scores of several methods on the same samples. The first method is the one it is about.

    Attributes:
        task: what was measured.
        rows: method -> its samples, in the same order for all.
        run: what made the numbers: methods, data, settings, versions.
        config: how means get their intervals.
        warnings: what a reader has to know before believing them.
        strips: the best, the median and the worst sample in pictures.
    """

    task: Task
    rows: Mapping[str, list[SampleRow]]
    run: dict[str, Any]
    config: EvalConfig = field(default_factory=EvalConfig)
    warnings: list[str] = field(default_factory=list)
    strips: list[Strip] = field(default_factory=list)

    @property
    def methods(self) -> list[str]:
        return list(self.rows)

    @property
    def main(self) -> str:
        """The method that the comparison is about."""
        return self.methods[0]

    @property
    def baselines(self) -> list[str]:
        """The methods that the main one has to beat: all others but oracles."""
        return [name for name in self.methods[1:] if self.role(name) != "oracle"]

    @property
    def data(self) -> Mapping[str, Any]:
        """What is known of the samples."""
        return self.run.get("data", {})

    def told(self, method: str) -> dict[str, Any]:
        """What the run says of a method; empty if nothing."""
        return self.run.get("methods", {}).get(method, {})

    def role(self, method: str) -> Role:
        """What a method is."""
        return self.told(method).get("role", "model")

    def best_baseline(self, metric: str) -> str | None:
        """Which of the baselines has the best mean; None where none has any."""
        means = {name: self.estimate(name, metric).mean for name in self.baselines}
        known = [name for name, mean in means.items() if mean == mean]
        return min(known, key=lambda name: self.task.metric(metric).rank(means[name]), default=None)

    @cached_property
    def per_group(self) -> dict[str, dict[str, Row]]:
        """Method -> group -> its numbers, each the mean over the group's samples."""
        return {
            name: per_group([row.scores for row in rows], [row.group for row in rows])
            for name, rows in self.rows.items()
        }

    @property
    def groups(self) -> list[str]:
        """The videos (subjects, …) that the means are over."""
        return list(self.per_group[self.main])

    @cached_property
    def specs(self) -> dict[str, MetricSpec]:
        """Name -> metric of all numbers that some method has for some group: the task's, then those of its series."""
        have = self._have(self.methods)
        found = [metric for metric in self.task.metrics if metric.name in have]
        found += [series.at(place) for series in self.task.series for place in self.places(series)]
        return {metric.name: metric for metric in found}

    @property
    def measured(self) -> list[str]:
        """The names of all these numbers."""
        return list(self.specs)

    def has(self, metric: str) -> bool:
        """Whether the main method has this number in some group."""
        return self.estimate(self.main, metric).videos > 0

    def metrics(self, group: str) -> list[MetricSpec]:
        """The measured metrics under a heading of the report."""
        return [metric for metric in self.task.metrics if metric.group == group and metric.name in self.specs]

    @property
    def headings(self) -> list[str]:
        """The headings that measured metrics stand under."""
        headings = dict.fromkeys(metric.group for metric in self.task.metrics)
        return [heading for heading in headings if heading and self.metrics(heading)]

    def headline(self) -> list[MetricSpec]:
        """The measured metrics of the first table; the score where the task names none."""
        chosen = [metric for metric in self.task.metrics if metric.headline] or [self.task.metric(self.task.score)]
        return [metric for metric in chosen if metric.name in self.specs]

    @property
    def score(self) -> MetricSpec | None:
        """The metric that counts most; None if it was not measured."""
        return self.specs.get(self.task.score)

    @cached_property
    def overall(self) -> dict[str, dict[str, Estimate]]:
        """Method -> number -> mean over groups with its bootstrap interval."""
        return {name: self._estimates(self._table(name)) for name in self.methods}

    @cached_property
    def differences(self) -> dict[str, dict[str, Estimate]]:
        """Other method -> number -> the main method's minus the other's, paired group by group."""
        own = self._table(self.main)
        return {name: self._estimates(own - self._table(name)) for name in self.methods[1:]}

    @cached_property
    def ratios(self) -> dict[str, Ratio]:
        """Other method, oracles aside -> the score of the main method over its; {} where large scores are good ones."""
        score = self.score
        if score is None or score.better != "low":
            return {}
        own = self.values(self.main, score.name)
        found = {
            name: ratio(own, self.values(name, score.name), self._draws, self.config.confidence)
            for name in self.baselines
        }
        return {name: one for name, one in found.items() if one.pooled.videos}

    def estimate(self, method: str, metric: str) -> Estimate:
        """A method's mean of a number."""
        return self.overall[method].get(metric, NOTHING)

    def difference(self, first: str, second: str, metric: str) -> Estimate:
        """`first` minus `second` in one number, paired group by group, with its interval."""
        values = self.values(first, metric) - self.values(second, metric)
        return estimate(values, self._draws, self.config.confidence)

    def pooled(self, method: str, metric: str, weight: str) -> float:
        """A method's mean of a number over all samples, whatever their group, each as often as another number says: so
        many frames, so many points. NaN where no sample has both."""
        rows = np.array([[row.scores.get(name, np.nan) for name in (metric, weight)] for row in self.rows[method]])
        values, weights = rows[np.isfinite(rows).all(axis=1)].T
        return float((values * weights).sum() / weights.sum()) if weights.any() else np.nan

    def values(self, method: str, metric: str) -> np.ndarray:
        """One number of one method for each of `groups`; NaN where there is none."""
        if method not in self.rows:
            raise ValueError(f"method: expected one of {', '.join(self.methods)}, got {method!r}")
        return np.array([self.per_group[method][group].get(metric, np.nan) for group in self.groups])

    def per_sample(self, method: str, metric: str) -> np.ndarray:
        """One number of one method for each sample, whatever its group; NaN where there is none."""
        return np.array([row.scores.get(metric, np.nan) for row in self.rows[method]])

    def places(self, series: SeriesSpec, method: str | None = None) -> list[int]:
        """Where a series was measured, of one method or of any; ascending."""
        have = self._have([method] if method else self.methods)
        ends = [name.removeprefix(f"{series.name}_") for name in have if name.startswith(f"{series.name}_")]
        return sorted(int(end) for end in ends if end.isdecimal())

    def at_places(self, series: SeriesSpec) -> list[MetricSpec]:
        """The metrics of the places where a series was measured, of those that tables have."""
        return [self.specs[f"{series.name}_{place}"] for place in series.shown(self.places(series))]

    def _have(self, methods: Sequence[str]) -> set[str]:
        rows = [row for name in methods for row in self.per_group[name].values()]
        return {name for row in rows for name, value in row.items() if value == value}

    def extreme_samples(self) -> dict[str, int]:
        """Indices of the best, the median and the worst sample of the main method; fewer if there are fewer samples.

        One that says little about a method (`Task.telling`) is taken only if there is no other.
        """
        score = self.task.metric(self.task.score)
        rows = [row.scores for row in self.rows[self.main]]
        values = np.array([score.rank(row.get(score.name, np.nan)) for row in rows])
        telling = np.array([self.task.telling(row) for row in rows])
        values = np.where(telling, values, np.nan) if np.isfinite(values[telling]).any() else values
        order = [int(index) for index in np.argsort(values) if np.isfinite(values[index])]
        if not order:
            return {}
        picked = {order[-1]: "Worst", order[len(order) // 2]: "Median", order[0]: "Best"}  # the last of equals
        return {title: index for index, title in reversed(picked.items())}

    def best(self, metric: MetricSpec) -> list[str]:
        """Who has the best value as it is shown, oracles aside; several share it."""
        values = {name: self.estimate(name, metric.name).mean for name in [self.main, *self.baselines]}
        known = {name: value for name, value in values.items() if value == value}
        least = min(known.values(), key=metric.rank, default=float("nan"))
        return [name for name, value in known.items() if metric.show(value) == metric.show(least)]

    def count(self, number: int) -> str:
        """So many groups, in words."""
        return counted(number, self.task.group)

    def interval_note(self, shown_as: str = "Brackets") -> str:
        """How far the intervals can be trusted."""
        percent, group = f"{self.config.confidence:.0%}", self.task.group
        if len(self.groups) < 2:
            alone = f"There is only one {group}, so no interval can be given"
            return f"{alone}: nothing is known about how {group}s differ."
        over = self.count(len(self.groups))
        note = f"{shown_as} hold the {percent} interval of the mean over {over} (bootstrap over {group}s)."
        few = f" With so few {group}s it tends to be too narrow; from about {FEW} on it can be relied on."
        return note + (few if len(self.groups) < FEW else "")

    def left_out_note(self) -> str:
        """Which numbers some group could not give, for any method or for single ones."""
        missing: dict[tuple[int, str], list[str]] = {}
        for metric in (metric for heading in self.headings for metric in self.metrics(heading)):
            counts = {method: self.estimate(method, metric.name).left_out for method in self.methods}
            least = min(counts.values())
            alone = [(count, f" of “{method}”") for method, count in counts.items() if count > least]
            for key in [(least, "")] * bool(least) + alone:
                missing.setdefault(key, []).append(metric.heading)
        of = f"of {len(self.groups)} {self.task.group}s for"
        told = [f"{count} {of} {', '.join(labels)}{whose}" for (count, whose), labels in missing.items()]
        return f"Left out, for there was nothing to measure: {'; '.join(told)}." if told else ""

    def not_measured_note(self) -> str:
        """Which metrics no method has, and for lack of what."""
        lacking: dict[tuple[str, ...], list[str]] = {}
        for metric in self.task.metrics:
            if metric.needs and metric.group and metric.name not in self.specs:
                lacking.setdefault(metric.needs, []).append(metric.label)
        told = [f"{', '.join(labels)}, for lack of {' and '.join(needs)}" for needs, labels in lacking.items()]
        return f"Not measured: {'; '.join(told)}." if told else ""

    def unequal_series(self) -> list[str]:
        """A warning for each method that was measured at fewer places of a series than others."""
        found = []
        for series in self.task.series:
            places = {name: self.places(series, name) for name in self.methods}
            most = max(places.values(), key=len)
            found += [
                f"“{name}” has {len(own)} of {len(most)} {series.axis} only ({', '.join(map(str, own))}): numbers that "
                "are means over all of them, or of the last, are not measured like the others'."
                for name, own in places.items()
                if own != most and (own or not series.needs)  # one that lacks what it needs has none at all
            ]
        return found

    @cached_property
    def _draws(self) -> np.ndarray:
        return resamples(len(self.groups), self.config.resamples, self.config.seed)

    def _table(self, method: str) -> np.ndarray:
        """A method's numbers [V M], a row for each of `groups` and a column for each of `specs`."""
        numbers = np.array([self.values(method, name) for name in self.specs])
        return numbers.reshape(len(self.specs), len(self.groups)).T

    def _estimates(self, table: np.ndarray) -> dict[str, Estimate]:
        return dict(zip(self.specs, estimates(table, self._draws, self.config.confidence), strict=True))


def difference_between(first: Comparison, second: Comparison, method: str, metric: str) -> Estimate:
    """A method's number in one comparison minus its number in another, paired over the groups that both have.

    For what the same method costs under other conditions: another input, another rule of scoring.

    Raises:
        ValueError: no group is in both, or a comparison without the method.
    """
    one, other = (dict(zip(each.groups, each.values(method, metric))) for each in (first, second))
    shared = [group for group in one if group in other]
    if not shared:
        raise ValueError(f"second: expected a comparison on the same {first.task.group}s, got others")
    draws = resamples(len(shared), first.config.resamples, first.config.seed)
    return estimate(np.array([one[group] - other[group] for group in shared]), draws, first.config.confidence)
