"""The command line: what each command leaves, its exit codes, and that it goes on where a notebook was."""

import csv
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from flowlib.__main__ import COMMANDS, main
from flowlib.tasks.trajectories import TrajectoryTask

CLONE = Path(__file__).parents[1]
LABEL = [
    "label",
    "synthetic",
    "--tracker",
    "exact",
    "--grid",
    "6",
    "--height",
    "48",
    "--width",
    "64",
    "--max-clips",
    "1",
]
SMALL = ["--backbone", "lraspp_mobilenet_v3_large", "--weights", "none", "--conv1", "duplicate", "--batch-size", "1"]
TRAIN = ["train", *SMALL, "--num-workers", "0", "--validate-every", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> str:
    root = str(tmp_path_factory.mktemp("command_line"))
    assert main([*LABEL, "--root", root]) == 0
    return root


@pytest.fixture(scope="module")
def trained(root) -> str:
    assert main([*TRAIN, "--root", root, "--steps", "2"]) == 0
    return root


def test_labelling_goes_on_and_leaves_what_the_notebook_leaves(root, capsys):
    assert main([*LABEL, "--root", root]) == 0
    assert "0 labelled now" in capsys.readouterr().out
    assert (Path(root) / "datasets" / "default" / "splits.json").is_file()
    assert main([*LABEL, "--root", root, "--dataset", "later", "--estimate"]) == 0
    assert "a clip: decoding" in capsys.readouterr().out and not (Path(root) / "datasets" / "later").exists()


def test_probe_lists_usable_and_unusable_videos(tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    assert main(["probe", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "0 videos can be used, 1 can't" in out and "broken" in out


def test_export_writes_the_tracks_that_are_in_the_dataset(root, capsys):
    from flowlib.dataset import TrajectoryDataset

    assert main(["export", "--root", root, "--clip", "1"]) == 0
    folder = Path(root) / "reports" / "export"
    tracks = TrajectoryDataset(Path(root) / "datasets" / "default", split="all").tracks(1)
    with np.load(folder / "tracks.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["tracks"], tracks.tracks) and np.array_equal(arrays["queries"], tracks.queries)
    with (folder / "tracks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:6] == ["frame", "point", "x", "y", "visible", "confidence"]
    assert len(rows) == tracks.visibility.size
    last = rows[-1]
    assert np.array_equal(np.array([last["x"], last["y"]], np.float32), tracks.tracks[-1, -1])
    assert sum(int(row["visible"]) for row in rows) == tracks.visibility.sum()
    assert (folder / "clip.mp4").stat().st_size > 1000


def test_a_file_that_is_not_there_is_named(tmp_path, capsys):
    assert main(["convert", str(tmp_path / "none.csv"), str(tmp_path / "out.npz")]) == 1
    assert capsys.readouterr().err == f"flowlib: {tmp_path / 'none.csv'}: expected a file or folder, found none\n"


def test_convert_carries_tracks_to_another_programs_convention(tmp_path, capsys):
    table, tapnet, back = (tmp_path / name for name in ("a.csv", "b.npz", "c.csv"))
    table.write_text("frame,point,x,y,visible,confidence\n0,0,7.0,5.0,1,0.5\n1,0,0.1,2.0,0,1.0\n")
    assert main(["convert", str(table), str(tapnet), "--write-as", "tapnet"]) == 0
    with np.load(tapnet) as arrays:
        assert arrays["query_points"].tolist() == [[0, 5.5, 7.5]] and arrays["tracks"][0, 0].tolist() == [7.5, 5.5]
    assert main(["convert", str(tapnet), str(back)]) == 0
    assert back.read_text() == table.read_text()
    capsys.readouterr()
    assert main(["convert", str(table), str(tapnet), "--write-as", "tapvid"]) == 2
    assert capsys.readouterr().err.startswith("flowlib: height: expected the frames', for tapvid has")
    assert main(["convert", str(table), str(tapnet), "--height", "4"]) == 2
    assert main(["convert", str(tmp_path / "bad.csv"), str(tapnet)]) == 1
    table.write_text("no table")
    capsys.readouterr()
    assert main(["convert", str(table), str(tapnet)]) == 1
    assert capsys.readouterr().err.startswith(f"flowlib: {table}: expected the columns frame, point, x, y")


def test_track_follows_chosen_points_into_a_table_and_a_video(tmp_path, capsys):
    from flowlib.synthetic import random_scene
    from flowlib.tracks import read_tracks
    from flowlib.video import probe, write_video

    scene = random_scene(12, (64, 96), 3, motion="wander", camera="wander")
    video = write_video(tmp_path / "scene.mkv", scene.clip(), lossless=True)
    command = ["track", str(video), "--root", str(tmp_path)]
    assert main([*command, "--points", "40,30", "20.5, 33.25,6", "--formats", "csv", "npz"]) == 0
    folder = tmp_path / "reports" / "track"
    tracks, truth = read_tracks(folder / "tracks.csv"), scene.tracks(np.array([[0, 40, 30], [6, 20.5, 33.25]]))
    assert tracks.queries.tolist() == truth.queries.tolist()
    assert np.linalg.norm(tracks.tracks - truth.tracks, axis=-1)[tracks.visibility & truth.visibility].max() < 2
    assert np.array_equal(read_tracks(folder / "tracks.npz").tracks, tracks.tracks)
    assert probe(folder / "tracks.mp4").num_frames == 12
    assert "point 1: seen in" in capsys.readouterr().out
    assert main([*command, "--points", "40,30", "--confidence", "--no-overlay", "--report", "sure"]) == 0
    sure = read_tracks(tmp_path / "reports" / "sure" / "tracks.csv")
    assert sure.confidence[0, 0] == 1 and np.array_equal(sure.tracks, tracks.points([0]).tracks)
    assert not (tmp_path / "reports" / "sure" / "tracks.mp4").exists()
    for points in ("40", "40,30,2.5", "40,30,-1", "a,b", "nan,3"):
        assert main([*command, "--points", points]) == 2
        assert capsys.readouterr().err.startswith("flowlib: points: expected x,y or x,y,t (t a frame's number), got '")
    assert main(command) == 2
    assert main([*command, "--points", "96,3"]) == 2
    assert "points: expected places on frames of 96×64, got 96,3" in capsys.readouterr().err
    assert main([*command, "--points", "3,3", "--num-frames", "13"]) == 2
    assert main([*command, "--points", "3,3,12"]) == 1


def test_view_writes_a_page(root):
    assert main(["view", "--root", root, "--clip", "0"]) == 0
    assert "<html" in (Path(root) / "reports" / "view" / "viewer.html").read_text()[:500].lower()


def test_a_run_goes_on_and_is_evaluated_and_predicts(trained, tmp_path, capsys):
    assert main([*TRAIN, "--root", trained, "--steps", "2"]) == 0
    assert "2 of 2 steps" in capsys.readouterr().out
    assert len(list((Path(trained) / "runs").glob("*_two_frames"))) == 1
    assert main(["evaluate", "--root", trained, "--resamples", "50", "--device", "cpu"]) == 0
    assert "zero motion" in capsys.readouterr().out.lower()
    assert list((Path(trained) / "reports" / "two_frames").glob("*.html"))
    guided = ["train", "--model", "guided", "--loss", "laplace_2d", *TRAIN[1 + len(SMALL) :], "--batch-size", "1"]
    assert main([*guided, "--root", trained, "--name", "guided", "--steps", "2", "--clips", "1"]) == 0
    both = ["--runs", "guided,two_frames", "--resamples", "50", "--report", "both", "--device", "cpu"]
    assert main(["evaluate", "--root", trained, *both]) == 0
    told = capsys.readouterr().out
    assert all(re.search(rf"^\| \W*{name}", told, re.M) for name in ("guided", "two_frames", "zero motion")), told
    assert main(["train", "--root", trained, "--model", "guided", "--backbone", "timm/resnet18"]) == 2
    assert "backbone: expected 'fcn_resnet50' with model='guided'" in capsys.readouterr().err
    video = next((Path(trained) / "videos" / "synthetic").glob("*.mkv"))
    assert main(["predict", str(video), "--root", trained, "--run", "two_frames", "--device", "cpu"]) == 0
    folder = Path(trained) / "reports" / "prediction"
    assert (folder / "prediction.html").is_file() and (folder / "prediction.png").read_bytes()[:4] == b"\x89PNG"
    assert (folder / "prediction.mp4").stat().st_size > 1000
    assert len(list((folder / "rebuilt").glob("*.png"))) == 8
    size = ["--root", trained, "--run", "two_frames", "--height", "48", "--width", "64", "--device", "cpu"]
    picture = str(folder / "rebuilt" / "000.png")
    assert main(["predict", picture, *size, "--report", "one"]) == 0
    assert len(list((Path(trained) / "reports" / "one" / "rebuilt").glob("*.png"))) == 8
    capsys.readouterr()
    assert main(["predict", picture, picture, picture, *size]) == 1
    assert "pictures: expected 1 or 2, for frames (0, 3), got 3" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["predict", picture, *size, "--scale", "0"])
    assert "scale: expected more than 0 pixels, got 0" in capsys.readouterr().err
    assert main(["view", "--root", trained, "--run", "two_frames", "--report", "beside", "--device", "cpu"]) == 0
    assert (Path(trained) / "reports" / "beside" / "viewer.html").is_file()


def test_two_processes_train_one_run(root):
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "-m", "flowlib"]
    environment = os.environ | {"PYTHONPATH": str(CLONE), "OMP_NUM_THREADS": "1"}
    words = [*launch, *TRAIN, "--root", root, "--name", "pair", "--steps", "2"]
    result = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("2 of 2 steps") == 1
    assert len(list((Path(root) / "runs").glob("*_pair"))) == 1


@pytest.mark.parametrize(
    "code, words, told",
    [
        (1, "probe /nowhere", "source: expected 'sample', 'synthetic' or a path"),
        (1, "train --dataset nope", "dataset: expected one that is labelled in .*default.*, got 'nope'"),
        (1, "evaluate --dataset nope", "dataset: expected one that is labelled"),
        (1, "evaluate --run nope", "run: expected a run called 'nope'"),
        (2, "view --clip 999", "clip: expected 0 to"),
        (2, "view --report a/b", "report: expected the name of a folder"),
        (2, "label --frames 1", "frames: expected"),
        (2, "label /nowhere --chunk 5 --num-chunks 2", "chunk: expected 0 to 1"),
        (2, "label /nowhere --num-chunks 0", "num_chunks: expected"),
        (2, "label /nowhere --dataset ../x", "dataset: expected the name of a folder"),
        (2, "train --backbone nope --weights none", "backbone: expected"),
        (2, "train --input-frames 0 99 --weights none", "input_frames: expected"),
        (2, "train --loss nope", "expected one of|invalid choice"),
        (2, "train --name a/b", "name: expected the name of a folder"),
        (2, "evaluate --confidence 95", "confidence: expected"),
        (2, "evaluate --period 1", "period: expected"),
        (2, "predict", "inputs: expected a picture"),
        (2, "predict x.png --run mine --futures 5", "futures: expected none with a run, which has its own, got 5"),
        (2, "predict x.png --futures 5", "futures: expected 1 with one picture, which shows no motion, got 5"),
        (2, "predict x.png --run mine --flow raft", "flow: expected none with a run, which has its own, got raft"),
        (2, "predict x.png --height 48", "height and width: expected both or neither"),
    ],
)
def test_an_error_is_one_sentence_and_a_wrong_option_has_a_code_of_its_own(code, words, told, root, capsys):
    words = words.split()
    options = [] if words[0] == "probe" else ["--root", root]
    try:
        got = main([*words, *options])
    except SystemExit as stopped:  # of the parser, which draws a frame
        got = stopped.code
    error = " ".join(capsys.readouterr().err.split())
    assert got == code and re.search(told, error) and "Traceback" not in error, error


def test_debug_shows_where_an_error_comes_from():
    with pytest.raises(FileNotFoundError):
        main(["--debug", "probe", "/nowhere"])


def test_wrong_usage_and_interruption_have_codes_of_their_own(monkeypatch, capsys):
    assert main(["dance"]) == 2 and main([]) == 2
    with pytest.raises(SystemExit) as stopped:
        main(["probe", "--unknown"])
    assert stopped.value.code == 2
    monkeypatch.setattr("flowlib.__main__.run_command", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["probe"]) == 130


def test_help_and_version_are_quick_and_load_nothing_heavy(capsys):
    began = time.monotonic()
    code = "import sys; from flowlib.__main__ import main; main(['--help'])"
    code += "; assert not {'torch', 'cv2', 'tyro'} & set(sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=CLONE, capture_output=True, text=True)
    assert result.returncode == 0 and all(name in result.stdout for name in COMMANDS), result.stderr
    assert time.monotonic() - began < 5
    assert main(["--version"]) == 0 and capsys.readouterr().out.startswith("flowlib ")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_takes(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*name.split(), "--help"])
    expected = {"convert": "--write-as", "notebooks": "PATH", "badges": "--ref"}.get(name, "--root")
    assert stopped.value.code == 0 and expected in capsys.readouterr().out


def test_hands_are_collected_learned_measured_and_shown(tmp_path, capsys):
    root = ["--root", str(tmp_path)]
    few = ["--subjects", "3", "--takes", "1", "--families", "1"]
    assert main(["hands", "collect", *root, *few]) == 0
    assert "test: 2 sequences of 1 subject" in capsys.readouterr().out
    quick = ["--steps", "1", "--batch-size", "4", "--size", "32", "--num-workers", "0", "--device", "cpu"]
    assert main(["hands", "train", *root, *quick]) == 0
    assert main(["hands", "evaluate", *root, "--centre", "estimated"]) == 0
    out = capsys.readouterr().out
    assert "| nearest crop |" in out and "The input contains no truth" in out
    assert main(["hands", "view", *root, "--sequence", "1"]) == 0
    assert (tmp_path / "reports" / "hands_view" / "viewer.html").stat().st_size > 10_000
    assert main(["hands", "view", *root, "--sequence", "9"]) == 2
    assert "sequence: expected 0 to 1 or a key such as 'Subject_3/" in capsys.readouterr().err


def test_actions_of_hands_are_learned_and_measured(tmp_path, capsys):
    root = ["--root", str(tmp_path)]
    assert main(["hands", "collect", *root, "--subjects", "3", "--takes", "1", "--families", "1"]) == 0
    quick = ["--steps", "2", "--batch-size", "2", "--hidden", "8", "--validate-every", "2"]
    assert main(["hands", "action", *root, *quick]) == 0
    told = capsys.readouterr().out
    assert "2 of 2 steps: done" in told and "| nearest sequence |" in told and "The input is the truth" in told
    assert (tmp_path / "reports" / "action" / "report.html").stat().st_size > 10_000
    assert main(["hands", "action", *root, *quick, "--poses", "nothing"]) == 1
    assert "run: expected a run called 'nothing' with a checkpoint" in capsys.readouterr().err
    assert main(["hands", "action", *root, *quick, "--name", "other", "--attention", "v5"]) == 2
    assert "attention: expected one of none, inputs_conv" in capsys.readouterr().err


def test_a_group_of_commands_tells_its_own(capsys):
    assert main(["hands", "--help"]) == 0 and main(["hands"]) == 2
    told = capsys.readouterr().out
    assert told.count("  hands collect ") == told.count("  hands view ") == 2 and "  label" not in told
    assert main(["hands", "dance"]) == 2
    known = "hands collect, hands train, hands evaluate, hands view, hands action"
    assert f"one of {known}, got 'hands dance'" in capsys.readouterr().err


def test_a_run_of_another_task_measures_no_hands(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("flowlib.__main__.WithModel.model", lambda self: (None, {"path": "best.pt"}))
    monkeypatch.setattr("flowlib.training.checkpoints.load_task", lambda path: TrajectoryTask())
    assert main(["hands", "view", "--root", str(tmp_path), "--run", "two_frames"]) == 2
    assert "run: expected one trained on hands, got best.pt, of a TrajectoryTask" in capsys.readouterr().err
