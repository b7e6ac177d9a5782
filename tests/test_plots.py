"""The static figures: that they draw what they are given where it is, hand back their Axes, and refuse the rest."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flowlib import colours, plots
from flowlib.geometry import pixel_grid
from flowlib.tracks import Tracks


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def pixels(ax, width: float = 4.0) -> np.ndarray:
    """The figure of an Axes, drawn: [H W 3]."""
    ax.figure.canvas.draw()
    return np.asarray(ax.figure.canvas.buffer_rgba())[..., :3].astype(int)


def steady(S: int = 4) -> Tracks:
    xy = np.array([[10.0, 10.0], [30.0, 20.0]])
    tracks = xy + np.arange(S)[:, None, None] * np.array([3.0, 0.0])
    visibility = np.ones((S, 2), bool)
    visibility[-1, 1] = False
    return Tracks(tracks, visibility, np.c_[np.zeros(2), xy])


FRAME = np.full((40, 60, 3), 20, np.uint8)


def test_tracks_are_drawn_at_the_frame_asked_for():
    ax = plots.tracks_over_frame(FRAME, steady(), at=1)
    drawn = np.concatenate([points.get_offsets() for points in ax.collections if len(points.get_offsets())])
    assert {(13.0, 10.0), (33.0, 20.0)} <= {tuple(xy) for xy in np.round(drawn, 4)}
    assert ax.get_xlim() == (-0.5, 59.5) and ax.get_ylim() == (39.5, -0.5)


def test_hidden_points_are_hollow():
    filled, hollow = plots.tracks_over_frame(FRAME, steady()).collections[-2:]
    assert len(filled.get_facecolors()) == 1 and len(hollow.get_facecolors()) == 0
    np.testing.assert_allclose(hollow.get_offsets()[0], [39, 20])


def test_two_sets_are_told_apart_in_a_legend():
    ax = plots.tracks_over_frame(FRAME, steady(), steady())
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["labels", "prediction"]
    assert plots.tracks_over_frame(FRAME, steady(), steady(), legend=False).get_legend() is None


def test_neither_set_covers_the_other_and_what_the_labels_miss_is_faint():
    """Where both agree, the narrow orange lies in the middle of the broad blue."""
    sure = steady()
    sure.visibility[:] = True
    ax = plots.tracks_over_frame(FRAME, steady(), sure, size=8.0, legend=False)
    blue, filled, hollow, orange, over, faint = ax.collections
    assert (
        orange.get_linewidths()[0] < 0.6 * blue.get_linewidths()[0]
        and over.get_sizes()[0] < 0.3 * filled.get_sizes()[0]
    )
    assert len(over.get_offsets()) == 1, "the prediction of a point that the labels lost counts as hidden"
    assert faint.get_edgecolors()[0, 3] == hollow.get_edgecolors()[0, 3] == plots.FAINT
    drawn = pixels(ax)
    ours, theirs = (np.abs(drawn - colour).sum(axis=-1) < 40 for colour in (colours.TRUTH, colours.PREDICTION))
    assert ours.sum() > 20 and theirs.sum() > 20


def test_values_colour_points_on_the_magnitude_scale():
    dots = plots.tracks_over_frame(FRAME, steady(), at=0, values=np.array([0.0, 10.0]), limit=10.0).collections[-2]
    expected = colours.magnitude_colours(np.array([0.0, 10.0]), 10.0) / 255
    np.testing.assert_allclose(dots.get_facecolors()[:, :3], expected)


def test_a_trail_is_as_long_as_asked():
    def trail_segments(trail):
        return len(plots.tracks_over_frame(FRAME, steady(), trail=trail).collections[0].get_segments())

    assert (trail_segments(None), trail_segments(1)) == (3 * 2, 2)


def test_no_points_leave_the_frame_alone():
    plain = pixels(plots.show_image(FRAME))
    empty = pixels(plots.tracks_over_frame(FRAME, steady().points([])))
    assert np.abs(plain - empty).mean() < 1


def test_a_field_is_coloured_as_the_viewer_colours_directions():
    field = np.zeros((2, 4, 6))
    field[0] = 5.0
    ax = plots.dense_field(field, limit=5.0, legend=False)
    expected = colours.direction_colours(np.array([[5.0, 0.0]]), 5.0)
    np.testing.assert_array_equal(ax.images[0].get_array(), np.broadcast_to(expected, (4, 6, 3)))


def test_unknown_parts_of_a_field_are_grey_and_its_scale_ignores_them():
    field = np.full((2, 4, 6), 3.0)
    field[:, 0, 0] = np.nan
    ax = plots.dense_field(field)
    assert ax.images[0].get_array()[0, 0].tolist() == [0xB9, 0xBB, 0xC6]
    wheel = ax.child_axes[0]
    assert wheel.texts[0].get_text() == "5 px"  # the round number above |(3, 3)| = 4.24


def test_an_error_map_has_its_scale():
    error = np.arange(24.0).reshape(4, 6)
    ax = plots.error_map(error, limit=10, label="EPE, px")
    assert ax.images[0].get_clim() == (0, 10)
    assert ax.images[0].colorbar.ax.get_ylabel() == "EPE, px" and ax.images[0].colorbar.extend == "max"


def test_curves_keep_names_and_values():
    curves = {"train": ([0, 10, 20], [3.0, 2.0, 1.0]), "val": ([0, 20], [3.5, np.nan])}
    ax = plots.learning_curves(curves)
    assert ax.get_yscale() == "log" and [line.get_label() for line in ax.lines] == ["train", "val"]
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [3.0, 2.0, 1.0])


def test_a_long_curve_is_smoothed_and_levels_are_lines():
    noisy = 10 + 5 * np.tile([1.0, -1.0], 60)
    noisy[30] = np.nan
    ax = plots.learning_curves(
        {"training": (range(120), noisy.tolist()), "validation": ([0, 60], [9.0, 8.0])},
        smooth={"training"},
        levels={"zero": 12.0},
    )
    raw, mean, validation, level = ax.lines
    assert mean.get_label() == "training, mean of 15 steps" and raw.get_alpha() < 0.5
    np.testing.assert_array_equal(raw.get_ydata(), noisy)
    known = np.isfinite(noisy)
    assert np.isnan(mean.get_ydata()[30]) and np.abs(mean.get_ydata()[known] - 10).max() < 2
    assert validation.get_label() == "validation" and list(level.get_ydata()) == [12.0, 12.0]
    short = plots.learning_curves({"training": ([0, 1], [1.0, 3.0])}, smooth={"training"})
    assert [line.get_label() for line in short.lines] == ["training"]


@pytest.mark.parametrize("first, last", [(9.0, 5.2), (12.0, 3.1), (120.0, 0.8), (0.5, 0.04), (3e3, 2e-2), (2.2, 1.9)])
def test_a_logarithmic_axis_has_plain_numbers(first, last):
    values = np.geomspace(first, last, 30).tolist()
    ax = plots.learning_curves({"train": (range(30), values)})
    ax.figure.canvas.draw()
    low, high = ax.get_ylim()
    assert low < last and high > first and high / low < 5 * first / last
    shown = {t.get_text(): y for t, y in zip(ax.get_yticklabels(), ax.get_yticks()) if low <= y <= high}
    assert 2 <= len(shown) <= 12 and [float(text) for text in shown] == pytest.approx(list(shown.values()))
    assert not any("times" in text or "^" in text for text in shown)


def test_many_errors_are_named_beside_the_lines_in_their_order():
    errors = {f"method {i}": [0.0, float(i)] for i in range(9)} | {"oracle": [0.0, 0.5]}
    ax = plots.error_by_frame(errors, dashed={"oracle"})
    named = [text.get_text() for text in ax.get_legend().get_texts()]
    assert named == [*(f"method {i}" for i in range(8, 0, -1)), "oracle", "method 0"]
    looks = {(line.get_color(), line.get_linestyle()) for line in ax.lines}
    assert len(looks) == 10 and ax.lines[-1].get_linestyle() == ":"
    assert not plots.error_by_frame({"a": [0, 1]}).lines[0].is_dashed()


def test_errors_by_frame_carry_their_intervals():
    ax = plots.error_by_frame({"model": [0, 1, 2]}, intervals={"model": ([0, 0.5, 1], [0, 1.5, 3])})
    assert ax.get_xlabel() == "frames ahead" and len(ax.collections) == 1
    assert ax.collections[0].get_paths()[0].vertices[:, 1].max() == 3


def test_a_contact_sheet_holds_every_picture_upright_and_named():
    red, tall = np.zeros((20, 30, 3), np.uint8), np.zeros((30, 20, 3), np.uint8)
    red[:5] = [255, 0, 0]
    ax = plots.contact_sheet([red, tall, red], titles=["a", "<b> $b$", "x" * 99], columns=2)
    assert len(ax.images) == 3 and [text.get_text() for text in ax.texts][:2] == ["a", "<b> $b$"]
    assert len(ax.texts[2].get_text()) <= 31
    left, right, bottom, top = ax.images[0].get_extent()
    assert bottom > top and (right - left) / (bottom - top) == pytest.approx(1.5)


def test_figures_are_drawn_into_axes_that_are_given():
    axes = plt.subplots(2, 3)[1].ravel()
    calls = [
        lambda ax: plots.tracks_over_frame(FRAME, steady(), ax=ax),
        lambda ax: plots.dense_field(np.ones((2, 4, 6)), ax=ax),
        lambda ax: plots.error_map(np.ones((4, 6)), ax=ax),
        lambda ax: plots.learning_curves({"a": ([0], [1.0])}, ax=ax),
        lambda ax: plots.error_by_frame({"a": [0, 1.0]}, ax=ax),
        lambda ax: plots.contact_sheet([FRAME], ax=ax),
    ]
    assert all(call(ax) is ax for call, ax in zip(calls, axes, strict=True))
    assert pixels(axes[0]).std() > 10


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: plots.show_image(np.zeros((4, 4))), r"image: expected uint8 \[H W 3\], got float64 \[4, 4\]"),
        (lambda: plots.tracks_over_frame(FRAME, steady(), at=4), "at: expected a frame from 0 to 3"),
        (lambda: plots.dense_field(np.zeros((4, 4, 2))), r"displacement: expected shape \[2 H W\], got \[4, 4, 2\]"),
        (lambda: plots.error_map(np.zeros((2, 4, 4))), r"error: expected shape \[H W\]"),
        (lambda: plots.learning_curves({"a": ([0, 1], [1.0])}), "a: expected two sequences of one length, got 2 and 1"),
        (lambda: plots.contact_sheet([]), "pictures: expected at least one"),
        (lambda: plots.contact_sheet([FRAME], titles=["a", "b"]), "titles: expected 1, one for each picture, got 2"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, message, refuses):
    with refuses(message):
        call()


# ---- The colours shared with the viewer


def luminance(rgb: np.ndarray) -> np.ndarray:
    share = rgb / 255.0
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def deuteranope(rgb: np.ndarray) -> np.ndarray:
    """What is left for the commonest colour blindness (Viénot, Brettel & Mollon 1999, by way of linear RGB)."""
    share = rgb / 255.0
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    mixed = 0.29275 * linear[..., 0] + 0.70725 * linear[..., 1]
    blue = np.clip(-0.02234 * linear[..., 0] + 0.02234 * linear[..., 1] + linear[..., 2], 0, 1)
    return np.stack([mixed, mixed, blue], axis=-1)


def test_amounts_get_steadily_lighter():
    assert (np.diff(luminance(colours.magnitude_table())) > -1e-3).all()


def test_directions_and_places_differ_for_the_colour_blind():
    around = np.deg2rad(np.arange(0, 360, 45))
    wheel = colours.direction_colours(np.stack([np.cos(around), np.sin(around)], axis=-1), 1.0)
    corners = colours.position_colours(np.array([[0, 0], [63, 0], [0, 63], [63, 63.0]]), (64, 64))
    for table in (wheel, corners, np.array([colours.TRUTH, colours.PREDICTION])):
        seen = deuteranope(table)
        apart = np.abs(seen[:, None] - seen[None]).sum(axis=-1) + np.eye(len(seen))
        assert apart.min() > 0.08


@given(arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 1e6)))
def test_a_scale_ends_above_nearly_everything_and_not_far_above(values):
    limit = colours.nice_limit(values)
    top = np.percentile(values, 98)
    assert limit >= top * (1 - 1e-6) and (limit <= 2 * top or limit == 1)


@pytest.mark.parametrize("name", ["$x_$", "a_$x_$_b", "$\\frac{$", "_hidden", "$", "^$_$", "{}", "%s", "a\nb", ""])
def test_a_name_is_drawn_as_it_is_whatever_it_holds(name):
    drawn = [
        plots.learning_curves({name: ([1, 2], [1.0, 2.0])}, label=name),
        plots.error_by_frame({name: [1, 2]}, label=name),
        plots.error_map(np.ones((4, 5)), label=name),
        plots.show_image(FRAME, name),
        plots.contact_sheet([FRAME], [name]),
    ]
    for ax in drawn:
        ax.figure.canvas.draw()
    for ax in drawn[:2]:
        assert [text.get_text().strip() for text in ax.get_legend().get_texts()] == [name] or not name
        assert ax.get_ylabel() == name


def test_bars_stand_in_groups_and_a_missing_one_leaves_its_place():
    ax = plots.bars({"a": [1.0, 2.0], "b": [np.nan, 4.0]}, ["thumb", "index"], intervals={"b": ([0, 3], [0, 5])})
    heights = [bar.get_height() for bar in ax.patches]
    assert heights[:2] == [1, 2] and np.isnan(heights[2]) and heights[3] == 4
    centres = [bar.get_x() + bar.get_width() / 2 for bar in ax.patches]
    assert centres[0] < 0 < centres[2] and centres[1] < 1 < centres[3]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["thumb", "index"]
    with pytest.raises(ValueError, match="a: expected two sequences of one length, got 1 and 2"):
        plots.bars({"a": [1.0]}, ["thumb", "index"])


def test_errors_may_be_drawn_against_something_else_than_frames():
    ax = plots.error_by_frame({"a": [0.0] * 40}, axis="within mm")
    assert ax.get_xlabel() == "within mm" and ax.lines[0].get_marker() == "None"


def test_thinning_keeps_a_lattice():
    side = 100
    y, x = np.mgrid[:side, :side]
    tracks = Tracks.still(np.stack([0 * x, x, y], axis=-1).reshape(-1, 3).astype(float), 2)
    thin = plots.thinned(tracks)
    assert thin.num_points <= plots.MOST_POINTS and len(np.unique(thin.queries[:, 1])) ** 2 == thin.num_points
    odd = tracks.points(slice(0, 9_999))
    assert plots.thinned(odd).num_points <= plots.MOST_POINTS
    assert plots.thinned(thin) is thin
    wide = Tracks.still(np.insert(pixel_grid((90, 160)).reshape(-1, 2), 0, 0, axis=1), 2)
    x, y = (np.unique(plots.thinned(wide).queries[:, axis]) for axis in (1, 2))
    assert len(x) * len(y) == plots.thinned(wide).num_points and {*np.diff(x), *np.diff(y)} == {4}
