"""Files of tracks: read back as written, in every convention; strangers' tables; damage told in a sentence."""

import csv
import sys
from dataclasses import replace

import numpy as np
import pytest
from fixtures.tracks import assert_equal, random_tracks
from hypothesis import given
from hypothesis import strategies as st

from flowlib.tracks import CONVENTIONS, Tracks, read_tracks, write_tracks

SIZE = (36, 64)
try:
    import pyarrow.parquet as parquet
except ImportError:
    parquet = None
needs_pyarrow = pytest.mark.skipif(parquet is None, reason="pyarrow is not installed: pip install 'flowlib[parquet]'")
KINDS = ["npz", "csv"] if parquet is None else ["npz", "csv", "parquet"]
HEADER = "frame,point,x,y,visible,confidence\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tracks")


@given(st.integers(0, 2**32 - 1), st.sampled_from(KINDS), st.sampled_from(sorted(CONVENTIONS)), st.booleans())
def test_a_file_gives_back_what_was_written(folder, seed, kind, name, confident):
    tracks = random_tracks(seed, later=name != "pips", confident=confident)
    path = write_tracks(tracks, folder / f"tracks.{kind}", convention=name, size=SIZE)
    assert_equal(read_tracks(path, convention=name, size=SIZE), tracks)


@given(st.integers(0, 2**32 - 1), st.sampled_from(KINDS))
def test_no_digit_of_float64_is_lost(folder, seed, kind):
    tracks = random_tracks(seed, dtype=np.float64)
    assert_equal(read_tracks(write_tracks(tracks, folder / f"double.{kind}")), tracks)


@needs_pyarrow
def test_parquet_has_the_columns_of_the_csv(folder):
    tracks = random_tracks(3, later=False, confident=False)
    table = parquet.read_table(write_tracks(tracks, folder / "columns.parquet"))
    assert table.column_names[:6] == HEADER.strip().split(",")
    assert table.column("confidence").null_count == len(table) and str(table.schema.field("visible").type) == "bool"


def test_without_pyarrow_a_sentence_says_what_to_do(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match="a Parquet file needs pyarrow: pip install pyarrow, or use .csv or .npz"):
        write_tracks(random_tracks(0), folder / "none.parquet")
    with pytest.raises(ImportError, match="needs pyarrow"):
        read_tracks(folder / "none.parquet")
    assert not (folder / "none.parquet").exists()


def test_a_csv_is_a_plain_table_of_six_columns(folder):
    tracks = Tracks(
        np.array([[[1.5, 2]], [[0.1, -3]]], np.float32),
        np.array([[True], [False]]),
        np.array([[0, 1.5, 2]]),
        np.array([[1.0], [0.25]]),
    )
    path = write_tracks(tracks, folder / "plain.csv")
    assert path.read_text() == HEADER + "0,0,1.5,2.0,1,1.0\n1,0,0.1,-3.0,0,0.25\n"
    path = write_tracks(replace(tracks, confidence=None), path, convention="tapnet")
    assert path.read_text().splitlines()[1] == "0,0,2.0,2.5,1,"
    later = write_tracks(replace(tracks, queries=np.array([[1, 0.1, -3]])), path)
    assert list(csv.DictReader(later.open()))[0]["query_frame"] == "1"


def test_a_strangers_table_is_taken_in_any_order(folder):
    path = folder / "stranger.csv"
    path.write_text(
        "\ufeff,y,x,visible,point,frame\n0,2.5,1.25,False,0,0\n\n1,8,9,True,1,0\n2,3,4,1.0,0,1\n3,6,7,0,1,1\n"
    )
    found = read_tracks(path)
    assert found.tracks.dtype == np.float32 and found.confidence is None
    assert found.tracks.tolist() == [[[1.25, 2.5], [9, 8]], [[4, 3], [7, 6]]]
    assert found.visibility.tolist() == [[False, True], [True, False]]
    assert found.queries.tolist() == [[1, 4, 3], [0, 9, 8]]  # where each is first seen


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "expected the columns frame, point, x, y, visible, confidence, got none called frame or point or x"),
        ("frame,point,x,visible\n", "got none called y"),
        (HEADER, "expected a row for each point in each frame, got none"),
        (HEADER + "0,0,1,2,1\n", "line 2: expected 6 cells, got 5"),
        (HEADER + "0,0,1,a,1,\n", r"y: expected numbers, could not convert string to float: .?'a'"),
        (HEADER + "0,0,1,2,maybe,\n", "visible: expected numbers, could not convert"),
        (HEADER + "0,0,1,2,3,\n", "visible: expected booleans, or numbers from 0 to 1, got 3 to 3"),
        (HEADER + "0.5,0,1,2,1,\n", "frame: expected whole numbers from 0 up"),
        (HEADER + "0,-1,1,2,1,\n", "point: expected whole numbers from 0 up"),
        (HEADER + "0,,1,2,1,\n", "point: expected whole numbers from 0 up"),
        (HEADER + "0,0,1,2,1,\n1,1,1,2,1,\n", "one row for each point in each frame, got 2 rows for 2 frames and 2"),
        (HEADER + "0,0,1,2,1,\n0,0,1,2,1,\n", "expected one row for each point in each frame, got 2 rows for 1 frames"),
        (HEADER + "2000000000,2000000000,1,2,1,\n", "got 1 rows for 2000000001 frames and 2000000001 points"),
        (HEADER + "0,0,1,,1,\n", "finite"),
        (HEADER + "0,0,1e300,2,1,\n0,1,inf,2,1,\n", "finite"),
        (HEADER + "0,0,1,2,1,0.5\n0,1,1,2,1,\n", "confidence: expected numbers from 0 to 1"),
        (HEADER + "0,0,1,2,1,7\n", "confidence: expected numbers from 0 to 1, got 7"),
        ("frame,point,x,y,visible,query_x\n0,0,1,2,1,0\n", "expected query_frame, query_x, query_y, the same in all"),
        ("frame,point,x,y,visible\n0,0,\x00,2,1\n", "expected"),
    ],
)
def test_what_is_wrong_with_a_table_is_one_sentence_that_names_it(folder, text, message, refuses):
    path = folder / "bad.csv"
    path.write_text(text)
    with refuses(message):
        read_tracks(path)
    with refuses("bad.csv: "):
        read_tracks(path)


def test_other_files_are_refused_in_a_sentence(folder, refuses):
    path = folder / "bad.npz"
    for content in (b"", b"PK\x03\x04 and no more", b"\x93NUMPY\x01\x00"):
        path.write_bytes(content)
        with refuses(r"bad.npz: expected an NPZ of plain arrays, "):
            read_tracks(path)
    np.savez(path, a=np.array([{}], object))
    with refuses(r"bad.npz: expected an NPZ of plain arrays, .*allow_pickle=False"):
        read_tracks(path)
    np.savez(path, a=np.zeros(3))
    with refuses(r"bad.npz: expected the arrays of a known convention .*, got a"):
        read_tracks(path)
    with refuses("tracks.txt: expected a file that ends in .npz, .csv, .parquet, got .txt"):
        read_tracks("tracks.txt")
    with refuses("convention: expected one of flowlib"):
        read_tracks(path, convention="x")
    with refuses("at least one point for a table, got none; an .npz takes them"):
        write_tracks(Tracks.still(np.zeros((0, 3)), 4), folder / "none.csv")
    with pytest.raises(FileNotFoundError):
        read_tracks(folder / "nowhere.npz")
    binary = folder / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00\x01" * 40)
    with refuses("binary.csv: expected a table"):
        read_tracks(binary)


def test_no_points_go_through_an_npz(folder):
    none = Tracks.still(np.zeros((0, 3), np.float32), 4)
    for name in CONVENTIONS:
        path = write_tracks(none, folder / "empty.npz", convention=name, size=SIZE)
        assert_equal(read_tracks(path, size=SIZE), none)
