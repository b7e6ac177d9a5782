"""Consensus: what two trackers agree on, and datasets put together."""

import numpy as np
import pytest
from torch.utils.data import ConcatDataset

from flowlib.clips import ClipList, ClipSample
from flowlib.dataset.about import clip_of, content_of, videos_of
from flowlib.dataset.consensus import Consensus, agreed
from flowlib.tracks import Tracks


def tracks(offset=0.0, frames=4, points=3, start=0):
    queries = np.stack([np.full(points, start), np.arange(points) * 10.0, np.full(points, 5.0)], axis=1)
    where = np.repeat(queries[None, :, 1:], frames, axis=0).astype(np.float32)
    where[np.arange(frames) != start] += offset
    return Tracks(where, np.ones((frames, points), bool), queries.astype(np.float32))


def clips(name, *truths):
    made = [
        ClipSample.of(
            {
                "frames": np.zeros((4, 16, 32, 3), np.uint8),
                "tracks": truth.tracks,
                "visibility": truth.visibility,
                "queries": truth.queries,
                "video": f"{name}{i}",
                "clip": f"{name}{i}",
            }
        )
        for i, truth in enumerate(truths)
    ]
    return ClipList(made)


def test_where_both_agree_the_mean_counts():
    found = agreed(tracks(0.0), tracks(1.0), tolerance=2.0)
    assert found.visibility.all()
    np.testing.assert_allclose(found.tracks[1:] - tracks().tracks[1:], 0.5)


def test_once_apart_a_point_stays_out_to_both_ends_from_its_query():
    first, second = tracks(start=1, frames=5), tracks(start=1, frames=5)
    second.tracks[3, 0, 0] += 5  # apart in frame 3, near again in 4
    second.tracks[0, 1, 1] += 5  # apart before the query
    first.visibility[2, 2] = False
    found = agreed(first, second, tolerance=2.0).visibility
    np.testing.assert_array_equal(found[:, 0], [True, True, True, False, False])
    np.testing.assert_array_equal(found[:, 1], [False, True, True, True, True])
    np.testing.assert_array_equal(found[:, 2], [True, True, False, False, False])


def test_the_agreement_counts_what_is_left_out():
    near, far = tracks(1.0), tracks(8.0)
    both = Consensus(clips("v", tracks(), tracks()), clips("v", near, far), tolerance=2.0)
    assert len(both) == 2 and not both[0].occlusion_known and both[1].truth.visibility[1:].sum() == 0
    about = both.agreement
    assert about.sightings == 18 and about.kept == 9 and about.left_out == pytest.approx(0.5)
    assert about.mean == pytest.approx((np.sqrt(2) + 8 * np.sqrt(2)) / 2, rel=1e-5)
    assert "differ by" in str(about)


def test_only_clips_in_common_count_and_others_are_refused():
    first = clips("v", tracks(), tracks())
    assert Consensus(first, clips("v", tracks())).videos == ["v0"]
    with pytest.raises(ValueError, match="clips that the first dataset has, too, got none"):
        Consensus(first, clips("w", tracks()))
    with pytest.raises(ValueError, match="v0: expected two trackers' tracks of the same points"):
        Consensus(clips("v", tracks()), clips("v", tracks(points=2)))[0]
    with pytest.raises(ValueError, match="tolerance: expected a number of pixels above 0"):
        Consensus(first, first, tolerance=0)


def test_the_fingerprint_knows_both_and_the_tolerance():
    one, near, far = clips("v", tracks()), clips("v", tracks(1.0)), clips("v", tracks(1.5))
    marks = {
        Consensus(one, other, tolerance=tolerance).fingerprint for other in (near, far) for tolerance in (1.0, 2.0)
    }
    assert len(marks) == 4


def test_datasets_put_together_know_their_videos_and_clips():
    together = ConcatDataset([clips("v", tracks(), tracks()), clips("w", tracks())])
    assert list(videos_of(together)) == ["v0", "v1", "w0"]
    assert [clip_of(together, index).video for index in range(3)] == ["v0", "v1", "w0"]
    assert len(content_of(together)) == 64
    assert content_of(together) != content_of(ConcatDataset([clips("v", tracks(), tracks())]))
