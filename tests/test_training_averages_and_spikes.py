"""The warm-up of averaged weights, and each threshold of the spike report from both sides."""

import json

import pytest
import torch
from torch import nn

from flowlib.training import spike_report
from flowlib.training.optim import averaged_model


@pytest.mark.parametrize("step, kept", [(0, 0.1), (8, 0.5), (80, 0.9), (10**6, 0.99)])
def test_an_average_is_short_early_on(step, kept):
    """After step 8 it is over two steps or so, (1 + 8) / (10 + 8); in the end the decay given rules."""
    model = nn.Linear(2, 3)
    averaged = averaged_model(model, 0.99, step)
    before = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.add_(1)
    averaged.update_parameters(model)
    torch.testing.assert_close(averaged.module.weight, before + (1 - kept))


def test_the_first_updates_average_from_the_first_weights_on():
    """Updates 0, 1, … of one average weigh by their own number, as an average that is made anew at each does."""
    model = nn.Linear(2, 3)
    averaged = averaged_model(model, 0.99)
    expected = model.weight.detach().clone()
    for step in range(4):
        with torch.no_grad():
            model.weight.add_(1)
        averaged.update_parameters(model)
        kept = (1 + step) / (10 + step)
        expected = kept * expected + (1 - kept) * model.weight.detach()
        torch.testing.assert_close(averaged.module.weight, expected)


def report_of(folder, loss=5.0, norm_before=1.0, bn_shift=0.1, same=None):
    """What is said of step 41 of a run that is 1 everywhere else; its clips' loss was `same` before, if they were."""
    rows = [
        {"step": i + 1, "loss": 1.0, "grad_norm": 1.0, "lr": 1e-3, "bn_shift": 0.1, "bn_layer": "a.1"}
        for i in range(60)
    ]
    for row in rows:
        row["clips"] = ["usual"]
    rows[40] |= {"loss": loss, "bn_shift": bn_shift, "clips": ["rare"]}
    rows[39]["grad_norm"] = norm_before
    if same is not None:
        rows[10] |= {"loss": same, "clips": ["rare"]}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return spike_report(folder)


@pytest.mark.parametrize("loss, steps", [(1.9, []), (2.0, []), (2.1, [41])])
def test_a_loss_counts_as_a_spike_above_twice_the_usual(tmp_path, loss, steps):
    assert [spike.step for spike in report_of(tmp_path, loss).spikes] == steps


@pytest.mark.parametrize(
    "changes, words, said",
    [
        ({"norm_before": 2.9}, "times the usual gradient", False),
        ({"norm_before": 3.1}, "3.1 times the usual gradient", True),
        ({"bn_shift": 0.29}, "deviations off", False),
        ({"bn_shift": 0.31}, "0.3 deviations off in a.1", True),
        ({"loss": 1.6 * 1.9, "same": 1.9}, "a hard batch", False),
        ({"loss": 1.4 * 1.9, "same": 1.9}, "a hard batch", True),
        ({"same": 1.9}, "not together in a batch before", False),
        ({}, "not together in a batch before", True),
    ],
)
def test_what_stands_out_is_said_from_its_threshold_on(tmp_path, changes, words, said):
    (spike,) = report_of(tmp_path, **changes).spikes
    assert (words in spike.reading) == said
