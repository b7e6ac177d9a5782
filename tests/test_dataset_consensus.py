"""Consensus: what two trackers agree on, and datasets put together."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset

from flowlib.clips import ClipList, ClipSample
from flowlib.dataset.about import clip_of, content_of, videos_of
from flowlib.dataset.consensus import Consensus, agreed, agreement, describe_labels
from flowlib.models.protocols import TrajectoryPrediction
from flowlib.tasks.trajectories import TrajectoryTask
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


def test_clips_on_which_trackers_disagree_are_listed_and_passed_over_on_request(refuses):
    first, second = clips("v", tracks(), tracks()), clips("v", tracks(1.0), tracks(8.0))
    both = Consensus(first, second)
    each = agreement(first, second).clips
    assert {key: one.left_out for key, one in each.items()} == {"v0": 0, "v1": 1} and not each["v0"].clips
    assert each["v1"].mean == pytest.approx(8 * np.sqrt(2), rel=1e-5)
    assert both.agreement.listed(1).startswith("v1: the two differ by 11.31 px") and both.dropped == ()
    kept = Consensus(first, second, most_left_out=0.5)
    assert [clip.key for clip in kept.clips] == ["v0"] and kept.dropped == ("v1",) and kept.agreement.left_out == 0
    assert "passed over: v1" in describe_labels(kept) and "passed over" not in describe_labels(both)
    with refuses("most_left_out: expected a share that some clip keeps to"):
        Consensus(clips("v", tracks()), clips("v", tracks(8.0)), most_left_out=0.5)
    with refuses("most_left_out: expected a share from 0 to 1"):
        Consensus(first, second, most_left_out=50)


def test_how_far_two_trackers_are_apart_stands_beside_the_errors():
    """One tracker is 1 px off in x and y from the other, so what both say is off by half of that."""
    both = Consensus(clips("v", tracks()), clips("v", tracks(1.0)))
    sample, task = both[0], TrajectoryTask()
    np.testing.assert_array_equal(both.tracks(0).tracks, sample.truth.tracks)
    (spec,) = (metric for metric in task.metrics if metric.name == "labels_apart")
    still = TrajectoryPrediction(torch.zeros(1, 4, 2, 16, 32), torch.ones(1, 4, 16, 32), (0, 1, 2, 3))
    answer = task.answer(still, task.case(sample))
    assert spec.function(answer) == pytest.approx(np.sqrt(2)) and answer.available.issuperset(spec.needs)
    alone = task.answer(still, task.case(ClipSample.of(clips("v", tracks())[0])))
    assert not alone.available.issuperset(spec.needs)
    assert task.identify([], 0, sample).content != task.identify([], 0, replace(sample, apart=None)).content
    short = sample.cut(0, 2)
    assert short.apart is not None and short.apart.shape == (2, 3)
