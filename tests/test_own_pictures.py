"""Predicting on one's own pictures: what is left, that colours mean the same everywhere, and that mistakes are told."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
import torch

from flowlib import own_pictures
from flowlib.clips import Clip, ClipSample
from flowlib.colours import HOLE
from flowlib.models.baselines import ConstantVelocity, ZeroMotion
from flowlib.models.futures import add_futures
from flowlib.models.guided import GuidedTrajectories
from flowlib.models.protocols import TrajectoryPrediction
from flowlib.sources import SAMPLE
from flowlib.synthetic import random_scene
from flowlib.tracks import Tracks
from flowlib.video import decode_image, encode_image, probe, write_video


class Shift:
    """All goes to the right, 2 px a frame."""

    input_frames, num_frames = (0, 2), 4

    def __call__(self, images):
        H, W = images.shape[-2:]
        moved = torch.zeros(1, 4, 2, H, W)
        moved[:, :, 0] = 2 * torch.arange(4)[:, None, None]
        return TrajectoryPrediction(moved, torch.full((1, 4, H, W), 4.0), (0, 1, 2, 3))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    scene = random_scene(8, (60, 90), 3, motion="linear", camera="linear").clip()
    for name, frame in {"a.png": scene[0], "b.png": scene[3], "turned.png": scene[0].transpose(1, 0, 2)}.items():
        (folder / name).write_bytes(encode_image(np.ascontiguousarray(frame), "png"))
    (folder / "text.jpg").write_text("no picture")
    write_video(folder / "film.mp4", scene)
    return folder


def test_two_pictures_leave_a_page_a_figure_a_film_and_frames(files, tmp_path):
    found = own_pictures.predict([files / "a.png", files / "b.png"], Shift())
    page, figure, film, *frames = found.save(tmp_path / "new" / "folder")
    assert "<html" in page.read_text()[:500] and "a.png, b.png" in page.read_text()
    assert decode_image(figure.read_bytes()).shape[1] > 1000
    assert probe(film).num_frames == 4 and len(frames) == 4
    first = decode_image(frames[0].read_bytes())
    assert first.shape == (64, 88, 3), "as it is, in multiples of 8"
    np.testing.assert_array_equal(decode_image(frames[3].read_bytes())[:, 6:], first[:, :-6])
    again = {path: path.read_bytes() for path in found.save(tmp_path / "new" / "folder") if path.suffix == ".png"}
    assert len(again) == 5, "what is there is written over"


def test_several_futures_are_shown_by_their_weights(files):
    model = add_futures(GuidedTrajectories(num_frames=4, input_frames=(0, 2)), 3).eval()
    viewer = own_pictures.predict([files / "a.png", files / "b.png"], model).viewer
    assert viewer.future == "weighted" and len(viewer._scene.sets[0].futures) == 3
    assert own_pictures.predict([files / "a.png", files / "b.png"], Shift()).viewer.future == "off"


def test_holes_are_filled_and_marked_never_black(files):
    found = own_pictures.predict([files / "a.png", files / "b.png"], Shift())
    hole, under = found.rebuilt[3][:, :6].astype(float), found.rebuilt[0][:, :6]
    np.testing.assert_allclose(hole, 0.25 * under + 0.75 * np.array(HOLE), atol=0.5)
    assert found.holes == pytest.approx(6 / 88) and "7 % (grey" in repr(found)


def test_colours_have_a_fixed_scale_that_is_printed(files):
    for model in (Shift(), ZeroMotion(4)):
        figure = own_pictures.predict([files / "a.png", files / "b.png"][: len(model.input_frames)], model).figure()
        wheel = figure.axes[1].child_axes[0]
        assert wheel.texts[0].get_text() == "20 px" and "colours full at 20 px" in figure.axes[1].get_title()
    figure = own_pictures.predict(files / "a.png", ZeroMotion(4)).figure(5)
    assert figure.axes[1].child_axes[0].texts[0].get_text() == "5 px"


def test_a_video_is_shown_over_its_own_frames(files):
    found = own_pictures.predict(files / "film.mp4", ConstantVelocity(num_frames=6, input_frames=(0, 3)), first_frame=1)
    assert found.sample.clip.first_frame == 1 and found.viewer.num_frames == 6
    np.testing.assert_array_equal(found.sample.picture(0), found.rebuilt[0])
    assert found.viewer._scene.rebuilt is not None


def test_frames_before_a_video_begins_are_refused(files, refuses):
    for first in (-1, -3):
        with refuses("indices: expected ascending frame numbers from 0"):
            own_pictures.own_clip([files / "film.mp4"], (0, 3), (32, 48), 4, first)


def test_a_scene_that_begins_among_the_frames_seen_is_told(caplog):
    model = ConstantVelocity(num_frames=8, input_frames=(0, 3))
    for name, first, told in (("bikes", 135, "137"), ("bikes", 136, "137"), ("bikes", 137, ""), ("bikes", 128, "")):
        caplog.clear()
        own_pictures.own_clip([SAMPLE / f"{name}.mp4"], model.input_frames, (64, 96), 8, first)
        found = [record.getMessage() for record in caplog.records]
        assert len(found) == bool(told), (first, found)
        assert (
            not told
            or f"bikes.mp4: another scene begins at frame {told}, among frames {first}, {first + 3}" in found[0]
        )


@pytest.mark.parametrize("names, frames", [(["a.png"], 1), (["a.png", "b.png"], 2), (["film.mp4"], 2)])
def test_the_shipped_predictor_that_fits_is_taken(files, names, frames, monkeypatch):
    monkeypatch.setattr(own_pictures, "load_default", lambda count: {1: ZeroMotion(4), 2: Shift()}[count])
    found = own_pictures.predict([files / name for name in names], size=(32, 48))
    assert found.rebuilt.shape == (4, 32, 48, 3)
    assert found.sample.clip.kept == {1: (0,), 2: (0, 2)}[frames] or names == ["film.mp4"]


def test_a_clip_at_hand_stands_in_for_no_pictures(files):
    frames = random_scene(4, (48, 64), 0).clip()
    sample = ClipSample(Clip.named("mine", frames), frames, Tracks.still(np.array([[0, 3.0, 4.0]]), 4))
    assert own_pictures.own_sample([], Shift(), sample) is sample
    assert own_pictures.own_sample([files / "a.png"], Shift(), sample).size == (64, 88)
    assert own_pictures.predict_clip(Shift(), sample).viewer.num_points == 1


def test_pictures_named_by_a_parameter_are_opened_at_once(files, refuses):
    named = f"{files}/a.png, {files}/film.mp4"
    assert own_pictures.check_pictures(named) == [files / "a.png", files / "film.mp4"]
    assert own_pictures.check_pictures("") == own_pictures.check_pictures(" , ") == []
    with refuses("text.jpg is none"):
        own_pictures.check_pictures(f"{files}/a.png,{files}/text.jpg")
    with refuses("pictures: expected a picture or a video, found nothing at .*c.jpg", FileNotFoundError):
        own_pictures.check_pictures(f"{files}/c.jpg")


def test_pictures_that_do_not_go_together_are_refused(files, refuses):
    one = files / "a.png"
    with refuses("pictures: expected 1 or 2, for frames .0, 2., got 3"):
        own_pictures.predict([one, one, one], Shift())
    with refuses("pictures: expected all of one shape, 90×60 as a.png, .*turned.png has 60×90"):
        own_pictures.predict([one, files / "turned.png"], Shift())
    with refuses("pictures: expected a picture, two of them, or a video, got none"):
        own_pictures.predict([])
