"""Is it any good? Predictors on held-out videos, and a report to show for it.

`evaluate` scores any number of predictors on one split and returns a `Report`. Scores are cached clip by
clip, so a run that was killed goes on where it stopped.
"""

from flowlib.evaluation.leaks import Leak, find_leaks
from flowlib.evaluation.report import Report
from flowlib.evaluation.running import evaluate
from flowlib.evaluation.scoring import EvalConfig
from flowlib.evaluation.statistics import Estimate

__all__ = [
    "EvalConfig",
    "Estimate",
    "Leak",
    "Report",
    "evaluate",
    "find_leaks",
]
