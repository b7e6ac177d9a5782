"""Points drawn on a video's own frames, one frame at a time: for films of any length.

In: frames and `Tracks`. Out: frames of the same size. Quick, no legend; `raster` draws what the viewer shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from jaxtyping import UInt8

from flowlib.colours import position_colours
from flowlib.geometry import Size
from flowlib.tracks import Tracks

TRAIL = 12  # frames
MOST_NUMBERS = 30  # points, above which numbers would hide the picture
FINE = 4  # bits behind the point in OpenCV's coordinates
INK = (20, 20, 24)


def draw_points(frames: Iterable[np.ndarray], tracks: Tracks, *, trail: int = TRAIL) -> Iterator[np.ndarray]:
    """Each frame with the points on it: a disc where one is seen, a ring where it isn't, and where it came from.

    Args:
        frames: uint8 [H W 3], as many as the tracks have.
        tracks: in pixels of these frames; up to 30 points are numbered.
        trail: for how many frames the way of a point stays in the picture; hidden parts of it are left out.
    """
    palette: np.ndarray | None = None
    for index, frame in enumerate(frames):
        size = frame.shape[0], frame.shape[1]
        palette = position_colours(tracks.queries[:, 1:], size) if palette is None else palette
        yield _drawn(frame, tracks, index, palette, size, trail)


def _drawn(
    frame: np.ndarray, tracks: Tracks, index: int, palette: np.ndarray, size: Size, trail: int
) -> UInt8[np.ndarray, "H W 3"]:
    canvas = np.ascontiguousarray(frame).copy()
    radius = max(2.0, min(size) / 90)
    # Far away points would overflow OpenCV's whole numbers; they are off the picture either way.
    places = np.clip(tracks.tracks[max(0, index - trail) : index + 1], -4 * max(size), 5 * max(size))
    fixed = np.rint(places * (1 << FINE)).astype(np.int32)
    seen = tracks.visibility[max(0, index - trail) : index + 1]
    thin = max(1, round(radius / 2))
    for point in range(tracks.num_points):
        colour = tuple(map(int, palette[point]))
        for step in range(len(fixed) - 1):
            if seen[step, point] and seen[step + 1, point]:
                ends = tuple(fixed[step, point].tolist()), tuple(fixed[step + 1, point].tolist())
                cv2.line(canvas, *ends, colour, thin, cv2.LINE_AA, FINE)
    for point in range(tracks.num_points):
        colour, centre = tuple(map(int, palette[point])), tuple(fixed[-1, point].tolist())
        whole = seen[-1, point]
        for grown, ink, width in ((1.0, INK, -1 if whole else thin + 2), (0.0, colour, -1 if whole else thin)):
            reach = round((radius + grown if whole else 1.5 * radius) * (1 << FINE))
            cv2.circle(canvas, centre, reach, ink, width, cv2.LINE_AA, FINE)
        if tracks.num_points <= MOST_NUMBERS:
            _number(canvas, str(point), places[-1, point], radius, colour)
    return canvas


def _number(canvas: np.ndarray, text: str, place: np.ndarray, radius: float, colour: tuple[int, ...]) -> None:
    at = round(float(place[0] + 1.6 * radius)), round(float(place[1] - 1.2 * radius))
    scale = max(0.35, radius / 9)
    for ink, width in ((INK, 3), (colour, 1)):
        cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, width, cv2.LINE_AA)
