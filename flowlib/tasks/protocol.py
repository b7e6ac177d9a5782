"""What a task is: how samples become a batch, what its loss is, what is measured, and how a result is told.

A task is a folder in `tasks/`, and an object of a class that inherits `Task`: a frozen dataclass whose fields are its
settings. `training` and `evaluation` know this file alone, so a new task needs no edit there. A task is chosen by
importing it. Knows nothing of any one task, of runs or of reports.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, cast, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate  # pyright: ignore[reportUnknownVariableType]

from flowlib.models.protocols import Role, device_of

if TYPE_CHECKING:
    from flowlib.plots import Figure

Better = Literal["low", "high", "zero"]  # which values of a number are good ones; "zero": those near 0, on either side
ARROWS: Mapping[Better, str] = {"low": "↓", "high": "↑", "zero": "→0"}


@dataclass(frozen=True)
class MetricSpec:
    """One kind of number: what it is called, how it is had, and which values are good.

    Attributes:
        name: key in report.json and in logs.
        label: heading in tables, without the unit.
        unit: "px", "%", "dB", …; "" if it has none.
        better: which values are good ones.
        function: the number, from the task's `Answer`; NaN where there is nothing to measure.
        needs: what must be in `Answer.available`, or the number is NaN; the report says for lack of what.
        version: raise it whenever the number changes its meaning; scores kept under another version aren't reused.
        digits: decimals shown.
        group: heading it stands under in a report; "" for a number that only report.json has.
        meaning: one sentence for a reader who has not met it.
        scale: 100 for shares that are shown in per cent.
        headline: whether it stands in the first table of a report.
    """

    name: str
    label: str
    unit: str
    better: Better
    function: Callable[[Any], float]
    needs: tuple[str, ...] = ()
    version: int = 1
    digits: int = 2
    group: str = "Numbers"
    meaning: str = ""
    scale: float = 1.0
    headline: bool = False

    @property
    def heading(self) -> str:
        """Label and unit."""
        return f"{self.label} {self.unit}".strip()

    @property
    def arrow(self) -> str:
        return ARROWS[self.better]

    def rank(self, value: float) -> float:
        """The smaller, the better the value."""
        return {"low": value, "high": -value, "zero": abs(value)}[self.better]

    def show(self, value: float) -> str:
        """The number as a table has it; a dash where there is none."""
        return "–" if value != value else f"{round(value * self.scale, self.digits) + 0.0:.{self.digits}f}"  # no "-0"

    def show_signed(self, value: float) -> str:
        """A difference as a table has it."""
        return "–" if value != value else f"{value * self.scale:+.{self.digits}f}"


@dataclass(frozen=True)
class SeriesSpec:
    """A number along an axis, such as the error against frames ahead: one metric for each place of the axis.

    Attributes:
        name: the numbers are called `<name>_<place>`.
        title: heading of its section in a report.
        label, unit, better, needs, version, digits, meaning: as in `MetricSpec`.
        axis: what the places are, such as "frames ahead".
        function: place -> number, from the task's `Answer`.
        origin: the value at place 0, where lines begin; None where there is none.
        names: of the places, where they are things (joints, classes) rather than a scale; no line joins these.
        tabled: the places that tables have and an axis is marked at, of many; () for all.
    """

    name: str
    title: str
    label: str
    unit: str
    better: Better
    axis: str
    function: Callable[[Any], Mapping[int, float]]
    needs: tuple[str, ...] = ()
    version: int = 1
    digits: int = 2
    meaning: str = ""
    origin: float | None = None
    names: tuple[str, ...] = ()
    tabled: tuple[int, ...] = ()

    def at(self, place: int) -> MetricSpec:
        """The metric of one place."""

        def one(answer: Any) -> float:
            return self.function(answer).get(place, float("nan"))

        known = self.better, one, self.needs, self.version, self.digits
        label = self.names[place] if self.names else str(place)
        return MetricSpec(f"{self.name}_{place}", label, "", *known, meaning=self.meaning)

    def shown(self, places: Sequence[int]) -> list[int]:
        """Those of `places` that tables have, and that an axis is marked at."""
        return [place for place in places if not self.tabled or place in self.tabled]


@dataclass(frozen=True)
class Estimate:
    """A mean over groups (videos, subjects) with its interval.

    Attributes:
        mean: of the groups that have a value; NaN if none has.
        low, high: bootstrap interval; NaN where it can't be given, that is with fewer than two groups.
        videos: how many groups went into the mean.
        left_out: how many had no value (nothing visible, nothing to compare).
    """

    mean: float
    low: float
    high: float
    videos: int
    left_out: int

    @property
    def has_interval(self) -> bool:
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval: for a difference, whether it is more than chance."""
        return self.has_interval and not self.low <= 0 <= self.high


@runtime_checkable
class Results(Protocol):
    """What a task's `summary` may ask of a comparison of several methods on the same samples.

    Attributes:
        main: the method that the comparison is about.
        methods: all methods, the main one first.
        baselines: those that the main one has to beat: all others but oracles.
        groups: the videos (subjects, …) that the means are over.
        data: what is known of the samples, `Task.describe_data` among it.
        role: what a method is.
        has: whether the main method has a number in some group.
        estimate: a method's mean of a number.
        difference: `first` minus `second` in a number, paired group by group.
        per_sample: a number of a method for each sample, whatever its group.
        pooled: a method's mean of a number over all samples as one, each as often as another number says.
        best_baseline: which of the baselines has the best mean; None where none has any.
    """

    @property
    def main(self) -> str: ...
    @property
    def methods(self) -> list[str]: ...
    @property
    def baselines(self) -> list[str]: ...
    @property
    def groups(self) -> list[str]: ...
    @property
    def data(self) -> Mapping[str, Any]: ...
    def role(self, method: str) -> Role: ...
    def has(self, metric: str) -> bool: ...
    def estimate(self, method: str, metric: str) -> Estimate: ...
    def difference(self, first: str, second: str, metric: str) -> Estimate: ...
    def per_sample(self, method: str, metric: str) -> np.ndarray: ...
    def pooled(self, method: str, metric: str, weight: str) -> float: ...
    def best_baseline(self, metric: str) -> str | None: ...


@dataclass(frozen=True)
class Identity:
    """What a sample is called, and what it is.

    Attributes:
        name: of the sample, unique in its dataset.
        group: what means and intervals are over: the video, the subject.
        content: SHA-256 of all that decides its scores.
        where: where in the group it is, as text; "" if there is nothing to say.
    """

    name: str
    group: str
    content: str
    where: str = ""


@dataclass(frozen=True, eq=False)
class Answer:
    """A method's answer beside the truth, from which metrics are had. Tasks with shared intermediate results inherit
    it and add them as cached properties.

    Attributes:
        prediction: what the method gave.
        case: what `Task.case` made of the sample.
    """

    prediction: Any
    case: Any

    @property
    def available(self) -> frozenset[str]:
        """What metrics may need and is there."""
        return frozenset()


@dataclass(frozen=True)
class Picture:
    """A picture in a report: JPEG bytes, a caption, and the JPEG that is shown while it is pointed at."""

    jpeg: bytes
    caption: str = ""
    hover: bytes | None = None


@dataclass(frozen=True)
class StripRow:
    """One method's pictures of a sample.

    Attributes:
        name: of the method.
        note: its numbers, as text.
        pictures: as many as the strip has heads; None where there is none.
    """

    name: str
    note: str
    pictures: tuple[Picture | None, ...]


@dataclass(frozen=True)
class Strip:
    """A sample in pictures: the truth, and below it a row for each method.

    Attributes:
        title: why it is shown: "Best", "Median", "Worst".
        name, group, where: as in `Identity`.
        note: what a reader should know of it.
        heads: over the columns of the methods' pictures.
        truth: the pictures of the truth, one a column.
        rows: in the order of the comparison.
        truth_name: what that truth is called; of videos it is what a tracker saw, the labels.
    """

    title: str
    name: str
    group: str
    where: str
    note: str
    heads: tuple[str, ...]
    truth: tuple[Picture | None, ...]
    rows: tuple[StripRow, ...]
    truth_name: str = "the truth"


class Task:
    """The parts of a task. Most have a default; `example`, `sums`, `counts`, `total_loss`, `values` and `metrics` have
    none.

    A step of training is: `example` of each sample (in the loader's processes), `collate`, `counts` of all batches of
    the step on all processes, `sums` of each batch, and `total_loss` of both. Sums and counts are kept apart so that a
    step over several small batches, or several processes, equals one step over a large batch.

    Attributes:
        name: of the task, for logs and reports.
        unit, group: what one sample is called ("clip"), and what intervals are over ("video").
        metrics, series: what is measured in an evaluation.
        score: the name of the metric, and the key of `values`, that picks the best checkpoint and ends a training.
        measured_on: what the score is over, for sentences: "on visible points".
        free: settings that may differ when a run goes on, for the training's curve does not depend on them.
        headline, about, reading: the report's title ("{main}" stands for the main method), its first paragraph, and
            how the strips of pictures are to be read (HTML is escaped).
    """

    name: ClassVar[str] = "task"
    unit: ClassVar[str] = "sample"
    group: ClassVar[str] = "sample"
    metrics: ClassVar[tuple[MetricSpec, ...]] = ()
    series: ClassVar[tuple[SeriesSpec, ...]] = ()
    score: ClassVar[str] = ""
    measured_on: ClassVar[str] = ""
    free: ClassVar[tuple[str, ...]] = ()
    headline: ClassVar[str] = "How good is “{main}”?"
    about: ClassVar[str] = ""
    reading: ClassVar[str] = ""

    # ------------------------------------------------------------------------------------------------ settings

    def settings(self) -> dict[str, Any]:
        """The task's fields as plain JSON values: kept in checkpoints, and compared when a run goes on."""
        return asdict(self) if is_dataclass(self) and not isinstance(self, type) else {}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Task:
        """The task that `settings` gave, also after a round through JSON, which knows no tuples."""
        return cls(**settings)

    def metric(self, name: str) -> MetricSpec:
        """The metric called `name`.

        Raises:
            ValueError: the task has none of that name.
        """
        known = {metric.name: metric for metric in self.metrics}
        if name not in known:
            raise ValueError(f"metric: expected one of {self.name} ({', '.join(known) or 'none'}), got {name!r}")
        return known[name]

    # ------------------------------------------------------------------------------------------------ training

    def check(self, model: nn.Module, dataset: Any, name: str) -> None:
        """Raise `ValueError` where model, data (called `name`) and task do not belong together."""

    def describe_data(self, dataset: Any) -> dict[str, Any]:
        """What a checkpoint says of a dataset beyond its length, fingerprint and videos."""
        return {}

    def prepare(self, model: nn.Module, dataset: Any) -> dict[str, float]:
        """Fit what is fitted before training starts; the numbers are kept in the checkpoint and given to `sums`."""
        return {}

    def inputs(self, model: nn.Module) -> Any:
        """What `example` must know of the model; small, for it goes to the loader's processes."""
        return None

    def example(self, sample: Any, inputs: Any, generator: torch.Generator | None) -> dict[str, Any]:
        """One sample as a training example: tensors by name, and `name`, what the logs call it (else its number).

        Args:
            sample: an item of the dataset.
            inputs: of the model, see `inputs`.
            generator: what augmentation draws from; None where there is to be none (validation).
        """
        raise NotImplementedError(f"{type(self).__name__}.example")

    def collate(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Examples as one batch."""
        return default_collate(list(examples))

    def counts(self, batch: dict[str, Any]) -> Tensor:
        """[k] How many things the sums of this batch are over."""
        raise NotImplementedError(f"{type(self).__name__}.counts")

    def sums(self, network: nn.Module, batch: dict[str, Any], constants: Mapping[str, float]) -> Tensor:
        """[m] Sums over the batch: of losses, differentiable, and of whatever `values` wants to know.

        Args:
            network: is called, once, on what it takes.
            batch: on the network's device.
            constants: what `prepare` gave.
        """
        raise NotImplementedError(f"{type(self).__name__}.sums")

    def total_loss(self, sums: Tensor, counts: Tensor) -> Tensor:
        """The scalar that is descended, from the sums of one batch and the counts of the whole step."""
        raise NotImplementedError(f"{type(self).__name__}.total_loss")

    def values(self, sums: Tensor, counts: Tensor) -> dict[str, float]:
        """What is logged of a step or a validation: `loss`, the score, and more; NaN where nothing was counted."""
        raise NotImplementedError(f"{type(self).__name__}.values")

    def unchanged(self) -> Task:
        """The same task without augmentation."""
        return self

    def ideas(self, model: nn.Module) -> Sequence[str]:
        """What may be tried, in a few words each, where one batch could not be fitted."""
        return ()

    def figure(self, model: nn.Module, dataset: Any, count: int) -> Figure | None:
        """What the model says of the first `count` samples, for the run's folder; None if there is nothing to see."""
        return None

    # ---------------------------------------------------------------------------------------------- evaluation

    def score_settings(self) -> dict[str, Any]:
        """The settings that decide scores, as plain JSON values; scores kept under others aren't reused."""
        return {}

    def facts(self, data: Mapping[str, Any], results: Results) -> list[str]:
        """What stands at the top of a report beside the numbers of groups and samples; `data` as `describe_data`."""
        return []

    def identify(self, dataset: Any, index: int, sample: Any) -> Identity:
        """What a sample is called, which group it belongs to, and what it holds."""
        return Identity(str(index), str(index), hash_content(sample))

    def looks(self, sample: Any) -> Sequence[np.ndarray]:
        """The pictures, uint8 [H W 3], by which near-duplicates among training and test samples are found."""
        return ()

    def case(self, sample: Any) -> Any:
        """A sample with what is asked about it, prepared once for all methods."""
        return sample

    @torch.inference_mode()
    def predict(self, method: Any, case: Any, name: str) -> Any:
        """A method's answer for one case, on the CPU, checked.

        Raises:
            ValueError: an answer of another shape, or with NaN in it; names the method and the sample.
        """
        return method(case.to(device_of(method)) if isinstance(case, Tensor) else case)

    def answer(self, prediction: Any, case: Any) -> Answer:
        """The prediction beside the truth, for the metrics' functions."""
        return Answer(prediction, case)

    def telling(self, row: Mapping[str, float]) -> bool:
        """Whether a sample with these numbers can stand for others, as the best or the worst one."""
        return True

    def strip(self, title: str, identity: Identity, case: Any, predictions: Mapping[str, Any]) -> Strip | None:
        """The pictures of one sample; None if there is nothing to see."""
        return None

    def summary(self, results: Results) -> list[str]:
        """What the numbers say, in sentences a newcomer can follow: the answer first."""
        metric = self.metric(self.score)
        if not results.has(metric.name):
            return [f"Nothing could be measured: no {self.group} has a value of {metric.heading}."]
        own, best = results.estimate(results.main, metric.name).mean, results.best_baseline(metric.name)
        told = f"“{results.main}” reaches {metric.show(own)} {metric.unit} ({metric.label})".replace("  ", " ")
        if best is None:
            return [f"{told}."]
        theirs = results.estimate(best, metric.name).mean
        than = f"{'' if metric.rank(own) < metric.rank(theirs) else 'not '}better than the best baseline"
        surely = results.difference(results.main, best, metric.name).excludes_zero
        sure = "more than chance" if surely else "this may be chance"
        return [f"{told}, {than}, “{best}” ({metric.show(theirs)}): {sure}."]


def hash_content(value: Any) -> str:
    """SHA-256 of a sample made of tensors, arrays, numbers, text, and mappings and sequences of them.

    Raises:
        TypeError: it holds something else; `Task.identify` then has to say what the sample is.
    """
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        value = value.detach().cpu().contiguous().numpy()
    if isinstance(value, np.ndarray):
        array = cast("np.ndarray[Any, Any]", value)
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    elif isinstance(value, Mapping):
        for key, inner in sorted(cast("Mapping[Any, Any]", value).items(), key=itemgetter(0)):
            digest.update(f"{key}:".encode())
            _feed(digest, inner)
    elif isinstance(value, (list, tuple)):
        inside = cast("Sequence[Any]", value)
        digest.update(f"[{len(inside)}]".encode())
        for inner in inside:
            _feed(digest, inner)
    elif isinstance(value, (str, int, float, bool, bytes, type(None))):
        digest.update(f"{type(value).__name__} {value!r};".encode())
    else:
        raise TypeError(f"expected tensors, arrays, numbers or text in a sample, got {type(value).__name__}")
