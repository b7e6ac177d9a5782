"""Files of tracks: NPZ, CSV and Parquet, in any program's convention, written and read back without loss.

An NPZ holds the arrays of `conventions.to_arrays`. A table, CSV or Parquet, has a row for each point in each frame:

    frame, point, x, y, visible, confidence

`visible` is 0 or 1 (in Parquet a boolean), `confidence` is empty where there is none. Points that are not asked for
where they are first seen need `query_frame`, `query_x` and `query_y`, too, the same in all rows of a point. x and y are
counted as the convention says.
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterable, Mapping
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from flowlib.geometry import Size
from flowlib.tracks.conventions import (
    as_visible,
    assemble,
    convention_of,
    follows_first,
    from_arrays,
    move_in,
    move_out,
    to_arrays,
)
from flowlib.tracks.tracks import Tracks
from flowlib.workspace import atomic_write

SUFFIXES = (".npz", ".csv", ".parquet")
COLUMNS = ("frame", "point", "x", "y", "visible", "confidence")
QUERY = ("query_frame", "query_x", "query_y")
TRUE, FALSE = ("1", "true", "1.0"), ("0", "false", "0.0")


def write_tracks(tracks: Tracks, path: str | Path, *, convention: str = "flowlib", size: Size | None = None) -> Path:
    """Write tracks as a file, atomically; its suffix, .npz, .csv or .parquet, says what kind.

    Numbers are written such that `read_tracks` gives them back as they were.

    Args:
        tracks: of a clip.
        path: where; folders are made.
        convention, size: as `to_arrays`.

    Raises:
        ValueError: another suffix, as `to_arrays`, or no points, which a table can't hold.
        ImportError: Parquet, and pyarrow isn't installed.

    >>> still = Tracks.still(np.array([[0, 3.0, 4.0]]), num_frames=2)
    >>> print(write_tracks(still, "tracks.csv").read_text().splitlines()[0])
    frame,point,x,y,visible,confidence
    """
    path = Path(path)
    kind = _kind(path)
    if kind == ".npz":
        arrays = to_arrays(tracks, convention, size=size)
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
        return path
    columns = _columns(tracks, convention, size)
    if kind == ".csv":
        with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(zip(*(_texts(column) for column in columns.values())))
        return path
    pyarrow, parquet = _pyarrow()
    empty = pyarrow.nulls(tracks.visibility.size, pyarrow.float32())
    table = pyarrow.table({name: empty if column is None else column for name, column in columns.items()})
    with atomic_write(path) as temporary:
        parquet.write_table(table, temporary)
    return path


def read_tracks(path: str | Path, *, convention: str = "", size: Size | None = None) -> Tracks:
    """Read tracks from a file, whoever wrote it, see the module's header.

    Args:
        path: ends in .npz, .csv or .parquet.
        convention: one of `CONVENTIONS`. "" tells an NPZ's by its names, and takes a table for "flowlib"'s, for nothing
            in it tells.
        size: as `from_arrays`.

    Raises:
        ValueError: no such file; the message names it and what is wrong.
        FileNotFoundError: none there.
        ImportError: Parquet, and pyarrow isn't installed.
    """
    path = Path(path)
    kind = _kind(path)
    if convention:
        convention_of(convention)
    try:
        if kind == ".npz":
            return from_arrays(_read_npz(path), convention, size=size)
        return _from_columns(_read_csv(path) if kind == ".csv" else _read_parquet(path), convention or "flowlib", size)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{path}: {error}") from error


def _kind(path: Path) -> str:
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"{path}: expected a file that ends in {', '.join(SUFFIXES)}, got {path.suffix or 'no suffix'}"
        )
    return path.suffix.lower()


def _columns(tracks: Tracks, convention: str, size: Size | None) -> dict[str, np.ndarray | None]:
    """The columns of a table, all of S·N rows, frame after frame; None for an empty one."""
    S, N = tracks.visibility.shape
    if not tracks.visibility.size:
        raise ValueError("tracks: expected at least one point for a table, got none; an .npz takes them")
    to_arrays(tracks.points([0]), convention, size=size)  # refuses what the convention can't hold
    origin = convention_of(convention).origin
    frame, point = np.indices((S, N)).reshape(2, -1)
    places = move_out(tracks.tracks, origin, size).reshape(-1, 2)
    confidence = None if tracks.confidence is None else tracks.confidence.ravel()
    parts = (frame, point, places[:, 0], places[:, 1], tracks.visibility.ravel(), confidence)
    columns: dict[str, np.ndarray | None] = dict(zip(COLUMNS, parts))
    if not follows_first(tracks):
        asked = move_out(tracks.queries[:, 1:], origin, size)
        parts = (tracks.queries[:, 0].astype(int), asked[:, 0], asked[:, 1])
        columns |= {name: np.tile(part, S) for name, part in zip(QUERY, parts)}
    return columns


def _texts(column: np.ndarray | None) -> Iterable[str]:
    """Each number in as few digits as tell it from its neighbours of the same type."""
    if column is None:
        return repeat("")
    return (column.astype(int) if column.dtype == bool else column).astype(str)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"expected an NPZ of plain arrays, {error}") from error


def _read_csv(path: Path) -> dict[str, np.ndarray]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            rows = list(csv.reader(file))
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"expected a table with the columns {', '.join(COLUMNS)}, {error}") from error
    header, *rows = [[cell.strip() for cell in row] for row in rows if row] or [[]]
    _check_names(header)
    for line, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise ValueError(f"line {line}: expected {len(header)} cells, got {len(row)}")
    columns = dict(zip(header, map(np.array, zip(*rows)))) if rows else {}
    return {name: _numbers(columns[name], name) for name in (*COLUMNS, *QUERY) if name in columns}


def _numbers(texts: np.ndarray, name: str) -> np.ndarray:
    """A column's numbers, float64; NaN where a cell is empty."""
    texts = np.char.lower(texts)
    if name == "visible":
        texts = np.where(np.isin(texts, TRUE), "1", np.where(np.isin(texts, FALSE), "0", texts))
    try:
        return np.where(texts == "", "nan", texts).astype(np.float64)
    except ValueError as error:
        raise ValueError(f"{name}: expected numbers, {str(error).replace('np.str_', '')}") from error


def _read_parquet(path: Path) -> dict[str, np.ndarray]:
    _, parquet = _pyarrow()
    try:
        table = parquet.read_table(path)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise ValueError(f"expected a Parquet file, {error}") from error
    _check_names(table.column_names)
    columns = {name: table.column(name) for name in (*COLUMNS, *QUERY) if name in table.column_names}
    return {name: np.asarray(column.to_numpy(), np.float64) for name, column in columns.items()}


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow  # pyright: ignore[reportMissingImports]
        import pyarrow.parquet  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("a Parquet file needs pyarrow: pip install pyarrow, or use .csv or .npz") from error
    return pyarrow, pyarrow.parquet


def _check_names(names: list[str]) -> None:
    missing = [name for name in COLUMNS[:5] if name not in names]
    if missing:
        raise ValueError(f"expected the columns {', '.join(COLUMNS)}, got none called {' or '.join(missing)}")


def _from_columns(columns: Mapping[str, np.ndarray], convention: str, size: Size | None) -> Tracks:
    """Tracks of a table's columns, its rows in any order."""
    if not columns or not len(columns["frame"]):
        raise ValueError("expected a row for each point in each frame, got none")
    origin = convention_of(convention).origin
    frame, point = (_whole(columns[name], name) for name in ("frame", "point"))
    S, N = int(frame.max()) + 1, int(point.max()) + 1
    place = frame * N + point
    if len(place) != S * N or len(np.unique(place)) != len(place):
        got = f"{len(place)} rows for {S} frames and {N} points"
        raise ValueError(f"expected one row for each point in each frame, got {got}")
    order = np.argsort(place)
    column = {name: values[order].reshape(S, N) for name, values in columns.items()}
    visible = as_visible(column["visible"], "visible")
    empty = "confidence" not in column or np.isnan(column["confidence"]).all()
    confidence = None if empty else column["confidence"].astype(np.float32)
    queries = None
    if there := [name for name in QUERY if name in column]:
        if len(there) < len(QUERY) or any((column[name] != column[name][0]).any() for name in there):
            raise ValueError(f"expected {', '.join(QUERY)}, the same in all rows of a point, got others")
        asked = _narrowed(np.stack([column["query_x"][0], column["query_y"][0]], axis=-1), origin, size)
        queries = np.insert(asked, 0, column["query_frame"][0], axis=1)
    return assemble(
        _narrowed(np.stack([column["x"], column["y"]], axis=-1), origin, size), visible, queries, confidence
    )


def _narrowed(written: np.ndarray, origin: Any, size: Size | None) -> np.ndarray:
    """Places as float32 if these would be written as the same numbers, else as float64."""
    if origin != "centre":
        return move_in(written, origin, size)
    with np.errstate(over="ignore"):
        narrow = written.astype(np.float32)
    said = narrow.astype(np.float64)
    if not np.array_equal(said, written, equal_nan=True):
        other = said != written
        said[other] = narrow[other].astype(str).astype(np.float64)
    return narrow if np.array_equal(said, written, equal_nan=True) else written


def _whole(numbers: np.ndarray, name: str) -> np.ndarray:
    if not (numbers == np.floor(numbers)).all() or not ((numbers >= 0) & (numbers < 2**31)).all():  # NaN is neither
        raise ValueError(f"{name}: expected whole numbers from 0 up, got others")
    return numbers.astype(np.int64)
