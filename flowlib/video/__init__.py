"""Read frames from videos, and write them. The only module that knows a codec.

A video is a file that FFmpeg reads, a folder `<name>/frames/` of numbered pictures, or a .zip of such a folder.
All three give uint8 RGB frames [H W 3], upright, with square pixels. Knows nothing of clips, trackers or shards.
"""

from flowlib.video.headers import probe_png
from flowlib.video.images import decode_image, encode_image, resize_frame
from flowlib.video.pictures import decode_depth, decode_whole
from flowlib.video.reading import VideoError
from flowlib.video.videos import (
    OnwardReader,
    Skipped,
    Video,
    describe_fit,
    describe_videos,
    find_all,
    find_videos,
    fingerprint,
    iterate_frames,
    middle_frames,
    probe,
    probe_all,
    read_frames,
    working_size,
)
from flowlib.video.writing import write_frames, write_video

__all__ = [
    "OnwardReader",
    "Skipped",
    "Video",
    "VideoError",
    "decode_depth",
    "decode_image",
    "decode_whole",
    "describe_fit",
    "describe_videos",
    "encode_image",
    "find_all",
    "find_videos",
    "fingerprint",
    "iterate_frames",
    "middle_frames",
    "probe",
    "probe_all",
    "probe_png",
    "read_frames",
    "resize_frame",
    "working_size",
    "write_frames",
    "write_video",
]
