"""Actions: what a hand does in a sequence, from its joints frame by frame."""

from flowlib.tasks.action.figures import confusion_figure, observed_figure
from flowlib.tasks.action.task import ActionTask, training_set

__all__ = ["ActionTask", "confusion_figure", "observed_figure", "training_set"]
