"""The published figures of hand pose and actions: each says of what, from where, and what to mind."""

import json
from pathlib import Path

import pytest

FILE = Path(__file__).parents[1] / "bench" / "hands_published.json"
CONTENT = json.loads(FILE.read_text(encoding="utf-8"))
TEXTS = ("name", "topic", "dataset", "setting", "source", "caveat")
RANGES = {"mm": (3, 40), "accuracy": (0, 1), "top3": (0, 1), "mm_change": (-10, 10), "accuracy_change": (-1, 1)}
RANGES |= {"seconds": (1, 1000), "megabytes": (1, 10_000)}


@pytest.mark.parametrize("entry", CONTENT["entries"], ids=lambda entry: f"{entry['name']}, {entry['dataset']}")
def test_every_entry_is_whole_and_its_figures_are_possible(entry):
    assert set(entry) == {*TEXTS, "figures", "unchecked"} and type(entry["unchecked"]) is bool
    assert all(isinstance(entry[name], str) and entry[name].strip() == entry[name] != "" for name in TEXTS)
    assert entry["figures"] and len({figure["of"] for figure in entry["figures"]}) == len(entry["figures"])
    for figure in entry["figures"]:
        values = {metric: value for metric, value in figure.items() if metric != "of"}
        assert values and isinstance(figure["of"], str) and figure["of"]
        assert all(RANGES[metric][0] <= value <= RANGES[metric][1] for metric, value in values.items())


def test_the_file_explains_its_metrics_and_names_each_entry_once():
    assert (CONTENT["format"], CONTENT["version"]) == ("flowlib-hands-published", 1)
    assert set(CONTENT["metrics"]) == set(RANGES)
    keys = [(entry["name"], entry["dataset"], entry["setting"]) for entry in CONTENT["entries"]]
    assert len(set(keys)) == len(keys)


def test_what_is_from_memory_says_so():
    unchecked = [entry for entry in CONTENT["entries"] if entry["unchecked"]]
    assert {(entry["name"].split(" (")[0], entry["dataset"]) for entry in unchecked} == {
        ("DeepPrior++", "MSRA15"),
        ("DeepPrior++", "ICVL"),
        ("V2V-PoseNet", "MSRA15"),
        ("LSTM on true poses", "FPHA, 1:1 protocol"),
    }
    assert all(("from memory and unchecked" in entry["caveat"]) == entry["unchecked"] for entry in CONTENT["entries"])


def figures(name: str, topic: str) -> dict[str, dict]:
    found = [entry for entry in CONTENT["entries"] if (entry["name"], entry["topic"]) == (name, topic)]
    return {figure["of"]: figure for entry in found for figure in entry["figures"]}


def test_figures_that_others_stand_on():
    assert figures("DeepPrior++ (Oberweger and Lepetit 2017)", "pose")["test"]["mm"] in (12.238, 9.5, 8.1)
    assert figures("crop cube", "cube")["190 mm, epoch 20"]["mm"] == 10.82
    assert figures("two-pass", "joint")["reported"] == {"of": "reported", "mm": 10.72, "accuracy": 0.71}
    assert len(figures("two-pass, weights of the second pass", "joint")) == 9
    assert figures("fine-tuning, BatchNorm and dropout", "fine-tuning")["both fixed"]["accuracy"] == 0.645
    noise = list(figures("accuracy against pose error, chain without training", "noise").values())
    assert len(noise) == 7
    falling = sorted(noise, key=lambda figure: figure["mm"])
    assert [f["accuracy"] for f in falling] == sorted((f["accuracy"] for f in noise), reverse=True)


def test_a_conditioned_pose_never_stands_without_its_control():
    true, uniform = (figures(f"pose given the {action} action", "conditioning") for action in ("true", "uniform"))
    assert len(uniform) == 6
    assert {of.removesuffix(", uniform action") for of in uniform} <= {of.removesuffix(", true action") for of in true}
    two_pass = next(entry for entry in CONTENT["entries"] if entry["name"] == "two-pass")
    assert "the average of two networks" in two_pass["caveat"]
