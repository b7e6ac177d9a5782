"""The action network: one function in three ways, beginnings, attention that sees no padding, streaming, errors."""

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from flowlib.hands.pca import PosePCA
from flowlib.models.actions import ATTENTIONS, MODES, OF_INPUTS, OF_LOGITS, ActionLSTM, pad
from flowlib.training.checkpoints import check_architecture, describe_model

LENGTHS = {
    "unsorted": [3, 7, 1, 5, 7],
    "ties in any order": [4, 6, 4, 6, 4],
    "equal": [5, 5, 5],
    "length 1": [1, 1],
    "one": [6],
    "sorted": [7, 4, 2],
}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def made(seed: int = 0, **options) -> ActionLSTM:
    torch.manual_seed(seed)
    return ActionLSTM(**{"inputs": 6, "num_actions": 4, "hidden": 8, "kernel": 3, "max_frames": 9} | options).eval()


def batch(lengths, inputs: int = 6, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return pad([torch.randn(length, inputs, generator=generator, dtype=dtype) for length in lengths])


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("layers", [1, 2])
def test_packed_is_the_last_hidden_state_bit_for_bit(lengths, layers):
    model, (joints, sizes) = made(layers=layers), batch(lengths)
    packed = pack_padded_sequence(joints, sizes, batch_first=True, enforce_sorted=False)
    hidden = model.lstm(packed)[1][0][-1]
    assert torch.equal(model(joints, sizes, "packed").logits, model.head(hidden))


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("attention", ["none", *OF_LOGITS])
def test_three_ways_are_one_function(lengths, dtype, attention):
    model, (joints, sizes) = made(attention=attention, layers=2).to(dtype), batch(lengths, dtype=dtype)
    packed, padded, unrolled = (model(joints, sizes, mode) for mode in MODES)
    for other in (padded, unrolled):
        assert float((packed.logits - other.logits).abs().max()) <= TOLERANCE[dtype]
        assert float((packed.frames - other.frames).abs().max()) <= TOLERANCE[dtype]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("attention", ["none", *OF_LOGITS])
def test_all_ways_have_the_same_gradients(mode, attention):
    grads = []
    for way in ("packed", mode):
        model, (joints, sizes) = made(attention=attention).double(), batch([5, 2, 4], dtype=torch.float64)
        joints.requires_grad_()
        model(joints, sizes, way).logits.square().sum().backward()
        grads.append([joints.grad, *(parameter.grad for parameter in model.parameters())])
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_labels_stay_with_their_sequences_and_padding_counts_for_nothing(attention, mode):
    model, (joints, sizes) = made(attention=attention).double(), batch([3, 7, 1, 5, 7], dtype=torch.float64)
    together = model(joints, sizes, mode)
    for row, length in enumerate(sizes.tolist()):
        alone = model(joints[row : row + 1, :length], sizes[row : row + 1], mode)
        assert torch.allclose(together.logits[row], alone.logits[0], atol=1e-12)
    spoiled = joints.clone()
    for row, length in enumerate(sizes.tolist()):
        spoiled[row, length:] = torch.nan
    longer = torch.cat([spoiled, torch.full((5, 2, 6), 1e6, dtype=torch.float64)], dim=1)
    model.zero_grad()
    again = model(longer, sizes, mode)
    assert torch.allclose(again.logits, together.logits, atol=1e-12)
    assert torch.allclose(again.frames[:, :7], together.frames, atol=1e-12)
    assert not again.frames[:, 7:].any() and not again.frames[2, 1:].any()
    again.logits.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)
    order = torch.tensor([4, 1, 0, 3, 2])
    assert torch.allclose(model(joints[order], sizes[order], mode).logits, together.logits[order], atol=1e-12)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_a_frame_has_the_logits_of_the_sequence_that_ends_there(attention):
    model, (joints, sizes) = made(attention=attention, kernel=5).double(), batch([8, 8], dtype=torch.float64)
    whole = model(joints, sizes)
    for frame in range(8):
        cut = model(joints, torch.tensor([frame + 1, 8]))
        assert torch.allclose(cut.logits[0], whole.frames[0, frame], atol=1e-12)
    assert torch.allclose(whole.frames[:, -1], whole.logits, atol=1e-12)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_frames_may_be_told_one_by_one(attention):
    model, (joints, sizes) = made(attention=attention, layers=2).double(), batch([6, 6], dtype=torch.float64)
    frames, state = model(joints, sizes).frames, model.start(2)
    for frame in range(6):
        logits, state = model.step(joints[:, frame], state)
        assert torch.allclose(logits, frames[:, frame], atol=1e-12)


@pytest.mark.parametrize("attention", ATTENTIONS[1:])
def test_attention_decides_something_and_learns(attention):
    model, (joints, sizes) = made(attention=attention), batch([6, 4])
    before = model(joints, sizes).logits
    before.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for name, parameter in model.score.named_parameters() if "weight" in name)
    plain = made()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in plain.state_dict().items())
    assert not torch.allclose(plain(joints, sizes).logits, before, atol=1e-3)


def test_equal_scores_weigh_frames_alike():
    model, (joints, sizes) = made(attention="logits_sigmoid"), batch([5, 3])
    plain = made()(joints, sizes).frames
    with torch.no_grad():
        for parameter in model.score.parameters():
            parameter.zero_()
    found = model(joints, sizes)
    assert torch.allclose(found.logits, torch.stack([plain[0].mean(dim=0), plain[1, :3].mean(dim=0)]), atol=1e-6)


def test_attention_of_inputs_with_equal_scores_feeds_their_mean():
    model, (joints, _) = made(attention="inputs_conv"), batch([5, 5])
    with torch.no_grad():
        for parameter in model.score.parameters():
            parameter.zero_()
    means = joints.cumsum(dim=1) / torch.arange(1, 6)[:, None]
    assert torch.allclose(model(joints).logits, made()(means).logits, atol=1e-6)


def test_the_published_size_is_a_layer_of_100():
    model = ActionLSTM(63, 45)
    assert sum(p.numel() for p in model.lstm.parameters()) == 4 * 100 * (63 + 100 + 2)
    assert model.head.weight.shape == (45, 100)
    assert torch.allclose(model(torch.randn(2, 3, 63)).probabilities.sum(dim=1), torch.ones(2))


def test_inputs_may_go_through_a_pose_prior():
    model, plain, (joints, sizes) = made(components=4), made(inputs=4), batch([5, 3])
    pca = PosePCA.fit(torch.randn(50, 2, 3, generator=torch.Generator().manual_seed(2)).numpy(), 4)
    model.set_basis(torch.from_numpy(pca.components), torch.from_numpy(pca.mean))
    coefficients = pca.encode(joints.unflatten(2, (2, 3)).double().numpy())
    expected = plain(torch.from_numpy(coefficients).float(), sizes).logits
    assert torch.allclose(model(joints, sizes).logits, expected, atol=1e-5)
    assert {"basis", "mean"} <= model.state_dict().keys() and not {"basis"} & dict(model.named_parameters()).keys()
    with pytest.raises(ValueError, match=r"expected shapes \[\[4, 6\], \[6\]\], got \[\[3, 6\], \[6\]\]"):
        model.set_basis(torch.zeros(3, 6), torch.zeros(6))


def test_inputs_may_be_normalised_by_their_bones():
    model = made(inputs=63, features="bones").double()
    joints = torch.randn(2, 4, 21, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moved = (1.7 * joints + torch.tensor([3.0, -2.0, 9.0])).flatten(2)
    assert torch.allclose(model(joints.flatten(2)).logits, model(moved).logits, atol=1e-9)
    moved.requires_grad_()
    model(moved).logits.sum().backward()
    assert moved.grad.abs().sum() > 0


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_a_config_makes_the_model_again(attention):
    model = made(attention=attention, components=2)
    twin = ActionLSTM(**model.config)
    twin.load_state_dict(model.state_dict())
    joints, sizes = batch([4, 2])
    assert torch.equal(twin.eval()(joints, sizes).logits, model(joints, sizes).logits)
    with pytest.raises(ValueError, match="expected a checkpoint of a model with num_actions=5, got one with num_act"):
        check_architecture(
            "run/best.pt", {"model": describe_model(model)}, ActionLSTM(**model.config | {"num_actions": 5})
        )


@pytest.mark.parametrize(
    "options, message",
    [
        ({"attention": "v5"}, "attention: expected one of none, inputs_conv, .*, got 'v5'"),
        ({"mode": "rolled"}, "mode: expected one of packed, padded, unrolled, got 'rolled'"),
        ({"features": "wrist"}, "features: expected one of given, centre, root, bones, got 'wrist'"),
        ({"skeleton": "hand"}, "skeleton: expected one of FPHA_21, MSRA_21, ICVL_16, NYU_14, got 'hand'"),
        ({"features": "bones"}, "inputs: expected 63, for the joints of FPHA_21, got 6"),
        ({"kernel": 4}, "kernel: expected an odd number of frames, got 4"),
        ({"hidden": 0}, "hidden: expected 1 or more, got 0"),
        ({"num_actions": 0}, "num_actions: expected 1 or more, got 0"),
        ({"components": 7}, "components: expected 0 to 6, as many as the inputs, got 7"),
    ],
)
def test_arguments_out_of_range_are_named(options, message, refuses):
    with refuses(message):
        made(**options)


@pytest.mark.parametrize(
    "joints, lengths, message",
    [
        (torch.zeros(2, 4, 5), [4, 4], r"joints: expected floating \[B S 6\], got torch.float32 \[2, 4, 5\]"),
        (torch.zeros(2, 4, 6, dtype=torch.int64), [4, 4], "joints: expected floating"),
        (torch.zeros(2, 4, 6), [4, 0], "lengths: expected 1 to 4 frames, got 0"),
        (torch.zeros(2, 4, 6), [4, 5], "lengths: expected 1 to 4 frames, got 5"),
        (torch.zeros(2, 4, 6), [4], r"lengths: expected whole numbers \[2\], got torch.int64 \[1\]"),
        (torch.zeros(2, 4, 6), [4.0, 3.0], r"lengths: expected whole numbers \[2\], got torch.float32 \[2\]"),
        (torch.zeros(2, 0, 6), [0, 0], r"joints: expected at least one sequence and one frame, got \[2, 0, 6\]"),
    ],
)
def test_wrong_inputs_are_told(joints, lengths, message, refuses):
    with refuses(message):
        made()(joints, torch.tensor(lengths))


@pytest.mark.parametrize("attention", ["inputs_rnn", "inputs_linear"])
def test_attention_of_a_fixed_length_refuses_longer_sequences(attention):
    with pytest.raises(ValueError, match="lengths: expected up to max_frames=9 frames, got 10"):
        made(attention=attention)(*batch([10, 3]))
    assert attention in OF_INPUTS
