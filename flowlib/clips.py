"""`ClipSample`: a clip with its truth, the one type that goes from reader to task, evaluation and viewer.

A reader (shards, a benchmark, a list of one's own) gives `ClipSample`s; labelling writes them, training and evaluation
take them. NumPy inside; read as a mapping, it gives the torch tensors that a `DataLoader` puts together.
Knows nothing of files, trackers or models; torch is loaded only when it is read as a mapping.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float, UInt8

from flowlib.geometry import Box, Size
from flowlib.tracks import Tracks

if TYPE_CHECKING:
    import torch

    from flowlib.video import Video

KEYS = ("frames", "tracks", "visibility", "queries", "video", "clip")  # of a sample that is read as a mapping


@dataclass(frozen=True)
class Clip:
    """S frames of a video: `first_frame`, `first_frame + frame_step`, …

    Attributes:
        video: name of the video in its source.
        fingerprint: SHA-256 of the video's content; "" where nobody has read the video.
        first_frame, frame_step, num_frames: which frames; counted in the video's own.
        source_size: (height, width) of the video in pixels.
        fps: frames a second of the video; 0 if that isn't known.
        source_frames: how many frames the video has.
        num_points: N; 0 as long as the clip isn't labelled.
        kept: indices into the clip of the frames whose pictures are stored.
        name: what the clip is called where it has a name of its own, as in a benchmark; "" elsewhere.
    """

    video: str
    fingerprint: str
    first_frame: int
    frame_step: int
    num_frames: int
    source_size: Size
    fps: float
    source_frames: int
    num_points: int = 0
    kept: tuple[int, ...] = ()
    name: str = ""

    @classmethod
    def of(cls, video: Video, first_frame: int, frame_step: int, num_frames: int) -> Clip:
        """The clip of `num_frames` frames of `video` that begins at `first_frame`."""
        about = (video.size, video.fps, video.num_frames)
        return cls(video.name, video.fingerprint, first_frame, frame_step, num_frames, *about)

    @classmethod
    def named(cls, name: str, frames: np.ndarray, *, video: str = "", num_points: int = 0) -> Clip:
        """A whole clip of pictures [S H W 3] that is known by its name alone."""
        S, H, W = frames.shape[:3]
        return cls(video or name, "", 0, 1, S, (H, W), 0.0, S, num_points, tuple(range(S)), name)

    @classmethod
    def from_dict(cls, content: dict) -> Clip:
        fields: dict[str, Any] = {name: value for name, value in content.items() if name != "key"}
        fields |= {"source_size": tuple(content["source_size"]), "kept": tuple(content["kept"])}
        return cls(**fields)

    def labelled(self, num_points: int) -> Clip:
        """The same clip, as one whose pictures are all stored and in which so many points were followed."""
        return replace(self, num_points=num_points, kept=tuple(range(self.num_frames)))

    @property
    def key(self) -> str:
        """Names the clip: its own name, else one such that equal keys are the same content of the same frames."""
        return self.name or f"{self.fingerprint[:16]}-{self.first_frame:08d}-{self.frame_step}-{self.num_frames}"

    @property
    def frame_numbers(self) -> list[int]:
        """The numbers of its frames in the video."""
        return [self.first_frame + i * self.frame_step for i in range(self.num_frames)]


@dataclass(frozen=True, eq=False)
class ClipSample(Mapping[str, Any]):
    """A clip, its pictures and where its points truly go.

    As a mapping it has the keys `frames` uint8 [K H W 3], `tracks` float32 [S N 2], `visibility` bool [S N], `queries`
    float32 [N 3] (torch tensors, sharing the arrays' memory), and the names `video` and `clip`; where the tracks have
    a confidence, `confidence` float32 [S N], and where the clip has an action, `action` float32 [A], too.

    Attributes:
        clip: which frames of which video.
        frames: uint8 [K H W 3]; the pictures of the frames `clip.kept`.
        truth: the tracks, in pixels of `frames`; `visibility` says where a place is known and visible.
        occlusion_known: False if invisible only means "not annotated".
        query_mode: "first" or "strided": how TAP-Vid's metrics count frames, see `metrics.tapvid_metrics`.
        area: [S] pixels that the object covers, for PCK-T; None where nobody knows.
        dense: the truth is an optical flow: a query in each pixel whose flow from frame 0 to frame 1 is known.
        note: what a reader of its numbers must know.
        apart: [S N] pixels between the places that two trackers say, NaN where not both see the point; None where only
            one labelled the clip.
        action: [A] probabilities of what is being done, of A actions: one-hot where it is known, an action net's where
            it is guessed; None where nobody asked.
        box: where in `frames` the picture is, if there are bars beside it: they count for nothing. None: everywhere.

    Raises:
        ValueError: pictures of another kind, or that do not go with `clip.kept`, or tracks of another length than the
            clip.
    """

    clip: Clip
    frames: UInt8[np.ndarray, "K H W 3"]
    truth: Tracks
    occlusion_known: bool = True
    query_mode: Literal["first", "strided"] = "first"
    area: Float[np.ndarray, " S"] | None = None
    dense: bool = False
    note: str = ""
    apart: Float[np.ndarray, "S N"] | None = None
    action: Float[np.ndarray, " A"] | None = None
    box: Box | None = None

    def __post_init__(self) -> None:
        shape = self.frames.shape
        if self.frames.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3:
            hint = "; move the channels to the end" if len(shape) == 4 and shape[1] == 3 else ""
            hint += "" if self.frames.dtype == np.uint8 else "; 0 is black, 255 is white"
            got = f"{self.frames.dtype} {list(shape)}{hint}"
            raise ValueError(f"{self.name}: expected frames uint8 [K H W 3], got {got}")
        if len(self.frames) != len(self.clip.kept):
            got = f"{len(self.frames)} of them"
            raise ValueError(f"{self.name}: expected the pictures of the frames {self.clip.kept}, got {got}")
        if self.truth.num_frames != self.clip.num_frames:
            expected = f"tracks over {self.clip.num_frames} frames"
            raise ValueError(f"{self.name}: expected {expected}, got {self.truth.num_frames}")
        if not set(self.clip.kept) <= set(range(self.clip.num_frames)):
            expected = f"pictures of some of its {self.clip.num_frames} frames"
            raise ValueError(f"{self.name}: expected {expected}, got those of frames {self.clip.kept}")
        if self.action is not None:
            object.__setattr__(self, "action", self._checked(np.asarray(self.action)))

    def _checked(self, action: np.ndarray) -> np.ndarray:
        if action.ndim != 1 or not np.isfinite(action).all() or (action < 0).any() or abs(action.sum() - 1) > 1e-3:
            raise ValueError(f"{self.name}: expected an action of probabilities [A] that sum to 1, got {action}")
        return action.astype(np.float32)

    @classmethod
    def of(cls, sample: Any, number: int = 0) -> ClipSample:
        """`sample` itself, or one made of a mapping with the keys of a sample (of which `video` and `clip` may lack).

        Args:
            sample: tensors or arrays by the names in `KEYS`.
            number: names a clip that has no name.

        Raises:
            ValueError: neither, which the message tells, or arrays of other shapes or types than a sample's.
        """
        if isinstance(sample, ClipSample):
            return sample
        missing = [key for key in KEYS[:4] if key not in sample] if isinstance(sample, Mapping) else list(KEYS[:4])
        if missing:
            got = type(sample).__name__
            raise ValueError(
                f"sample: expected a ClipSample or a dict with {', '.join(KEYS[:4])}, got {got} "
                f"without {', '.join(missing)}"
            )
        name = str(sample.get("clip", number))
        try:
            frames, tracks, visibility, queries = (np.asarray(sample[key]) for key in KEYS[:4])
            confidence = sample.get("confidence")
            truth = Tracks(tracks, visibility, queries, None if confidence is None else np.asarray(confidence))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: expected arrays, or tensors on the CPU, as of a ClipSample: {error}") from error
        (K, H, W), S = (*frames.shape, 0, 0, 0)[:3], truth.num_frames
        # Which of the frames were stored a bare dict doesn't say; the first ones are what it must have meant.
        kept = tuple(range(K))
        clip = Clip(str(sample.get("video", name)), "", 0, 1, S, (H, W), 0.0, S, truth.num_points, kept, name)
        action = None if sample.get("action") is None else np.asarray(sample["action"])
        return cls(clip, frames, truth, action=action)

    @property
    def name(self) -> str:
        """The clip's key."""
        return self.clip.key

    @property
    def size(self) -> Size:
        """(height, width) of the pictures."""
        return self.frames.shape[1], self.frames.shape[2]

    def on_picture(self, frame: np.ndarray) -> np.ndarray:
        """What of a frame or mask [H W …] is picture, without the bars beside it."""
        top, left, height, width = self.box or (0, 0, *self.size)
        return frame[top : top + height, left : left + width]

    def has(self, frame: int) -> bool:
        """Whether the picture of a frame of the clip is there."""
        return frame in self.clip.kept

    def picture(self, frame: int) -> UInt8[np.ndarray, "H W 3"]:
        """The picture of a frame of the clip.

        Raises:
            ValueError: it was not stored.
        """
        return self.pictures((frame,))[0]

    def pictures(self, frames: Sequence[int]) -> UInt8[np.ndarray, "n H W 3"]:
        """The pictures of some frames of the clip, in the order asked for."""
        missing = [frame for frame in frames if frame not in self.clip.kept]
        if missing:
            kept = ", ".join(map(str, self.clip.kept))
            raise ValueError(f"{self.name}: expected a picture of frame {missing[0]}, got those of frames {kept} only")
        return self.frames[[self.clip.kept.index(frame) for frame in frames]]

    def images(self, frames: Sequence[int]) -> torch.Tensor:
        """The same as a model takes them: uint8 [1 n 3 H W]."""
        import torch

        return torch.from_numpy(np.ascontiguousarray(self.pictures(frames).transpose(0, 3, 1, 2)))[None]

    def trusted(self, min_confidence: float) -> ClipSample:
        """The clip with only those sightings whose confidence is at least `min_confidence`; the others count as hidden.

        Where some are left out, hidden only means "not trusted" (`occlusion_known` is False).

        Raises:
            ValueError: the tracks have no confidence, or `min_confidence` isn't from 0 to 1.
        """
        if not min_confidence:
            return self
        truth = self.truth.trusted(min_confidence)
        known = self.occlusion_known and np.array_equal(truth.visibility, self.truth.visibility)
        return replace(self, truth=truth, occlusion_known=known)

    def cut(self, first: int, num_frames: int, frame_step: int = 1) -> ClipSample:
        """A shorter clip: `num_frames` frames from `first` on, and the points that can be seen in its frame 0.

        So a benchmark's long clips become clips as a model takes them: each point is queried where it is at the start,
        and once, however many queries it had.
        """
        last = first + (num_frames - 1) * frame_step
        if num_frames < 1 or frame_step < 1 or not 0 <= first <= last < self.clip.num_frames:
            got = f"first={first}, num_frames={num_frames}, frame_step={frame_step}"
            raise ValueError(f"{self.name}: expected frames of its {self.clip.num_frames}, got {got}")
        frames = list(range(first, last + 1, frame_step))
        seen = np.flatnonzero(self.truth.visibility[first])
        if self.query_mode == "strided":
            places = np.moveaxis(self.truth.tracks[:, seen], 1, 0).reshape(len(seen), -1)
            seen = seen[np.sort(np.unique(places, axis=0, return_index=True)[1])]
        truth = self.truth
        tracks, visibility = truth.tracks[frames][:, seen], truth.visibility[frames][:, seen]
        confidence = None if truth.confidence is None else truth.confidence[frames][:, seen]
        kept = tuple(i for i, frame in enumerate(frames) if frame in self.clip.kept)
        step = self.clip.frame_step
        clip = replace(
            self.clip,
            first_frame=self.clip.first_frame + first * step,
            frame_step=frame_step * step,
            num_frames=num_frames,
            num_points=len(seen),
            kept=kept,
            name=self.clip.name and f"{self.clip.name}-{first:05d}-{frame_step}-{num_frames}",
        )
        return replace(
            self,
            clip=clip,
            frames=self.pictures([frames[i] for i in kept]),
            truth=Tracks(tracks, visibility, np.insert(tracks[0], 0, 0, axis=1), confidence),
            query_mode="first",
            area=None if self.area is None else self.area[frames],
            apart=None if self.apart is None else self.apart[frames][:, seen],
        )

    # A mapping compares its values, which arrays don't allow; two clips are told apart by `content_hash`.
    __eq__ = object.__eq__
    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType]

    def __getitem__(self, key: str) -> Any:
        if key in ("video", "clip"):
            return self.clip.video if key == "video" else self.clip.key
        if key not in self._keys:
            raise KeyError(f"expected one of {', '.join(self._keys)}, got {key!r}")
        import torch

        array = getattr(self if key in ("frames", "action") else self.truth, key)
        return torch.from_numpy(array)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def _keys(self) -> tuple[str, ...]:
        confidence = () if self.truth.confidence is None else ("confidence",)
        return (*KEYS, *confidence) + (() if self.action is None else ("action",))


@dataclass(frozen=True, eq=False)
class UnreadSample:
    """A labelled clip too long to have all its pictures in memory, for whoever takes them one by one.

    Attributes:
        clip: as that of `ClipSample`.
        frames: uint8 [H W 3] each, the pictures of the frames `clip.kept`; may be gone through again.
        truth: the tracks.
        size: (height, width) of the pictures.
    """

    clip: Clip
    frames: Iterable[np.ndarray]
    truth: Tracks
    size: Size


class HoldsClips:
    """What a dataset knows of its videos by its `clips`."""

    @property
    def clips(self) -> list[Clip]:
        raise NotImplementedError(f"{type(self).__name__}.clips")

    @property
    def videos(self) -> list[str]:
        """Their names, sorted."""
        return sorted({clip.video for clip in self.clips})

    @property
    def fingerprints(self) -> list[str]:
        """Of the videos; their names where nobody has read them."""
        known = {clip.video: clip.fingerprint or clip.video for clip in self.clips}
        return [known[name] for name in self.videos]


class ClipList(HoldsClips, Sequence[ClipSample]):
    """Clips that are at hand, such as a benchmark's, as a dataset that training and evaluation take.

    Args:
        samples: the clips, or mappings that `ClipSample.of` takes; a single one will do.
        num_frames: if given, clips are cut into shorter ones of so many frames, one after the other; each begins in a
            frame in which points are seen, and asks for them there. Clips that are too short are skipped.
        frame_step: frames of a clip from one frame of a shorter one to the next.
        split: what to call it in reports.

    Attributes:
        clips, videos, fingerprints, num_frames, size, split, fingerprint: as those of `dataset.TrajectoryDataset`.

    Raises:
        ValueError: no clip is as long as `num_frames` asks for, or it or `frame_step` isn't a number from 1 on.

    >>> frames, queries = np.zeros((8, 24, 32, 3), np.uint8), np.array([[0, 3.0, 4.0]])
    >>> sample = ClipSample(Clip.named("a clip", frames), frames, Tracks.still(queries, 8))
    >>> dataset = ClipList([sample], num_frames=4)
    >>> len(dataset), dataset[0]["tracks"].shape
    (2, torch.Size([4, 1, 2]))
    """

    def __init__(
        self, samples: Iterable[Any], *, num_frames: int | None = None, frame_step: int = 1, split: str = ""
    ) -> None:
        for name, value in (("num_frames", 1 if num_frames is None else num_frames), ("frame_step", frame_step)):
            if not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"{name}: expected a whole number from 1 on, got {value!r}")
        given = [samples] if isinstance(samples, Mapping) else samples
        whole = [ClipSample.of(sample, number) for number, sample in enumerate(given)]
        if num_frames is not None:
            span = (num_frames - 1) * frame_step + 1
            whole = [sample.cut(first, num_frames, frame_step) for sample in whole for first in _starts(sample, span)]
            if not whole:
                raise ValueError(f"num_frames: expected clips of at least {span} frames with a visible point, got none")
        self.samples, self.split = whole, split

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]

    @property
    def clips(self) -> list[Clip]:
        return [sample.clip for sample in self.samples]

    @property
    def num_frames(self) -> int:
        return self.samples[0].clip.num_frames if self.samples else 0

    @property
    def size(self) -> Size:
        return self.samples[0].size if self.samples else (0, 0)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything in it; equal fingerprints, equal data."""
        return fingerprint_of(self.samples)


def _starts(sample: ClipSample, span: int) -> Iterator[int]:
    """The first frames of clips of `span` frames that don't overlap, each a frame in which points are seen."""
    first, seen = 0, np.any(sample.truth.visibility, axis=1)
    while first + span <= len(seen):
        if seen[first]:
            yield first
        first += span if seen[first] else 1


def fingerprint_of(samples: Sequence[ClipSample]) -> str:
    """SHA-256 of the content of clips: pictures, tracks, visibility, queries, in this order."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(content_hash(sample).encode())
    return digest.hexdigest()


def content_hash(sample: ClipSample) -> str:
    """SHA-256 of a clip's pictures, tracks, visibility, queries, and confidence and action if any, however called."""
    digest = hashlib.sha256()
    truth = sample.truth
    arrays = {"frames": sample.frames, "tracks": truth.tracks, "visibility": truth.visibility, "queries": truth.queries}
    if truth.confidence is not None:
        arrays["confidence"] = truth.confidence
    if sample.action is not None:
        arrays["action"] = sample.action
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
