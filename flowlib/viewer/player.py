"""What the viewers share on Python's side: time, theme, pages, pictures, films, and how a notebook shows them.

The browser's half is player.js. Knows nothing of what a viewer shows: a viewer extends `Player` and draws its frames.
"""

from __future__ import annotations

import base64
import html
import uuid
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets as t

from flowlib.progress import Progress
from flowlib.video import encode_image, write_video
from flowlib.viewer import page
from flowlib.workspace import atomic_write

SNAPSHOT_WIDTH = 960  # pixels


class Picture(bytes):
    """A PNG file's bytes, which a notebook shows as a picture."""

    def _repr_png_(self) -> bytes:
        return bytes(self)


class Choice(t.Unicode):
    """One of a few words."""

    def __init__(self, default: str, choices: Sequence[str]) -> None:
        super().__init__(default)
        self.choices = tuple(choices)
        self.tag(sync=True)

    def validate(self, obj: Any, value: Any) -> str:
        if value not in self.choices:
            raise ValueError(f"{self.name}: expected one of {', '.join(self.choices)}, got {value!r}")
        return value


class Numbers(t.List):
    """Whole numbers from 0 to below `count(widget)`, kept sorted, each once; a boolean mask of as many will do, too."""

    def __init__(self, what: str, count: str) -> None:
        super().__init__()
        self.what, self.count = what, count
        self.tag(sync=True)

    def validate(self, obj: Any, value: Any) -> list[int]:
        numbers, count = np.asarray(value), getattr(obj, self.count)
        if numbers.dtype == bool and numbers.shape == (count,):
            numbers = np.flatnonzero(numbers)
        if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
            raise ValueError(f"{self.name}: expected {self.what} numbers or a mask of {count}, got {value!r}")
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < count:
            raise ValueError(f"{self.name}: expected {self.what}s from 0 to {count - 1}, got {value!r}")
        return sorted({int(number) for number in numbers})


class Player(anywidget.AnyWidget):
    """The base of the viewers: what plays, and the ways out of a notebook.

    A viewer brings `_esm` and `_css` (script and style, as text), `SETTINGS` and `PAYLOAD` (names of its traits),
    `num_frames`, `_title`, and `_draw(frame, width)`, a picture uint8 [height width 3].
    """

    SETTINGS: tuple[str, ...] = ()  # traits that a page is saved with
    PAYLOAD: tuple[str, ...] = ()  # traits that travel once
    _esm: Any
    _css: Any
    _fps: float
    _title: str

    _header = t.Dict().tag(sync=True)
    frame = t.Int(0).tag(sync=True)
    playing = t.Bool(False).tag(sync=True)
    speed = t.Float(1.0).tag(sync=True, range=(0.01, 100))
    theme = Choice("auto", ("auto", "light", "dark"))

    @classmethod
    def _check_settings(cls, settings: dict[str, Any], fps: float) -> None:
        unknown = set(settings) - {*cls.SETTINGS, "playing", "speed", "theme"}
        if unknown:
            raise TypeError(f"unknown settings: {', '.join(sorted(unknown))}; see the traits of {cls.__name__}")
        if not fps > 0:
            raise ValueError(f"fps: expected more than 0, got {fps}")

    @property
    def num_frames(self) -> int:
        raise NotImplementedError

    def _draw(self, frame: int, width: int) -> np.ndarray:
        raise NotImplementedError

    def _shared_header(self) -> dict[str, Any]:
        return {"title": self._title, "fps": self._fps, "snapshot": f"flowlib-snapshot-{uuid.uuid4().hex}"}

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained page, as the viewer stands now; it needs neither a network nor a kernel."""
        names = (*self.SETTINGS, "playing", "speed", "theme", "_header", *self.PAYLOAD)
        state = {name: getattr(self, name) for name in names}
        title = self._title or type(self).__name__
        path, text = Path(path).expanduser(), page.build(title, state, str(self._esm), str(self._css))
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return path

    def snapshot(self, frame: int | None = None, *, width: int = SNAPSHOT_WIDTH) -> Picture:
        """A picture of `frame` (default: the one shown), drawn as the viewer is set: PNG bytes that notebooks show."""
        frame = self.frame if frame is None else self._check_frame(frame)
        return Picture(encode_image(self._draw(frame, width), "png"))

    def to_video(
        self, path: str | Path, *, fps: float | None = None, width: int = SNAPSHOT_WIDTH, progress: bool = True
    ) -> Path:
        """Write all frames, drawn as the viewer is set, as .mp4 or .gif."""
        bar = partial(Progress, title=Path(path).name, total=self.num_frames, unit="frame", disable=not progress)
        return write_video(path, self._drawn_frames(width), fps=fps or self._fps, progress=bar)

    def _drawn_frames(self, width: int) -> Iterator[np.ndarray]:
        for frame in range(self.num_frames):
            yield self._draw(frame, width)

    def _ipython_display_(self, **kwargs: Any) -> None:
        """Show a picture first, then the widget; the live widget hides the picture, a saved notebook keeps it."""
        from IPython.display import display

        alt, name = html.escape(f"{self!r}, frame {self.frame}"), self._header["snapshot"]
        source = f"data:image/png;base64,{base64.b64encode(self.snapshot()).decode()}"
        picture = f'<img class="{name}" alt="{alt}" style="max-width: 100%" src="{source}">'
        picture += (
            f'<br class="{name}"><small class="{name}">A still of a viewer that plays where this cell runs.</small>'
        )
        display({"text/html": picture, "text/plain": repr(self)}, raw=True)
        bundle, metadata = self._repr_mimebundle_(**kwargs)  # pyright: ignore[reportGeneralTypeIssues]
        display(bundle, metadata=metadata, raw=True)

    def _check_frame(self, frame: int) -> int:
        if not 0 <= frame < self.num_frames:
            raise ValueError(f"frame: expected 0 to {self.num_frames - 1}, got {frame}")
        return int(frame)

    @t.validate("frame")
    def _validate_frame(self, proposal: Any) -> int:
        return self._check_frame(proposal["value"])

    @t.validate("speed")
    def _validate_speed(self, proposal: Any) -> float:
        return within(proposal)


def within(proposal: Any) -> float:
    """The value that is proposed for a trait with a tag `range`, if it lies within."""
    low, high = proposal["trait"].metadata["range"]
    if not low <= proposal["value"] <= high:
        raise ValueError(f"{proposal['trait'].name}: expected {low} to {high}, got {proposal['value']}")
    return proposal["value"]
