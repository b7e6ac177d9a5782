"""The viewer where people use it: an exported page opened from disk, and a real JupyterLab, in headless Chromium.

Skipped where there is no Chromium or no Playwright. `FLOWLIB_COLAB_PYTHON=/path/to/python` names the interpreter of an
environment with Colab's versions (ipywidgets 7.7.1, anywidget 0.9.21, ipykernel 6.17) and a JupyterLab that goes with
them; the widget is then tried there, too. Such an environment takes minutes to build, so it is not built here.
"""

import os
import subprocess
import time

import numpy as np
import pytest
from fixtures.browser import CHROMIUM, PATIENCE, PYTHONPATH, Watched, chromium, jupyterlab
from fixtures.viewer_example import COLUMNS, SIZE, S, example, predicted
from fixtures.viewer_pages import GET, drawn, exported, fits, nameless, picture, set_control, trait, until

from flowlib.colours import position_colours
from flowlib.geometry import cell_grid
from flowlib.tracks import Tracks
from flowlib.video import decode_image, iterate_frames, probe
from flowlib.viewer import TrajectoryViewer
from flowlib.viewer.scene import shown_points

pytest.importorskip("playwright", reason="Playwright is not installed (the extra `test` has it)")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

HOSTILE = "<script>window.harmed = 1</script><img src=x onerror='window.harmed = 2'>"
COUNT_SAVES = f"""(() => {{
  const {{ model }} = {GET}, save = model.save_changes.bind(model);
  window.saves = 0;
  model.save_changes = () => {{ window.saves += 1; return save(); }};
}})()"""
CELLS = [
    "from fixtures.viewer_example import example\nfrom flowlib.viewer import TrajectoryViewer\n"
    "viewer = TrajectoryViewer(*example(), title='in a notebook')",
    "viewer",
]
HAND_CELLS = [
    "from fixtures.hand_example import hand_example\nfrom flowlib.viewer import HandViewer\n"
    "take = hand_example()\nhands = HandViewer(take, take.joints + 2)",
    "hands",
]
HAND = "document.querySelector('.tv-hand').viewer"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as context:
        yield context


@pytest.fixture
def opened(browser, tmp_path):
    with exported(browser, tmp_path) as open_page:
        yield open_page


def on_screen(page, point: int, which: int = 0) -> tuple[float, float]:
    """Where a point is in the window."""
    place = f"""(() => {{ const v = {GET}, panel = v.panels.find(p => p.sets.includes({which}));
        const [x, y] = panel.toCanvas(v.sets[{which}].at(v.get('frame'), {point}));
        const box = panel.el.getBoundingClientRect();
        return [box.left + x / panel.ratio, box.top + y / panel.ratio]; }})()"""
    return tuple(page.evaluate(place))


# ---- What the script knows is what Python knows


def test_the_script_unpacks_what_python_packed(opened):
    frames, truth, prediction = example()
    page = opened(TrajectoryViewer(frames, truth, prediction, frame=5))
    read = f"[...Array({truth.num_points}).keys()].map(n => {GET}.sets[1].at(5, n))"
    np.testing.assert_allclose(page.evaluate(read), prediction.tracks[5], atol=1 / 128 + 1e-6)
    seen = page.evaluate(f"[...{GET}.sets[0].seen]")
    np.testing.assert_array_equal(np.reshape(seen, (S, -1)).astype(bool), truth.visibility)
    first = page.evaluate(f"[...{GET}.occlusions[0]]")
    assert set(first[COLUMNS - 1 :: COLUMNS]) == {4} and first[0] == S
    numbers = dict(page.evaluate(f"{GET}.numbers(0)"))
    assert numbers["displacement"][0] == "11.2 px" and numbers["error"] == ["2.50 px"]
    assert numbers["speed"] == ["2.24 px / frame", "1.80 px / frame"]


def test_the_script_colours_and_thins_as_python_does(opened):
    frames, truth, prediction = example()
    page = opened(TrajectoryViewer(frames, truth, prediction, density=0.4))
    expected = np.flatnonzero(shown_points(truth.num_points, 0.4))
    np.testing.assert_array_equal(page.evaluate(f"[...{GET}.shown]"), expected)
    packed = np.array(page.evaluate(f"[...{GET}.colours(0, [0])]"))
    colours = np.stack([packed & 255, packed >> 8 & 255, packed >> 16 & 255], axis=1)
    # the script looks colours up in a table of 64 × 64
    assert np.abs(colours - position_colours(truth.queries[:, 1:], SIZE).astype(int)).max() <= 8


# ---- An exported page


def test_a_page_plays_pauses_and_steps(opened):
    page = opened(TrajectoryViewer(*example(), fps=50))
    page.click(".tv-play")
    until(page, f"{GET}.get('frame') >= 3")
    assert page.get_attribute(".tv-play", "aria-label") == "Pause"
    page.click(".tv-play")
    stopped = trait(page, "frame")
    page.wait_for_timeout(150)
    assert trait(page, "frame") == stopped and page.inner_text(".tv-counter") == f"{stopped} / 7"
    page.click(".tv-first")
    before = drawn(page)
    page.focus(".tv-panel")
    page.keyboard.press("ArrowRight")
    assert trait(page, "frame") == 1
    until(page, f"{GET}.frames.decoded.has(1)")
    assert drawn(page) != before
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")
    assert trait(page, "frame") == 7
    page.fill(".tv-scrub", "2")
    assert trait(page, "frame") == 2
    page.focus(".tv-panel")
    page.keyboard.press("Space")
    assert trait(page, "playing") is True


def test_the_speed_menu_rises_and_keeps_what_python_set(opened):
    page = opened(TrajectoryViewer(*example(), speed=3))
    speeds = "[...document.querySelectorAll('[data-trait=speed] option')].map(option => option.textContent)"
    assert page.evaluate(speeds) == ["0.1×", "0.25×", "0.5×", "1×", "2×", "4×", "3×"]
    page.select_option("[data-trait=speed]", "0.25")
    assert trait(page, "speed") == 0.25


def test_the_question_mark_lists_the_keys_for_everyone(opened):
    page = opened(TrajectoryViewer(*example()))
    assert not page.is_visible(".tv-keys")
    page.click(".tv-help")
    listed = page.inner_text(".tv-keys")
    for words in ("Space", "play or pause", "draw a lasso", "Shift + drag", "Wheel"):
        assert words in listed
    page.focus(".tv-panel")
    page.keyboard.press("Escape")
    assert not page.is_visible(".tv-keys")
    page.keyboard.press("?")
    assert page.is_visible(".tv-keys") and page.get_attribute(".tv-help", "aria-expanded") == "true"


def test_every_control_changes_the_picture(opened):
    frames, truth, prediction = example()
    page = opened(TrajectoryViewer(frames, truth, prediction, rebuilt=frames[::-1], frame=6))
    seen = drawn(page)

    def changes(name: str, value: str) -> None:
        nonlocal seen
        set_control(page, name, value)
        now = seen
        for _ in range(200):  # a busy machine draws when it comes to it
            page.wait_for_timeout(50)
            now = drawn(page)
            if now != seen:
                break
        assert now != seen, f"{name} = {value} changed nothing"
        seen = now

    for colour in ("displacement", "direction", "speed", "error", "occlusion"):
        changes("colour", colour)
        assert page.inner_text(".tv-legend").strip()
    for background in ("first frame", "rebuilt", "difference", "none"):
        changes("background", background)
    changes("hidden", "off")
    changes("trail", "2")
    changes("point_size", "9")
    changes("density", "0.3")
    for comparison in ("overlay", "errors", "truth", "prediction", "side by side"):
        changes("compare", comparison)
    assert page.locator(".tv-panel").count() == 2
    page.click(".tv-reset")
    assert [trait(page, name) for name in ("colour", "background", "density", "frame")] == ["position", "video", 1, 0]


def test_the_pointer_shows_numbers_and_picks(opened):
    page = opened(TrajectoryViewer(*example(), frame=3))
    page.mouse.move(*on_screen(page, 37))
    tip = page.inner_text(".tv-tip")
    assert "point 37" in tip and "6.7 px" in tip and "1.50 px" in tip
    page.mouse.click(*on_screen(page, 37))
    assert trait(page, "selected") == [37]
    page.keyboard.down("Shift")
    page.mouse.click(*on_screen(page, 54, which=1))
    page.keyboard.up("Shift")
    assert trait(page, "selected") == [37, 54] and "2 selected" in page.inner_text(".tv-selection")
    page.keyboard.press("Escape")
    assert trait(page, "selected") == []
    page.fill("input[type=number]", "7")
    page.keyboard.press("Enter")
    assert trait(page, "selected") == [7] and "Point 7" in page.inner_text("[aria-live]")


def test_a_lasso_picks_what_it_goes_around(opened):
    page = opened(TrajectoryViewer(*example()))
    corners = [on_screen(page, point) for point in (0, 3, 2 * COLUMNS + 3, 2 * COLUMNS)]
    (left, top), (right, bottom) = corners[0], corners[2]
    page.click(".tv-lasso")
    page.mouse.move(left - 6, top - 6)
    page.mouse.down()
    for x, y in [(right + 6, top - 6), (right + 6, bottom + 6), (left - 6, bottom + 6)]:
        page.mouse.move(x, y, steps=4)
    page.mouse.up()
    assert trait(page, "selected") == [row * COLUMNS + column for row in range(3) for column in range(4)]
    page.check(".tv-selection input")
    assert page.evaluate(f"{GET}.shown.length") == 12


def test_zoom_keeps_the_place_below_the_pointer_and_links_both_panels(opened):
    page = opened(TrajectoryViewer(*example()))
    x, y = on_screen(page, 40)
    page.mouse.move(x, y)
    page.mouse.wheel(0, -600)  # not clicked into yet: the wheel belongs to the page
    assert page.evaluate(f"{GET}.camera.zoom") == 1
    assert "Click the picture first" in page.inner_text(".tv-hint")
    page.focus(".tv-panel")
    page.mouse.wheel(0, -600)
    until(page, f"{GET}.camera.zoom > 2")
    assert not page.is_visible(".tv-hint")
    np.testing.assert_allclose(on_screen(page, 40), (x, y), atol=1.5)  # a pointer's place is told in whole pixels
    first, second = on_screen(page, 40), on_screen(page, 40, which=1)
    np.testing.assert_allclose(second[1], first[1], atol=0.5)
    page.mouse.down()
    page.mouse.move(x + 30, y + 20, steps=3)
    page.mouse.up()
    np.testing.assert_allclose(on_screen(page, 40), (first[0] + 30, first[1] + 20), atol=1.5)
    assert trait(page, "selected") == []  # a drag is no click
    page.keyboard.press("0")
    assert page.evaluate(f"{GET}.camera.zoom") == 1


def test_two_fingers_zoom(opened):
    page = opened(TrajectoryViewer(*example()))
    page.evaluate(f"{GET}.zoomBy(2)")  # from then on the picture, not the page, takes what fingers do
    x, y = on_screen(page, 70)
    fingers = page.context.new_cdp_session(page)

    def touch(kind: str, spread: int | None) -> None:
        points = [] if spread is None else [{"x": x - spread, "y": y, "id": 0}, {"x": x + spread, "y": y, "id": 1}]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 20)
    for spread in (25, 30, 40):
        touch("touchMove", spread)
    touch("touchEnd", None)
    until(page, f"{GET}.camera.zoom > 3")
    assert page.evaluate(f"{GET}.camera.zoom") == pytest.approx(4, rel=0.05)
    assert trait(page, "selected") == []


@pytest.mark.parametrize("frames, points", [(1, 20), (8, 0)])
def test_one_frame_or_no_points_still_open(opened, frames, points):
    clip, truth, _ = example()
    tracks = truth.frames(0, frames).points(slice(0, points))
    page = opened(TrajectoryViewer(clip[:frames], tracks, tracks, compare="errors"))
    assert page.is_disabled(".tv-play") == (frames == 1)
    page.mouse.move(300, 200)
    page.focus(".tv-panel")
    page.keyboard.press("Space")
    assert trait(page, "playing") == (frames > 1)
    assert f"{points} points" in page.inner_text(".tv-info")


def test_names_with_markup_stay_text(opened):
    page = opened(TrajectoryViewer(*example(), title=HOSTILE, names=(HOSTILE, "b")))
    page.mouse.move(*on_screen(page, 37))
    assert page.inner_text(".tv-title") == HOSTILE and HOSTILE in page.inner_text(".tv-tip")
    assert page.evaluate("window.harmed") is None and page.title() == HOSTILE


def test_a_long_video_is_not_held_uncompressed(opened):
    frames = (np.full((360, 640, 3), s % 256, np.uint8) for s in range(300))
    xy = cell_grid((360, 640), 20, 20)
    tracks = Tracks.still(np.c_[np.zeros(400), xy], 300)
    page = opened(TrajectoryViewer(frames, tracks))
    page.evaluate(f"(async () => {{ for (let s = 0; s < 300; s++) await {GET}.frames.load(s); }})()")
    assert page.evaluate(f"{GET}.frames.decoded.size * 360 * 640 * 4") <= 96e6
    page.evaluate(f"{GET}.goTo(150)")
    until(page, f"{GET}.frames.decoded.has(150)")
    page.evaluate(f"{GET}.drawNow()")
    grey = page.evaluate(f"{GET}.panels[0].back.getContext('2d').getImageData(3, 3, 1, 1).data[0]")
    assert abs(grey - 150) <= 2


def test_fewer_trails_while_frames_follow_each_other_and_all_of_them_at_rest(opened):
    xy = cell_grid((90, 160), 80)
    queries = np.c_[np.zeros(len(xy)), xy]
    moving = np.stack([xy + [3 * s, s] for s in range(4)]).astype(np.float32)
    page = opened(
        TrajectoryViewer(np.zeros((4, 90, 160, 3), np.uint8), Tracks(moving, np.ones((4, len(xy)), bool), queries))
    )
    page.evaluate(f"{GET}.goTo(3)")
    whole = drawn(page)
    page.evaluate(f"{GET}.afforded = 0.25")
    assert drawn(page, whole=False) == whole  # the same view again, as when the pointer moves
    page.evaluate(f"({GET}.afforded = 0.25, {GET}.view = 'another')")
    assert drawn(page, whole=False) != whole
    page.wait_for_timeout(1000)
    assert picture(page) == whole


def test_what_trails_take_decides_how_many_are_drawn(opened):
    page = opened(TrajectoryViewer(*example()))
    took = [9, 11, 50, 50, 9, 3, 3, 3]
    afforded = page.evaluate(f"took => took.map(ms => {{ {GET}.drawn(ms); return {GET}.afforded; }})", took)
    assert afforded == [1, 0.5, 0.25, 0.25, 0.25, 0.5, 1, 1]


@pytest.mark.parametrize("width", [400, 1200])
def test_everything_has_a_name_and_fits(opened, width):
    page = opened(TrajectoryViewer(*example(), theme="dark"), width)
    assert nameless(page) == []
    assert fits(page, width)
    assert page.evaluate("document.querySelector('.tv').dataset.theme") == "dark"


# ---- Several clips and predictors, futures, confidence


def pixel(page, panel: int, layer: str, x: float, y: float) -> np.ndarray:
    """RGBA of a panel's canvas ("back" or "front"), at a place in the frame."""
    where = f"""(() => {{ const p = {GET}.panels[{panel}], [x, y] = p.toCanvas([{x}, {y}]);
        return [...p.{layer}.getContext('2d').getImageData(Math.round(x), Math.round(y), 1, 1).data]; }})()"""
    return np.array(page.evaluate(where))


def test_rebuilt_frames_lie_below_the_predictor_that_made_them(opened):
    page = opened(TrajectoryViewer.of([predicted()], truth="labels", shown=[0, 1, 2], background="rebuilt", frame=3))
    chips = "[...document.querySelectorAll('.tv-chip')].map(chip => chip.textContent)"
    assert page.evaluate(chips) == ["labels · true frame", "model · rebuilt frame", "zero · true frame"]
    drawn(page)
    assert [pixel(page, i, "back", 80, 45)[0] for i in range(3)] == pytest.approx([90, 250, 90], abs=2)
    page.select_option("[data-trait=background]", "difference")
    until(page, f"{GET}.isReady(3)")
    drawn(page)
    assert [pixel(page, i, "back", 80, 45)[0] for i in range(3)] == pytest.approx([90, 255, 90], abs=2)


def test_any_number_of_sets_can_be_shown(opened):
    page = opened(TrajectoryViewer.of([predicted()], frame=7))
    assert page.locator(".tv-panel").count() == 2
    for box in page.locator("[data-trait=shown] input").all():
        box.check()
    assert page.locator(".tv-panel").count() == 4 and trait(page, "shown") == [0, 1, 2, 3]
    page.mouse.move(*on_screen(page, 37))
    errors = dict(page.evaluate(f"{GET}.numbers(37)"))["error"]
    assert errors == ["", "3.50 px", "15.65 px", "0.00 px"]
    page.select_option("[data-trait=compare]", "errors")
    names = [panel.inner_text() for panel in page.locator(".tv-chip").all()]
    assert names == ["truth and model", "truth and zero", "truth and oracle"]
    page.select_option("[data-trait=compare]", "overlay")
    assert page.locator(".tv-panel").count() == 1
    assert page.inner_text(".tv-legend").split() == ["truth", "model", "zero", "oracle", "hollow", "=", "hidden"]


def test_error_vectors_of_hidden_points_are_faint(opened):
    page = opened(TrajectoryViewer.of([predicted()], compare="errors", shown=[0, 2], frame=6, point_size=12.0))
    drawn(page)
    strength = []
    for point in (COLUMNS - 2, COLUMNS - 1):  # in sight, hidden
        x, y = predicted().tracks.tracks[6, point] - [9, 4.5]  # of 12 and 6 that lead back to its start
        strength.append(int(pixel(page, 0, "front", x, y)[3]))
    assert strength[0] > 200 and 40 < strength[1] < 100, strength


def test_clips_are_switched_in_one_viewer(opened):
    page = opened(TrajectoryViewer.of([predicted("first"), predicted("second", shrink=3)], frame=7, selected=[3]))
    assert "first · 144 points · 8 frames" in page.inner_text(".tv-info")
    page.select_option("[data-trait=clip]", "1")
    until(page, f"{GET}.last === 4")
    assert "second · 144 points · 5 frames" in page.inner_text(".tv-info")
    assert trait(page, "frame") == 4 and trait(page, "selected") == []
    until(page, f"{GET}.frames.decoded.has(4)")
    assert page.evaluate(f"{GET}.clips[0].frames.decoded.size") == 0, "the clip that is not shown keeps no pictures"
    page.focus(".tv-panel")
    page.keyboard.press("n")
    until(page, f"{GET}.last === 7")
    page.keyboard.press("End")
    assert page.inner_text(".tv-counter") == "7 / 7"


def test_a_chosen_point_shows_its_path_and_its_error_over_time(opened):
    page = opened(TrajectoryViewer.of([predicted()], shown=[0, 1, 2], frame=2, background="none", trail=0))
    before = drawn(page)
    page.mouse.click(*on_screen(page, 37))
    assert trait(page, "selected") == [37] and page.is_visible(".tv-plot")
    assert drawn(page) != before
    assert "Error of point 37, px" in page.inner_text(".tv-plot") and "15.7" in page.inner_text(".tv-plot-top")
    lines = [line.get_attribute("points") for line in page.locator(".tv-plot polyline").all()]
    heights = [[float(pair.split(",")[1]) for pair in line.split()] for line in lines]
    zero = np.hypot(2.0, 1.0) * np.arange(S)  # px
    np.testing.assert_allclose(heights[1], 39 - 37 * zero / zero.max(), atol=0.1)
    np.testing.assert_allclose(heights[0], 39 - 37 * 0.5 * np.arange(S) / zero.max(), atol=0.1)
    box = page.locator(".tv-plot").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.72, box["y"] + 50)
    assert trait(page, "frame") == 5
    page.evaluate(f"{GET}.goTo(1)")

    def ahead() -> int:
        """The most opaque place where the point is in four frames."""
        drawn(page)
        places = predicted().tracks.tracks[5, 37] + np.linspace(-1, 1, 9)[:, None] * [1, 0.5]
        return max(int(pixel(page, 0, "front", x, y)[3]) for x, y in places)

    assert ahead() > 60
    page.select_option("[data-trait=path]", "false")
    assert not page.is_visible(".tv-plot") and ahead() == 0


def test_a_box_and_everything_that_moves(opened):
    frames, truth, _ = example()
    still = Tracks(np.where(np.arange(truth.num_points)[:, None] < 20, truth.tracks, truth.tracks[:1]),
                   truth.visibility, truth.queries)  # fmt: skip
    page = opened(TrajectoryViewer(frames, still))
    page.click(".tv-moving")
    assert trait(page, "selected") == list(range(20)) and "20 points move" in page.inner_text("[aria-live]")
    corners = [on_screen(page, point) for point in (0, 2 * COLUMNS + 3)]
    page.click(".tv-box")
    page.mouse.move(corners[0][0] - 6, corners[0][1] - 6)
    page.mouse.down()
    page.mouse.move(corners[1][0] + 6, corners[1][1] + 6, steps=3)
    page.mouse.up()
    assert trait(page, "selected") == [row * COLUMNS + column for row in range(3) for column in range(4)]
    page.focus(".tv-panel")
    page.keyboard.press("Escape")
    assert trait(page, "selected") == [] and page.get_attribute(".tv-box", "aria-pressed") == "false"


def test_futures_one_all_weighted_and_confidence(opened):
    page = opened(TrajectoryViewer.of([predicted()], shown=[0, 1], frame=7, background="none"))
    seen = {"off": drawn(page)}
    for name in ("all", "weighted", "one"):
        page.select_option("[data-trait=future]", name)
        seen[name] = drawn(page)
    assert len(set(seen.values())) == 4
    errors = []
    for sample in range(3):
        page.fill("[data-trait=sample]", str(sample))
        errors.append(dict(page.evaluate(f"{GET}.numbers(37)"))["error"][0])
    assert errors == ["0.00 px", "10.00 px", "10.00 px"]
    page.select_option("[data-trait=future]", "off")
    page.select_option("[data-trait=opacity]", "confidence")
    drawn(page)
    assert page.evaluate(f"[{GET}.opacities(1)[0], {GET}.opacities(1)[15], {GET}.opacities(0)[15]]") == pytest.approx(
        [1, 0.1, 1]
    )
    page.select_option("[data-trait=colour]", "confidence")
    sure, unsure = page.evaluate(f"[{GET}.colours(1, [1])[0], {GET}.colours(1, [1])[15]]")
    assert sure != unsure and "Confidence" in page.inner_text(".tv-legend")


def test_regions_around_selected_points_and_where_the_truth_left_them(opened):
    frames, truth, prediction = example()
    radii = np.full(truth.visibility.shape, 0.5, np.float32)
    radii[:, ::2] = 1000.0
    page = opened(TrajectoryViewer(frames, truth, prediction, regions=radii, frame=5, background="none"))
    plain = drawn(page)
    page.evaluate(f"{GET}.select([4])")
    assert drawn(page) != plain
    read = f"[...Array({truth.num_points}).keys()].map(n => [{GET}.sets[1].radius(5, n), {GET}.leaves(1, 5, n)])"
    found = page.evaluate(read)
    off = np.linalg.norm(prediction.tracks[5] - truth.tracks[5], axis=-1)
    assert [one for one, _ in found] == radii[5].tolist()
    assert [left for _, left in found] == ((off > radii[5]) & truth.visibility[5]).tolist()
    assert any(left for _, left in found) and dict(page.evaluate(f"{GET}.numbers(4)"))["region"] == ["", "1000.0 px"]
    page.select_option("[data-trait=colour]", "region")
    drawn(page)
    assert "outside" in page.inner_text(".tv-legend")
    ways = prediction.tracks[None].repeat(2, axis=0)
    page = opened(TrajectoryViewer(frames, truth, prediction, regions=radii, futures=ways, colour="region", frame=5))
    page.evaluate(f"{GET}.set('future', 'one')")
    drawn(page)
    legend = page.inner_text(".tv-legend")
    assert "no regions are known" in legend and "outside" not in legend, "a sampled future has none"


# ---- Saving from the page


def saved(page, kind: str, folder):
    """Press the button, and give the file."""
    if not page.is_visible(f"[data-kind={kind}]"):
        page.click(".tv-save")
    with page.expect_download() as download:
        page.click(f"[data-kind={kind}]")
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def noisy(S: int = 5) -> TrajectoryViewer:
    """Grey frames that get brighter, beside noise, which needs every code that a GIF has."""
    frames = np.random.default_rng(0).integers(0, 255, (S, 90, 160, 3), np.uint8)
    frames[:, :, :80] = (40 * np.arange(S) + 40)[:, None, None, None]
    _, truth, model = example()
    settings = {"title": "Look: at/this", "frame": 2, "fps": 10, "density": 0.0, "trail": 0}
    return TrajectoryViewer(frames, truth.frames(0, S), model.frames(0, S), **settings)


def test_a_picture_and_films_are_saved_without_a_server(opened, tmp_path):
    page = opened(noisy())
    picture = decode_image(saved(page, "png", tmp_path).read_bytes())
    assert page.evaluate("document.querySelector('.tv-hint').hidden")
    paths = [saved(page, "gif", tmp_path)]
    if page.evaluate("typeof VideoEncoder === 'function'"):
        paths.append(saved(page, "mp4", tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".html") == sorted(
        ["Look-at-this-2.png", *(path.name for path in paths)]
    )
    scale = picture.shape[1] / page.evaluate(f"{GET}.stage.getBoundingClientRect().width")
    for path in paths:
        frames = list(iterate_frames(path))
        assert len(frames) == 5 and probe(path).fps == pytest.approx(10, abs=0.5), path
        shrunk = frames[0].shape[1] / picture.shape[1]
        for s, frame in enumerate(frames):
            y, x = (round(value * scale * shrunk) for value in (200, 40))  # grey, between points
            assert np.abs(frame[y, x].astype(int) - (40 * s + 40)).max() < 14, (path, s)
        right = frames[0][:, -round(frames[0].shape[1] / 8) :].astype(int)
        assert right.std() > 20, "noise stays noise"
    assert trait(page, "frame") == 2, "afterwards the viewer stands where it stood"
    grey = picture[round(200 * scale), round(40 * scale)].astype(int)
    assert np.abs(grey - 120).max() <= 3


def test_a_browser_that_encodes_no_video_says_so(opened):
    page = opened(TrajectoryViewer(*example()))
    assert page.evaluate("typeof VideoEncoder") in ("function", "undefined")
    offered = page.evaluate("!document.querySelector('[data-kind=mp4]').disabled")
    assert offered == page.evaluate("typeof VideoEncoder === 'function'")


# ---- JupyterLab


def hears(page, python, expression: str, expected) -> None:
    """Wait until the kernel says so: a message from the page takes a moment, and longer on a busy machine."""
    end = time.monotonic() + PATIENCE
    while (got := python(expression)) != expected:
        assert time.monotonic() < end, f"{expression}: expected {expected}, got {got}"
        page.wait_for_timeout(100)


def check_in_jupyterlab(lab, page) -> None:
    """The widgets load quietly, play without the kernel, and both sides hear of what the other does."""
    watched = Watched(page, lab.url)
    lab.write_notebook("live.ipynb", [*CELLS, *HAND_CELLS])
    lab.run_all(page, "live.ipynb")
    page.wait_for_selector(".tv[data-ready]")
    page.wait_for_selector(".tv-hand[data-ready]")
    with lab.python("live.ipynb") as python:
        python("viewer.frame = 5")
        until(page, "document.querySelector('.tv-counter').textContent === '5 / 7'")
        page.fill(".tv-scrub", "2")
        page.mouse.click(*on_screen(page, 37))
        hears(page, python, "[viewer.frame, viewer.selected]", [2, [37]])
        python("viewer.selected = [1, 2, 3]")
        until(page, "document.querySelector('.tv-selection').textContent.includes('3 selected')")
        page.select_option("[data-trait=hidden]", "off")
        page.fill("[data-trait=density]", "0.5")
        hears(page, python, "[viewer.hidden, viewer.density]", ["off", 0.5])
        page.evaluate(COUNT_SAVES)
        page.evaluate(f"{GET}.set('playing', true)")
        until(page, f"{GET}.get('frame') === 6")
        assert page.evaluate("window.saves") <= 1, "playing told the kernel of more than that it plays"
        python("hands.yaw = 25")
        until(page, f"{HAND}.get('yaw') === 25")
        page.evaluate(f"{HAND}.turnBy(10, 5)")
        page.evaluate(f"{HAND}.goTo(3)")
        hears(page, python, "[hands.frame, hands.yaw, hands.pitch]", [3, 35, 5])
    # the picture that a saved notebook shows is put away while the widget is there
    pictures = page.locator("img[class^=flowlib-snapshot]")
    assert pictures.count() == 2 and not any(picture.is_visible() for picture in pictures.all())
    watched.assert_clean()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed (the extra `test` has it)")
    with jupyterlab(tmp_path_factory.mktemp("lab")) as running:
        yield running


def test_the_widget_in_jupyterlab(lab, browser):
    page = browser.new_page()
    check_in_jupyterlab(lab, page)
    page.close()


def test_a_saved_notebook_shows_the_picture(lab, browser, tmp_path, monkeypatch):
    """Untrusted in JupyterLab, and as offline HTML by nbconvert."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    from nbconvert import HTMLExporter

    lab.write_notebook("saved.ipynb", CELLS)
    notebook = nbformat.read(lab.root / "saved.ipynb", as_version=4)
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    nbclient.NotebookClient(notebook).execute()
    nbformat.write(notebook, lab.root / "saved.ipynb")
    page = browser.new_page()
    page.goto(lab.address("saved.ipynb"))
    page.wait_for_selector("img[class^=flowlib-snapshot]")
    assert page.evaluate("document.querySelector('img[class^=flowlib-snapshot]').naturalWidth") == 960
    page.close()

    path = tmp_path / "saved.html"
    path.write_text(HTMLExporter().from_notebook_node(notebook)[0], encoding="utf-8")
    browser.set_offline(True)
    page = browser.new_page()
    page.goto(path.as_uri(), wait_until="domcontentloaded")
    assert page.is_visible("img[class^=flowlib-snapshot]")
    assert page.evaluate("document.querySelector('img[class^=flowlib-snapshot]').naturalWidth") == 960
    page.close()
    browser.set_offline(False)


@pytest.mark.skipif("FLOWLIB_COLAB_PYTHON" not in os.environ, reason="FLOWLIB_COLAB_PYTHON names no environment")
def test_the_widget_with_the_versions_of_colab(browser, tmp_path):
    python = os.environ["FLOWLIB_COLAB_PYTHON"]
    ask = "import ipywidgets as w, anywidget as a, ipykernel as k; print(w.__version__, a.__version__, k.__version__)"
    versions = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.split()
    assert versions[:2] == ["7.7.1", "0.9.21"] and versions[2].startswith("6.17")
    with jupyterlab(tmp_path, python) as running:
        page = browser.new_page()
        check_in_jupyterlab(running, page)
        page.close()
