"""The loss of trajectories against its definition, point by point, and against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlib.models.protocols import TrajectoryPrediction
from flowlib.tasks.trajectories.batch import Frames
from flowlib.tasks.trajectories.loss import RELATIVE_FLOOR, Targets, loss_sums, pointwise, total_loss
from flowlib.tasks.trajectories.task import fit_target_scale

KINDS = ["mse", "l1", "huber", "charbonnier", "laplace"]
HEIGHT, WIDTH = 12, 20


def random_points(seed, B=2, S=4, N=3):
    """Points between the pixels, seen or not, that walk at random through all frames; the query's frame is 0."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(1, 10, (B, 1, N, 2))
    walk = rng.normal(0, 3, (B, S, N, 2))
    walk[:, 0] = 0
    return {
        "tracks": torch.from_numpy(start + walk).float(),
        "visibility": torch.from_numpy(rng.random((B, S, N)) < 0.6),
        "queries": torch.from_numpy(np.concatenate([np.zeros((B, N, 1)), start[:, 0]], axis=-1)).float(),
    }


def targets_of(points, frames, asked=None):
    """The targets of a batch of the predicted frames; points that `asked` leaves out are padding, zeros all over."""
    chosen = list(frames)
    batch = {
        "tracks": points["tracks"][:, chosen],
        "visibility": points["visibility"][:, chosen],
        "queries": points["queries"],
        "frames": torch.tensor([chosen] * len(points["tracks"])),
    }
    return Targets.of(batch if asked is None else batch | {"asked": asked})


def make_prediction(seed, frames, B=2):
    """Each frame's field is the same everywhere; returned as a prediction and as arrays by batch and frame."""
    rng = np.random.default_rng(seed)
    moves, logits = rng.normal(0, 2, (B, len(frames), 2)), rng.normal(0, 2, (B, len(frames)))
    scales = rng.uniform(-1, 1, (B, len(frames)))
    fields = [torch.from_numpy(a)[..., None, None].float() for a in (moves, logits, scales)]
    fields = [field.expand(*field.shape[:-2], HEIGHT, WIDTH).contiguous() for field in fields]
    return TrajectoryPrediction(fields[0], fields[1], frames, fields[2]), moves, logits, scales


def slow_pointwise(dx, dy, kind, log_scale=0.0):
    def one(error):
        size = abs(error)
        if kind == "mse":
            return error * error
        if kind == "l1":
            return size
        if kind == "huber":
            return error * error / 2 if size <= 1 else size - 0.5
        if kind == "charbonnier":
            return math.sqrt(error * error + 1e-4) - 1e-2
        return -math.log(math.exp(-size / math.exp(log_scale)) / (2 * math.exp(log_scale)))

    return (one(dx) + one(dy)) / 2


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    masked=st.booleans(),
    frames=st.sampled_from([(0, 1, 2, 3), (1, 3), (3,), (0, 2), (2, 3)]),
    scale=st.sampled_from([1.0, 0.5, 4.0]),
    padded=st.sampled_from([None, 0, 1, 2]),
    seed=st.integers(0, 10**6),
)
def test_sums_and_counts_are_what_slow_loops_find(kind, masked, frames, scale, padded, seed):
    """With `padded` the second clip has that many points, the rest of its three is padding."""
    points, asked = random_points(seed), None
    if padded is not None:
        asked = torch.tensor([[True] * 3, [n < padded for n in range(3)]])
        for name, values in points.items():
            if name == "queries":
                values[1, padded:] = 0
            else:
                values[1, :, padded:] = 0
    prediction, moves, logits, scales = make_prediction(seed + 1, frames)
    expected, counts = [0.0] * 4, [0] * 4
    for b in range(2):
        for f, frame in enumerate(frames):
            for n in range(3 if padded is None or b == 0 else padded):
                seen = bool(points["visibility"][b, frame, n])
                x, y = (points["tracks"][b, frame, n] - points["queries"][b, n, 1:]).tolist()
                dx, dy = moves[b, f, 0] - x, moves[b, f, 1] - y
                probability = 1 / (1 + math.exp(-logits[b, f]))
                expected[1] -= math.log(probability if seen else 1 - probability)
                counts[1] += 1
                if frame == 0:
                    continue  # zero by definition
                expected[3] += (logits[b, f] > 0) == seen
                counts[3] += 1
                if seen or not masked:
                    expected[0] += slow_pointwise(dx / scale, dy / scale, kind, scales[b, f] - math.log(scale))
                    counts[0] += 1
                if seen:
                    expected[2] += math.hypot(dx, dy)
                    counts[2] += 1
    targets = targets_of(points, frames, asked)
    found = loss_sums(prediction, targets, loss=kind, masked=masked, scale=scale)
    np.testing.assert_allclose(found.tolist(), expected, rtol=1e-4, atol=1e-4)
    assert targets.counts(masked).tolist() == counts


@settings(deadline=None)
@given(st.sampled_from(KINDS), st.floats(-9, 9), st.floats(-9, 9), st.floats(-2, 2))
def test_the_loss_of_a_point_is_the_mean_of_its_coordinates(kind, dx, dy, log_scale):
    error, logarithm = torch.tensor([[dx, dy]], dtype=torch.float64), torch.tensor([[log_scale]], dtype=torch.float64)
    found = pointwise(error, kind, log_scale=logarithm)
    np.testing.assert_allclose(found.tolist(), [slow_pointwise(dx, dy, kind, log_scale)], atol=1e-9)


@pytest.mark.parametrize("kind", ["mse", "l1", "huber", "charbonnier"])
def test_no_error_costs_nothing(kind):
    assert pointwise(torch.zeros(1, 2), kind).tolist() == [0]


def test_huber_is_linear_beyond_its_delta():
    found = pointwise(torch.tensor([[3.0, 0.0]]), "huber", huber_delta=2.0)
    assert found.tolist() == [2 * (3 - 1) / 2]


def test_the_total_is_a_weighted_sum_of_means_and_zero_where_nothing_counts():
    sums, counts = torch.tensor([6.0, 4.0, 9.0, 9.0]), torch.tensor([3.0, 8.0, 9.0, 9.0])
    assert float(total_loss(sums, counts, 0.5)) == 6 / 3 + 0.5 * 4 / 8
    assert float(total_loss(torch.zeros(4), torch.zeros(4), 0.5)) == 0


def samples_of(points):
    """A dataset of the clips, with pictures of which nothing but the number is asked."""
    pictures = np.zeros((points["tracks"].shape[1], HEIGHT, WIDTH, 3), np.uint8)
    names = ("tracks", "visibility", "queries")
    return [{"frames": pictures} | {name: points[name][b] for name in names} for b in range(len(points["tracks"]))]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(0, 1, 2, 3), (3,), (1, 2), None]))
def test_the_scale_is_the_root_mean_square_of_a_coordinate_that_is_seen(seed, frames):
    points = random_points(seed, B=3)
    moved = (points["tracks"] - points["queries"][:, None, :, 1:]).double().numpy()
    squares = [
        float(c) ** 2
        for b in range(3)
        for f in frames or range(4)
        for n in range(3)
        for c in moved[b, f, n]
        if f > 0 and points["visibility"][b, f, n]
    ]
    expected = math.sqrt(sum(squares) / len(squares)) if squares else 1.0
    assert fit_target_scale(samples_of(points), Frames((0,), frames)) == pytest.approx(expected, rel=1e-6)


def test_the_scale_of_what_never_moves_is_one():
    points = random_points(0)
    points["tracks"] = points["queries"][:, None, :, 1:].repeat(1, 4, 1, 1)
    assert fit_target_scale(samples_of(points), Frames((0,), None)) == 1


@settings(max_examples=20)
@given(st.sampled_from(KINDS), st.booleans(), st.booleans(), st.integers(0, 10**6))
def test_confidence_weighs_and_sorts_out_as_slow_loops_do(kind, masked, weighted, seed):
    """Against each point's own loss: weights multiply, and what isn't trusted is as if it had never been seen."""
    frames, least = (0, 2, 3), 0.4
    points, (prediction, moves, logits, scales) = random_points(seed), make_prediction(seed, frames)
    confidence = torch.from_numpy(np.random.default_rng(seed).random((2, 4, 3))).float()[:, list(frames)]
    batch = {name: points[name][:, list(frames)] for name in ("tracks", "visibility")}
    batch |= {"queries": points["queries"], "frames": torch.tensor([frames] * 2), "confidence": confidence}
    targets = Targets.of(batch, weighted=weighted, min_confidence=least)
    found = loss_sums(prediction, targets, loss=kind, masked=masked).tolist()
    sums, counts = np.zeros(4), np.zeros(4)
    for b, f, n in np.ndindex(2, len(frames), 3):
        seen, sure = bool(batch["visibility"][b, f, n]), float(confidence[b, f, n])
        trusted, ahead = sure >= least, frames[f] > 0
        error = moves[b, f] - (batch["tracks"][b, f, n] - batch["queries"][b, n, 1:]).numpy()
        weight = sure if weighted else 1.0
        if ahead and trusted and (seen or not masked):
            sums[0] += weight * slow_pointwise(*error, kind, scales[b, f])
            counts[0] += weight
        if trusted or not seen:
            sums[1] += math.log1p(math.exp(-logits[b, f] if seen else logits[b, f]))
            sums[3] += ahead and (logits[b, f] > 0) == seen
            counts[1], counts[3] = counts[1] + 1, counts[3] + ahead
        if ahead and seen and trusted:
            sums[2], counts[2] = sums[2] + np.hypot(*error), counts[2] + 1
    np.testing.assert_allclose(found, sums, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(targets.counts(masked).tolist(), counts, rtol=1e-5)


def test_full_confidence_changes_nothing_to_the_last_bit():
    frames, points, (prediction, *_) = (0, 1, 2), random_points(3), make_prediction(3, (0, 1, 2))
    plain = targets_of(points, frames)
    batch = {"tracks": points["tracks"][:, :3], "visibility": points["visibility"][:, :3], "queries": points["queries"]}
    batch |= {"frames": torch.tensor([frames] * 2), "confidence": torch.ones(2, 3, 3)}
    sure = Targets.of(batch, weighted=True)
    assert torch.equal(loss_sums(prediction, sure), loss_sums(prediction, plain))
    assert torch.equal(sure.counts(True), plain.counts(True))


@given(seed=st.integers(0, 2**16))
@settings(max_examples=10, deadline=None)
def test_relative_descends_the_logarithm_of_each_clips_mean_distance(seed):
    frames, points = (0, 1, 2, 3), random_points(seed, B=3)
    points["visibility"][:, 1] = True  # something is seen in every clip
    targets = targets_of(points, frames)
    moved = torch.randn(3, 4, 2, 1, 1, requires_grad=True)
    fields = moved.expand(3, 4, 2, HEIGHT, WIDTH)
    still = torch.zeros(3, 4, HEIGHT, WIDTH)
    loss_sums(TrajectoryPrediction(fields, still, frames, still), targets, loss="relative")[0].backward()
    found = moved.grad
    moved.grad = None
    distance = (moved[..., 0, 0][:, :, None] - targets.displacement).norm(dim=-1)
    seen = targets.measured
    counts = seen.sum(dim=(1, 2))
    means = torch.where(seen, distance, 0.0).sum(dim=(1, 2)) / counts
    (counts * torch.log(RELATIVE_FLOOR + means)).sum().backward()
    torch.testing.assert_close(found, moved.grad, rtol=1e-4, atol=1e-5)


def test_relative_learns_how_sure_it_is_and_that_leaves_the_motion_alone():
    error = torch.tensor([[[[3.0, 4.0]]]]).requires_grad_()
    spread = torch.zeros(1, 1, 1, 1, requires_grad=True)
    value = pointwise(error, "relative", log_scale=spread)
    assert value.item() == pytest.approx(5 + math.log(2 * math.pi))
    value.sum().backward()
    assert error.grad is None and spread.grad is not None
    assert spread.grad.item() == pytest.approx(2 - 5)  # least where twice the scale is the distance
