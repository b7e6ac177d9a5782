"""Files of weights in every wrapping that people publish, and in none that runs: looked through, or one sentence."""

from __future__ import annotations

import argparse
import collections
import datetime
import gzip
import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import flowlib.weight_files as weights
from flowlib.flow import RAFTFlow
from flowlib.models.fcn import TrajectoryFCN
from flowlib.trackers.pips import PIPs, load_pips
from flowlib.weight_files import load_strictly, read_weights


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Linear(4, 2)))


STATE = network().state_dict()
ADAM = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": np.float64(1e-4)}]}


class Own:
    """A class that only the writer of a file has."""

    def __init__(self):
        self.lr = 1e-4


def named(prefix: str, state: dict) -> dict:
    return {prefix + key: value for key, value in state.items()}


def wrapped(state: dict) -> dict[str, dict]:
    """A network's tensors as people publish them."""
    return {
        "plain": state,
        "module.": named("module.", state),
        "_orig_mod.": named("_orig_mod.", state),
        "_orig_mod.module.": named("_orig_mod.module.", state),
        "module._orig_mod.": named("module._orig_mod.", state),
        "Lightning": {"state_dict": named("model.", state), "pytorch-lightning_version": "2.0", "epoch": 3},
        "net.": {"state_dict": named("net.", state)},
        "averaged": {"n_averaged": torch.tensor(3)} | named("module.", state),
        "state_dict": {"state_dict": state},
        "model": {"model": state, "epoch": 1, "loss": torch.tensor(0.3)},
        "nested": {"model": {"state_dict": named("module.", state)}, "optimizer": ADAM},
        "ema beside": {"ema": {key: value + 1 for key, value in state.items()}, "model": state},
        "a name of its own": {"weights_of_mine": state, "rng": [1, 2]},
        "numpy number": {"model_state_dict": state, "lr": np.float64(1e-4), "step": np.int64(7)},
        "numpy in optimizer": {"model_state_dict": state, "optimizer_state_dict": ADAM},
        "numpy array": {"model": state, "mean": np.zeros(3), "rng": np.random.default_rng(0).bit_generator.state},
        "numpy beside": state | {"lr": np.float32(3)},
        "arguments": {"model": state, "args": argparse.Namespace(lr=1e-4, out=Path("x"))},
        "date, path": {"model": state, "when": datetime.datetime(2024, 1, 1), "where": Path("x"), Path("y"): 1},
        "an own class": {"model": state, "config": Own(), "all": [Own(), {Own()}]},
        "half": {"model": {key: value.double() for key, value in state.items()}},
    }


@pytest.mark.parametrize("kind", wrapped(STATE))
def test_every_wrapping_is_looked_through(tmp_path, kind):
    torch.save(wrapped(STATE)[kind], tmp_path / "w.pth")
    got = read_weights(tmp_path / "w.pth")
    assert {key: value.shape for key, value in got.items()} == {key: value.shape for key, value in STATE.items()}
    assert all(
        torch.equal(got[key], value.float() if value.is_floating_point() else value) for key, value in STATE.items()
    )
    empty = network()
    nn.init.zeros_(empty[0].weight)
    load_strictly(empty, tmp_path / "w.pth", "the network")
    assert torch.equal(empty[0].weight, STATE["0.weight"])


@pytest.mark.parametrize("kind", ["plain", "module.", "nested", "numpy in optimizer", "arguments"])
def test_the_old_format_and_archives_too(tmp_path, kind):
    torch.save(wrapped(STATE)[kind], tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert read_weights(tmp_path / "old.pth").keys() == STATE.keys()
    for mode in ("w", "w:gz", "w:bz2", "w:xz"):
        with tarfile.open(tmp_path / "all.tar", mode) as archive:
            archive.add(tmp_path / "old.pth", "run/model-7.pth")
        assert read_weights(tmp_path / "all.tar").keys() == STATE.keys()


class Evil:
    def __init__(self, call, *args):
        self.reduced = call, args

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("call", [open, os.system, eval, getattr, nn.Linear])
def test_nothing_of_a_file_is_run(tmp_path, monkeypatch, refuses, call, beside, zipped):
    monkeypatch.chdir(tmp_path)
    arguments = {open: ("proof", "w"), os.system: ("touch proof",), eval: ("open('proof', 'w')",)}
    evil = Evil(call, *arguments.get(call, (1, 2)))
    torch.save({"x": evil} | (STATE if beside else {}), "w.pth", _use_new_zipfile_serialization=zipped)
    refused = call is os.system or (call is nn.Linear and not zipped)  # torch has no stand-ins for these
    if beside and not refused:  # it is an empty thing beside the weights
        assert read_weights("w.pth").keys() == STATE.keys()
    else:
        with refuses("expected .*weights.*, got (none in .x: |objects that would have to be run)"):
            read_weights("w.pth")
    assert not Path("proof").exists()


def test_the_stand_ins_do_not_stay(tmp_path):
    torch.save({"model": STATE, "x": Own()}, tmp_path / "w.pth")
    before = set(torch.serialization.get_safe_globals())
    read_weights(tmp_path / "w.pth")
    assert set(torch.serialization.get_safe_globals()) == before


def saved(content) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def zipped(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize(
    "content, found",
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 344\n", "a Git LFS pointer .*git lfs pull"),
        (b"<!-- a --><html></html>", "a web page"),
        (b'{"error": "no"}', "a text: "),
        (b"", "an empty one"),
        (bytes(9999), "zeros"),
        (b"\x89HDF\r\n\x1a\n\0\0", "an HDF5 file"),
        (gzip.compress(saved(STATE)), "another kind of file"),
        (zipped("a.txt", b"text"), "damaged data"),
        (saved(STATE)[:-4000], "another kind of file|damaged data"),
        (saved(STATE["0.weight"]), "Tensor"),
        (saved([STATE]), "list"),
        (saved(network()), "an object, torch.nn.modules.container.Sequential .save its state_dict"),
        (saved({"model": network(), "epoch": 3}), "none in {model: torch.nn.modules.container.Sequential, epoch: "),
        (saved({}), "none in {}"),
        (saved({"state_dict": {}}), "none in {state_dict: "),
        (saved(ADAM), "an optimizer's state alone"),
        (saved({"model": STATE, "optimizer": ADAM, "meta": "{}"}), "a checkpoint of a training run"),
        (saved({"generator": STATE, "discriminator": STATE}), "several: generator, discriminator; save"),
        (saved(STATE | {"0.bias": torch.full((4,), torch.inf)}), "NaN or infinity in 0.bias"),
        (zipped("w/constants.pkl", b"\x80\x02)."), "a TorchScript program"),
    ],
)
def test_what_holds_no_weights_is_named(tmp_path, refuses, content, found):
    (tmp_path / "w.pth").write_bytes(content)
    with refuses(rf"w\.pth: expected .*, got .*({found})"):
        load_strictly(network(), tmp_path / "w.pth", "the network")


def test_no_message_repeats_the_advice_to_run_a_file(tmp_path):
    contents = [
        saved(Evil(os.system, "x")),
        saved(collections.defaultdict(int, STATE)),
        b"\x80\x02cos\nsystem\n.",
        zipped("w/constants.pkl", b"\x80\x02)."),
    ]
    for content in contents:
        (tmp_path / "w.pth").write_bytes(content)
        with pytest.raises(ValueError) as caught:
            read_weights(tmp_path / "w.pth")
        assert "weights_only" not in str(caught.value) and "trust" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_what_may_not_be_read_is_said_as_it_is(tmp_path, monkeypatch):
    torch.save(STATE, tmp_path / "w.pth")
    with pytest.raises(FileNotFoundError):
        read_weights(tmp_path / "none.pth")
    monkeypatch.setattr(torch, "load", lambda *args, **options: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(OSError, match="Input/output error"):
        read_weights(tmp_path / "w.pth")


def add(archive: tarfile.TarFile, name: str, content: bytes = b"", **more) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in more.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("name", ["{out}/model-1.pth", "../../model-1.pth", "a/../../model-1.pth", "model-1.pth"])
def test_no_member_of_an_archive_leaves_it(tmp_path, name):
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in" / "w.tar", "w") as archive:
        add(archive, name.format(out=tmp_path), saved(STATE))
        add(archive, "notes.txt", b"text")
        add(archive, "model-9.pth", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(archive, "model-8.pth", type=tarfile.FIFOTYPE)
    assert read_weights(tmp_path / "in" / "w.tar").keys() == STATE.keys()
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "w.tar"]


def test_of_an_archive_the_highest_number_is_taken(tmp_path, refuses):
    with tarfile.open(tmp_path / "w.tar", "w") as archive:
        for step in (999, 1000, 30):
            add(archive, f"run/model-{step}.pth", saved({"step": torch.full((1,), float(step))}))
    assert read_weights(tmp_path / "w.tar")["step"] == 1000
    for names in (["a.txt"], ["encoder.pth", "decoder.pth"]):
        with tarfile.open(tmp_path / "w.tar", "w") as archive:
            for name in names:
                add(archive, name, b"x")
        with refuses(rf"one network's checkpoints .*, got \['{names[0]}'"):
            read_weights(tmp_path / "w.tar")


def test_an_archive_that_claims_too_much_is_left(tmp_path, refuses, monkeypatch):
    monkeypatch.setattr(weights, "LARGEST", 1_000_000)
    with tarfile.open(tmp_path / "w.tar.gz", "w:gz") as archive:
        add(archive, "model-1.pth", bytes(3_000_000))
    with refuses("expected an archive of at most"):
        read_weights(tmp_path / "w.tar.gz")


@pytest.mark.parametrize("kind", ["zip", "old", "tar.gz"])
def test_damage_is_one_sentence_or_other_numbers(tmp_path, kind):
    path, rng = tmp_path / "w.pth", np.random.default_rng(0)
    torch.save({"model": STATE, "lr": np.float64(1)}, path, _use_new_zipfile_serialization=kind != "old")
    if kind == "tar.gz":
        with tarfile.open(tmp_path / "w.tar.gz", "w:gz") as archive:
            archive.add(path, "model-1.pth")
        path = tmp_path / "w.tar.gz"
    whole, refused = path.read_bytes(), 0
    for i in range(150):
        data = bytearray(whole)
        if i % 3 == 0:
            del data[rng.integers(len(data)) :]
        for at in rng.integers(0, max(1, len(data)), 1 + i % 7):
            data[at : at + 1] = bytes(rng.integers(0, 256, 1, np.uint8))
        path.write_bytes(data)
        try:
            read_weights(path)
        except ValueError as error:
            assert str(path) in str(error) and "weights_only" not in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("kind", ["module.", "Lightning", "numpy in optimizer"])
def test_every_loader_looks_through_alike(tmp_path, kind):
    path = tmp_path / "w.pth"
    small = {"num_frames": 2, "backbone": "lraspp_mobilenet_v3_large"}
    model = TrajectoryFCN(**small, weights="none")
    torch.save(wrapped(model.backbone.state_dict())[kind], path)
    assert torch.equal(TrajectoryFCN(**small, weights=str(path)).backbone["0"][0].weight, model.backbone["0"][0].weight)
    if kind == "module.":  # the large ones take the same way
        net = PIPs()
        torch.save(wrapped(net.state_dict())[kind], path)
        assert torch.equal(load_pips(path).norm.weight, net.norm.weight)


def test_raft_looks_through_too(tmp_path):
    from torchvision.models.optical_flow import raft_large

    state = raft_large(weights=None).state_dict()
    torch.save(wrapped(state)["numpy in optimizer"], tmp_path / "w.pth")
    loaded = RAFTFlow(tmp_path / "w.pth", device="cpu").network.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())
