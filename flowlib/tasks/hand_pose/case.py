"""A sequence of hand crops with the true joints: `PoseCase`, the same for all methods, and the answer to it.

Knows how joints in units of a crop become millimetres; knows nothing of metrics or of how methods are called.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flowlib.hands.crop import pixels_of, restore
from flowlib.hands.skeleton import Skeleton


@dataclass(frozen=True, eq=False)
class PoseCase:
    """The crops of one sequence, and what is true of them.

    Attributes:
        key, subject: of the sequence.
        skeleton: of the joints.
        crops: float [S 1 H W] in [-1, 1].
        joints: [S J 3] in mm, in the camera's frame.
        visible: [S J]; all true where it is not known what is hidden.
        centre: [S 3] in mm, rotation: [S 3 3], cube: [S] in mm, intrinsics: [S 4] (fx, fy, ux, uy): of the crops.
        frames: [S] numbers of the frames, ascending; a gap ends what counts as one motion.
        action: class of the sequence; -1 where it has none.
    """

    key: str
    subject: str
    skeleton: Skeleton
    crops: Float[Tensor, "S 1 H W"]
    joints: Float[np.ndarray, "S J 3"]
    visible: Bool[np.ndarray, "S J"]
    centre: Float[np.ndarray, "S 3"]
    rotation: Float[np.ndarray, "S 3 3"]
    cube: Float[np.ndarray, " S"]
    intrinsics: Float[np.ndarray, "S 4"]
    frames: Int[np.ndarray, " S"]
    action: int

    def restore(self, poses: Float[np.ndarray, "S J 3"]) -> Float[np.ndarray, "S J 3"]:
        """Joints in mm in the camera's frame, from those relative to the crops in halves of their cubes."""
        return restore(poses.astype(np.float64), self.centre, self.rotation, self.cube)

    def pixels(self, joints: Float[np.ndarray, "S J 3"]) -> Float[np.ndarray, "S J 2"]:
        """Where joints in mm are seen in the crops, (x, y) in pixels."""
        return pixels_of(joints, self.rotation, self.intrinsics)
