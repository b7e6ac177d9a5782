"""What a model says of itself, and what is asked of one at the door of training."""

import pytest
import torch
from fixtures.tiny_model import Tiny
from torch import nn

from flowlib.models import protocols
from flowlib.models.baselines import ConstantVelocity, OracleTracks, Scaled, ZeroMotion
from flowlib.models.fcn import TrajectoryFCN
from flowlib.models.protocols import check_trainable, description_of, device_of, role_of, trained_on


def test_a_model_of_ones_own_needs_no_more_than_config_frames_and_forward():
    model = Tiny(4)
    check_trainable(model)
    assert isinstance(model, protocols.Predictor) and isinstance(model, protocols.TrainableModel)
    assert role_of(model) == "model" and description_of(model) == {"name": "Tiny", "frames": 4}
    assert trained_on(model) == () and device_of(model) == torch.device("cpu")
    for optional in (protocols.Describes, protocols.Fitted, protocols.SeesTruth, protocols.HasParts):
        assert not isinstance(model, optional)
    again = type(model)(**model.config)
    again.load_state_dict(model.state_dict())
    images = torch.randint(0, 256, (2, 1, 3, 8, 9), dtype=torch.uint8)
    assert torch.equal(again(images).displacement, model(images).displacement)


def test_what_cannot_be_trained_is_refused_with_the_reason(refuses):
    with refuses("model: expected a torch.nn.Module, got ZeroMotion"):
        check_trainable(ZeroMotion())
    model = nn.Linear(1, 1)
    with refuses(r"expected a `config`, a dict of the arguments that Linear\(\*\*config\) .*, got Linear without one"):
        check_trainable(model)
    model.config = ["a", "b"]
    with refuses("expected a `config`, .*, got Linear without one"):
        check_trainable(model)
    model.config = {"path": object()}
    with refuses("expected a config of plain JSON values, got one in which .* not JSON serializable"):
        check_trainable(model)
    empty = nn.Identity()
    empty.config = {}
    with refuses("expected parameters to train, got Identity without any"):
        check_trainable(empty)


def test_roles_and_descriptions_are_the_methods_own(refuses):
    assert [role_of(method) for method in (ZeroMotion(), ConstantVelocity(), OracleTracks())] == [
        "null",
        "baseline",
        "oracle",
    ]

    class Still(ZeroMotion):
        """Another name, the same role."""

    assert role_of(Still()) == "null" and description_of(Still()) == ZeroMotion().describe()
    assert description_of(object()) is None and role_of(object()) == "model"
    wrong = ZeroMotion()
    wrong.role = "best"
    with refuses("role: expected one of model, baseline, null, oracle of ZeroMotion, got 'best'"):
        role_of(wrong)


def test_only_the_oracle_sees_the_truth():
    model = TrajectoryFCN(backbone="lraspp_mobilenet_v3_large", weights="none")
    assert isinstance(OracleTracks(), protocols.SeesTruth)
    assert not any(isinstance(method, protocols.SeesTruth) for method in (model, ZeroMotion(), ConstantVelocity()))
    assert isinstance(model, protocols.HasParts) and isinstance(model, protocols.HasProvenance)


def test_who_was_fitted_says_on_what_through_any_depth():
    inner = Scaled(ZeroMotion(3), [1, 1, 1], trained_on=("a",))
    outer = Scaled(inner, [1, 1, 1], trained_on=("b",))
    assert trained_on(outer) == ("a", "b") and trained_on(ZeroMotion()) == ()
    inner.trained_on = None
    assert trained_on(inner) == ()


def test_summaries_name_what_the_settings_are():
    constant = ConstantVelocity(input_frames=(0, 3))
    assert "between frames 0 and 3 by optical flow (DIS)" in constant.describe()["summary"]
    told = Scaled(constant, [1.0, 0.25]).describe()["summary"]
    assert told.startswith(constant.describe()["summary"]) and "(0.25 in the last)" in told
    of_ones_own = Scaled(Tiny(2), [1.0, 0.5]).describe()
    assert of_ones_own["summary"].startswith("The same as Tiny.") and of_ones_own["predictor"]["frames"] == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_prediction_is_read_between_its_pixels(dtype):
    field = torch.zeros(1, 2, 2, 4, 5)
    field[0, 1] = torch.stack([torch.arange(5.0).expand(4, 5), torch.arange(4.0)[:, None].expand(4, 5)])
    prediction = protocols.TrajectoryPrediction(field, field[:, :, 0] - 2, (0, 1))
    moved, logits = prediction.at(torch.tensor([[[1.5, 2.25], [4, 0]]]).to(dtype))
    assert moved[0, 1].tolist() == [[1.5, 2.25], [4, 0]] and logits[0, 1].tolist() == [-0.5, 2]
