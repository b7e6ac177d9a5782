"""Hands in depth videos: skeletons, readers of the published sets, a synthetic hand, crops and their store.

Joints are float32 [S J 3] in millimetres in the depth camera's frame (x right, y down, z forward), depth is float32
[H W] in millimetres with 0 where nothing was measured. NumPy only; `flowlib.hands.dataset` alone needs torch.
"""

from flowlib.hands.sequences import HandCollection, HandSequence, Skipped
from flowlib.hands.skeleton import FPHA_21, ICVL_16, MSRA_21, NYU_14, Skeleton, bone_lengths, reorder

__all__ = [
    "FPHA_21",
    "HandCollection",
    "HandSequence",
    "ICVL_16",
    "MSRA_21",
    "NYU_14",
    "Skeleton",
    "Skipped",
    "bone_lengths",
    "reorder",
]
