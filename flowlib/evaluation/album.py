"""The pictures of the latest report, kept in one file, so that a report made again predicts nothing anew."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flowlib.evaluation.cache import from_json, measuring_fingerprint, to_json
from flowlib.evaluation.pictures import ClipPictures, PredictorPictures
from flowlib.evaluation.scoring import EvalConfig
from flowlib.workspace import atomic_write

VERSION = 1  # raise it whenever the pictures are drawn in another way


class Album:
    """Pictures of clips by what decides them.

    Args:
        path: the file; it holds the pictures of one evaluation, the last.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        stored = json.loads(path.read_text()) if path.exists() else {}
        self.clips = {key: _decoded(clip) for key, clip in stored.items()}

    def save(self, clips: dict[str, ClipPictures]) -> None:
        """Keep these pictures, and no others."""
        if clips == self.clips:
            return
        with atomic_write(self.path) as temporary:
            Path(temporary).write_text(json.dumps({key: _encoded(asdict(clip)) for key, clip in clips.items()}))
        self.clips = clips


def picture_key(title: str, content: str, where: str, predictors: Sequence[tuple[str, str]], config: EvalConfig) -> str:
    """SHA-256 of all that decides the pictures of a clip: its content, and every predictor's name and fingerprint."""
    decisive = [VERSION, title, content, where, list(map(list, predictors)), measuring_fingerprint(config)]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


def _encoded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _encoded(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_encoded(inner) for inner in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return to_json(value) if isinstance(value, float) else value


def _decoded(clip: dict[str, Any]) -> ClipPictures:
    pictures = {name: _bytes(clip[name]) for name in ("first", "paths", "last")}
    shown = [
        PredictorPictures(
            **{"name": one["name"]}
            | {name: _bytes(one[name]) for name in ("paths", "rebuilt", "difference")}
            | {name: from_json(one[name]) for name in ("ade", "psnr")}
        )
        for one in clip["predictors"]
    ]
    return ClipPictures(**clip | pictures | {"visible": from_json(clip["visible"]), "predictors": shown})


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)
