"""What numbers look like: the colours shared by the viewer and the static figures, so that both say the same thing.

Three maps, all drawn in OKLab (Björn Ottosson, https://bottosson.github.io/posts/oklab): equal steps look equal, and
what has to be told apart differs in lightness or between blue and yellow, which red-green colour-blind people see.
NumPy only; knows nothing of figures, widgets or files.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, UInt8

from flowlib.geometry import Size, to_shares

TRUTH = (64, 169, 236)  # the sets, where colour tells them apart: blue against orange
PREDICTION = (255, 148, 44)
SETS = (TRUTH, PREDICTION, (92, 190, 118), (222, 112, 178), (226, 201, 72), (146, 124, 240))  # any number, in a circle
FINGERS = {  # of hands: orange to violet by way of green and blue (Okabe and Ito 2008, lightened), the palm grey
    "palm": (168, 172, 182), "thumb": (224, 108, 40), "index": (234, 172, 30), "middle": (32, 172, 128),
    "ring": (64, 150, 226), "pinky": (206, 122, 178),
}  # fmt: skip
NEVER = (214, 216, 222)  # points that are never hidden, when the colour is the frame of the first occlusion
OUTSIDE = (238, 96, 40)  # points that left the region promised for them; those inside are like `NEVER`
HOLE = (196, 190, 204)  # lilac grey: where nothing of a rebuilt frame came
NICE_STEPS = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)

Colours = UInt8[np.ndarray, "... 3"]


def set_colour(which: int) -> tuple[int, int, int]:
    """The colour of set number `which` where colour tells sets apart: 0 the truth, 1 the first prediction."""
    return SETS[which % len(SETS)]


def mark_holes(frame: UInt8[np.ndarray, "H W 3"], covered: Bool[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """A rebuilt frame with its holes (where `covered` is False) veiled in grey; what fills them shines through faintly.

    >>> mark_holes(np.zeros((1, 2, 3), np.uint8), np.array([[True, False]]))[0, :, 0].tolist()
    [0, 147]
    """
    veiled = np.round(0.25 * frame + 0.75 * np.array(HOLE)).astype(np.uint8)
    return np.where(covered[..., None], frame, veiled)


def oklab_to_rgb(lightness: np.ndarray, a: np.ndarray, b: np.ndarray) -> Colours:
    """OKLab coordinates of one shape [...] as sRGB uint8 [... 3]; what sRGB can't show is cut off."""
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    red = 4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short
    green = -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short
    blue = -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short
    linear = np.clip(np.stack([red, green, blue], axis=-1), 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(encoded * 255).astype(np.uint8)


def magnitude_colours(values: np.ndarray, limit: float) -> Colours:
    """Amounts from 0 (violet) to `limit` (light yellow) and beyond (the same yellow): values [...] -> [... 3]."""
    share = np.clip(np.asarray(values, np.float64) / limit, 0, 1)
    hue = np.deg2rad(290 + 165 * share)
    chroma = 0.16 + 0.05 * np.sin(np.pi * share)
    return oklab_to_rgb(0.48 + 0.44 * share, chroma * np.cos(hue), chroma * np.sin(hue))


def position_colours(xy: np.ndarray, size: Size) -> Colours:
    """Places in a frame of `size` (height, width): blue on the left to yellow on the right, darker downwards."""
    across, down = np.moveaxis(np.clip(to_shares(xy, size), 0, 1), -1, 0)
    hue = np.deg2rad(262 + 193 * across)
    return oklab_to_rgb(0.88 - 0.26 * down, 0.15 * np.cos(hue), 0.15 * np.sin(hue))


def direction_colours(vectors: np.ndarray, limit: float) -> Colours:
    """Displacements [... 2] (x right, y down): hue and lightness say where to, saturation how far (grey = still)."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    x, y = np.moveaxis(vectors / np.maximum(length, limit), -1, 0)
    return oklab_to_rgb(0.74 - 0.16 * y, np.where(y < 0, 0.13, 0.18) * y, 0.15 * x)


def magnitude_table(count: int = 256) -> UInt8[np.ndarray, "count 3"]:
    """`magnitude_colours` from 0 to the limit."""
    return magnitude_colours(np.linspace(0, 1, count), 1.0)


def position_table(side: int = 64) -> UInt8[np.ndarray, "side side 3"]:
    """`position_colours` over the whole frame, row by row."""
    centres = np.arange(side, dtype=np.float64)
    return position_colours(np.stack(np.meshgrid(centres, centres), axis=-1), (side, side))


def direction_table(side: int = 33) -> UInt8[np.ndarray, "side side 3"]:
    """`direction_colours` of the square from (-limit, -limit) to (limit, limit), row by row; the middle is still."""
    axis = np.linspace(-1, 1, side)
    return direction_colours(np.stack(np.meshgrid(axis, axis), axis=-1), 1.0)


def nice_limit(values: np.ndarray, percentile: float = 98) -> float:
    """A round number that nearly all `values` stay under, for the end of a colour scale; 1 where nothing moves.

    >>> nice_limit(np.array([0.0, 3.1, 7.3]))
    8.0
    """
    values = np.asarray(values, np.float64)
    top = float(np.percentile(values, percentile)) if values.size else 0.0
    if top < 1e-3:
        return 1.0
    power = 10.0 ** np.floor(np.log10(top))
    return float(round(next(step for step in NICE_STEPS if step * power >= top * (1 - 1e-9)) * power, 6))
