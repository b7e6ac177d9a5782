"""Tone mapping: pictures in HDR (PQ or HLG) as SDR shows them, with BT.709 colours."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from jaxtyping import UInt8, UInt16

WHITE = 203.0  # cd/m² of what SDR calls white (BT.2408)
PEAK = 1000 / WHITE  # of HDR as it is usually graded; what is brighter becomes white
KNEE = 0.8  # of SDR's white: what is darker keeps its brightness, what is brighter shares the rest of the range
GAMMA = 2.2
LUMA, LUMA_2020 = np.array([[0.2126, 0.7152, 0.0722], [0.2627, 0.6780, 0.0593]], np.float32)
# By FFmpeg's number of the primaries (BT.2020, Display P3): linear RGB to that of BT.709.
TO_BT709 = {
    9: np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32),
    12: np.array([[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]], np.float32),
}
NAMES = {16: "PQ", 18: "HLG"}  # by FFmpeg's number of the transfer function


def tone_map(codes: UInt16[np.ndarray, "H W 3"], transfer: int, primaries: int) -> UInt8[np.ndarray, "H W 3"]:
    """An HDR picture in SDR: the same brightness up to `KNEE`, hues kept.

    Args:
        codes: RGB as coded, 0 to 65535.
        transfer: of `NAMES`.
        primaries: FFmpeg's number; what isn't in `TO_BT709` stays as it is.
    """
    light = _light(transfer)[codes]
    if transfer == 18:  # a display makes HLG's scene light brighter by the light's own power (BT.2100, 1000 cd/m²)
        light *= PEAK * np.maximum(light @ LUMA_2020, 1e-6)[..., None] ** np.float32(0.2)
    if primaries in TO_BT709:
        light = cv2.transform(light, TO_BT709[primaries])
        # What BT.709 can't show is mixed with its grey until it can.
        grey = np.maximum(light @ LUMA, 0)[..., None]
        lowest = np.minimum(light.min(axis=2, keepdims=True), 0)
        light = grey + (light - grey) * (grey / np.maximum(grey - lowest, 1e-6))
    brightest = light.max(axis=2, keepdims=True)
    over, most = np.maximum(brightest - KNEE, 0) / (1 - KNEE), (PEAK - KNEE) / (1 - KNEE)
    bent = np.minimum(brightest, KNEE) + (1 - KNEE) * over * (1 + over / most**2) / (1 + over)
    light *= bent / np.maximum(brightest, 1e-6)
    return _codes()[np.rint(np.clip(light, 0, 1) * 65535).astype(np.uint16)]


@cache
def _light(transfer: int) -> np.ndarray:
    """Of every code, float32: PQ's light as a share of SDR's white, HLG's as a share of the scene's brightest."""
    code = np.linspace(0, 1, 65536)
    if transfer == 16:
        root = code ** (1 / 78.84375)
        light = (
            10000 / WHITE * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
        )
    else:
        light = np.where(code <= 0.5, code**2 / 3, (np.exp((code - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    return light.astype(np.float32)


@cache
def _codes() -> np.ndarray:
    return np.round(255 * np.linspace(0, 1, 65536) ** (1 / GAMMA)).astype(np.uint8)
