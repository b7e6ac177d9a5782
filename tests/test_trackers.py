"""The table of trackers: every name makes one, and what must know its clip says so."""

import numpy as np
import pytest

from flowlib.clips import Clip
from flowlib.geometry import fit_frame
from flowlib.sources import write_scene
from flowlib.synthetic import random_scene
from flowlib.trackers import MAKERS, NAMES, NeedsClip, Tracker, make_tracker
from flowlib.trackers.exact import ExactTracker


def test_a_name_makes_a_tracker_and_an_unknown_one_says_which_there_are(refuses):
    assert NAMES == ("lucas_kanade", "raft", "pips", "alltracker", "alltracker-full", "exact") == tuple(MAKERS)
    assert all(place.startswith("flowlib.trackers.") for place in MAKERS.values())  # what the layers can't see
    for name in ("lucas_kanade", "exact"):
        assert isinstance(make_tracker(name), Tracker) and make_tracker(name).describe()["name"] == name
        with refuses(f"weights: {name} has none, expected '', got 'a.pth'"):
            make_tracker(name, weights="a.pth")
    with refuses("tracker: expected one of lucas_kanade, raft, pips, alltracker, alltracker-full, exact, got 'raftt'"):
        make_tracker("raftt")


def test_only_the_exact_tracker_needs_to_know_its_clip(tmp_path, refuses):
    assert isinstance(make_tracker("exact"), NeedsClip) and not isinstance(make_tracker("lucas_kanade"), NeedsClip)
    scene = random_scene(12, (48, 64), seed=1)
    path = write_scene(tmp_path / "a.mkv", scene)
    clip = Clip("a", "f" * 64, 2, 3, 4, (48, 64), 10.0, 12)
    queries = np.array([[0, 20.0, 30.0], [1, 4.0, 5.0]], np.float32)
    tracker = make_tracker("exact")
    frames = np.zeros((4, 24, 32, 3), np.uint8)
    with refuses("scene: expected the scene that the clip shows, got None"):
        tracker(frames, queries)
    fit = fit_frame((48, 64), (24, 32))
    bound = tracker.for_clip(clip, path, fit)
    np.testing.assert_array_equal(bound(frames, queries).tracks, ExactTracker(scene, 2, 3, fit)(frames, queries).tracks)
    with refuses("found no scene", FileNotFoundError):
        tracker.for_clip(clip, tmp_path / "b.mkv", fit)


def test_names_are_those_a_config_takes(refuses):
    from flowlib.labelling import LabelConfig

    assert [LabelConfig(tracker=name).tracker for name in NAMES] == list(NAMES)
    with refuses("tracker: expected one of lucas_kanade, raft, pips, alltracker, alltracker-full, exact, got 'none'"):
        LabelConfig(tracker="none")


@pytest.mark.parametrize("name", NAMES)
def test_every_name_leads_to_a_function(name):
    from pkgutil import resolve_name

    assert resolve_name(MAKERS[name]).__module__ == MAKERS[name].partition(":")[0]


@pytest.mark.parametrize("name", ["lucas_kanade", "exact"])
def test_another_device_than_the_cpu_is_refused_or_said(name, refuses, monkeypatch):
    for device in ("cuda:99", "tpu"):
        with refuses("device: expected"):
            make_tracker(name, device=device)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.warns(UserWarning, match=f"{name} computes on the CPU, cuda makes no difference"):
        make_tracker(name, device="cuda")
