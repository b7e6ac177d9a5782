"""`LabelConfig`: what a dataset is made of."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass

import numpy as np

from flowlib.geometry import FIT_RULES, FitRule, Size, cell_grid, check_size, fit_frame
from flowlib.trackers import NAMES
from flowlib.trackers.confidence import CURVES


@dataclass(frozen=True)
class LabelConfig:
    """What a dataset is made of. Runs whose configs agree in `content()` make parts of the same dataset."""

    frames: int = 8  # S, frames of a clip; thousands will do, few are in memory
    frame_step: int = 1  # frames of the video from one frame of a clip to the next
    clip_step: int = 0  # frames of the video from one clip's beginning to the next; 0: clips follow on one another
    grid: int = 64  # points a side: grid × grid points a clip, spread evenly over frame 0
    spacing: int = 0  # pixels from point to point, instead of a grid of so many a side; 0: grid decides
    jitter: bool = False  # move each point at random within its cell, differently in every clip, decided by the seed
    height: int = 360  # of the working size, pixels; with fit="auto" it has at most height × width pixels
    width: int = 640
    fit: FitRule = "auto"  # auto chooses a size that keeps pictures whole; crop, pad and stretch take the one above
    tracker: str = "lucas_kanade"  # one of trackers.NAMES; exact for synthetic videos
    weights: str = ""  # of the tracker: "" for the published ones, else a path, URL or gdown id
    confidence: bool = False  # say of each label how sure it is (lucas_kanade, raft), at several times the time
    encoding: str = "jpeg"  # of the stored frames: jpeg (quality 95) or webp (lossless)
    max_clips: int = 0  # clips a video at most, spread evenly over it; 0: all
    split_shots: bool = True  # no clip straddles a cut
    skip_still: bool = True  # leave out clips that are black or frozen from beginning to end
    seed: int = 0  # decides which videos are for training, validation and test, and the jitter

    def __post_init__(self) -> None:
        check_size((self.height, self.width), "height and width")
        check_at_least("frames", self.frames, 2)
        check_at_least("frame_step", self.frame_step, 1)
        check_at_least("clip_step", self.clip_step, 0)
        check_at_least("grid", self.grid, 1)
        check_at_least("spacing", self.spacing, 0)
        check_at_least("max_clips", self.max_clips, 0)
        for name in ("seed", "jitter", "confidence", "split_shots", "skip_still"):
            kind = int if name == "seed" else bool
            if type(value := getattr(self, name)) is not kind:
                expected = "a whole number" if kind is int else "True or False"
                raise ValueError(f"{name}: expected {expected}, got {value!r}")
        if self.spacing > min(self.size):
            raise ValueError(f"spacing: expected at most {min(self.size)} pixels, the shorter side, got {self.spacing}")
        for name, value, known in (
            ("fit", self.fit, FIT_RULES),
            ("tracker", self.tracker, NAMES),
            ("encoding", self.encoding, ("jpeg", "webp")),
        ):
            if value not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")

        if self.confidence and self.tracker not in CURVES:
            raise ValueError(f"confidence: expected a tracker with a curve ({', '.join(CURVES)}), got {self.tracker!r}")

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def span(self) -> int:
        """How many frames of a video a clip reaches over."""
        return (self.frames - 1) * self.frame_step + 1

    def box(self, source: Size | None = None) -> tuple[int, int, int, int]:
        """(top, left, height, width) of where points lie: the whole frame; with fit="auto" what of it a video of size
        `source` fills."""
        fit = fit_frame(source, self.size, self.fit) if source and self.fit == "auto" else None
        return fit.target_box if fit else (0, 0, *self.size)

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of the grid of points."""
        return self.cells_on()

    @property
    def num_points(self) -> int:
        """N, points a clip whose pictures fill the frame."""
        return math.prod(self.cells)

    def cells_on(self, source: Size | None = None) -> tuple[int, int]:
        """Rows and columns of the grid on the picture of a video of size `source`; None: on the whole frame."""
        _, _, height, width = self.box(source)
        sides = (max(1, height // self.spacing), max(1, width // self.spacing)) if self.spacing else None
        return sides or (self.grid, self.grid)

    def content(self) -> dict:
        """The settings that decide what a labelled clip looks like; the others decide which clips there are.

        Weights are left to the tracker's description, which has their SHA-256: a path may differ by machine.
        """
        chosen = {"clip_step", "max_clips", "split_shots", "skip_still", "weights"}
        chosen |= set() if self.jitter else {"jitter", "seed"}
        chosen |= {"grid"} if self.spacing else {"spacing"}
        chosen |= set() if self.confidence else {"confidence"}
        return {name: value for name, value in asdict(self).items() if name not in chosen}

    def queries(self, clip_key: str = "", source: Size | None = None) -> np.ndarray:
        """The points that are followed in a clip: float32 [N 3] (t, x, y), t = 0, x and y on the frame.

        Args:
            clip_key: `Clip.key`; with `jitter` each clip has points of its own.
            source: (height, width) of its video; with fit="auto" the points lie on its picture, none on bars beside it.
        """
        (top, left, height, width), (rows, columns) = self.box(source), self.cells_on(source)
        points = cell_grid((height, width), rows, columns)
        if self.jitter:
            # RandomState: its numbers are promised never to change, so machines with other NumPys agree.
            seed = hashlib.sha256(f"{self.seed}/{clip_key}".encode()).digest()[:4]
            offset = np.random.RandomState(int.from_bytes(seed, "big")).uniform(-0.5, 0.5, points.shape)
            cell = np.array([width / columns, height / rows])
            points = np.clip(points + offset * cell, 0, [width - 1, height - 1]).astype(np.float32)
        points = points + np.array([left, top], np.float32)
        return np.concatenate([np.zeros((len(points), 1), np.float32), points], axis=1)


def check_at_least(name: str, value: int, least: int) -> None:
    """Raise `ValueError` unless `value` is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")
