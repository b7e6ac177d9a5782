"""Who takes part in a comparison, in a sentence or two each, told from what the run says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flowlib.evaluation.comparison import Comparison


def introduce(report: Comparison, name: str) -> str:
    """What a predictor does, for a reader who has met none of them."""
    told = report.told(name)
    described = told.get("describes_itself_as") or {}
    known = {
        "ZeroMotion": "Nothing moves. The frame rebuilt from it is a copy of the first picture.",
        "MeanMotion": "Every part of the picture moves as that part moved, on average, in the training videos.",
        "NearestNeighbour": "Looks for the training clip whose pictures are most alike, and repeats how it moved.",
        "OracleTracks": "The tracks that all others are measured against. It knows the answer, so it is no rival: it "
        "shows how good a rebuilt frame can get where the tracker could follow.",
    }
    if told.get("class") == "ConstantVelocity":
        return _constant_velocity(described)
    if told.get("class") == "Scaled":
        return _scaled(described)
    return known.get(told.get("class", ""), "") or _network(told)


def _constant_velocity(described: Mapping[str, Any]) -> str:
    flow = {"dis_flow": "DIS"}.get(described.get("flow", ""), described.get("flow", "").split(" ")[0].upper())
    between = _listed(described.get("input_frames", ()))
    return f"Measures the motion between {between} by optical flow ({flow}), and lets all go on at that speed."


def _scaled(described: Mapping[str, Any]) -> str:
    inner = described.get("predictor")
    if isinstance(inner, Mapping) and "flow" in inner:
        first = _constant_velocity(inner)
    else:
        first = f"The same as {inner.get('name', 'another') if isinstance(inner, Mapping) else inner}."
    last = described.get("gains", [1.0])[-1]
    return f"{first} Each frame's motion is then scaled by what fits the training videos best ({last:.2f} in the last)."


def _network(told: Mapping[str, Any]) -> str:
    about, count = told.get("about") or {}, told.get("parameters", 0)
    sees = f"sees {_listed(told.get('input_frames', ()))}"
    if not count:
        return f"A predictor ({told.get('class', 'unknown')}) that {sees}."
    trained = f", trained for {about['step']} steps" if "step" in about else ""
    return f"A network ({told['class']}, {count / 1e6:.1f} million parameters){trained}; it {sees}."


def _listed(frames: Sequence[int]) -> str:
    if len(frames) == 1:
        return f"frame {frames[0]} only"
    return "frames " + ", ".join(map(str, frames[:-1])) + f" and {frames[-1]}" if frames else "no frame"
