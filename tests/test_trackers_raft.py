"""RAFT as a tracker: the door and the loading by random weights, the figures by the real ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models.optical_flow import raft_large, raft_small

from flowlib.geometry import pixel_grid
from flowlib.synthetic import synthetic_clip
from flowlib.trackers import Tracker, make_tracker
from flowlib.trackers.raft import RAFTTracker
from flowlib.video import decode_image
from flowlib.workspace import sha256_file

SIZE = (60, 80)
WEIGHTS = "data/weights/raft_large_things_torchvision.pth"


def random_queries(seed: int, number: int, num_frames: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t, x, y = rng.integers(0, num_frames, number), rng.uniform(0, 79, number), rng.uniform(0, 59, number)
    return np.column_stack([t, x, y]).astype(np.float32)


def read_flo(path: Path) -> np.ndarray:
    """A Middlebury .flo file: a tag, width and height, then (u, v) row by row; above 1e9 means unknown."""
    data = path.read_bytes()
    assert np.frombuffer(data, "<f4", 1)[0] == np.float32(202021.25)
    width, height = np.frombuffer(data, "<i4", 2, offset=4)
    return np.frombuffer(data, "<f4", offset=12).reshape(height, width, 2)


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(raft_large(weights=None).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def untrained(random_weights) -> RAFTTracker:
    return RAFTTracker(random_weights, device="cpu", iters=1, chunk=2)


@pytest.fixture(scope="module")
def trained(shared) -> RAFTTracker:
    return RAFTTracker(shared / WEIGHTS)


def test_the_call_gives_what_every_tracker_gives(untrained):
    frames, _ = synthetic_clip(4, (50, 131), seed=1)  # neither multiples of 8 nor large enough for the network
    queries = np.array([[0, 60, 20], [2, 10.5, 30.25], [3, 130, 49], [1, -9, 20], [1, 20, 1e6]], np.float32)
    found = untrained(frames, queries)
    assert isinstance(untrained, Tracker)
    assert found.tracks.shape == (4, 5, 2) and found.tracks.dtype == np.float32
    start = queries[:, 0].astype(int)
    np.testing.assert_array_equal(found.tracks[start, np.arange(5)], queries[:, 1:])
    assert found.visibility[start[:3], np.arange(3)].all()
    assert not found.visibility[:, 3:].any()
    np.testing.assert_array_equal(found.tracks[:, 3:], np.tile(queries[3:, 1:], (4, 1, 1)))


def test_points_do_not_depend_on_each_other_nor_results_on_the_chunk(untrained, random_weights):
    frames, _ = synthetic_clip(3, SIZE, seed=2)
    queries = random_queries(0, 30, 3)
    order = np.random.default_rng(1).permutation(30)[:17]
    whole, some = untrained(frames, queries), untrained(frames, queries[order])
    np.testing.assert_allclose(some.tracks, whole.points(order).tracks, atol=1e-4)
    np.testing.assert_array_equal(some.visibility, whole.points(order).visibility)
    other = RAFTTracker(random_weights, device="cpu", iters=1, chunk=1)(frames, queries)
    np.testing.assert_allclose(other.tracks, whole.tracks, atol=1e-2)


def test_time_may_run_backwards(untrained):
    frames, _ = synthetic_clip(3, SIZE, seed=3)
    queries = random_queries(0, 20, 3)
    there = untrained(frames, queries)
    back = untrained(frames[::-1], there.reverse().queries).reverse()
    np.testing.assert_allclose(back.tracks, there.tracks, atol=1e-2)


def test_one_frame_or_no_points_need_no_flow(untrained):
    frames, _ = synthetic_clip(2, SIZE)
    assert untrained(frames[:1], random_queries(0, 3, 1)).visibility.all()
    assert untrained(frames, np.zeros((0, 3))).tracks.shape == (2, 0, 2)


def test_it_says_what_it_is(untrained, random_weights):
    assert untrained.describe() == {"name": "raft", "iters": 1, "weights_sha256": sha256_file(random_weights)}
    assert make_tracker("raft", weights=str(random_weights), device="cpu").describe()["iters"] == 12


def test_files_of_something_else_are_refused(tmp_path, random_weights, refuses):
    state = torch.load(random_weights, weights_only=True)
    name = "update_block.flow_head.conv2.weight"
    small = raft_small(weights=None).state_dict()
    wrong = {
        r"small\.pth: expected the 169 tensors of torchvision's raft_large, got a file without .* and \d+ more": small,
        r"list\.pth: .*got list": [1, 2],
        rf"shape\.pth: expected {name} of shape .*, got \[1, ": state | {name: state[name][:1]},
        r"more\.pth: .*got a file without none and with unknown fc\.weight": state | {"fc.weight": torch.zeros(1)},
    }
    for message, content in wrong.items():
        path = tmp_path / f"{message.split(chr(92))[0]}.pth"
        torch.save(content, path)
        with refuses(message):
            RAFTTracker(path)
    (tmp_path / "text.pth").write_text("not weights")
    with refuses(r"text\.pth: expected weights that torch.save wrote, got a text: 'not weights'"):
        RAFTTracker(tmp_path / "text.pth")
    (tmp_path / "half.pth").write_bytes(random_weights.read_bytes()[:10000])
    with refuses(r"half\.pth: expected weights that torch.save wrote, got "):
        RAFTTracker(tmp_path / "half.pth")
    with refuses("nowhere.pth", FileNotFoundError):
        RAFTTracker(tmp_path / "nowhere.pth")


def test_nothing_in_a_file_is_run(tmp_path, refuses):
    torch.save({"weights": Path("a pickled object")}, tmp_path / "object.pth")
    with refuses(r"object\.pth: expected a dictionary of weights, got none in .weights: pathlib.PosixPath"):
        RAFTTracker(tmp_path / "object.pth")


def test_bad_arguments_are_refused(random_weights, untrained, refuses):
    for arguments, message in [({"iters": 0}, "iters"), ({"chunk": 0}, "chunk"), ({"device": "toaster"}, "device")]:
        with refuses(message):
            RAFTTracker(random_weights, **arguments)
    with refuses("device: expected one that is here"):
        RAFTTracker(random_weights, device="cuda:99")
    with refuses("expected uint8"):
        untrained(np.zeros((2, 9, 9, 3)), np.zeros((1, 3)))
    with refuses("flow: expected two of"):
        untrained.flow(np.zeros((1, 9, 9, 3), np.uint8), np.zeros((1, 9, 8, 3), np.uint8))


def test_end_point_error_of_a_real_pair(trained, shared):
    """The authors' weights give 0.185 px in the mean; dense queries, read at the pixels themselves."""
    folder = shared / "data/gt/middlebury/RubberWhale"
    frames = np.stack([decode_image((folder / f"frame{i}.png").read_bytes()) for i in (10, 11)])
    truth = read_flo(folder / "flow10.flo")
    grid = pixel_grid(truth.shape[:2]).reshape(-1, 2)
    found = trained(frames, np.insert(grid, 0, 0, axis=1))
    error = np.linalg.norm(found.displacement[1] - truth.reshape(-1, 2), axis=-1)
    assert error[(np.abs(truth) < 1e9).all(-1).ravel()].mean() < 0.2


def test_synthetic_clips_are_followed_within_a_fraction_of_a_pixel(trained):
    frames, scene = synthetic_clip(4, (128, 160), seed=1, motion="affine", camera="linear")
    queries = random_queries(0, 400, 4) * [1, 2, 2.1]
    found, truth = trained(frames, queries), scene.tracks(queries)
    both = found.visibility & truth.visibility
    error = np.linalg.norm(found.tracks - truth.tracks, axis=-1)[both]
    assert np.median(error) < 0.2 and error.mean() < 0.4
    assert (found.visibility == truth.visibility).mean() > 0.95
