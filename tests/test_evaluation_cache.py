"""What evaluation keeps: one kind of file for scores, hashes and pictures, whole after a kill at any byte."""

import copy
import os
import random
import subprocess
import sys
import threading
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import pytest
import torch
from fixtures.dataset_shards import write_dataset
from fixtures.toy_eval import Coin, SignTask, Summing, Vectors

from flowlib.dataset import TrajectoryDataset
from flowlib.evaluation import evaluate
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
from flowlib.models.baselines import ZeroMotion
from flowlib.tasks.protocol import Picture, Strip, StripRow
from flowlib.tasks.trajectories import TrajectoryTask

CLONE = Path(__file__).parents[1]


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


class Bent(torch.nn.Module):
    """A network that says nothing of itself, with one attribute of any kind."""

    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def forward(self, x):
        return x


class Set(Bent):
    """The same with a config that doesn't tell of the attribute."""

    config: ClassVar[dict] = {"depth": 3}


class Told:
    """No network; describes itself, and holds something that it doesn't tell of."""

    def __init__(self, inside, told=None):
        self.inside, self.told, self.calls = inside, told, 0

    def __call__(self, x):
        self.calls += 1
        return x

    def describe(self):
        return {"name": "told", "what": self.told}


def hooked(shift):
    network = Bent(None)
    network.register_forward_hook(lambda module, inputs, answer: answer + shift)
    return network


def unkept(shift):
    network = Bent(None)
    network.register_buffer("shift", torch.tensor(shift), persistent=False)
    return network


@dataclass
class Settings:
    gain: float
    names: tuple = ()


LONG = np.arange(5000.0)
OTHER = np.where(LONG == 2500, -1.0, LONG)  # as text the two are the same
PAIRS = {
    "number": (1.5, 1.5000001),
    "text": ("a", "b"),
    "long array": (LONG, OTHER),
    "strided array": (LONG[::2], LONG[1::2]),
    "array of objects": (np.array(["a", 1], object), np.array(["a", 2], object)),
    "tensor": (torch.tensor(LONG), torch.tensor(OTHER)),
    "half precision": (torch.ones(3, dtype=torch.bfloat16), torch.ones(3, dtype=torch.bfloat16) * 2),
    "arrays in a tuple": ((LONG, 1), (OTHER, 1)),
    "arrays in a dict": ({"a": [LONG]}, {"a": [OTHER]}),
    "set": ({"a", "b"}, {"a", "c"}),
    "dataclass": (Settings(1.0), Settings(2.0)),
    "function": (lambda x: x + 1, lambda x: x + 2),
    "partial": (partial(max, 1), partial(max, 2)),
    "tuple of both": ((Settings(1.0, ("a",)), None), (Settings(1.0, ("b",)), None)),
}
FIXED = [name for name in PAIRS if name not in ("arrays in a dict", "set", "dataclass", "function", "partial")]


@pytest.mark.parametrize(
    "make, kind", [*((make, kind) for make in (Bent, Set) for kind in PAIRS), *((Told, kind) for kind in FIXED)]
)
def test_methods_are_told_apart_by_the_bytes_of_what_they_hold(make, kind):
    one, other = PAIRS[kind]
    assert method_fingerprint(make(one)) == method_fingerprint(make(copy.deepcopy(one)))
    assert method_fingerprint(make(one)) != method_fingerprint(make(other))


def test_recurrent_networks_are_told_apart_by_their_weights():
    def made(seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.LSTM(3, 4), torch.nn.GRU(4, 2))

    assert method_fingerprint(made(0)) == method_fingerprint(made(0)) != method_fingerprint(made(1))


def test_methods_are_told_apart_by_hooks_buffers_descriptions_private_attributes_and_their_own_code():
    for make in (hooked, unkept, partial(Told, 1)):
        assert method_fingerprint(make(1.0)) == method_fingerprint(make(1.0)) != method_fingerprint(make(2.0))
    assert method_fingerprint(Told(1, LONG)) == method_fingerprint(Told(1, LONG.copy()))
    assert method_fingerprint(Told(1, LONG)) != method_fingerprint(Told(1, OTHER))
    private = Bent(1)
    private._gain = 2.0
    assert method_fingerprint(private) != method_fingerprint(Bent(1))

    def edited(gain):  # a cell of a notebook, changed and run again
        source = f"class Net(Bent):\n    gain = {gain}\n    def forward(self, x):\n        return x * {gain}"
        exec(source, space := {"Bent": Bent, "__name__": "__main__"})
        return space["Net"](1)

    assert method_fingerprint(edited(2)) == method_fingerprint(edited(2)) != method_fingerprint(edited(3))


def test_what_a_method_counts_while_it_is_used_changes_nothing_and_what_cannot_be_hashed_is_never_known():
    told = Told(1.0)
    before = method_fingerprint(told)
    told(1)
    assert method_fingerprint(told) == before
    locked = Bent(threading.Lock())
    assert method_fingerprint(locked) != method_fingerprint(locked)
    knot = Bent([])
    knot.inside.append(knot)
    assert method_fingerprint(knot) == method_fingerprint(knot)


def test_a_fingerprint_is_the_same_in_another_process():
    code = "from fixtures.toy_eval import Coin, Summing; from flowlib.evaluation.cache import method_fingerprint as f"
    code += "; from flowlib.models.baselines import ConstantVelocity as C; print(f(Coin()), f(Summing()), f(C()))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (CLONE, CLONE / "tests")))}
    runs = {subprocess.check_output([sys.executable, "-c", code], env=environment, text=True) for _ in range(2)}
    assert len(runs) == 1


@pytest.mark.parametrize("seed", range(3))
def test_a_flipped_bit_in_the_cache_is_noticed_and_no_score_changes(tmp_path, seed):
    """60 flips a seed, all over the files of scores and of samples: 180 in all."""

    class Hashed(Vectors):
        fingerprint = "0" * 64

    options = {"folder": tmp_path, "progress": False, "pictures": False}
    methods = {"sum": Summing(), "coin": Coin()}
    first = evaluate(methods, SignTask(), Hashed(), **options)
    files, draw = sorted((tmp_path / "scores").glob("*.jsonl")), random.Random(seed)
    assert len(files) == 3
    for number in range(60):
        path = files[number % 3]
        whole = path.read_bytes()
        data = bytearray(whole)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            again = evaluate(methods, SignTask(), Hashed(), **options)
        assert again.rows == first.rows and again.overall == first.overall
        assert data[-1:] != b"\n" or any(path.name in str(one.message) for one in told), "noticed, by the file's name"
        path.write_bytes(whole)


@pytest.mark.parametrize(
    "text", ["", "\n\n", "[]\n", "null\n", '{"key": 1}\n', "{" * 3000 + "\n", "\x00\xff\n", "no JSON\n"]
)
def test_a_cache_that_somebody_wrote_into_is_read_as_far_as_it_is_ours(tmp_path, text):
    path = tmp_path / "cache.jsonl"
    Cache(path).put("a", 1)
    path.write_bytes(text.encode("latin1") + path.read_bytes())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert Cache(path).entries == {"a": 1}
    assert len(told) == bool(text) and all("cache.jsonl" in str(one.message) for one in told)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Cache(path).entries == {"a": 1}, "told once, for it is mended"


def test_labels_edited_in_place_are_measured_anew(tmp_path):
    write_dataset(tmp_path / "data")
    folder = tmp_path / "report"

    def error():
        data = TrajectoryDataset(tmp_path / "data", "all")
        return data.fingerprint, evaluate(
            {"zero": ZeroMotion(data.num_frames)}, TrajectoryTask(), data, folder=folder, progress=False, pictures=False
        ).estimate("zero", "ade").mean

    fingerprint, before = error()
    assert error() == (fingerprint, before)
    shard = next((tmp_path / "data" / "shards").glob("*.h5"))
    with h5py.File(shard, "r+") as file:
        for clip in file["clips"].values():
            clip["steps"][1:] = clip["steps"][1:] + 64
    after, now = error()
    assert after == fingerprint and now != before, "the hash is the old one, the error isn't"
