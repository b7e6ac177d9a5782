"""From videos to shards: a plan of clips, worked off in chunks by a tracker, resumable at any clip.

The plan is decided by the videos and the config alone, so any machine can do any chunk and all agree on the whole.
Killed at any moment, the next run finds all clips but the one at work. Knows nothing of models.
"""

from flowlib.labelling.config import LabelConfig
from flowlib.labelling.estimating import estimate
from flowlib.labelling.job import LabelReport, label
from flowlib.labelling.plan import Plan, check_chunk, make_plan

__all__ = ["LabelConfig", "LabelReport", "Plan", "check_chunk", "estimate", "label", "make_plan"]
