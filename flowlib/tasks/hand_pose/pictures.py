"""Crops with skeletons drawn over them, as pictures: for figures in a notebook and for a report's strips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8

from flowlib.colours import PREDICTION, TRUTH
from flowlib.geometry import rescale_points
from flowlib.hands.skeleton import Skeleton
from flowlib.tasks.hand_pose.case import PoseCase
from flowlib.tasks.protocol import Identity, Picture, Strip, StripRow
from flowlib.video import encode_image

SIDE = 256  # pixels of a picture
MOMENTS = 4  # frames shown of a sequence
READING = (
    "The sequence on which the method in question errs least, the one in the middle, and the one on which it errs "
    "most, at four moments spread evenly. Blue is where the joints are, orange where they are said to be; hollow "
    "joints are hidden from the camera. Below each name: its mean error on this sequence."
)


def draw_hand(
    crop: Float[np.ndarray, "H W"],
    skeleton: Skeleton,
    layers: Sequence[tuple[Float[np.ndarray, "J 2"], tuple[int, int, int]]],
    visible: Bool[np.ndarray, " J"],
    side: int = SIDE,
) -> UInt8[np.ndarray, "h w 3"]:
    """A crop in [-1, 1], near things bright, with skeletons over it: (joints in the crop's pixels, colour) each."""
    import cv2

    grey = ((1 - np.asarray(crop)) * 100).clip(0, 200).astype(np.uint8) + np.uint8(20)
    size, sub = (side, side), 8  # OpenCV takes fixed-point coordinates: three binary places
    canvas = cv2.cvtColor(cv2.resize(grey, (side, side), interpolation=cv2.INTER_NEAREST), cv2.COLOR_GRAY2RGB)
    for joints, colour in layers:
        xy = np.round(rescale_points(joints, (crop.shape[0], crop.shape[1]), size) * sub).clip(-(2**20), 2**20)
        places = [(int(x), int(y)) for x, y in xy]
        for parent, child in skeleton.bones:
            cv2.line(canvas, places[parent], places[child], colour, 1, cv2.LINE_AA, 3)
        for place, seen in zip(places, visible):
            cv2.circle(canvas, place, 3 * sub, colour, -1 if seen else 1, cv2.LINE_AA, 3)
    return canvas


def strip_of(title: str, identity: Identity, case: PoseCase, joints: Mapping[str, np.ndarray]) -> Strip:
    """A sequence at a few moments: the truth, and each method's joints in mm [S J 3] over it."""
    S = len(case.joints)
    moments = np.unique(np.linspace(0, S - 1, min(MOMENTS, S)).round().astype(int))
    truth = case.pixels(case.joints)

    def picture(moment: int, predicted: np.ndarray | None) -> Picture:
        layers = [(truth[moment], TRUTH)] + ([] if predicted is None else [(predicted[moment], PREDICTION)])
        drawn = draw_hand(case.crops[moment, 0].numpy(), case.skeleton, layers, case.visible[moment])
        return Picture(encode_image(drawn, "jpeg", 85), "" if predicted is not None else f"frame {case.frames[moment]}")

    rows = []
    for name, found in joints.items():
        error = np.linalg.norm(found - case.joints, axis=-1).mean()
        shown = tuple(picture(int(moment), case.pixels(found)) for moment in moments)
        rows.append(StripRow(name, f"{error:.1f} mm", shown))
    hidden = 1 - case.visible.mean()
    note, heads = f"{hidden:.0%} of its joints are hidden", tuple(f"frame {case.frames[m]}" for m in moments)
    pictures = tuple(picture(int(moment), None) for moment in moments)
    return Strip(title, identity.name, identity.group, identity.where, note, heads, pictures, tuple(rows))
