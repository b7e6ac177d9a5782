"""What an action network is told of each frame: vectors of a fixed length, from the joints of a hand.

Differentiable, so that a loss on actions reaches the network that found the joints. Knows nothing of networks.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from flowlib.hands.skeleton import Skeleton

FEATURES = ("given", "centre", "root", "bones")
LEAST = 1e-6  # a bone that short has no direction


def from_joints(joints: Float[Tensor, "*n J 3"], skeleton: Skeleton, kind: str = "given") -> Float[Tensor, "*n D"]:
    """Vectors of D = 3J numbers from the joints of each frame.

    Args:
        joints: in any unit.
        skeleton: of the joints.
        kind: "given" (as they are, flattened); "centre" or "root" (as seen from the skeleton's centre or its root); or
            "bones": every bone made 1 long and the chains put together anew from the root, so that the size and build
            of a hand don't count.

    Raises:
        ValueError: no such kind, or not as many joints as the skeleton has.

    >>> from flowlib.hands.skeleton import FPHA_21
    >>> large = from_joints(2 * torch.rand(5, 21, 3, generator=torch.Generator().manual_seed(0)), FPHA_21, "bones")
    >>> small = from_joints(torch.rand(5, 21, 3, generator=torch.Generator().manual_seed(0)), FPHA_21, "bones")
    >>> bool(torch.allclose(large, small, atol=1e-5))
    True
    """
    if joints.shape[-2:] != (skeleton.num_joints, 3):
        expected = f"[… {skeleton.num_joints} 3] as {skeleton.name} has them"
        raise ValueError(f"joints: expected {expected}, got {list(joints.shape)}")
    if kind not in FEATURES:
        raise ValueError(f"features: expected one of {', '.join(FEATURES)}, got {kind!r}")
    if kind in ("centre", "root"):
        joints = joints - joints[..., getattr(skeleton, kind), None, :]
    if kind == "bones":
        joints = _of_unit_bones(joints, skeleton)
    return joints.flatten(-2)


def _of_unit_bones(joints: Tensor, skeleton: Skeleton) -> Tensor:
    """The joints of a hand with these directions of its bones, each of length 1, its root at 0."""
    placed = {skeleton.root: torch.zeros_like(joints[..., 0, :])}
    for joint in skeleton.by_finger[1:]:
        parent = skeleton.parents[joint]
        bone = joints[..., joint, :] - joints[..., parent, :]
        placed[joint] = placed[parent] + bone / bone.norm(dim=-1, keepdim=True).clamp(min=LEAST)
    return torch.stack([placed[joint] for joint in range(skeleton.num_joints)], dim=-2)
