"""PIPs: exact against conformance data, the same bits whatever the company, clear errors, loading in every layout."""

import hashlib
import importlib.util
import io
import tarfile

import numpy as np
import pytest
import torch

import flowlib.trackers.pips.chain as chain
import flowlib.trackers.pips.tracker as tracker_module
from flowlib.downloads import DownloadError
from flowlib.trackers.pips import PIPs, PIPsTracker, load_pips
from flowlib.trackers.pips.chain import FeatureCache, restart_frames
from flowlib.trackers.pips.fast import Fast
from flowlib.trackers.pips.network import Published, pyramid, sample_map
from flowlib.trackers.products import Convolution, OneDNN, Plain, choose_path, onednn_works

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return PIPs().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def clip():
    """Twelve frames of texture that moves, 64 × 96."""
    rng = np.random.default_rng(1)
    canvas = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    return np.stack([canvas[t : 64 + t, 2 * t : 96 + 2 * t] for t in range(12)])


@pytest.fixture(scope="module")
def queries():
    rng = np.random.default_rng(2)
    return np.concatenate([np.zeros((40, 1)), rng.uniform(-4, 100, (40, 2))], axis=1).astype(np.float32)


@pytest.mark.parametrize("case", [11, 12])
def test_float64_equals_the_conformance_data(shared, case):
    folder = shared / "conformance"
    spec = importlib.util.spec_from_file_location("pips_weights", folder / "pips_weights.py")
    spec.loader.exec_module(weights := importlib.util.module_from_spec(spec))
    with np.load(folder / f"pips_case_{case}.npz") as data:
        net = PIPs(int(data["stride"])).double()
        net.load_state_dict({name: torch.from_numpy(w) for name, w in weights.state_dict(int(data["seed"])).items()})
        out = net(torch.from_numpy(data["rgbs"])[None], torch.from_numpy(data["xys"])[None], int(data["iters"]))
        assert np.abs(out.tracks[:, 0].numpy() - data["expected_tracks"]).max() < 1e-7
        assert np.abs(out.visibility_logits[0].numpy() - data["expected_visibility_logits"]).max() < 1e-8


def test_has_the_published_parameters(shared, net):
    import json

    shapes = json.loads((shared / "conformance" / "pips_shapes.json").read_text())
    assert {name: list(tensor.shape) for name, tensor in net.state_dict().items()} == shapes
    assert sum(parameter.numel() for parameter in net.parameters()) == 28_677_713 and not list(net.buffers())


def test_the_fast_path_computes_what_the_published_one_does(net, clip, queries):
    frames = torch.from_numpy(clip[:8]).permute(0, 3, 1, 2)[None]
    exact = net.double()(frames, torch.from_numpy(queries[None, :, 1:]), iters=2)
    net.float()
    fast = PIPsTracker(net, iters=2, dtype="float64")(clip[:8], queries)
    assert np.abs(fast.tracks - exact.tracks[-1, 0].numpy()).max() < 2e-5  # a float32's rounding of 100 px
    error = np.abs(PIPsTracker(net, iters=2)(clip[:8], queries).tracks - fast.tracks).mean()
    assert error < 1e-3
    own = net(frames, torch.from_numpy(queries[None, :, 1:]), iters=2).tracks[-1, 0].numpy()
    assert error <= 2 * np.abs(own - fast.tracks).mean()
    seen = (torch.sigmoid(exact.visibility_logits[0]) > 0.5).numpy()
    outside = (fast.tracks < -0.5).any(-1) | (fast.tracks > np.array([95.5, 63.5])).any(-1)
    assert np.array_equal(fast.visibility, seen & ~outside)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_point_does_not_feel_the_others(net, clip, queries, dtype, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        tracker = PIPsTracker(net, iters=2, dtype=dtype, block=24)
        small = clip[:8, :, :64]
        whole = tracker(small, queries)
        parts = [tracker(small, part) for part in np.array_split(queries, 10)]
        order = np.random.default_rng(3).permutation(len(queries))
        shuffled = tracker(small, queries[order])
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(whole.tracks, np.concatenate([part.tracks for part in parts], axis=1))
    assert np.array_equal(whole.visibility, np.concatenate([part.visibility for part in parts], axis=1))
    assert np.array_equal(whole.tracks[:, order], shuffled.tracks)


def test_chains_do_not_feel_the_others_either(net, clip, queries):
    mixed = queries.copy()
    mixed[:, 0] = np.arange(len(mixed)) % 12
    tracker = PIPsTracker(net, iters=1, block=8)
    whole = tracker(clip, mixed)
    assert np.array_equal(whole.tracks[:, 30:], tracker(clip, mixed[30:]).tracks)
    assert np.array_equal(whole.tracks[mixed[:, 0].astype(int), np.arange(40)], mixed[:, 1:])


def test_eight_frames_backwards_are_eight_frames_forwards_of_the_reversed_clip(net, clip, queries):
    last = queries.copy()
    last[:, 0] = 7
    tracker = PIPsTracker(net, iters=1, block=40)
    backwards = tracker(clip[:8], last)
    assert np.array_equal(backwards.tracks, tracker(clip[:8][::-1], queries).tracks[::-1])


def test_a_longer_way_restarts_where_the_rule_says(net, clip, queries, monkeypatch):
    """Against the rule written out for one point after another."""
    tracker = PIPsTracker(net, iters=1, block=8)
    few = queries[:6]
    got = tracker(clip, few).tracks
    maps = [tracker._pyramid(frame) for frame in clip]
    for n, (x, y) in enumerate(few[:, 1:].astype(float)):
        place, t = torch.tensor([[x, y]], dtype=torch.float64) / 4, 0
        look, expected = sample_map(maps[0], place), np.zeros((12, 2))
        while t < 11:
            coords, seen = tracker.window([maps[min(t + i, 11)] for i in range(8)], place, look)
            expected[t:] = (coords[0, : 12 - t] * 4).numpy()[[min(i, 7) for i in range(12 - t)]]
            threshold = 0.9
            while not (above := [i for i in range(2, 8) if seen[0, i] > threshold]):
                threshold -= 0.02
            t, place = t + above[-1], coords[:, above[-1]]
        assert np.abs(got[:, n] - expected).max() < 1e-4


def test_restart_frames_take_the_last_visible_enough():
    visibility = torch.tensor([[1, 1, 0.95, 0.1, 0.1, 0.95, 0.1, 0.1], [1, 1, 0.3, 0.31, 0.1, 0.1, 0.1, 0.1]])
    assert restart_frames(visibility).tolist() == [5, 3]
    assert restart_frames(torch.zeros(3, 8)).tolist() == [7, 7, 7]
    assert restart_frames(torch.full((1, 8), torch.nan)).tolist() == [7]


def test_features_are_computed_once_a_frame_and_long_clips_keep_few(clip):
    made, maps = [], pyramid(torch.zeros(128, 16, 16))
    cache = FeatureCache(np.concatenate([clip, clip]), lambda frame: made.append(frame) or maps)
    for t in [0, 1, 2, 1, 0, 2]:
        cache[t]
    assert len(made) == 3
    for t in range(24):
        cache[t]
    assert len(made) == 24 and len(cache.kept) == chain.CACHED_FRAMES


def test_features_of_a_frame_depend_on_it_alone(net, clip):
    arithmetic = Fast(net, "float32", CPU)
    frame = torch.from_numpy(clip[3]).permute(2, 0, 1)
    first = arithmetic.features(net, frame)
    arithmetic.features(net, torch.from_numpy(clip[5]).permute(2, 0, 1))
    assert torch.equal(arithmetic.features(net, frame), first)


def test_lookups_agree_with_the_full_volume_also_beside_the_map(net):
    torch.manual_seed(4)
    double = PIPs().double()
    maps = [pyramid(torch.randn(128, 17, 24, dtype=torch.float64)) for _ in range(8)]
    features = torch.randn(50, 8, 128, dtype=torch.float64)
    coords = torch.rand(50, 8, 2, dtype=torch.float64) * 60 - 20
    coords[0] = 1e6
    local = Fast(double, "float64", CPU).correlation(maps, features, coords)
    volume = Published().correlation(maps, features, coords)
    assert (local - volume).abs().max() < 1e-9 and local.abs().max() > 0.1


@pytest.mark.parametrize("path", [OneDNN, Convolution, Plain])
def test_every_kernel_computes_the_same_product(path):
    if path is OneDNN and not onednn_works(torch.float32):
        pytest.skip("this torch has no packed product")
    x, layer = torch.randn(16, 8, 519), torch.nn.Linear(519, 64)
    expected = torch.nn.functional.gelu(layer(x)).detach()
    got = path.product(x, path.prepare(layer.weight.detach()), layer.bias.detach(), "gelu")
    assert (got - expected).abs().max() < 1e-5


def test_without_the_packed_product_another_is_taken(net, clip, queries, monkeypatch):
    packed = PIPsTracker(net, iters=1)(clip[:8], queries)
    monkeypatch.setattr(OneDNN, "prepare", staticmethod(lambda weight: torch.ops.mkldnn.no_such_operator(weight)))
    assert choose_path(torch.float32, CPU) is Convolution and choose_path(torch.bfloat16, CPU) is Plain
    other = PIPsTracker(net, iters=1)(clip[:8], queries)
    assert np.abs(other.tracks - packed.tracks).max() < 1e-3


@pytest.mark.parametrize("length", [1, 2, 7])
def test_short_clips_see_their_last_frame_repeated(net, clip, queries, length):
    padded = np.concatenate([clip[:length], np.repeat(clip[length - 1 : length], 8 - length, axis=0)])
    tracker = PIPsTracker(net, iters=1, block=40)
    assert np.array_equal(tracker(clip[:length], queries).tracks, tracker(padded, queries).tracks[:length])


def test_points_outside_are_tracked_and_never_visible_outside(net, clip):
    far = np.array([[0, -500.0, 20], [0, 1e6, -1e6], [3, 40, 1000]])
    tracks = PIPsTracker(net, iters=2, block=8)(clip[:8], far)
    assert np.isfinite(tracks.tracks).all()
    assert not tracks.visibility[far[:, 0].astype(int), range(3)].any()


def test_no_points_and_progress(net, clip, queries):
    tracker = PIPsTracker(net, iters=1, block=16)
    assert tracker(clip, np.zeros((0, 3))).tracks.shape == (12, 0, 2)
    seen = []
    mixed = queries.copy()
    mixed[:20, 0] = 5
    tracker(clip, mixed, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (60, 60) and seen == sorted(seen)


def test_bad_input_is_named(net, clip, queries, refuses):
    tracker = PIPsTracker(net)
    bad = queries.copy()
    bad[3, 1] = np.nan
    for match, frames, points in [
        ("queries: expected finite", clip, bad),
        ("frames: expected uint8", clip.astype(np.uint16), queries),
        ("frames: expected one size", [clip[0], clip[1][:32]], queries),
        ("frames: expected shape", clip[0], queries),
        ("H and W at least 64", clip[:, :40], queries),
        ("queries: expected t to be a frame from 0 to 7", clip[:8], queries + np.array([9, 0, 0], np.float32)),
    ]:
        with refuses(match):
            tracker(frames, points)
    for match, options in [
        ("iters", {"iters": 0}),
        ("block", {"block": 0}),
        ("dtype: expected one of", {"dtype": "int8"}),
        ("dtype: float16 pays on CUDA alone", {"dtype": "float16"}),
        ("device", {"device": "abacus"}),
        ("visible_above", {"visible_above": 1.5}),
    ]:
        with refuses(match):
            PIPsTracker(net, device=options.pop("device", "cpu"), **options)
    with refuses(r"frames: expected \[B 8 3 H W\]"):
        net(torch.zeros(1, 7, 3, 64, 64), torch.zeros(1, 1, 2))
    with refuses("xy: expected finite"):
        net(torch.zeros(1, 8, 3, 64, 64), torch.full((1, 1, 2), torch.nan))
    with refuses("stride"):
        PIPs(stride=3)


def test_falls_back_to_smaller_blocks_when_memory_runs_out(net, clip, queries, monkeypatch):
    tracker, window = PIPsTracker(net, iters=1, block=64), PIPsTracker.window

    def tight(self, *args):
        if self.block > 16:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        return window(self, *args)

    monkeypatch.setattr(tracker_module.PIPsTracker, "window", tight)
    with pytest.warns(UserWarning, match="blocks of 16 points"):
        tracks = tracker(clip[:8], queries)
    assert tracker.describe()["block"] == 16
    assert np.array_equal(tracks.tracks, PIPsTracker(net, iters=1, block=16)(clip[:8], queries).tracks)
    monkeypatch.setattr(tracker, "block", 16)
    monkeypatch.setattr(tracker, "window", lambda *args: (_ for _ in ()).throw(RuntimeError("other")))
    with pytest.raises(RuntimeError, match="other"):
        tracker(clip[:8], queries)


def test_weights_that_blow_up_are_an_error_not_a_crash(clip, queries, refuses):
    net = PIPs()
    net.delta_block["to_delta"]["15"].bias.data[:] = torch.nan
    with refuses("tracks: expected finite positions"):
        PIPsTracker(net, iters=2, block=8)(clip[:8], queries)


@pytest.fixture(scope="module")
def checkpoint(net, tmp_path_factory):
    """A file as the authors publish it, the optimizer's state included in kind."""
    path = tmp_path_factory.mktemp("weights") / "model-000200000.pth"
    adam = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-4}]}
    torch.save({"model_state_dict": net.state_dict(), "optimizer_state_dict": adam}, path)
    return path


def test_loads_the_published_layout_strictly(net, checkpoint):
    loaded = load_pips(checkpoint)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), loaded.state_dict().values(), strict=True))
    sha256 = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert PIPsTracker(loaded).describe()["weights_sha256"] == sha256
    assert PIPsTracker(loaded, dtype="float64").describe()["weights_sha256"] == sha256


def test_loads_the_archive_with_a_path_filter(net, checkpoint, tmp_path):
    path = tmp_path / "reference_model.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        archive.add(checkpoint, "reference_model/model-000200000.pth")
    assert torch.equal(load_pips(path).norm.weight, net.norm.weight)
    evil = tmp_path / "evil.tar"
    with tarfile.open(evil, "w") as archive:
        member = tarfile.TarInfo("../../model-000000001.pth")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises((tarfile.FilterError, ValueError)):
        load_pips(evil)
    assert not list(tmp_path.parent.glob("model-000000001.pth"))


def test_wrong_files_are_named(net, tmp_path, refuses):
    path = tmp_path / "file.pth"
    state = net.state_dict()
    for match, content in [
        ("got an optimizer's state alone", {"optimizer_state_dict": {"state": {}, "param_groups": []}}),
        ("got an optimizer's state alone", {"state": {}, "param_groups": []}),
        ("expected a dictionary of weights, got list", [1]),
        ("without delta_block.* and 197 more and with unknown layer1.weight", {"layer1.weight": torch.zeros(1)}),
        ("norm.weight of shape", {**state, "norm.weight": torch.zeros(3)}),
        ("NaN or infinity in norm.weight", {**state, "norm.weight": torch.full((128,), torch.nan)}),
    ]:
        torch.save(content, path)
        with refuses(match):
            load_pips(path)
    path.write_bytes(b"not a checkpoint")
    with refuses("expected weights that torch.save wrote, got a text: 'not a checkpoint'"):
        load_pips(path)
    with pytest.raises(FileNotFoundError, match="nothing there"):
        load_pips(tmp_path / "missing.pth")


def test_nothing_is_unpickled(tmp_path, refuses):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "proof"), "w"))

    torch.save({"model_state_dict": Evil()}, tmp_path / "evil.pth")
    with refuses("expected a dictionary of weights, got none in .model_state_dict: "):
        load_pips(tmp_path / "evil.pth")
    assert not (tmp_path / "proof").exists()


def test_the_published_file_is_asked_for_by_its_address(tmp_path, monkeypatch):
    import flowlib.trackers.pips.loading as loading

    monkeypatch.setattr(loading, "PUBLISHED", "http://127.0.0.1:9/model-000200000.pth")
    monkeypatch.setattr("flowlib.downloads.PAUSE", 0.0)
    with pytest.raises(DownloadError, match="no connection to 127.0.0.1"):
        load_pips(folder=tmp_path)


def test_looks_are_kept_along_a_chain(net, clip, queries, monkeypatch):
    """A particle is looked at once, in its query's frame."""
    sampled = []
    original = chain.sample_map
    monkeypatch.setattr(chain, "sample_map", lambda levels, xy: sampled.append(len(xy)) or original(levels, xy))
    PIPsTracker(net, iters=1, block=8)(clip, queries)
    assert sum(sampled) == len(queries)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "tf32"])
def test_cuda_agrees_with_the_cpu(net, clip, queries, dtype):
    exact = PIPsTracker(net, iters=1, dtype="float64", device="cpu")(clip[:8], queries)
    tracker = PIPsTracker(net, iters=1, dtype=dtype, device="cuda", block=64)
    got = tracker(clip[:8], queries)
    assert np.abs(got.tracks - exact.tracks).mean() < (1e-3 if dtype == "float32" else 0.2)
    parts = [tracker(clip[:8], part).tracks for part in np.array_split(queries, 10)]
    assert np.array_equal(got.tracks, np.concatenate(parts, axis=1))
