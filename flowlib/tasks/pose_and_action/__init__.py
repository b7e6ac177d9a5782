"""Pose and action together: the joints of a hand in every frame of a sequence, and what the hand does."""

from flowlib.tasks.pose_and_action.poses import PosedSequences, predict_poses
from flowlib.tasks.pose_and_action.task import JointTask, OnTruePoses

__all__ = ["JointTask", "OnTruePoses", "PosedSequences", "predict_poses"]
