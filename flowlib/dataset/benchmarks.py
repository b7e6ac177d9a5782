"""Read benchmarks with real ground truth: BADJA, TAP-Vid, Middlebury, Sintel and KITTI. Files in, `ClipSample`s out.

`ClipList(read_badja(…), num_frames=8)` makes a dataset of clips for training of them. Nothing is unpickled but NumPy
arrays. Knows nothing of trackers or scores.
"""

from __future__ import annotations

import io
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8

from flowlib.clips import Clip, ClipSample
from flowlib.geometry import Size, from_shares, pixel_grid, rescale_points
from flowlib.tracks import Tracks
from flowlib.video import decode_image, read_frames, resize_frame

FLO_MAGIC = 202021.25  # Baker et al., A Database and Evaluation Methodology for Optical Flow, file format of Middlebury
UNKNOWN = 1e9  # pixels; Middlebury marks unknown flow by larger numbers
BADJA_SIZE = (1080, 1920)  # of the pictures that BADJA's joints were marked in
FARTHEST = -1.5, 2.5  # shares of the frame; visible points lie from 0 to 1, and those far beyond are pixels by mistake
PICTURES = (".jpg", ".jpeg", ".png")
UNPICKLING = (EOFError, LookupError, TypeError, ValueError, AttributeError, ImportError, MemoryError, OverflowError)
STRIDE = 5  # frames between the queries of a track under TAP-Vid's "strided" protocol


def read_flo(path: str | Path) -> tuple[Float[np.ndarray, "2 H W"], Bool[np.ndarray, "H W"]]:
    """Optical flow as Middlebury and Sintel store it: (flow in pixels, zero where unknown; where it is known).

    Raises:
        ValueError: not such a file, or a part of one.
    """
    data = Path(path).expanduser().read_bytes()
    if len(data) < 12 or np.frombuffer(data, "<f4", 1)[0] != np.float32(FLO_MAGIC):
        raise ValueError(f"{path}: expected a .flo file (it starts with {FLO_MAGIC} as float32), got something else")
    width, height = (int(side) for side in np.frombuffer(data, "<i4", 2, 4))
    expected = 12 + 8 * width * height
    if width < 1 or height < 1 or len(data) != expected:
        raise ValueError(f"{path}: expected {expected} bytes for {width}×{height} pixels, got {len(data)}")
    flow = np.frombuffer(data, "<f4", offset=12).reshape(height, width, 2).transpose(2, 0, 1)
    known = np.all(np.abs(flow) < UNKNOWN, axis=0)  # False for NaN, too
    return np.where(known, flow, np.float32(0)), known


def read_kitti_flow(path: str | Path) -> tuple[Float[np.ndarray, "2 H W"], Bool[np.ndarray, "H W"]]:
    """Optical flow as KITTI stores it, a PNG of 16 bits: (flow in pixels, zero where unknown; where it is known).

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a PNG with three channels of 16 bits.
    """
    import cv2

    image = cv2.imdecode(np.frombuffer(Path(path).expanduser().read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint16 or image.ndim != 3 or image.shape[2] != 3:
        got = "no picture" if image is None else f"{image.dtype} {list(image.shape)}"
        raise ValueError(f"{path}: expected a PNG of three channels with 16 bits, got {got}")
    known = image[..., 0] > 0  # OpenCV gives blue, green, red: valid, v, u
    flow = (image[..., :0:-1].astype(np.float32).transpose(2, 0, 1) - 2**15) / 64
    return np.where(known, flow, np.float32(0)), known


def read_flow_pair(first: str | Path, second: str | Path, flow: str | Path, name: str = "") -> ClipSample:
    """Two pictures and their flow, .flo or KITTI's PNG by suffix: a clip of two frames, a point in each known pixel.

    Raises:
        ValueError: pictures and flow of different sizes, or not such files.
    """
    frames = [decode_image(Path(path).expanduser().read_bytes()) for path in (first, second)]
    field, known = read_flo(flow) if Path(flow).suffix.lower() == ".flo" else read_kitti_flow(flow)
    sizes = [frame.shape[:2] for frame in frames] + [known.shape]
    if len(set(sizes)) > 1:
        raise ValueError(f"{flow}: expected pictures and flow of one size, got {sizes}")
    # in float64, so that the flow can be read off the tracks as it was
    start = pixel_grid((known.shape[0], known.shape[1]))[known].astype(np.float64)
    tracks = np.stack([start, start + field[:, known].T])
    truth = Tracks(tracks, np.ones(tracks.shape[:2], bool), np.insert(start, 0, 0, axis=1))
    return _sample(name or Path(flow).parent.name, np.stack(frames), truth, dense=True)


def _sample(name: str, frames: np.ndarray, truth: Tracks, **about: Any) -> ClipSample:
    return ClipSample(Clip.named(name, frames, num_points=truth.num_points), frames, truth, **about)


def read_badja(
    annotations: str | Path, frames: str | Path, masks: str | Path = "", *, size: Size | None = None
) -> ClipSample:
    """One animal of BADJA (Biggs et al. 2018), set up as in the PIPs paper: joints of its first annotated frame.

    The clip runs from the first to the last annotated frame. PCK-T needs the animal's area; without masks the area of
    the joints' convex hull stands in for it, and the clip's note says so.

    Args:
        annotations: the animal's .json.
        frames: its DAVIS frames: a folder of NNNNN.jpg (or .png), or a video; numbered from 0.
        masks: folder of its DAVIS masks, NNNNN.png, at least of the annotated frames; "" if there are none.
        size: (height, width) that frames, masks and joints are brought to; the frames' own if None.

    Raises:
        ValueError: not such a .json.
        FileNotFoundError: a frame or a mask that is missing.
    """
    annotations, frames, masks = (Path(path).expanduser() if path else path for path in (annotations, frames, masks))
    try:
        entries = json.loads(Path(annotations).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{annotations}: expected JSON, {error}") from error
    needed, objects = {"image_path", "joints", "visibility"}, isinstance(entries, list) and entries
    if not objects or not all(isinstance(entry, dict) and needed <= set(entry) for entry in entries):
        raise ValueError(f"{annotations}: expected a list with image_path, joints and visibility, as BADJA has it")
    numbered = [re.search(r"(\d+)\.\w+$", str(entry["image_path"])) for entry in entries]
    if None in numbered:
        raise ValueError(f"{annotations}: expected paths of numbered pictures, got {entries[numbered.index(None)]}")
    numbers = [int(match[1]) for match in numbered if match]
    order = np.argsort(numbers)
    span = range(min(numbers), max(numbers) + 1)
    pictures = _numbered(Path(frames), span)
    size = size or (pictures.shape[1], pictures.shape[2])
    pictures = np.stack([resize_frame(picture, size, "stretch") for picture in pictures])
    try:
        joints = np.array([entries[i]["joints"] for i in order], np.float64)[..., ::-1]  # row, column -> x, y
        seen = np.array([entries[i]["visibility"] for i in order], bool)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{annotations}: expected joints [J 2] and visibility [J] in each entry, {error}") from error
    if joints.shape != (*seen.shape, 2) or seen.ndim != 2:
        got = f"{list(joints.shape[1:])} and {list(seen.shape[1:])}"
        raise ValueError(f"{annotations}: expected joints [J 2] and visibility [J] in each entry, got {got}")
    where = np.sort(numbers) - span.start
    followed = seen[0]
    places = rescale_points(joints[:, followed], BADJA_SIZE, size)
    tracks = np.repeat(places[:1], len(span), axis=0)
    visibility = np.zeros(tracks.shape[:2], bool)
    tracks[where], visibility[where] = places, seen[:, followed]
    tracks = np.where(visibility[..., None], tracks, tracks[:1])  # unknown places are never measured
    queries = np.insert(tracks[0], 0, 0, axis=1)
    area, note = np.full(len(span), np.nan), "" if masks else "no masks: area of the joints' hull"
    for index, number in zip(where, np.sort(numbers)):
        known = tracks[index, visibility[index]]
        area[index] = _mask_area(Path(masks) / f"{number:05d}.png", size) if masks else _hull_area(known)
    name = Path(annotations).stem
    truth = Tracks(tracks, visibility, queries)
    return _sample(name, pictures, truth, area=area, occlusion_known=False, note=note)


def read_tapvid(
    path: str | Path, *, size: Size | None = (256, 256), query_mode: Literal["first", "strided"] = "first"
) -> Iterator[ClipSample]:
    """The clips of a TAP-Vid .pkl (DAVIS, Kinetics or RGB-stacking), one after the other.

    Args:
        path: the file; it is opened by an unpickler that admits NumPy arrays and plain containers only.
        size: (height, width) videos and points are brought to; 256×256 is the benchmark's. None: as they are.
        query_mode: "first" asks for each point where it is first seen, "strided" wherever it is seen in every fifth
            frame.

    Raises:
        ValueError: the file holds anything but arrays, or not what TAP-Vid's do.
    """
    if query_mode not in ("first", "strided"):
        raise ValueError(f"query_mode: expected 'first' or 'strided', got {query_mode!r}")
    content = load_arrays(path)
    if not isinstance(content, (dict, list, tuple)):
        raise ValueError(f"{path}: expected a dict or a list of clips, as TAP-Vid has it, got {type(content).__name__}")
    named = content if isinstance(content, dict) else {f"{Path(path).stem}_{i:04d}": c for i, c in enumerate(content)}
    for name, entry in named.items():
        if not isinstance(entry, dict) or not {"video", "points", "occluded"} <= set(entry):
            raise ValueError(f"{path}: expected video, points and occluded for {name!r}, as TAP-Vid has it")
        yield _tapvid_clip(str(name), entry, size, query_mode)


def load_arrays(path: str | Path) -> Any:
    """Unpickle a file that holds NumPy arrays in dicts, lists and tuples, beside numbers, strings and bytes.

    Whatever else it names is refused before it is imported, so that opening a file can't run anything.

    Raises:
        ValueError: it names something else, or is no pickle.
    """
    data = Path(path).expanduser().read_bytes()
    try:
        return _ArraysOnly(io.BytesIO(data)).load()
    except (pickle.UnpicklingError, *UNPICKLING) as error:
        raise ValueError(f"{path}: expected a pickle of NumPy arrays only: {error}") from error


class _ArraysOnly(pickle.Unpickler):
    """Resolves the few names that a pickled array needs, across NumPy's versions, and no others."""

    def find_class(self, module: str, name: str):
        try:
            from numpy._core import multiarray, numeric
        except ImportError:  # NumPy 1
            from numpy.core import multiarray, numeric

        allowed = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("multiarray", "_reconstruct"): multiarray._reconstruct,
            ("multiarray", "scalar"): multiarray.scalar,
            ("numeric", "_frombuffer"): numeric._frombuffer,  # pyright: ignore[reportAttributeAccessIssue]
            ("_codecs", "encode"): _latin1,
        }
        short = module.removeprefix("numpy.core.").removeprefix("numpy._core.")
        if (short, name) not in allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return allowed[short, name]


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """What protocol 2 makes bytes of; other codecs are none of an array's business."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding}")
    return text.encode("latin1")


def _tapvid_clip(name: str, entry: dict, size: Size | None, query_mode: Literal["first", "strided"]) -> ClipSample:
    video = entry["video"]
    frames = video if isinstance(video, np.ndarray) and video.ndim == 4 else np.stack([decode_image(f) for f in video])
    frames = np.stack([resize_frame(frame, size, "stretch") for frame in frames]) if size else frames
    visible = ~np.asarray(entry["occluded"], bool).T  # S N
    shares = np.asarray(entry["points"], np.float64).swapaxes(0, 1)
    if shares.shape != (*visible.shape, 2) or len(frames) != len(visible):
        got = f"{list(shares.shape)}, {list(visible.shape)} and {len(frames)} frames"
        raise ValueError(f"{name}: expected points [N S 2], occluded [N S] and a video of S frames, got {got}")
    if ((shares < FARTHEST[0]) | (shares > FARTHEST[1]))[visible].any():
        raise ValueError(f"{name}: expected points as shares of the frame, got up to {shares[visible].max():g}")
    tracks = from_shares(shares, (frames.shape[1], frames.shape[2]))
    asked, point = _queries(visible, query_mode)
    tracks, visible = np.where(np.isfinite(tracks[:, point]), tracks[:, point], 0), visible[:, point]
    queries = np.concatenate([asked[:, None], tracks[asked, np.arange(len(asked))]], axis=1)
    return _sample(name, frames, Tracks(tracks, visible, queries), query_mode=query_mode)


def _queries(visible: np.ndarray, query_mode: str) -> tuple[np.ndarray, np.ndarray]:
    """(frame, point) of every query: visible [S N] decides."""
    if query_mode == "first":
        point = np.flatnonzero(visible.any(axis=0))
        return visible[:, point].argmax(axis=0), point
    frame, point = np.nonzero(visible[::STRIDE])
    return frame * STRIDE, point


def _numbered(frames: Path, span: range) -> UInt8[np.ndarray, "S H W 3"]:
    """The frames `span` of a video, or of a folder of numbered pictures."""
    if not frames.is_dir():
        return read_frames(frames, span)
    by_number = {path.stem: path for path in frames.iterdir() if path.suffix.lower() in PICTURES}
    missing = [f"{number:05d}" for number in span if f"{number:05d}" not in by_number]
    if missing:
        raise FileNotFoundError(f"{frames}: expected pictures {span[0]:05d} to {span[-1]:05d}, {missing[0]} is missing")
    return np.stack([decode_image(by_number[f"{number:05d}"].read_bytes()) for number in span])


def _mask_area(path: Path, size: Size) -> float:
    import cv2

    mask = decode_image(path.read_bytes()).max(axis=-1)
    return float((cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST) > 0).sum())


def _hull_area(xy: np.ndarray) -> float:
    from scipy.spatial import ConvexHull

    return float(ConvexHull(xy).volume) if len(xy) > 2 else float("nan")  # "volume" is the area in two dimensions
