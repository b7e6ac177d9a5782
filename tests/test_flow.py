"""Optical flow: one call for DIS and RAFT, pixels of the pictures given, and no torch where none is needed."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from torchvision.models.optical_flow import raft_large

from flowlib.flow import PRESETS, DISFlow, OpticalFlow, RAFTFlow
from flowlib.synthetic import synthetic_clip

PICTURES = synthetic_clip(2, (90, 131), seed=1, num_sprites=0)[0]


def shifted(x: int, y: int) -> tuple[np.ndarray, np.ndarray]:
    return PICTURES[0], np.roll(PICTURES[0], (y, x), axis=(0, 1))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(raft_large(weights=None).state_dict(), path)
    return path


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("shift", [(3, 0), (0, -2), (-4, 5)])
def test_dis_gives_x_before_y_in_pixels(preset, shift):
    flow = DISFlow(preset)
    found = flow(*shifted(*shift))
    assert isinstance(flow, OpticalFlow) and flow.name == f"dis {preset}"
    assert found.dtype == np.float32 and found.shape == (2, 90, 131) and found.flags.c_contiguous
    np.testing.assert_allclose(np.median(found, axis=(1, 2)), shift, atol=0.2)


def test_wide_finds_far_motion_and_leaves_near_motion_as_exact():
    rng = np.random.default_rng(1)
    noise = [
        cv2.GaussianBlur(rng.normal(size=(300, 500, 3)).astype(np.float32), (0, 0), s) for s in (1, 2, 4, 8, 16, 32)
    ]
    whole = sum(part / part.std() for part in noise)
    whole = np.clip(128 + 40 * (whole - whole.mean()) / whole.std(), 0, 255).astype(np.uint8)
    errors = {}
    for far in (5, 60):
        first, second = whole[40:232, 100:420], whole[40:232, 100 - far : 420 - far]
        for preset in ("refined", "wide"):
            missed = np.linalg.norm(DISFlow(preset)(first, second) - np.array([[[far]], [[0]]]), axis=0)[:, : 320 - far]
            errors[preset, far] = np.median(missed)
    assert errors["refined", 60] > 20 and errors["wide", 60] < 0.1
    assert errors["refined", 5] < 0.1 and errors["wide", 5] < 0.1


@pytest.mark.parametrize("size", [(16, 16), (24, 200), (61, 64), (64, 67)])
def test_wide_takes_pictures_too_small_to_search_smaller_ones(size):
    first = np.ascontiguousarray(PICTURES[0][: size[0], : size[1]])
    first = np.pad(first, [(0, size[0] - first.shape[0]), (0, size[1] - first.shape[1]), (0, 0)], mode="reflect")
    assert np.abs(DISFlow("wide")(first, first)).max() < 0.01


def test_dis_is_opencvs_and_keeps_nothing_from_call_to_call():
    flow = DISFlow()
    first = flow(*PICTURES)
    flow(*shifted(5, 5))
    grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in PICTURES]
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    np.testing.assert_array_equal(flow(*PICTURES), first)
    np.testing.assert_array_equal(first, search.calc(*grey, None).transpose(2, 0, 1))
    np.testing.assert_array_equal(flow.between(*grey), first.transpose(1, 2, 0))
    # pictures that are views, as frames cut out of a clip are
    wide = np.concatenate([PICTURES, PICTURES], axis=2)[:, :, :131]
    np.testing.assert_array_equal(flow(*wide), first)


def test_raft_in_batches_is_raft_pair_by_pair(weights):
    flow = RAFTFlow(weights, device="cpu", iters=2, chunk=2)
    clip = synthetic_clip(4, (50, 61), seed=2)[0]
    together = flow.pairs(clip[:3], clip[1:])
    assert isinstance(flow, OpticalFlow) and flow.name == f"raft {flow.weights_sha256[:12]} iters 2"
    assert together.shape == (3, 2, 50, 61) and together.dtype == torch.float32 and not together.requires_grad
    for i in range(3):
        single = flow(clip[i], clip[i + 1])
        assert single.dtype == np.float32
        np.testing.assert_allclose(single, together[i].numpy(), atol=1e-2)
    assert together.std() > 1e-3 and flow.pairs(clip[:0], clip[:0]).shape == (0, 2, 50, 61)


def test_raft_finds_a_shift(shared):
    flow = RAFTFlow(shared / "data/weights/raft_large_things_torchvision.pth", device="cpu", iters=6)
    found = flow(*shifted(3, -2))
    np.testing.assert_allclose(np.median(found, axis=(1, 2)), [3, -2], atol=0.2)


def test_bad_arguments_are_named(weights, tmp_path, refuses):
    with refuses("preset: expected one of ultrafast, fast, medium, refined, wide, got 'slow'"):
        DISFlow("slow")
    with refuses("iters: expected at least 1, got 0"):
        RAFTFlow(weights, iters=0)
    with refuses("chunk: expected at least 1, got -1"):
        RAFTFlow(weights, chunk=-1)
    flow = RAFTFlow(weights, device="cpu", iters=1)
    with refuses(r"flow: expected two of \[B H W 3\], got \(1, 20, 20, 3\) and \(1, 20, 21, 3\)"):
        flow.pairs(np.zeros((1, 20, 20, 3), np.uint8), np.zeros((1, 20, 21, 3), np.uint8))
    with refuses(r"flow: expected two of \[B H W 3\], got \(20, 20, 3\) and"):
        flow.pairs(np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20, 3), np.uint8))


def test_dis_works_where_torch_does_not():
    program = (
        "import sys; sys.modules['torch'] = sys.modules['torchvision'] = None\n"
        "import numpy as np; from flowlib.flow import DISFlow\n"
        "print(DISFlow()(*np.zeros((2, 40, 50, 3), np.uint8)).shape)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "(2, 40, 50)", done.stderr
