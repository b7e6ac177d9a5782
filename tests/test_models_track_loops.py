"""The loops over tracks: a tracker, the action that its tracks tell, and trajectories that are told that action."""

import numpy as np
import pytest
import torch
from torch import nn

from flowlib.geometry import cell_grid
from flowlib.models.actions import ActionLSTM
from flowlib.models.fcn import TrajectoryFCN
from flowlib.models.features import from_tracks
from flowlib.models.loops import chain, two_pass
from flowlib.models.protocols import TrajectoryPrediction
from flowlib.models.track_loops import follow, name_actions, predict
from flowlib.synthetic import action_scene
from flowlib.trackers import make_tracker

SIZE, F, GRID, CELLS = (48, 64), 6, (8, 8), (2, 2)
PAIR = ("left", "right")
QUERIES = np.insert(cell_grid(SIZE, *GRID), 0, 0, axis=1)


def scenes(seeds):
    return [action_scene(action, F, SIZE, seed) for seed in seeds for action in PAIR]


def clips_of(found) -> torch.Tensor:
    """[B 1 F 3 H W]: a clip of each scene."""
    return torch.from_numpy(np.stack([scene.clip() for scene in found])).movedim(-1, 2)[:, None]


class Pushes(nn.Module):
    """Moves everything to the left as far as "left" is likely, to the right as far as "right" is."""

    num_actions, input_frames = 2, (0,)

    def forward(self, images, action):
        B, _, _, H, W = images.shape
        speed = (action @ torch.tensor([-1.0, 1.0]))[:, None] * torch.arange(F)
        moved = torch.stack([speed, 0 * speed], dim=2)[..., None, None].expand(B, F, 2, H, W)
        return TrajectoryPrediction(moved, torch.ones(B, F, H, W), tuple(range(F)))


@pytest.fixture(scope="module")
def network() -> ActionLSTM:
    """Knows left from right, by exact tracks of 12 scenes."""
    torch.manual_seed(0)
    vectors = [from_tracks(scene.tracks(QUERIES), SIZE, cells=CELLS) for scene in scenes(range(12))]
    x, y = torch.from_numpy(np.stack(vectors)), torch.tensor([0, 1] * 12)
    model = ActionLSTM(x.shape[2], 2, hidden=16)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x).logits, y).backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def test_a_chain_of_a_tracker_and_a_network_names_the_action(network):
    found, lengths = scenes(range(100, 104)), torch.ones(8, dtype=torch.long)
    tracker = make_tracker("lucas_kanade")
    result = chain(follow(tracker, GRID), name_actions(network, SIZE, GRID, CELLS), clips_of(found), lengths)
    assert result.logits.argmax(dim=1).tolist() == [0, 1] * 4
    for values, scene in zip(result.values[:, 0], found):
        tracks = tracker(scene.clip(), QUERIES)
        np.testing.assert_array_equal(values[..., :2].numpy(), tracks.displacement)
        np.testing.assert_array_equal(values[..., 2].numpy() == 1, tracks.visibility)
    exact = from_tracks(tracker(found[0].clip(), QUERIES), SIZE, cells=CELLS)
    torch.testing.assert_close(result.logits[:1], network(torch.from_numpy(exact)[None]).logits)


@torch.no_grad()
def test_two_passes_tell_the_second_what_the_first_found(network):
    found, lengths = scenes([100, 101]), torch.ones(4, dtype=torch.long)
    parts = follow(make_tracker("lucas_kanade"), GRID), predict(Pushes(), GRID)
    classify, clips = name_actions(network, SIZE, GRID, CELLS), clips_of(found)
    both = two_pass(*parts, classify, clips, lengths, eta=1.0, zeta=0.0)
    torch.testing.assert_close(both.told, both.first_pass.logits.softmax(dim=1))
    assert both.told.argmax(dim=1).tolist() == [0, 1, 0, 1]
    torch.testing.assert_close(both.values[:, 0], parts[1](clips[:, 0], both.told))
    half = two_pass(*parts, classify, clips, lengths, eta=0.5)
    torch.testing.assert_close(half.values, (both.values + both.first_pass.values) / 2)

    # what the action is worth: sprites lie nearer to where they go than without, and the wrong one is worse
    truth = torch.from_numpy(np.stack([scene.tracks(QUERIES).displacement for scene in found]))
    sprites = truth[:, -1].norm(dim=-1) > 1
    nothing = torch.full((4, 2), 0.5)
    errors = []
    for action in (None, nothing, both.told.flip(1)):
        values = two_pass(*parts, classify, clips, lengths, eta=1.0, action=action).values[:, 0, :, :, :2]
        errors.append(float((values - truth)[:, -1].norm(dim=-1)[sprites].mean()))
    assert errors[0] < errors[1] < errors[2]


@torch.no_grad()
def test_a_real_network_goes_through_both_loops_and_padding_costs_nothing(network):
    torch.manual_seed(0)
    small = {"num_frames": F, "backbone": "lraspp_mobilenet_v3_large", "weights": "none", "head": "fine"}
    model = TrajectoryFCN(**small, num_actions=2, film=("head",)).eval()
    model.film_head.layer.weight.normal_()
    clips = clips_of(scenes([7])).repeat(1, 3, 1, 1, 1, 1)  # two videos of up to three clips
    lengths, classify = torch.tensor([3, 1]), name_actions(network, SIZE, GRID, CELLS)
    told = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    result = chain(predict(model, GRID), classify, clips, lengths, action=told)
    assert result.values.shape == (2, 3, F, 64, 3) and not result.values[1, 1:].any()
    xy = torch.from_numpy(QUERIES[None, :, 1:])
    expected = model(clips[1:, 0, :1], told[1:]).at(xy)[0]
    torch.testing.assert_close(result.values[1:, 0, ..., :2], expected)
    alone = chain(predict(model, GRID), classify, clips[1:, :1], torch.tensor([1]), action=told[1:])
    torch.testing.assert_close(result.logits[1:], alone.logits)
    plain = TrajectoryFCN(**small).eval()
    result = two_pass(predict(plain, GRID), predict(model, GRID), classify, clips, lengths)
    assert result.told.shape == (2, 2) and torch.isfinite(result.values).all()


@torch.no_grad()
def test_clips_of_another_length_are_refused(refuses):
    clips = torch.zeros(1, 1, 4, 3, *SIZE, dtype=torch.uint8)
    with refuses(r"clips: expected the frames \(0, 1, 2, 3, 4, 5\), as predicted, got 4 frames"):
        chain(predict(Pushes(), GRID), None, clips, torch.tensor([1]), action=torch.eye(2)[:1])
