"""Hand poses: the joints of a hand in millimetres, from a depth crop."""

from flowlib.tasks.hand_pose.figures import error_bars, success_figure
from flowlib.tasks.hand_pose.task import PoseTask

__all__ = ["PoseTask", "error_bars", "success_figure"]
