"""Networks by name: what is made, what is refused, twins that learn alike, and that `fit` trains each of them."""

import numpy as np
import pytest
import torch

from flowlib.clips import Clip, ClipList, ClipSample
from flowlib.geometry import cell_grid
from flowlib.models.fcn import TrajectoryFCN
from flowlib.models.guided import GuidedTrajectories
from flowlib.models.networks import NetworkConfig
from flowlib.models.one_frame import OneFrameTrajectories
from flowlib.synthetic import synthetic_clip
from flowlib.tasks.trajectories import TrajectoryTask
from flowlib.training import TrainConfig, fit, load_checkpoint
from flowlib.training.checkpoints import describe_runs, load_runs
from flowlib.training.diagnostics import compare_trainings

SMALL = {"backbone": "lraspp_mobilenet_v3_large", "weights": "none"}
CONFIG = {"steps": 2, "batch_size": 2, "num_workers": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def clips() -> ClipList:
    made = []
    for seed in range(2):
        frames, scene = synthetic_clip(num_frames=4, size=(48, 64), seed=seed)
        tracks = scene.tracks(np.insert(cell_grid((48, 64), 5), 0, 0, axis=1))
        made.append(ClipSample(Clip.named(f"v{seed}", frames, num_points=25), frames, tracks))
    return ClipList(made, num_frames=4)


@pytest.mark.parametrize(
    "options, kind",
    [
        (SMALL, TrajectoryFCN),
        ({"model": "guided"}, GuidedTrajectories),
        ({"model": "guided", "input_frames": (0, 1, 3), "design": "recurrent"}, GuidedTrajectories),
        ({"model": "guided", "input_frames": (0,), "weights": "none"}, OneFrameTrajectories),
    ],
)
def test_each_is_made_as_asked(options, kind):
    config = NetworkConfig(**options)
    network = config.make(5)
    assert type(network) is kind and network.num_frames == 5 and network.input_frames == config.input_frames
    told = config.describe(network)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert told.startswith(f"{config.model}: {count:,} parameters, started from: ")
    assert ("random numbers" in told) == (kind is GuidedTrajectories)


def test_fields_reach_the_network():
    fcn = NetworkConfig(**SMALL, conv1="zero", head="torchvision", batch_norm="group", working_size=(32, 48)).make(4)
    assert (fcn.config["conv1"], fcn.config["head"], fcn.config["batch_norm"]) == ("zero", "torchvision", "group")
    assert fcn.working_size == (32, 48) and fcn.config["backbone"] == SMALL["backbone"]
    guided = NetworkConfig(model="guided", flow="raft", flow_weights="some.pth", design="recurrent").make(4)
    assert [guided.config[name] for name in ("flow", "flow_weights", "design")] == ["raft", "some.pth", "recurrent"]
    config = NetworkConfig(model="guided", design="pretrained", weights="none", stride_in="1x1")
    seeing = config.make(4)
    assert seeing.config["stride_in"] == "1x1" and seeing.seen.weights == "none"
    assert "started from: none" in config.describe(seeing)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"model": "fnc"}, "model: expected one of fcn, guided, got 'fnc'"),
        ({"flow": "raft"}, "flow: expected 'dis refined' with model='fcn' .* no use for it, got 'raft'"),
        (
            {"model": "guided", "backbone": "timm/x"},
            "backbone: expected 'fcn_resnet50' with model='guided' .* 'timm/x'",
        ),
        ({"model": "guided", "working_size": (32, 32)}, "working_size: expected None with .*, got .32, 32"),
        ({"model": "guided", "weights": "imagenet"}, "weights: expected 'auto' with .*, got 'imagenet'"),
    ],
)
def test_what_a_model_has_no_use_for_is_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        NetworkConfig(**options)


def test_the_loss_suits_the_model():
    guided = NetworkConfig(model="guided")
    assert (NetworkConfig().loss(), guided.loss(), guided.loss("l1")) == ("l1", "laplace_2d", "l1")


@pytest.mark.parametrize("options", [SMALL, {"model": "guided"}], ids=["fcn", "guided"])
def test_twins_learn_the_same(options, clips, tmp_path):
    torch.manual_seed(0)
    twins = NetworkConfig(**options, input_frames=(0, 3)).twins(4)
    found = compare_trainings(twins, TrajectoryTask(), clips, TrainConfig(**CONFIG), tmp_path)
    assert found.equal and len(twins) == 2


def test_runs_of_both_are_trained_and_loaded_side_by_side(clips, tmp_path):
    for model, options in (("fcn", SMALL), ("guided", {"model": "guided"})):
        torch.manual_seed(0)
        config = NetworkConfig(**options)
        network, task = config.make(4), TrajectoryTask(loss=config.loss())
        before = {name: value.clone() for name, value in network.state_dict().items()}
        run = fit(network, task, clips, None, TrainConfig(**CONFIG, name=model), folder=tmp_path / f"1_{model}")
        assert run.finished == "steps"
        assert any((before[name] != value).any() for name, value in network.state_dict().items())
    models, abouts = load_runs(tmp_path, "guided, fcn")
    assert list(models) == list(abouts) == ["guided", "fcn"]
    assert isinstance(models["guided"], GuidedTrajectories) and isinstance(models["fcn"], TrajectoryFCN)
    images = clips[0].images((0, 3))
    with torch.no_grad():
        found = models["fcn"](images).displacement.numpy()
        alone = load_checkpoint(tmp_path / "1_fcn" / "last.pt")[0](images).displacement.numpy()
    assert np.array_equal(found, alone)
    assert describe_runs(abouts).splitlines()[1] == f"fcn: {tmp_path / '1_fcn' / 'last.pt'}, 2 steps"
    single, _ = load_runs(tmp_path, "fcn")
    assert list(single) == ["model"]
    named, _ = load_runs(tmp_path, "whatever", str(tmp_path / "1_fcn" / "last.pt"))
    assert isinstance(named["model"], TrajectoryFCN)
    for names, file, message in (
        ("fcn,fcn", "", "runs: expected each run once, got 'fcn' twice in 'fcn,fcn'"),
        ("fcn,", "", "runs: expected the name of a folder, without slashes, got ''"),
        ("fcn,guided", "x.pt", "checkpoint: expected none with several runs"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            load_runs(tmp_path, names, file)
    with pytest.raises(FileNotFoundError, match="expected a run called 'lost'"):
        load_runs(tmp_path, "fcn,lost")
