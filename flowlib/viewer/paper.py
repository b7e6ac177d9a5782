"""The page that pictures of a viewer are drawn on: panels in a grid, a title above, a legend below.

Drawn with matplotlib, loaded only then. Knows nothing of what the panels show.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import UInt8

DPI = 100
GAP = 8  # pixels between panels, and around the page
TITLE, LEGEND = 28, 40  # heights in pixels
PAPER, INK, QUIET = "#ffffff", "#1c2024", "#60646c"
MOST_COLUMNS = 4  # of panels; more go into further rows


@dataclass(frozen=True)
class Paper:
    """Where things go, in pixels of the picture from its top left corner, and the figure they are drawn in."""

    panel: tuple[int, int]  # (height, width)
    columns: int
    rows: int
    title: int
    figure: Any = field(init=False, repr=False)

    @classmethod
    def fitting(cls, size: tuple[int, int], panels: int, width: int, title: str) -> Paper:
        """For panels that show something of `size` (height, width); of whole, even sizes, as films need."""
        columns = min(panels, MOST_COLUMNS)
        across = max(40, (width - GAP) // columns - GAP) // 2 * 2
        high = max(2, round(across * size[0] / size[1] / 2) * 2)
        paper = cls((high, across), columns, -(-panels // columns), TITLE if title else 0)
        if title:
            paper.text(GAP, TITLE / 2 + GAP / 2, plain(title), size=11, weight="bold")
        return paper

    def __post_init__(self) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        height, width = self.size
        object.__setattr__(self, "figure", Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=PAPER))
        FigureCanvasAgg(self.figure)

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.panel
        return self.title + self.rows * (height + GAP) + LEGEND + GAP, self.columns * (width + GAP) + GAP

    @property
    def legend(self) -> float:
        """Y of the legend's middle."""
        return self.size[0] - LEGEND / 2 - GAP / 2

    def axes(self, left: float, top: float, width: float, height: float):
        page_height, page_width = self.size
        box = left / page_width, 1 - (top + height) / page_height, width / page_width, height / page_height
        axes = self.figure.add_axes(box)
        axes.set_axis_off()
        return axes

    def panel_axes(self, index: int):
        """Of panel `index`, row by row."""
        (height, width), row, column = self.panel, index // self.columns, index % self.columns
        top = self.title + GAP + row * (height + GAP)
        return self.axes(GAP + column * (width + GAP), top, width, height)

    def text(self, x: float, y: float, text: str, **style) -> None:
        height, width = self.size
        style = {"color": INK, "va": "center", "family": "sans-serif"} | style
        self.figure.text(x / width, 1 - y / height, text, parse_math=False, **style)

    def bar(self, x: float, width: float, colours: UInt8[np.ndarray, "rows columns 3"], ends: tuple[str, str]) -> float:
        """A strip or a square of colours with the numbers at its ends, in the legend; the x after it."""
        if ends[0]:
            self.text(x, self.legend, ends[0], size=8.5)
            x += 12
        high = 10 if len(colours) == 1 else LEGEND - 12
        axes = self.axes(x, self.legend - high / 2, width, high)
        axes.imshow(colours, aspect="auto", interpolation="nearest")
        x += width + 6
        if ends[1]:
            self.text(x, self.legend, ends[1], size=8.5)
            x += 8 + 7 * len(ends[1])
        return x + 4

    def pixels(self) -> UInt8[np.ndarray, "height width 3"]:
        self.figure.canvas.draw()
        return np.asarray(self.figure.canvas.buffer_rgba())[..., :3].copy()


def name_panel(axes, name: str) -> None:
    """A name in a panel's corner."""
    chip = {"facecolor": "#000000", "alpha": 0.55, "edgecolor": "none", "boxstyle": "round,pad=0.35"}
    style = {"color": "white", "size": 8, "va": "top", "bbox": chip, "parse_math": False}
    axes.text(0.012, 0.978, plain(name), transform=axes.transAxes, **style)


def plain(text: str) -> str:
    """A text on one line, short enough to stay on the page."""
    text = " ".join(text.split())
    return text if len(text) <= 90 else text[:89] + "…"
