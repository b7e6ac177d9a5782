"""What evaluation keeps: one kind of file for scores, hashes and pictures, whole after a kill at any byte."""

import numpy as np
import pytest
from fixtures.toy_eval import Coin, SignTask, Summing, Vectors

from flowlib.evaluation.cache import (
    Cache,
    Samples,
    from_json,
    method_fingerprint,
    picture_signs,
    strip_from_json,
    strip_to_json,
    to_json,
)
from flowlib.tasks.protocol import Picture, Strip, StripRow


@pytest.mark.parametrize("lost", [1, 5, 25, 60])
def test_a_torn_last_line_is_cut_and_nothing_else(tmp_path, lost):
    path = tmp_path / "some" / "cache.jsonl"
    cache = Cache(path)
    for number in range(3):
        cache.put(f"key {number}", {"value": number})
    whole = path.read_bytes()
    path.write_bytes(whole[:-lost])
    lines = whole[:-lost].count(b"\n")
    again = Cache(path)
    assert list(again.entries) == [f"key {number}" for number in range(lines)]
    for number in range(lines, 3):
        again.put(f"key {number}", {"value": number})
    assert path.read_bytes() == whole and Cache(path).entries == cache.entries


def test_the_last_entry_of_a_key_counts_and_others_can_be_forgotten(tmp_path):
    path = tmp_path / "cache.jsonl"
    cache = Cache(path)
    for key, value in (("a", 1), ("b", 2), ("a", 3)):
        cache.put(key, value)
    assert Cache(path).entries == {"a": 3, "b": 2}
    cache.keep(["a", "b", "c"])
    assert path.read_text().count("\n") == 3, "nothing to forget, nothing written"
    cache.keep(["b"])
    assert Cache(path).entries == cache.entries == {"b": 2} and path.read_text().count("\n") == 1


def test_a_cache_without_a_file_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = Cache(None)
    cache.put("a", 1)
    cache.keep([])
    assert cache.entries == {} and not list(tmp_path.iterdir())


def test_numbers_survive_json():
    for number in (1.5, -0.0, 1e-300, float("inf"), -float("inf")):
        assert from_json(to_json(number)) == number
    assert np.isnan(from_json(to_json(float("nan"))))


def test_strips_survive_json():
    picture = Picture(b"\xff\xd8", "a caption", b"\x00")
    strip = Strip("Best", "n", "g", "", "note", ("A", "B"), (picture, None), (StripRow("m", "1 px", (None, picture)),))
    assert strip_from_json(strip_to_json(strip)) == strip


def test_samples_are_read_once_where_the_data_says_what_it_is(tmp_path):
    class Hashed(Vectors):
        fingerprint = "0" * 64

    for data, reads in ((Vectors(), 40), (Hashed(), 20)):
        count = 0
        for _ in range(2):
            samples = Samples(SignTask(), data, tmp_path)
            count += sum(index not in samples for index in range(20))
            names = [samples[index].identity.name for index in range(20)]
        assert count == reads and names[3] == "vector 3"


def test_methods_are_told_apart_by_what_decides_their_answers():
    assert method_fingerprint(Coin()) == method_fingerprint(Coin())
    assert method_fingerprint(Summing()) == method_fingerprint(Summing())
    other = Summing()
    other.bias.data[0] = 1e-7
    assert method_fingerprint(other) != method_fingerprint(Summing())
    assert method_fingerprint(len) != method_fingerprint(len), "says nothing of itself"


def test_the_look_of_a_picture_is_which_cells_are_darker():
    ramp = np.linspace(0, 255, 170).astype(np.uint8)[None, :, None].repeat(96, axis=0).repeat(3, axis=2)
    assert (picture_signs(ramp) == 1).all() and (picture_signs(ramp[:, ::-1]) == -1).all()
    assert not picture_signs(np.full((48, 64, 3), 77, np.uint8)).any()
