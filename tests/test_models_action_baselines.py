"""The baselines of actions: what each says of sequences whose answer is known, and dynamic time warping by its law."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowlib.models.action_baselines import LastFrame, Majority, NearestSequence
from flowlib.models.actions import pad

RNG = np.random.default_rng(0)
# Three actions on a line: up, down, and up and down again; several speeds.
PATHS = {0: lambda t: t, 1: lambda t: 1 - t, 2: lambda t: 1 - abs(2 * t - 1)}
KNOWN = [(PATHS[action](np.linspace(0, 1, length)), action) for action in PATHS for length in (6, 9, 15)]
VECTORS = [np.stack([path, 0 * path], axis=1).astype(np.float32) for path, _ in KNOWN]
ACTIONS = np.array([action for _, action in KNOWN])
ASKED = [np.stack([PATHS[action](np.linspace(0, 1, 12)), np.zeros(12)], axis=1).astype(np.float32) for action in PATHS]


def guesses(method) -> list[int]:
    return method(*pad([torch.from_numpy(part) for part in ASKED])).logits.argmax(dim=1).tolist()


def test_the_majority_is_the_most_frequent_whatever_is_asked():
    method = Majority.fit(VECTORS[:4], ACTIONS[:4], 3)
    prediction = method(torch.zeros(2, 5, 2), torch.tensor([5, 3]))
    assert prediction.logits.argmax(dim=1).tolist() == [0, 0] and prediction.frames.shape == (2, 5, 3)
    assert torch.allclose(prediction.logits.exp(), torch.tensor([4.0, 2.0, 1.0]))


def test_the_last_frame_tells_where_a_path_ends_and_not_the_way():
    method = LastFrame.fit(VECTORS, ACTIONS, 3)
    method.neighbours = 3
    asked = pad([torch.from_numpy(part) for part in ASKED])
    up, down, up_and_down = method(*asked).logits
    assert torch.equal(down, up_and_down) and not torch.equal(up, down)
    frames = method(*asked).frames
    alone = method(torch.from_numpy(ASKED[2][None, 5:6]), torch.tensor([1])).logits
    assert torch.allclose(frames[2, 5], alone[0])


def test_the_nearest_sequence_tells_the_way_at_any_speed():
    assert guesses(NearestSequence.fit(VECTORS, ACTIONS, 3)) == [0, 1, 2]


def test_a_known_sequence_is_at_distance_0_also_when_it_dwells():
    method = NearestSequence.fit(VECTORS, ACTIONS, 3)
    dwelling = np.repeat(VECTORS[4], 3, axis=0)
    assert method.distances(VECTORS[4])[-1, 4] == pytest.approx(0, abs=1e-3)
    assert method.distances(dwelling)[-1, 4] == pytest.approx(0, abs=1e-3)
    assert (np.delete(method.distances(dwelling)[-1], [3, 4, 5]) > 0.05).all()


def warped(a: np.ndarray, b: np.ndarray) -> float:
    """Dynamic time warping by its recursion, cell by cell."""
    cost = np.linalg.norm(a[:, None] - b[None], axis=2)
    total = np.full(cost.shape, np.inf)
    for i in range(len(a)):
        for j in range(len(b)):
            ways = [cost[i, j]] if i == j == 0 else []
            ways += [total[i - 1, j] + cost[i, j]] if i else []
            ways += [total[i, j - 1] + cost[i, j]] if j else []
            ways += [total[i - 1, j - 1] + 2 * cost[i, j]] if i and j else []
            total[i, j] = min(ways)
    return total[-1, -1] / (len(a) + len(b))


@given(seed=st.integers(0, 999), lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4), asked=st.integers(1, 6))
def test_distances_are_those_of_the_recursion_for_every_beginning(seed, lengths, asked):
    rng = np.random.default_rng(seed)
    known = [rng.normal(size=(length, 3)).astype(np.float32) for length in lengths]
    query = rng.normal(size=(asked, 3)).astype(np.float32)
    found = NearestSequence(known, np.zeros(len(known), int), 1).distances(query)
    for end in range(asked):
        expected = [warped(query[: end + 1], part) for part in known]
        assert np.allclose(found[end], expected, atol=1e-3)


@pytest.mark.parametrize("kind", [Majority, LastFrame, NearestSequence])
def test_padding_counts_for_nothing_and_beginnings_are_sequences(kind):
    method = kind.fit(VECTORS, ACTIONS, 4)
    joints, lengths = pad([torch.from_numpy(part) for part in (VECTORS[0], ASKED[2], VECTORS[8])])
    together = method(joints, lengths)
    assert torch.isfinite(together.logits).all() and together.frames.shape == (3, 15, 4)
    for row, length in enumerate(lengths.tolist()):
        alone = method(joints[row : row + 1, :length], lengths[row : row + 1])
        assert torch.allclose(alone.logits[0], together.logits[row], atol=1e-5)
        begun = method(joints[row : row + 1, :4], torch.tensor([4]))
        assert torch.allclose(begun.logits[0], together.frames[row, 3], atol=1e-5)
    assert together.logits[:, 3].max() < together.logits.max(dim=1).values.min()  # no sequence of it was ever seen


def test_descriptions_tell_methods_apart():
    one, other = (NearestSequence.fit(part, ACTIONS[: len(part)], 3).describe() for part in (VECTORS, VECTORS[:8]))
    assert one["sha256"] != other["sha256"] and one["name"] == "nearest of 9 sequences"
    assert Majority.fit(VECTORS, ACTIONS, 3).describe()["name"] == "majority"


def test_wrong_inputs_are_told(refuses):
    with refuses("vectors: expected at least one sequence, each with an action, got 0 and 0"):
        NearestSequence([], np.zeros(0, int), 3)
    with refuses("neighbours: expected 1 to 4, as many as frames, got 5"):
        LastFrame(np.zeros((4, 2), np.float32), np.zeros(4, int), 3, neighbours=5)
