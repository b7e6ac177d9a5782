"""Loops between pose and action: what they equal where they must, what padding and modes change, and what is told."""

import pytest
import torch
from fixtures.pose import tiny_pose_net

from flowlib.models.actions import ActionLSTM, ActionPrediction
from flowlib.models.loops import (
    Chain,
    Feedback,
    Taught,
    Told,
    TwoPass,
    chain,
    estimate_frames,
    feedback,
    smoothed,
    two_pass,
    within,
)

K = 4
LENGTHS = torch.tensor([3, 6, 1, 6])


def rising(net):
    """Let a conditioned net differ from its twin, as after training; norms have seen something, too."""
    generator = torch.Generator().manual_seed(5)
    for name, parameter in net.named_parameters():
        if "film" in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return with_basis(net)


def with_basis(net):
    generator = torch.Generator().manual_seed(7)
    net.set_basis(torch.randn(net.basis.T.shape, generator=generator), torch.randn(63, generator=generator))
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    return net


def plain(seed=0):
    return with_basis(tiny_pose_net(seed, dropout=0.5))


def conditioned(seed=0):
    return rising(tiny_pose_net(seed, dropout=0.5, num_actions=K, film=("linear", "residual")))


def action_net(seed=3, **options):
    torch.manual_seed(seed)
    return ActionLSTM(63, K, hidden=8, **options)


@pytest.fixture
def crops():
    return torch.rand(4, 6, 1, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def close(a, b, atol=1e-5):
    return torch.allclose(a.joints, b.joints, atol=atol) and torch.allclose(a.logits, b.logits, atol=atol)


def test_conditioned_equals_unconditioned_exactly_at_the_start(crops):
    bare, told = with_basis(tiny_pose_net()), with_basis(tiny_pose_net(num_actions=K, film=("linear", "output")))
    one, other = Chain(bare, action_net()).eval(), Chain(told, action_net()).eval()
    found = [one(crops, LENGTHS), other(crops, LENGTHS), other(crops, LENGTHS, torch.eye(K))]
    assert all(torch.equal(found[0].joints, each.joints) for each in found)
    assert all(torch.equal(found[0].logits, each.logits) for each in found)


@pytest.mark.parametrize("attention", ["none", "logits_relu"])
def test_two_passes_of_which_the_first_counts_are_the_chain_exactly(crops, attention):
    action = action_net(attention=attention)
    loop, alone = TwoPass(plain(), conditioned(), action, eta=0, zeta=0), Chain(plain(), action)
    for mode in (False, True):
        found, expected = loop.train(mode)(crops, LENGTHS), alone.train(mode)(crops, LENGTHS)
        assert torch.equal(found.joints, expected.joints) and torch.equal(found.logits, expected.logits)
        assert torch.equal(found.first_pass.joints, expected.joints)
    assert not close(TwoPass(plain(), conditioned(), action).eval()(crops, LENGTHS), expected, atol=1e-2)


@pytest.mark.parametrize("net", [plain, conditioned])
def test_rolled_equals_unrolled_in_training_mode_with_frozen_norms(crops, net):
    rolled, unrolled = (Chain(net(), action_net(), unrolled=u).train() for u in (False, True))
    assert close(rolled(crops, LENGTHS), unrolled(crops, LENGTHS))
    given = torch.eye(K) if net is conditioned else None
    if given is not None:
        assert close(rolled(crops, LENGTHS, given), unrolled(crops, LENGTHS, given))
        assert close(rolled(crops, LENGTHS, given), Feedback(net(), action_net()).train()(crops, LENGTHS, given))
    trained = [Chain(net(), action_net(), unrolled=u, norm="no dropout").train() for u in (False, True)]
    assert not close(trained[0](crops, LENGTHS), trained[1](crops, LENGTHS), atol=1e-2), "statistics of the batch"


@pytest.mark.parametrize(
    "norm, norms, dropout",
    [("frozen", 0, 0), ("norms frozen", 0, 1), ("no dropout", 1, 0), ("train", 1, 1)],
)
def test_norms_and_dropout_follow_their_policy_whatever_the_mode(norm, norms, dropout):
    loop = TwoPass(plain(), conditioned(), action_net(), norm=norm, trained=())
    for mode in (True, False, True):
        loop.train(mode)
        kinds = {torch.nn.BatchNorm2d: norms, torch.nn.Dropout: dropout}
        for kind, free in kinds.items():
            modules = [module for module in loop.modules() if isinstance(module, kind)]
            assert modules and all(module.training == bool(mode and free) for module in modules), (norm, kind)
        assert loop.training == mode and loop.action.training == mode
    affine = [m.weight for m in loop.modules() if isinstance(m, torch.nn.BatchNorm2d) and m.affine]
    assert affine and all(weight.requires_grad == bool(norms) for weight in affine)


def test_frozen_statistics_stay_through_training_steps(crops):
    loop = TwoPass(plain(), conditioned(), action_net()).train()
    before = {name: value.clone() for name, value in loop.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in loop.parameters() if p.requires_grad], lr=0.1)
    found = loop(crops, LENGTHS)
    (found.joints.square().mean() + found.logits.square().mean()).backward()
    optimizer.step()
    changed = {name for name, value in loop.state_dict().items() if not torch.equal(value, before[name])}
    assert not [name for name in changed if "running" in name or name.startswith("pose.")]
    assert {name.split(".")[0] for name in changed} == {"second", "action"}


@pytest.mark.parametrize(
    "trained, moving",
    [
        ((), {"pose.stem", "pose.last", "second.stem", "second.last", "action.lstm", "action.head"}),
        (("first head",), {"pose.last"}),
        (("second body", "action"), {"second.stem", "action.lstm", "action.head"}),
    ],
)
def test_only_the_named_parts_are_trained(trained, moving):
    loop = TwoPass(plain(), conditioned(), action_net(), trained=trained)
    parts = "pose.stem pose.last second.stem second.last action.lstm action.head".split()
    free = {name.rsplit(".", 1)[0] for name, p in loop.named_parameters() if p.requires_grad}
    assert {part for part in parts if part in free} == moving


def test_padding_and_company_change_nothing(crops):
    loops = [Chain(plain(), action_net()), Feedback(conditioned(), action_net())]
    loops += [TwoPass(plain(), conditioned(), action_net(attention="logits_conv"), smoothing=0.4)]
    for loop in loops:
        loop.eval()
        together = loop(crops, LENGTHS)
        noisy = torch.where(within(LENGTHS, 6)[:, :, None, None, None], crops, 0.7)
        assert close(together, loop(noisy, LENGTHS), atol=0)
        for index, length in enumerate(LENGTHS.tolist()):
            alone = loop(crops[index : index + 1, :length], LENGTHS[index : index + 1])
            assert torch.allclose(alone.joints[0], together.joints[index, :length], atol=1e-5)
            assert torch.allclose(alone.logits[0], together.logits[index], atol=1e-5)
            assert not together.joints[index, length:].any()


def test_feedback_tells_each_frame_what_was_known_after_the_one_before(crops):
    pose, action = conditioned().eval(), action_net().eval()
    found = Feedback(pose, action).eval()(crops, LENGTHS)
    told, joints = torch.full((1, K), 1 / K), []
    for frame in range(3):
        joints.append(pose(crops[:1, frame], told).joints)
        logits = action(torch.stack(joints, dim=1).flatten(2), torch.tensor([frame + 1])).logits
        told = logits.softmax(dim=1)
    assert torch.allclose(found.joints[0, :3], torch.cat(joints), atol=1e-5)
    assert torch.allclose(found.logits[0], logits[0], atol=1e-5)


def test_both_passes_are_averaged_and_probabilities_geometrically(crops):
    first, second, action = plain().eval(), conditioned().eval(), action_net().eval()
    found = TwoPass(first, second, action, eta=0.25, zeta=0.7).eval()(crops, LENGTHS)
    before = Chain(first, action).eval()(crops, LENGTHS)
    after = Chain(second, action).eval()(crops, LENGTHS, before.logits.softmax(dim=1))
    assert torch.allclose(found.joints, 0.25 * after.joints + 0.75 * before.joints, atol=1e-6)
    p, q = before.logits.softmax(dim=1), after.logits.softmax(dim=1)
    mean = p**0.3 * q**0.7
    assert torch.allclose(found.logits.softmax(dim=1), mean / mean.sum(dim=1, keepdim=True), atol=1e-6)
    assert torch.allclose(found.logits.softmax(dim=1).sum(dim=1), torch.ones(4))


def test_the_second_pass_may_have_an_action_net_of_its_own(crops):
    own = TwoPass(plain(), conditioned(), action_net(3), action_again=action_net(4), zeta=1.0, eta=1.0).eval()
    before = own(crops, LENGTHS).first_pass
    after = Chain(conditioned(), action_net(4)).eval()(crops, LENGTHS, before.logits.softmax(dim=1))
    assert close(own(crops, LENGTHS), after)
    again = TwoPass(**own.config)
    again.load_state_dict(own.state_dict())
    assert close(again.eval()(crops, LENGTHS), after)


def test_two_plain_networks_are_an_average_that_is_told_nothing(crops):
    loop = TwoPass(plain(0), plain(1), action_net()).eval()
    mean = sum(Chain(plain(seed), action_net()).eval()(crops, LENGTHS).joints for seed in (0, 1)) / 2
    assert torch.allclose(loop(crops, LENGTHS).joints, mean, atol=1e-6)


def test_controls_are_told_what_they_say(crops):
    loop, classes = TwoPass(plain(), conditioned(), action_net()).eval(), torch.tensor([0, 1, 2, 3])
    vectors = {telling: Told(loop, telling).vector(classes) for telling in ("true", "wrong", "uniform")}
    assert torch.equal(vectors["true"], torch.eye(K)) and torch.equal(vectors["wrong"], torch.eye(K)[[1, 0, 3, 2]])
    assert torch.equal(vectors["uniform"], torch.full((4, K), 0.25))
    assert torch.equal(
        Told(Chain(plain(), ActionLSTM(63, 3)), "wrong").vector(classes[:3]).argmax(1), classes[[1, 0, 1]]
    )
    told = Told(loop, "wrong")(crops, LENGTHS, vectors["wrong"])
    assert close(told, loop(crops, LENGTHS, vectors["wrong"]))
    assert Told(loop, "uniform").role == "baseline" and Told(loop, "true").role == "oracle"


def test_smoothing_is_an_exponential_average(crops):
    values = torch.arange(5.0).reshape(1, 5, 1)
    assert torch.allclose(smoothed(values, 0.4)[0, :2, 0], torch.tensor([0.0, 0.6]))
    assert smoothed(values, 0.0) is values
    still, rough = (Chain(plain(), action_net(), smoothing=s).eval()(crops, LENGTHS).joints[1] for s in (0.8, 0.0))
    assert still.diff(dim=0).norm() < 0.5 * rough.diff(dim=0).norm()
    loop = Chain(plain(), action_net(), smoothing=0.4, train_smoothing=True)
    loop(crops, LENGTHS).joints.square().mean().backward()
    assert loop.share.grad is not None and float(torch.sigmoid(loop.share.detach())) == pytest.approx(0.4)
    rolled, unrolled = (Chain(plain(), action_net(), smoothing=0.4, unrolled=u).eval() for u in (False, True))
    assert close(rolled(crops, LENGTHS), unrolled(crops, LENGTHS))


def test_the_teacher_is_told_the_truth_and_learns_nothing(crops):
    teacher = Feedback(conditioned(), action_net())
    net = Taught(Chain(plain(), action_net()), teacher).train()
    assert close(net(crops, LENGTHS), Chain(plain(), action_net()).train()(crops, LENGTHS))
    said = net.teach(crops, LENGTHS, torch.tensor([3, 2, 1, 0]))
    assert close(said, teacher.eval()(crops, LENGTHS, torch.eye(K).flip(0)))
    assert not [p for p in net.teacher.parameters() if p.requires_grad]


class Tracks:
    """An estimator and a classifier of tracks [B S N 2]: neither knows of hands."""

    def estimate(self, frames, action):
        shift = 0.0 if action is None else (action @ torch.arange(float(K)))[:, None, None]
        return frames.flatten(1)[:, :6].reshape(-1, 3, 2) + shift

    def __call__(self, tracks, lengths):
        real = within(lengths, tracks.shape[1])[:, :, None]
        total = torch.where(real, tracks.flatten(2), 0).cumsum(dim=1)[:, :, :K]
        return ActionPrediction(total[torch.arange(len(lengths)), lengths - 1], total)

    def start(self, batch):
        return torch.zeros(batch, K)

    def step(self, tracks, state):
        state = state + tracks.flatten(1)[:, :K]
        return state, state


def test_loops_serve_tracks_as_well():
    frames, tracks = torch.rand(4, 6, 3, 4, generator=torch.Generator().manual_seed(0)), Tracks()
    one = chain(tracks.estimate, tracks, frames, LENGTHS)
    assert one.values.shape == (4, 6, 3, 2) and not one.values[0, 3:].any()
    back = feedback(tracks.estimate, tracks, frames, LENGTHS, num_actions=K, action=torch.eye(K))
    told = chain(tracks.estimate, tracks, frames, LENGTHS, action=torch.eye(K))
    assert torch.allclose(back.values, told.values) and torch.allclose(back.logits, told.logits)
    both = two_pass(tracks.estimate, tracks.estimate, tracks, frames, LENGTHS, eta=1.0, zeta=1.0, action=torch.eye(K))
    assert torch.allclose(both.values, told.values) and torch.equal(both.first_pass.logits, one.logits)
    free = feedback(tracks.estimate, tracks, frames, LENGTHS, num_actions=K)
    assert torch.allclose(free.values[:, 0], one.values[:, 0] + (K - 1) / 2) and not torch.allclose(
        free.values, told.values
    )


def test_estimating_no_padding(crops):
    seen = []
    estimate_frames(lambda x, action: seen.append(len(x)) or x, crops, LENGTHS)
    assert seen == [int(LENGTHS.sum())]


@pytest.mark.parametrize(
    "make, match",
    [
        (
            lambda: Chain(tiny_pose_net(num_actions=3, film=("linear",)), action_net()),
            "same number of actions, got 3 and 4",
        ),
        (lambda: Chain(tiny_pose_net(joints=16), action_net()), "three inputs for each joint, got 16 joints and 63"),
        (lambda: Chain(plain(), action_net(), norm="batch"), "norm: expected one of frozen, .*got 'batch'"),
        (lambda: Chain(plain(), action_net(), smoothing=1.0), "smoothing: .*got 1.0"),
        (lambda: Chain(plain(), action_net(), train_smoothing=True), "smoothing: .*above 0"),
        (lambda: Chain(plain(), action_net(), trained=("head",)), "trained: .*got 'head'"),
        (lambda: Feedback(plain(), action_net()), "pose: expected one that is conditioned"),
        (lambda: TwoPass(conditioned(), conditioned(), action_net()), "pose: .*takes no action"),
        (lambda: TwoPass(plain(), conditioned(), action_net(), eta=1.5), "eta: expected a share .*got 1.5"),
        (lambda: TwoPass(plain(), tiny_pose_net(size=48), action_net()), "second: expected crops of 32 pixels, got 48"),
        (lambda: Told(Chain(plain(), action_net()), "false"), "telling: expected one of true, uniform, wrong"),
    ],
)
def test_bad_settings_are_refused(make, match, refuses):
    with refuses(match):
        make()


@pytest.mark.parametrize(
    "change, match",
    [
        ({"lengths": torch.tensor([3, 0, 1, 6])}, r"lengths: expected sequences of 1 to 6 frames, got \[3, 0, 1, 6\]"),
        ({"lengths": torch.tensor([3, 7, 1, 6])}, "lengths: expected sequences of 1 to 6 frames"),
        ({"lengths": torch.ones(4)}, "lengths: expected whole numbers"),
        ({"action": torch.eye(K) * 0.9}, "action: expected probabilities that sum to 1"),
        ({"action": torch.eye(3)[[0, 1, 2, 2]]}, r"action: expected probabilities \[4 4\], got \[4, 3\]"),
        ({"crops": torch.zeros(4, 6, 1, 48, 48)}, r"crops: expected \[B S 1 32 32\], got"),
    ],
)
def test_bad_calls_are_refused(crops, change, match, refuses):
    given = {"crops": crops, "lengths": LENGTHS} | change
    for loop in (Feedback(conditioned(), action_net()), TwoPass(plain(), conditioned(), action_net())):
        with refuses(match):
            loop(**given)
