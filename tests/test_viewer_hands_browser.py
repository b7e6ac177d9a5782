"""Exported pages of the hand viewer in headless Chromium; in JupyterLab it is tried by test_viewer_browser.py.

Skipped where there is no Chromium or no Playwright.
"""

import numpy as np
import pytest
from fixtures.browser import CHROMIUM, chromium
from fixtures.hand_example import hand_example
from fixtures.viewer_pages import GET, drawn, exported, fits, nameless, set_control, trait, until

from flowlib.viewer import HandViewer
from flowlib.viewer.hand_scene import HandView, depth_grid

pytest.importorskip("playwright", reason="Playwright is not installed (the extra `test` has it)")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

HOSTILE = "<script>window.harmed = 1</script><img src=x onerror='window.harmed = 2'>"


def example(**settings) -> HandViewer:
    """Two takes and two predictors: one 5 mm off, one exact."""
    takes = [hand_example(), hand_example(3, "me/wave/2", action=0)]
    off = [take.joints + np.float32([3, 4, 0]) for take in takes]
    likely = [np.linspace(np.array([0.9, 0.1]), np.array([0.2, 0.8]), len(take)) for take in takes]
    predictions = {"net": off, "oracle": [take.joints for take in takes]}
    return HandViewer(takes, predictions, actions=likely, action_names=("rest", "wave"), **settings)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as context:
        yield context


@pytest.fixture
def opened(browser, tmp_path):
    with exported(browser, tmp_path) as open_page:
        yield open_page


def on_screen(page, joint: int, which: int = 0) -> tuple[float, float]:
    """Where a joint is in the window."""
    place = f"""(() => {{ const v = {GET}, panel = v.panels.find(p => p.sets.includes({which}));
        const [x, y] = v.places({which}, panel)[{joint}], box = panel.el.getBoundingClientRect();
        return [box.left + x / panel.ratio, box.top + y / panel.ratio]; }})()"""
    return tuple(page.evaluate(place))


def test_the_script_unpacks_depth_and_light_as_python_does(opened):
    viewer = example(frame=4)
    page = opened(viewer)
    cloud = page.evaluate(f"(c => [[...c.xyz], [...c.light]])({GET}.take.cloud(4))")
    points, light = depth_grid(hand_example(), 4, 300.0, 4000).points(hand_example())
    np.testing.assert_allclose(np.reshape(cloud[0], (-1, 3)), points, atol=0.1)
    np.testing.assert_allclose(cloud[1], light, atol=0.15)  # the packed depth has steps of 1/8 mm
    assert abs(np.mean(cloud[1]) - light.mean()) < 0.01


@pytest.mark.parametrize("settings", [{}, {"yaw": 40.0, "pitch": -25.0, "zoom": 1.7}, {"follow": False, "pitch": 80.0}])
def test_the_script_projects_as_python_does(opened, settings):
    viewer = example(frame=2, **settings)
    page = opened(viewer)
    width, height = page.evaluate(f"[{GET}.panels[0].width, {GET}.panels[0].height]")
    expected = viewer._scene.project(hand_example().joints[2], HandView(frame=2, **settings), min(width, height))
    seen = np.array(page.evaluate(f"{GET}.places(0, {GET}.panels[0])")) - [width / 2, height / 2, 0]
    np.testing.assert_allclose(seen, expected, atol=0.02)
    errors = page.evaluate(f"[...Array(21).keys()].map(j => {GET}.take.error(1, 2, j))")
    np.testing.assert_allclose(errors, 5, rtol=1e-4)


def test_a_page_plays_and_changes_the_take(opened):
    page = opened(example(fps=30))
    page.click(".tv-play")
    until(page, f"{GET}.get('frame') >= 3")
    page.click(".tv-play")
    page.fill(".tv-scrub", "5")
    assert page.inner_text(".tv-counter") == "5 / 5" and "me/wave/1" in page.inner_text(".tv-info")
    before = drawn(page)
    page.select_option("[data-trait=sequence]", "1")
    until(page, f"{GET}.take.isReady")
    assert page.inner_text(".tv-counter") == "2 / 2" and trait(page, "frame") == 2
    assert "me/wave/2 · subject me · rest · 3 frames · 21 joints" == page.inner_text(".tv-info")
    assert page.get_attribute(".tv-scrub", "max") == "2" and drawn(page) != before


def test_every_control_changes_the_picture(opened):
    page = opened(example(frame=4))
    assert page.locator(".tv-panel").count() == 3
    seen = drawn(page)
    steps = [
        ("colour", "error"), ("colour", "set"), ("cloud", "faint"), ("cloud", "off"), ("hidden", "off"),
        ("compare", "overlay"), ("compare", "errors"), ("follow", "false"),
    ]  # fmt: skip
    for name, value in steps:
        set_control(page, name, value)
        now = seen
        for _ in range(200):  # a busy machine draws when it comes to it
            page.wait_for_timeout(50)
            now = drawn(page)
            if now != seen:
                break
        assert now != seen, f"{name} = {value} changed nothing"
        seen = now
    sets = page.locator("[data-trait=shown] label")
    sets.nth(2).click()
    assert trait(page, "shown") == [0, 1] and drawn(page) != seen
    sets.nth(1).click()
    sets.nth(0).click()
    assert trait(page, "shown") == [0], "the last one stays"
    assert page.is_checked("[data-trait=shown] input >> nth=0")
    page.click(".tv-reset")
    assert [trait(page, name) for name in ("colour", "cloud", "frame", "yaw")] == ["finger", "shaded", 0, 0]


def test_dragging_turns_the_wheel_zooms_and_0_shows_all(opened):
    page = opened(example(frame=1))
    x, y = on_screen(page, 0)
    box = page.locator(".tv-panel").first.bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 160, box["y"] + 120, steps=4)
    page.mouse.up()
    assert trait(page, "yaw") == pytest.approx(30, abs=2) and trait(page, "pitch") == pytest.approx(10, abs=2)
    assert on_screen(page, 0) != (x, y)
    page.mouse.wheel(0, -400)
    until(page, f"{GET}.get('zoom') > 1.5")
    page.keyboard.press("3")
    assert (trait(page, "yaw"), trait(page, "pitch")) == (0, 90)
    page.keyboard.press("0")
    assert [trait(page, name) for name in ("yaw", "pitch", "zoom")] == [0, 0, 1]
    np.testing.assert_allclose(on_screen(page, 0), (x, y), atol=0.01)


def test_hidden_joints_are_hollow_and_seen_ones_filled(opened):
    page = opened(example(frame=4, cloud="off", theme="light"))

    def middle(joint: int) -> np.ndarray:
        pixel = f"""(() => {{ const v = {GET}, p = v.panels[0], [x, y] = v.places(0, p)[{joint}];
            return [...p.front.getContext('2d').getImageData(Math.round(x), Math.round(y), 1, 1).data]; }})()"""
        return np.array(page.evaluate(pixel))[:3]

    assert np.abs(middle(14) - [32, 172, 128]).max() < 12, "the tip of the middle finger is green"
    assert middle(20).min() > 220, "the pinky's tip is hidden"
    page.select_option("[data-trait=hidden]", "off")
    drawn(page)
    assert "3 joints hidden" in page.inner_text(".tv-selection")


def test_numbers_of_a_joint_and_actions_over_time(opened):
    page = opened(example(frame=5))
    page.mouse.move(*on_screen(page, 14))
    tip = page.inner_text(".tv-tip")
    assert "MTIP" in tip and "5.0 mm" in tip and "0.0 mm" in tip and "net" in tip
    assert "net 5.0 mm · oracle 0.0 mm" in page.inner_text(".tv-selection")
    names = page.evaluate("[...document.querySelectorAll('.tv-actions span')].map(el => el.textContent)")
    assert names == ["rest", "20 %", "wave", "80 %"]  # the likelier one over all frames first
    assert page.inner_text(".tv-actions .tv-true") == "wave"


def test_one_frame_without_depth_or_predictions_still_opens(opened):
    bare = hand_example(1)
    page = opened(HandViewer(type(bare)(**{**vars(bare), "read": lambda frame: np.zeros(bare.camera.size)})))
    assert page.is_disabled(".tv-play") and page.locator(".tv-panel").count() == 1
    page.focus(".tv-panel")
    page.keyboard.press("Space")
    assert trait(page, "playing") is False and not page.locator(".tv-actions canvas").count()


def test_names_with_markup_stay_text(opened):
    take = hand_example(2, HOSTILE)
    page = opened(HandViewer(take, {HOSTILE: take.joints}, title=HOSTILE))
    page.mouse.move(*on_screen(page, 14))
    assert page.inner_text(".tv-title") == HOSTILE and HOSTILE in page.inner_text(".tv-tip")
    assert page.evaluate("window.harmed") is None


@pytest.mark.parametrize("width", [400, 1200])
def test_everything_has_a_name_and_fits(opened, width):
    page = opened(example(theme="dark"), width)
    assert nameless(page) == [] and fits(page, width)
