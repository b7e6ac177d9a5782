"""Labelling by Ray: the same samples as from one process, whatever happens to the workers."""

import os
import signal
import sys

import pytest
from fixtures.labelling import CONFIG, DriftTracker, samples, write_videos

from flowlib.labelling import label, make_plan
from flowlib.workspace import Workspace


@pytest.fixture
def videos(tmp_path):
    return write_videos(tmp_path / "my vidéos")


@pytest.fixture(scope="module")
def ray():
    """A cluster of two cores, for the tests to join: starting one takes longer than they do."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'flowlib[ray]'")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def test_ray_gives_the_same_samples_even_if_a_worker_dies(ray, videos, tmp_path):
    plan = make_plan(videos, CONFIG)
    whole = label(plan, Workspace(tmp_path / "local"), tracker=DriftTracker(), progress=False)
    for module in (__name__, DriftTracker.__module__):
        ray.cloudpickle.register_pickle_by_value(sys.modules[module])  # workers don't find the tests
    dying = DyingTracker(tmp_path / "died")
    report = label(plan, Workspace(tmp_path / "ray"), tracker=dying, engine="ray", workers=2, progress=False)
    assert (tmp_path / "died").exists() and report.labelled == 6
    assert samples(report.folder) == samples(whole.folder)


class DyingTracker(DriftTracker):
    """Kills its process at its second call, once."""

    def __init__(self, marker):
        super().__init__()
        self.marker = marker

    def __call__(self, frames, queries):
        if self.calls == 1 and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(frames, queries)


class BrokenTracker(DriftTracker):
    """Comes through pickling as an error."""

    def __reduce__(self):
        return int, ("no tracker",)


def test_ray_says_why_its_workers_died(ray, videos, tmp_path):
    plan = make_plan(videos, CONFIG)
    with pytest.raises(RuntimeError, match="(?s)ray: 3 workers died over v.*no tracker"):
        label(plan, Workspace(tmp_path), tracker=BrokenTracker(), engine="ray", workers=1, progress=False)
