"""Find or make the videos to work on: the user's folder, the sample that ships with the package, or rendered scenes.

A rendered video keeps its scene as JSON beside it, so that its exact tracks can be asked for at any time.
Knows nothing of clips, shards or models.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from flowlib.geometry import Size
from flowlib.synthetic import ACTIONS, Scene, action_scene, random_scene
from flowlib.video import write_video
from flowlib.workspace import Workspace, write_json

SAMPLE = Path(__file__).parent / "sample"
SCENE_SUFFIX = ".scene.json"


def find_source(source: str, workspace: Workspace, *, progress: Callable[[Iterable], Iterable] | None = None) -> Path:
    """The folder (or video) that a notebook's `source` stands for.

    Args:
        source: "sample" for the two clips of the package; "synthetic" for rendered videos, made in the workspace the
            first time; "" for the workspace's `videos/`; else a path.
        workspace: where rendered videos are kept.
        progress: wraps the list of videos while they are rendered, for example `Progress`.

    Raises:
        FileNotFoundError: there is nothing at the path.

    >>> sorted(path.name for path in find_source("sample", Workspace("/tmp/flowlib-example")).glob("*.mp4"))
    ['basketball.mp4', 'bikes.mp4']
    """
    if source == "sample":
        return SAMPLE
    if source == "synthetic":
        return write_synthetic(workspace.videos / "synthetic", progress=progress)
    path = Path(os.path.expanduser(source)) if source else workspace.videos
    if not path.exists():
        raise FileNotFoundError(f"source: expected 'sample', 'synthetic' or a path, found nothing at {path}")
    return path


def write_synthetic(
    folder: str | Path,
    *,
    count: int = 12,
    num_frames: int = 48,
    size: Size = (180, 320),
    motion: str = "affine",
    camera: str = "linear",
    progress: Callable[[Iterable], Iterable] | None = None,
) -> Path:
    """Render `count` scenes into `folder` as lossless videos with their scenes beside them; those there are kept.

    Args:
        folder: where.
        count: how many; video i is decided by its number alone.
        num_frames, size, motion, camera: as for `synthetic.random_scene`.
        progress: wraps the numbers of the videos, for example `Progress`.
    """
    folder = Path(folder).expanduser()
    numbers = range(count)
    for number in progress(numbers) if progress else numbers:
        path = folder / f"synthetic_{number:03d}.mkv"
        scene = random_scene(num_frames, size, seed=number, motion=motion, camera=camera)
        if not path.exists() or not scene_path(path).exists():
            write_scene(path, scene)
    return folder


def write_actions(
    folder: str | Path,
    *,
    count: int = 40,
    num_frames: int = 16,
    size: Size = (96, 128),
    camera: str = "linear",
    progress: Callable[[Iterable], Iterable] | None = None,
) -> Path:
    """Render `count` scenes, each with every action, into a folder for each action; those there are kept.

    Scene i is called alike in all folders, is decided by its number alone, and looks alike in its first frame.

    Args:
        folder: where.
        count: of scenes.
        num_frames, size, camera: as for `synthetic.action_scene`.
        progress: wraps the numbers of the scenes, for example `Progress`.
    """
    folder = Path(folder).expanduser()
    numbers = range(count)
    for number in progress(numbers) if progress else numbers:
        for action in ACTIONS:
            path = folder / action / f"scene_{number:03d}.mkv"
            if not path.exists() or not scene_path(path).exists():
                write_scene(path, action_scene(action, num_frames, size, seed=number, camera=camera))
    return folder


def write_scene(path: str | Path, scene: Scene, *, fps: float = 10.0) -> Path:
    """Render a scene into a lossless video, and write the scene beside it, first."""
    path = Path(path).expanduser()
    write_json(scene_path(path), scene.to_dict())
    return write_video(path, (scene.render(t) for t in range(scene.num_frames)), fps=fps, lossless=True)


def read_scene(path: str | Path) -> Scene:
    """The scene a video was rendered from.

    Raises:
        FileNotFoundError: the video has none beside it.
        ValueError: what is there is no scene.
    """
    beside = scene_path(path)
    if not beside.exists():
        raise FileNotFoundError(f"{path}: expected a rendered video with its {beside.name} beside it, found no scene")
    try:
        return Scene.from_dict(json.loads(beside.read_text(encoding="utf-8")))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{beside}: expected a scene, as it was written beside a rendered video, {error}") from error


def scene_path(path: str | Path) -> Path:
    """Where the scene of a rendered video is kept."""
    return Path(path).expanduser().with_suffix(SCENE_SUFFIX)
