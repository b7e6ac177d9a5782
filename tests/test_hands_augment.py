"""Augmentation of hands: what is drawn, of which mode, and that it is a function of its seed alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowlib.hands.augment import MODES, HandAugment


def kinds(many) -> np.ndarray:
    """[n 3] whether each motion turns, scales and shifts."""
    return np.stack([many.angle != 0, many.factor != 1, (many.offset != 0).any(axis=1)], axis=1)


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_that_is_asked_for_is_what_happens(mode):
    """Where the drawn pair once became the mode itself, it was equal to none, and nothing was ever changed."""
    many = HandAugment(modes=(mode,)).draw_many(500, 0)
    expected = [mode == name for name in ("rot", "scale", "trans")]
    assert (kinds(many) == expected).all()


def test_all_modes_are_equally_likely_and_exclude_one_another():
    happened = kinds(HandAugment().draw_many(8000, 1))
    assert happened.sum(axis=1).max() == 1
    np.testing.assert_allclose(happened.mean(axis=0), 1 / 4, atol=0.02)


def test_the_ranges_are_those_of_the_settings():
    augment = HandAugment(angle=90.0, scale=0.02, offset=5.0)
    many = augment.draw_many(20_000, 2)
    happened = kinds(many)
    angle, factor, offset = many.angle[happened[:, 0]], many.factor[happened[:, 1]], many.offset[happened[:, 2]]
    assert np.abs(angle).max() <= np.pi / 2 < np.abs(angle).max() + 0.01
    np.testing.assert_allclose((angle.mean(), factor.mean(), offset.mean()), (0, 1, 0), atol=0.1)
    np.testing.assert_allclose(angle.std(), np.pi / 2 / np.sqrt(3), rtol=0.03)
    np.testing.assert_allclose(factor.std(), 0.02, rtol=0.05)
    np.testing.assert_allclose(offset.std(axis=0), 5.0, rtol=0.05)


@given(st.integers(0, 2**62), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_draw_is_a_function_of_its_numbers(seed, epoch, index):
    augment = HandAugment()
    one, same = (augment.draw(seed, epoch, index) for _ in range(2))
    assert (one.angle, one.factor, *one.offset) == (same.angle, same.factor, *same.offset)
    moved = HandAugment(modes=("trans",))
    assert (moved.draw(seed, epoch, index).offset != moved.draw(seed, epoch, index + 1).offset).all()
    assert (moved.draw(seed, epoch, index).offset != moved.draw(seed, epoch + 1, index).offset).all()


@given(st.integers(0, 99))
def test_a_turn_is_a_rotation_from_x_towards_y(seed):
    many = HandAugment(modes=("rot",)).draw_many(5, seed)
    np.testing.assert_allclose(many.turn @ many.turn.swapaxes(1, 2), np.broadcast_to(np.eye(3), (5, 3, 3)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(many.turn), 1)
    x, y, z = np.moveaxis(many.turn @ (1.0, 0.0, 0.0), -1, 0)
    np.testing.assert_allclose(np.arctan2(y, x), many.angle)
    assert (z == 0).all()


@pytest.mark.parametrize(
    "options, said",
    [
        ({"modes": ("rot", "flip")}, "modes: expected some of none, rot, scale, trans, got .*flip"),
        ({"modes": ()}, "modes: expected some of"),
        ({"angle": 181.0}, "angle: expected a number from 0 to 180, got 181.0"),
        ({"scale": -0.1}, "scale: expected a number from 0 to 0.2"),
        ({"offset": float("nan")}, "offset: expected a number"),
        ({"offset": float("inf")}, "offset: expected a number"),
    ],
)
def test_bad_settings_are_told(options, said, refuses):
    with refuses(said):
        HandAugment(**options)


def test_settings_come_back_from_json_lists():
    assert HandAugment(modes=["rot", "none"]) == HandAugment(modes=("rot", "none"))
