"""Tracks as other programs lay them out: tapnet and TAP-Vid, CoTracker, PIPs; and back, half a pixel right.

| name      | positions             | visible         | queries                | (0, 0) is the first pixel's |
| --------- | --------------------- | --------------- | ---------------------- | --------------------------- |
| flowlib   | tracks [S N 2]        | visibility      | queries (t, x, y)      | centre                      |
| cotracker | pred_tracks [1 S N 2] | pred_visibility | queries (t, x, y)      | centre                      |
| pips      | trajs_e [1 S N 2]     | vis_e           | xys (x, y), in frame 0 | centre                      |
| tapnet    | tracks [N S 2]        | visibles        | query_points (t, y, x) | corner; (W, H) is the end   |
| tapvid    | points [N S 2]        | not occluded    | query_points (t, y, x) | corner; (1, 1) is the end   |

Positions are (x, y) in all of them. Sources: "A note on coordinates" in tapnet's README for the last two; CoTracker's
predictor, which takes queries (t, x, y) and scales by (W - 1), and PIPs' demo, which reads features at whole numbers.
TAP-Vid's own files have no queries: a point is asked for where it is first seen ("first"), and so it is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from flowlib.geometry import Size, from_corner, from_shares, to_corner, to_shares
from flowlib.tracks.tracks import Tracks

Origin = Literal["centre", "corner", "share"]


@dataclass(frozen=True)
class Convention:
    """How a program lays tracks out.

    Attributes:
        positions, visibility, queries: names of its arrays; `confidence` is called so in all.
        order: of a query's numbers.
        origin: what the positions are counted from, and in pixels or shares of the frame.
        points_first: [N S] instead of [S N].
        batched: with a leading axis of 1.
        hidden: its visibility says when a point can't be seen.
    """

    positions: str
    visibility: str
    queries: str
    order: Literal["txy", "tyx", "xy"] = "txy"
    origin: Origin = "centre"
    points_first: bool = False
    batched: bool = False
    hidden: bool = False


CONVENTIONS = {
    "flowlib": Convention("tracks", "visibility", "queries"),
    "cotracker": Convention("pred_tracks", "pred_visibility", "queries", batched=True),
    "pips": Convention("trajs_e", "vis_e", "xys", "xy", batched=True),
    "tapnet": Convention("tracks", "visibles", "query_points", "tyx", "corner", points_first=True),
    "tapvid": Convention("points", "occluded", "query_points", "tyx", "share", points_first=True, hidden=True),
}


def to_arrays(tracks: Tracks, convention: str = "flowlib", *, size: Size | None = None) -> dict[str, np.ndarray]:
    """Tracks as another program lays them out, see the table above.

    Args:
        tracks: of a clip.
        convention: one of `CONVENTIONS`.
        size: (height, width) of the frames; "tapvid" needs it.

    Returns:
        Arrays by its names, `confidence` among them where there is one. What is counted from the corner is float64, for
        float32 would lose digits; cast it if the program asks for less.

    Raises:
        ValueError: an unknown convention, no `size` for "tapvid", or points that "pips" can't hold, which are asked for
            in other frames than the first.

    >>> point = Tracks.still(np.array([[2, 7.0, 5.0]]), num_frames=4)      # the centre of a pixel
    >>> to_arrays(point, "tapnet")["query_points"].tolist()
    [[2.0, 5.5, 7.5]]
    """
    layout = convention_of(convention)
    _check_size(convention, size)
    arrays = {
        layout.positions: move_out(tracks.tracks, layout.origin, size),
        layout.visibility: ~tracks.visibility if layout.hidden else tracks.visibility,
    }
    if tracks.confidence is not None:
        arrays["confidence"] = tracks.confidence
    if layout.points_first:
        arrays = {name: array.swapaxes(0, 1) for name, array in arrays.items()}
    if layout.order == "xy" and tracks.queries[:, 0].any():
        late = int((tracks.queries[:, 0] > 0).sum())
        raise ValueError(f"{convention}: expected points that are asked for in frame 0, got {late} in later ones")
    if convention != "tapvid" or not follows_first(tracks):
        places = move_out(tracks.queries[:, 1:], layout.origin, size)
        x, y = places[:, 0], places[:, 1]
        columns = {"t": tracks.queries[:, 0].astype(places.dtype), "x": x, "y": y}
        arrays[layout.queries] = np.stack([columns[letter] for letter in layout.order], axis=1)
    return {name: np.ascontiguousarray(array[None] if layout.batched else array) for name, array in arrays.items()}


def from_arrays(arrays: Mapping[str, Any], convention: str = "", *, size: Size | None = None) -> Tracks:
    """Tracks of another program's arrays, see the table above; a leading axis of 1 may be there or not.

    Args:
        arrays: by its names; tensors on the CPU will do. Other entries are left alone. Without queries a point is asked
            for where it is first seen. Visibility may be a probability: visible above one half. A place that is not a
            number, where the point is hidden, becomes the query's.
        convention: one of `CONVENTIONS`; "" tells it by the names.
        size: (height, width) of the frames; "tapvid" needs it, or a `video` [S H W 3] among the arrays.

    Raises:
        ValueError: names, shapes or values of no such convention.

    >>> tapnet = {"tracks": [[[7.5, 5.5]]], "visibles": [[True]], "query_points": [[0, 5.5, 7.5]]}
    >>> from_arrays(tapnet).queries.tolist()
    [[0.0, 7.0, 5.0]]
    """
    convention = convention or _recognise(arrays)
    layout = convention_of(convention)
    missing = [name for name in (layout.positions, layout.visibility) if name not in arrays]
    if missing:
        raise ValueError(f"{convention}: expected {' and '.join(missing)}, got {_names(arrays)}")
    video = np.shape(arrays["video"]) if "video" in arrays else ()
    size = size or ((video[1], video[2]) if len(video) == 4 else None)
    _check_size(convention, size)

    positions = _array(arrays, layout.positions, (None, None, 2))
    shape = positions.shape[:2]
    visible = as_visible(_array(arrays, layout.visibility, shape), layout.visibility)
    confidence = _array(arrays, "confidence", shape) if "confidence" in arrays else None
    queries = _array(arrays, layout.queries, (None, len(layout.order))) if layout.queries in arrays else None
    if layout.points_first:
        positions, visible = positions.swapaxes(0, 1), visible.T
        confidence = None if confidence is None else confidence.T
    if queries is not None:
        columns = dict(zip(layout.order, queries.T))
        places = move_in(np.stack([columns["x"], columns["y"]], axis=1), layout.origin, size)
        queries = np.insert(places, 0, columns.get("t", 0), axis=1)
    seen = ~visible if layout.hidden else visible
    return assemble(move_in(positions, layout.origin, size), seen, queries, confidence)


def convention_of(name: str) -> Convention:
    """The convention of that name, or `ValueError`."""
    if name not in CONVENTIONS:
        raise ValueError(f"convention: expected one of {', '.join(CONVENTIONS)}, got {name!r}")
    return CONVENTIONS[name]


def first_queries(positions: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """[N 3] (t, x, y): each point where it is first seen, or in frame 0 if it never is."""
    first = visible.argmax(axis=0)
    return np.insert(positions[first, np.arange(len(first))], 0, first, axis=1)


def follows_first(tracks: Tracks) -> bool:
    """Whether its queries are those of `first_queries`, so that a file can do without."""
    return np.array_equal(first_queries(tracks.tracks, tracks.visibility), tracks.queries)


def assemble(
    positions: np.ndarray, visible: np.ndarray, queries: np.ndarray | None, confidence: np.ndarray | None
) -> Tracks:
    """Tracks of parts that have been read: with queries of its own if there are none, and places for hidden points."""
    if positions.shape != (*visible.shape, 2) or not len(visible):
        got = f"{list(positions.shape)} and {list(visible.shape)}"
        raise ValueError(f"expected positions [S N 2] and visibility [S N] of at least one frame, got {got}")
    if queries is None:
        queries = first_queries(positions, visible)
    if len(queries) == positions.shape[1]:
        nowhere = ~visible & ~np.isfinite(positions).all(axis=-1)
        positions = np.where(nowhere[..., None], queries[None, :, 1:], positions)
    if confidence is not None and confidence.dtype.kind != "f":
        confidence = confidence.astype(np.float32)
    return Tracks(positions, visible, queries, confidence)


def as_visible(values: np.ndarray, name: str) -> np.ndarray:
    """bool [...] of booleans, of 0 and 1, or of probabilities: visible above one half."""
    if values.dtype != bool and not ((values >= 0) & (values <= 1)).all():
        got = f"{values.min():g} to {values.max():g}"
        raise ValueError(f"{name}: expected booleans, or numbers from 0 to 1, got {got}")
    return values if values.dtype == bool else values > 0.5


def move_out(places: np.ndarray, origin: Origin, size: Size | None) -> np.ndarray:
    """Places [... 2] counted from the first pixel's centre -> as a convention counts them."""
    if origin == "centre":
        return places
    exact = places.astype(np.float64)
    return to_corner(exact) if origin == "corner" else to_shares(exact, _known(size))


def move_in(places: np.ndarray, origin: Origin, size: Size | None) -> np.ndarray:
    """What `move_out` gives, back: float32 if that loses nothing, so that a round trip ends where it began."""
    if origin == "centre":
        return places
    given = places.astype(np.float64)
    exact = from_corner(given) if origin == "corner" else from_shares(given, _known(size))
    with np.errstate(over="ignore"):
        narrow = exact.astype(np.float32)
    return narrow if np.array_equal(move_out(narrow, origin, size), given, equal_nan=True) else exact


def _array(arrays: Mapping[str, Any], name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """An array of numbers of a shape, None for any length; a batch's leading axis of 1 goes.

    Where the shape is known other axes of 1 go, too: CoTracker's visibility once had a last one.
    """
    found = np.asarray(arrays[name])
    if found.ndim == len(shape) + 1 and len(found) == 1:
        found = found[0]
    known = [side for side in shape if side is not None]
    if len(known) == len(shape) and [n for n in found.shape if n != 1] == [n for n in known if n != 1]:
        found = found.reshape(known)
    fits = found.ndim == len(shape) and all(side in (None, there) for side, there in zip(shape, found.shape))
    if not fits or found.dtype.kind not in "biuf":
        expected = " ".join("any" if side is None else str(side) for side in shape)
        raise ValueError(f"{name}: expected numbers of shape [{expected}], got {found.dtype} {list(found.shape)}")
    return found


def _known(size: Size | None) -> Size:
    assert size is not None, "see _check_size"
    return size


def _check_size(convention: str, size: Size | None) -> None:
    if convention_of(convention).origin == "share" and size is None:
        raise ValueError(f"size: expected the frames' (height, width), for {convention} has shares of them, got none")


def _recognise(arrays: Mapping[str, Any]) -> str:
    """The convention whose names these are; those of `visibility` are different in all."""
    found = [name for name, layout in CONVENTIONS.items() if {layout.positions, layout.visibility} <= set(arrays)]
    if len(found) != 1:
        names = "; ".join(f"{name}: {one.positions}, {one.visibility}" for name, one in CONVENTIONS.items())
        raise ValueError(f"expected the arrays of a known convention ({names}), got {_names(arrays)}")
    return found[0]


def _names(arrays: Mapping[str, Any]) -> str:
    return ", ".join(sorted(map(str, arrays))[:8]) or "none"
