"""What a depth sensor makes of exact depth: edges that drop out or mix, noise that grows with distance, holes.

In goes depth [H W] in mm, 0 where nothing is, and a generator; out comes the same as a sensor gives it. Each effect has
its switch. The values are chosen after the structured-light sensors of the published sets (SR300), not fitted to one.
Knows nothing of hands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from flowlib.hands.kinematics import gaussian


@dataclass(frozen=True)
class SensorConfig:
    """How the sensor errs. `clean()` gives one that doesn't.

    Attributes:
        edge_step: mm from a pixel to its neighbour that make an edge; one to nothing always does.
        edge_drop: chance that a pixel at an edge measures nothing; 0: none drops.
        edge_mix: chance that one at an edge between two surfaces measures something between both; 0: none does.
        noise, noise_growth: deviation in mm, noise + noise_growth · z² at z mm; both 0: no noise.
        holes: the greatest number of discs without measurement in a picture; 0: none.
        hole_radius: the greatest, in pixels.
        quantise: round to whole mm.

    Raises:
        ValueError: a chance outside 0 to 1, or a negative number.
    """

    edge_step: float = 20.0
    edge_drop: float = 0.3
    edge_mix: float = 0.3
    noise: float = 0.8
    noise_growth: float = 1.5e-6
    holes: int = 2
    hole_radius: float = 4.0
    quantise: bool = True

    def __post_init__(self) -> None:
        for name in ("edge_step", "edge_drop", "edge_mix", "noise", "noise_growth", "holes", "hole_radius"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)}")
        if self.edge_drop + self.edge_mix > 1:
            raise ValueError(f"edge_drop and edge_mix: expected at most 1 in sum, got {self.edge_drop + self.edge_mix}")

    @classmethod
    def clean(cls) -> SensorConfig:
        """A sensor without error: exact depth passes unchanged."""
        return cls(edge_drop=0, edge_mix=0, noise=0, noise_growth=0, holes=0, quantise=False)


def sense(
    depth: Float[np.ndarray, "H W"], rng: np.random.Generator, config: SensorConfig = SensorConfig()
) -> Float[np.ndarray, "H W"]:
    """Depth as the sensor gives it, float32 [H W], 0 for none; the input is left as it is.

    Works in the box around what is there, so an empty margin costs and changes nothing.

    >>> sense(np.full((4, 6), 400, np.float32), np.random.default_rng(0)).shape
    (4, 6)
    """
    result = depth.astype(np.float32)
    rows, columns = (np.flatnonzero((result > 0).any(axis=axis)) for axis in (1, 0))
    if len(rows) == 0:
        return result
    box = result[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    there = box > 0
    if config.edge_drop or config.edge_mix:
        _blur_edges(box, there, rng, config)
    if config.noise or config.noise_growth:
        measured = box[box > 0]
        sigma = np.float32(config.noise) + np.float32(config.noise_growth) * measured * measured
        box[box > 0] = measured + sigma * gaussian(rng, measured.shape, np.float32)
    if config.holes:
        _punch(box, there, rng, config)
    if config.quantise:
        np.rint(box, out=box)
    return result


def _blur_edges(box: np.ndarray, there: np.ndarray, rng: np.random.Generator, config: SensorConfig) -> None:
    """At edges, in place: nothing, or a value between both sides where the other side is a surface, too."""
    edge = np.zeros_like(there)
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        step = (abs(box[one] - box[other]) > config.edge_step) | (there[one] != there[other])
        edge[one] |= step
        edge[other] |= step
    edge[[0, -1]] = edge[:, [0, -1]] = True  # beyond the box is nothing
    y, x = np.nonzero(edge & there)
    padded, here = np.pad(box, 1), box[y, x]
    beside = np.stack([padded[y, x + 1], padded[y + 2, x + 1], padded[y + 1, x], padded[y + 1, x + 2]])
    steps = np.where(beside > 0, abs(beside - here), np.float32(0))  # to other surfaces
    farthest = steps.argmax(axis=0)[None]
    across, step = (np.take_along_axis(values, farthest, axis=0)[0] for values in (beside, steps))
    draw, share = rng.random((2, len(y)), dtype=np.float32)
    mixed = (draw >= config.edge_drop) & (draw < config.edge_drop + config.edge_mix) & (step > config.edge_step)
    value = np.where(mixed, here + share * (across - here), here)
    box[y, x] = np.where(draw < config.edge_drop, np.float32(0), value)


def _punch(box: np.ndarray, there: np.ndarray, rng: np.random.Generator, config: SensorConfig) -> None:
    """Discs without measurement about pixels of the surface, in place."""
    y, x = np.nonzero(there)
    number = int(rng.random() * (config.holes + 1))
    rows, columns = np.arange(box.shape[0])[:, None], np.arange(box.shape[1])
    for index, radius in zip((rng.random(number) * len(y)).astype(int), config.hole_radius * rng.random(number)):
        box[(rows - y[index]) ** 2 + (columns - x[index]) ** 2 <= radius * radius] = 0
