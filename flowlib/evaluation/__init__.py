"""Is it any good? Predictors on held-out videos, trackers on real ground truth, and a report to show for it.

`evaluate` scores any number of predictors on one split and returns a `Report`; `evaluate_tracker` scores a tracker on
a benchmark. Scores are cached clip by clip, so a run that was killed goes on where it stopped.
"""

from flowlib.evaluation.benchmarks import StillTracker, TrackerReport, compare, evaluate_tracker
from flowlib.evaluation.ground_truth import (
    FlowPair,
    PointClip,
    load_arrays,
    read_badja,
    read_flo,
    read_flow_pair,
    read_kitti_flow,
    read_tapvid,
)
from flowlib.evaluation.leaks import Leak, find_leaks
from flowlib.evaluation.report import Report
from flowlib.evaluation.running import evaluate
from flowlib.evaluation.scoring import EvalConfig
from flowlib.evaluation.statistics import Estimate

__all__ = [
    "EvalConfig",
    "Estimate",
    "FlowPair",
    "Leak",
    "PointClip",
    "Report",
    "StillTracker",
    "TrackerReport",
    "compare",
    "evaluate",
    "evaluate_tracker",
    "find_leaks",
    "load_arrays",
    "read_badja",
    "read_flo",
    "read_flow_pair",
    "read_kitti_flow",
    "read_tapvid",
]
