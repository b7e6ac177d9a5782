"""Bases of poses: orthonormal, in millimetres what they say, and never another data set's."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from fixtures.ball_hands import hand
from hypothesis import given, settings
from hypothesis import strategies as st

from flowlib.hands import pca as fitting
from flowlib.hands.augment import HandAugment
from flowlib.hands.crop import CropConfig
from flowlib.hands.pca import PCAConfig, PosePCA, draw_poses, fit_pca

CENTRES = np.random.default_rng(0).uniform((-60, -40, 380), (60, 40, 450), (40, 3))
JOINTS = np.stack([hand(centre, seed=seed, jitter=12.0) for seed, centre in enumerate(CENTRES)])
SMALL = PCAConfig(components=10, draws=500)


def fit(config=SMALL, crop=None, joints=JOINTS, centres=CENTRES, folder=None) -> PosePCA:
    return fit_pca(joints, centres, crop or CropConfig(), config, folder=folder)


@given(st.integers(1, 63), st.integers(0, 99))
def test_the_basis_is_orthonormal_and_its_coefficients_uncorrelated(components, seed):
    poses = np.random.default_rng(seed).normal(size=(200, 21, 3)) * np.linspace(0.1, 2, 63).reshape(21, 3)
    pca = PosePCA.fit(poses, components)
    np.testing.assert_allclose(pca.components @ pca.components.T, np.eye(components), atol=1e-10)
    coefficients = pca.encode(poses)
    np.testing.assert_allclose(np.cov(coefficients.T, bias=True), np.diag(pca.variance).squeeze(), atol=1e-10)
    assert (np.diff(pca.variance) <= 0).all() and 0 < pca.share <= 1 + 1e-12
    rest = ((poses - pca.decode(coefficients)) ** 2).sum(axis=(1, 2)).mean()
    np.testing.assert_allclose(rest, pca.total - pca.variance.sum(), atol=1e-9)


def test_it_is_the_singular_value_decomposition():
    poses = JOINTS.astype(np.float64) / 100
    flat = (poses - poses.mean(axis=0)).reshape(40, 63)
    _, values, rows = np.linalg.svd(flat)
    pca = PosePCA.fit(poses, 30)
    np.testing.assert_allclose(pca.variance, values[:30] ** 2 / 40)
    np.testing.assert_allclose(np.abs((pca.components * rows[:30]).sum(axis=1)), 1)
    assert (pca.components[np.arange(30), np.abs(pca.components).argmax(axis=1)] > 0).all()


@given(st.integers(1, 63), st.floats(100, 300), st.integers(0, 99))
def test_a_loss_in_coefficients_is_a_distance_in_millimetres(components, cube, seed):
    """√(K·mse / J) half cubes: why a loss that stops at 0.05 and an error of 25 mm are one and the same."""
    rng = np.random.default_rng(seed)
    pca = PosePCA.fit(rng.normal(size=(100, 21, 3)), components)
    truth, said = rng.normal(size=(2, 7, components))
    distance = np.linalg.norm(pca.decode(truth) - pca.decode(said), axis=-1) * cube / 2
    np.testing.assert_allclose(pca.rms_mm(((truth - said) ** 2).mean(), cube), np.sqrt((distance**2).mean()))
    if components == 63:
        joints = ((pca.decode(truth) - pca.decode(said)) ** 2).mean()
        np.testing.assert_allclose(pca.rms_mm(((truth - said) ** 2).mean(), cube), np.sqrt(3 * joints) * cube / 2)


def test_the_floor_is_what_no_coefficients_can_say():
    poses = JOINTS.astype(np.float64) / 100
    floors = [PosePCA.fit(poses, components).floor_mm(poses, 200.0) for components in (5, 20, 39)]
    assert floors[0] > floors[1] > floors[2] and floors[2] < 1e-9  # 40 poses span 39 dimensions


@pytest.mark.parametrize("draws", [0, 500])
def test_the_same_poses_give_the_same_basis(draws):
    one, two = (fit(replace(SMALL, draws=draws)) for _ in range(2))
    np.testing.assert_array_equal(one.components, two.components)
    np.testing.assert_array_equal(one.mean, two.mean)


def test_draws_are_the_poses_as_crops_see_them():
    config = CropConfig(cube=180.0)
    still = draw_poses(JOINTS, CENTRES, config, None, 300, (0,))
    exact = fitting.normalise(JOINTS.astype(np.float64), CENTRES, fitting.axes(config, CENTRES), config.cube)
    assert all((np.abs(exact - pose).max(axis=(1, 2)) < 1e-12).any() for pose in still)
    turned = draw_poses(JOINTS, CENTRES, config, HandAugment(modes=("rot",)), 300, (0,))
    np.testing.assert_allclose(np.linalg.norm(turned, axis=-1), np.linalg.norm(still, axis=-1))
    assert np.abs(turned - still).max() > 0.5
    scaled = draw_poses(JOINTS, CENTRES, config, HandAugment(modes=("scale",)), 300, (0,))
    ratio = np.linalg.norm(scaled[:, 8], axis=-1) / np.linalg.norm(still[:, 8], axis=-1)
    np.testing.assert_allclose(np.linalg.norm(scaled[:, 14], axis=-1) / np.linalg.norm(still[:, 14], axis=-1), ratio)
    assert 0.01 < ratio.std() < 0.03


# ------------------------------------------------------------------------------------------------------ what is kept


CHANGES = {
    "cube": {"crop": CropConfig(cube=190.0)},
    "method": {"crop": CropConfig("cube")},
    "centre": {"crop": CropConfig(centre="estimated")},
    "centre's noise": {"crop": CropConfig(centre_noise=5.0)},
    "centres": {"centres": CENTRES + 1},
    "one joint of the set": {"joints": JOINTS + np.eye(40, dtype=np.float32)[:, :1, None]},
    "a smaller set": {"joints": JOINTS[:30], "centres": CENTRES[:30]},
    "augmentation": {"config": replace(SMALL, augment=HandAugment())},
    "count": {"config": replace(SMALL, draws=501)},
    "components": {"config": replace(SMALL, components=11)},
    "seed": {"config": replace(SMALL, seed=1)},
}


def is_stale(change: dict, folder) -> bool:
    """Whether a basis of other poses is given for these."""
    kept = fit(folder=folder)
    np.testing.assert_array_equal(fit(folder=folder).components, kept.components)
    got, right = fit(**change, folder=folder), fit(**change)
    return not np.array_equal(got.components, right.components) or not np.array_equal(got.mean, right.mean)


@pytest.mark.parametrize("what", CHANGES)
def test_a_basis_of_anything_else_is_not_taken(what, tmp_path):
    assert not is_stale(CHANGES[what], tmp_path)


@pytest.mark.parametrize("what", ["cube", "centres", "one joint of the set", "augmentation"])
def test_a_key_of_the_size_alone_would_be_found(what, tmp_path, monkeypatch):
    """The trap of `pca_30_cache.npz`, put back."""
    monkeypatch.setattr(fitting, "_key", lambda joints, centres, crop, config: f"{config.components:064d}")
    assert is_stale(CHANGES[what], tmp_path)


def test_what_is_kept_is_not_fitted_again(tmp_path, monkeypatch):
    kept = fit(folder=tmp_path)
    monkeypatch.setattr(fitting, "_fit", None)
    again = fit(folder=tmp_path)
    for name in ("mean", "components", "variance", "total"):
        np.testing.assert_array_equal(getattr(again, name), getattr(kept, name))


@settings(max_examples=30)
@given(st.floats(0, 1, exclude_max=True), st.sampled_from(["flip", "cut", "empty"]))
def test_a_damaged_basis_is_fitted_anew(tmp_path_factory, place, kind):
    folder = tmp_path_factory.mktemp("pca")
    right = fit(folder=folder)
    (path,) = folder.glob("pca_*.npz")
    content = bytearray(path.read_bytes())
    position = int(place * len(content))
    if kind == "flip":
        content[position] ^= 16
    path.write_bytes({"flip": content, "cut": content[:position], "empty": b""}[kind])
    np.testing.assert_array_equal(fit(folder=folder).components, right.components)
    np.testing.assert_array_equal(fit(folder=folder).mean, right.mean)


def test_nothing_kept_is_unpickled(tmp_path):
    fit(folder=tmp_path)
    (path,) = tmp_path.glob("pca_*.npz")
    np.savez(path, key=np.array([{"an": "object"}], object), mean=0, components=0, variance=0, total=0)
    assert fit(folder=tmp_path).components.shape == (10, 63)


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: PosePCA.fit(JOINTS, 64), "components: expected at most 63 coordinates and 40 poses, got 64"),
        (lambda: PosePCA.fit(JOINTS[:5], 6), "components: expected at most 63 coordinates and 5 poses, got 6"),
        (lambda: fit(PCAConfig(components=41, draws=500)), "components: expected at most .* and 40 poses, got 41"),
        (lambda: PosePCA.fit(JOINTS * np.float32("nan"), 3), "poses: expected finite ones"),
        (lambda: PosePCA.fit(JOINTS, 0), "components: expected 1 or more, got 0"),
        (lambda: PosePCA.fit(JOINTS, -1), "components: expected 1 or more, got -1"),
        (lambda: PCAConfig(components=0), "components: expected a whole number of at least 1, got 0"),
        (lambda: PCAConfig(components=2.5), "components: expected a whole number of at least 1, got 2.5"),  # pyright: ignore[reportArgumentType]
        (lambda: PCAConfig(draws=-1), "draws: expected a whole number of at least 0, got -1"),
        (lambda: PCAConfig(seed=-1), "seed: expected a whole number of at least 0, got -1"),
        (lambda: fit_pca(JOINTS[:0], JOINTS[:0, 3], CropConfig()), "joints and centres: .* got 0 and 0"),
        (lambda: fit_pca(JOINTS, JOINTS[:3, 3], CropConfig()), "joints and centres: .* got 40 and 3"),
        (lambda: PCAConfig(draws=0, augment=HandAugment()), "augment: expected draws above 0"),
        (lambda: PosePCA.fit(JOINTS[:0], 1), "poses: expected at least one, got none"),
    ],
)
def test_bad_input_is_told(call, said, refuses):
    with refuses(said), warnings.catch_warnings():
        warnings.simplefilter("error")
        call()
