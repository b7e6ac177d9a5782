"""Baselines of hand poses: the mean pose and the nearest crop, on a small store of the synthetic hand."""

import numpy as np
import pytest
import torch
from fixtures.hands import hand_frames, hand_store  # noqa: F401

from flowlib.models.hand_baselines import MeanPose, NearestCrop
from flowlib.models.protocols import description_of, role_of, trained_on


def batch(frames, indices) -> torch.Tensor:
    return torch.stack([frames[i]["crop"] for i in indices])


def test_the_mean_pose_is_the_mean_whatever_is_shown(hand_frames):
    fitted = MeanPose.fit(hand_frames)
    mean = torch.stack([sample["pose"] for sample in hand_frames]).mean(dim=0)
    answer = fitted(torch.rand(3, 1, 32, 32)).joints
    assert answer.shape == (3, 21, 3) and all(torch.allclose(one, mean, atol=1e-6) for one in answer)


def test_a_training_crop_is_its_own_nearest(hand_frames):
    fitted, indices = NearestCrop.fit(hand_frames), [4, 0, 11]
    expected = torch.stack([hand_frames[i]["pose"] for i in indices])
    assert torch.equal(fitted(batch(hand_frames, indices)).joints, expected)


def test_the_nearest_crop_is_the_one_that_differs_least(hand_frames):
    fitted = NearestCrop.fit(hand_frames)
    asked = batch(hand_frames, [3]) + 0.2 * torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    known = torch.stack([sample["crop"] for sample in hand_frames])
    cells = [crops.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(4, 5)) for crops in (asked, known)]
    nearest = int((cells[0] - cells[1]).square().sum(dim=(1, 2, 3)).argmin())
    assert torch.equal(fitted(asked).joints[0], hand_frames[nearest]["pose"])


def test_they_say_what_they_are_and_what_they_saw(hand_frames):
    mean, nearest = MeanPose.fit(hand_frames), NearestCrop.fit(hand_frames)
    assert (role_of(mean), role_of(nearest)) == ("null", "baseline")
    for method in (mean, nearest):
        assert set(trained_on(method)) == set(hand_frames.fingerprints)
        assert description_of(method)["fitted_on"] == hand_frames.fingerprint


def test_crops_and_poses_must_be_as_many():
    with pytest.raises(ValueError, match="crops: expected at least one, each with a pose, got 2 and 3"):
        NearestCrop(np.zeros((2, 256)), np.zeros((3, 21, 3)))
