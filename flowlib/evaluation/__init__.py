"""Evaluation: any number of methods side by side on one split, for any task, and a report to show for it.

`evaluate` scores methods sample by sample and returns a `Report`. Scores are cached, so a run that was killed goes on
where it stopped, and a new metric or method costs only itself. Knows `tasks.protocol`; knows no task by name.
"""

from flowlib.evaluation.evaluate import evaluate
from flowlib.evaluation.leaks import Leak, find_leaks
from flowlib.evaluation.report import Report
from flowlib.evaluation.statistics import EvalConfig
from flowlib.tasks.protocol import Estimate

__all__ = ["Estimate", "EvalConfig", "Leak", "Report", "evaluate", "find_leaks"]
