"""Labelling survives what happens to it: after every fault, the job run again makes the dataset it would have made."""

import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fixtures.labelling_faults import Book, Job, left_over, remount, samples, seen_in_training, small_disk

from flowlib import sources
from flowlib.shards import Shard, check_shard
from flowlib.synthetic import random_scene
from flowlib.workspace import temporary_path

BOOK = Book()
NOBODY = 65534
CLIPS = 24  # of the job that is disturbed
SEED = 20260917
SOON = 15.0  # seconds on cores that others use, too; well under a second on idle ones


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Six rendered videos of four clips each."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(6):
        sources.write_scene(folder / f"v{number}.mkv", random_scene(16, (48, 64), seed=number))
    return folder


@pytest.fixture(scope="module")
def surveys(tmp_path_factory):
    """What is known of the videos after the first job, so that the others plan in no time."""
    return str(tmp_path_factory.mktemp("surveys") / "surveys.json")


@pytest.fixture(scope="module")
def undisturbed(videos, surveys, tmp_path_factory):
    """The samples of a job that nothing happened to."""
    root = tmp_path_factory.mktemp("undisturbed")
    report = Job(videos, root, surveys=surveys).finish()
    assert (report["labelled"], report["skipped"]) == (CLIPS, {})
    content = samples(root)
    assert len(content) == CLIPS and len(set(content.values())) == CLIPS
    return content


# ---------------------------------------------------------------------------------------------------------- its process


def test_killed_at_20_random_moments(videos, surveys, undisturbed, tmp_path, capsys):
    random_moments = random.Random(SEED)
    moments = [(random_moments.randint(0, CLIPS), random_moments.uniform(0, 0.05)) for _ in range(20)]

    def kill(number: int) -> tuple[int, list[str]]:
        """How many clips were tracked twice, and what the kill left behind."""
        (clips, delay), root = moments[number], tmp_path / str(number)
        while True:
            job = Job(videos, root, surveys=surveys)
            job.wait_until("tracked", clips) if clips else job.wait_until("planned")
            time.sleep(delay)
            job.send(signal.SIGKILL)
            if job.process.returncode == -signal.SIGKILL:
                break
            shutil.rmtree(root)  # it had ended before
            delay /= 2
        behind, again = left_over(root) if root.exists() else [], Job(videos, root, surveys=surveys)
        again.finish()
        return len(job.said("tracked")) + len(again.said("tracked")) - CLIPS, behind

    with ThreadPoolExecutor(2) as threads:
        twice, behind = zip(*threads.map(kill, range(20)))
    for number in range(20):
        BOOK.compare("SIGKILL", tmp_path / str(number), undisturbed)
    parts = sum(any(name.endswith(".part") for name in names) for names in behind)
    with capsys.disabled():
        print(
            f"\nSIGKILL after clips + seconds: {', '.join(f'{n} + {delay:.3f}' for n, delay in moments)} (seed {SEED})"
        )
        print(f"{parts} of 20 left a file half written; clips tracked twice: {sorted(twice)}")
    assert max(twice) <= 1, "of each kill only the clip that was being tracked is tracked again"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_within_a_long_clip_it_goes_on_there(number, tmp_path):
    """Clips of four pieces each: a run is killed in the third piece of the second, and the next one does the rest."""
    sources.write_scene(tmp_path / "in" / "v.mkv", random_scene(200, (48, 64), seed=1))
    options = {
        "config": {"frames": 90, "tracker": "lucas_kanade"},
        "streamed": True,
        "surveys": str(tmp_path / "s.json"),
    }
    whole = Job(tmp_path / "in", tmp_path / "whole", **options)
    whole.finish()
    job = Job(tmp_path / "in", tmp_path / "root", hold_at=[7], **options)
    job.wait_until("holding")
    assert job.send(number) < SOON and job.process.returncode == -number
    assert len(job.said("tracked")) == 6
    again = Job(tmp_path / "in", tmp_path / "root", **options)
    again.finish()
    assert len(again.said("tracked")) == 2, "only what was not done of the second clip is tracked"
    BOOK.compare(f"{number.name} within a long clip", tmp_path / "root", samples(tmp_path / "whole"))
    one, other = ({p.name: p.read_bytes() for p in root.rglob("shards/*.h5")} for root in (whole.root, again.root))
    assert one == other and len(one) > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("clips", [0, 5, 17])
def test_asked_to_end_it_closes_everything_within_seconds(number, clips, videos, surveys, undisturbed, tmp_path):
    job = Job(videos, tmp_path, surveys=surveys, hold_at=[clips + 1])
    job.wait_until("holding")  # while it tracks a clip
    assert job.send(number) < SOON
    assert job.process.returncode == -number, job.complaint()
    assert not list(tmp_path.rglob("*.part")), "a file was left half written"
    closed = {clip.key for path in tmp_path.rglob("*.h5") for clip in check_shard(path)}
    assert len(closed) == clips, "what was tracked is safe"
    again = Job(videos, tmp_path, surveys=surveys)
    assert again.finish()["planned"] == CLIPS and len(again.said("tracked")) == CLIPS - clips
    BOOK.compare(number.name, tmp_path, undisturbed)


IGNORING = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_can_be_asked_where_the_shell_ignores_it(number, videos, surveys, undisturbed, tmp_path):
    """As a shell does for what a script starts in the background."""
    job = Job(videos, tmp_path, surveys=surveys, started_by=["-c", IGNORING], hold_at=[5])
    job.wait_until("holding")
    assert job.send(number) < SOON and job.process.returncode == -number, job.complaint()
    Job(videos, tmp_path, surveys=surveys).finish()
    BOOK.compare(f"{number.name} where it was ignored", tmp_path, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_end_it_does_not_wait_for_a_disk(number, videos, surveys, undisturbed, tmp_path):
    root, away = tmp_path / "root", tmp_path / "away"
    job = Job(videos, root, surveys=surveys, hold_at=[5])
    job.wait_until("holding")
    root.rename(away)
    job.go_on()
    time.sleep(1)
    assert job.send(number) < SOON and job.process.returncode == -number, job.complaint()
    away.rename(root)
    Job(videos, root, surveys=surveys).finish()
    BOOK.compare(f"{number.name} while the disk is away", root, undisturbed)


def test_killed_between_putting_a_shard_in_place_and_removing_its_partial_shards(
    videos, surveys, undisturbed, tmp_path
):
    job = Job(videos, tmp_path, surveys=surveys, hold_when_published=2)
    job.wait_until("holding")
    job.send(signal.SIGKILL)
    Job(videos, tmp_path, surveys=surveys).finish()
    BOOK.compare("SIGKILL", tmp_path, undisturbed)


def test_two_on_the_same_chunk_and_others_on_chunks_cut_otherwise(videos, surveys, undisturbed, tmp_path):
    parts = [(0, 1), (0, 1), (0, 2), (1, 2), (2, 3), (4, 5)]
    for round_number in range(2):
        root = tmp_path / str(round_number)
        jobs = [Job(videos, root, surveys=surveys, chunk=chunk, num_chunks=number) for chunk, number in parts]
        assert all(job.finish()["planned"] for job in jobs)
        BOOK.compare("several processes on the same clips", root, undisturbed, times=len(parts))


# ------------------------------------------------------------------------------------------------------------- its disk


@pytest.mark.parametrize("megabytes", [0.06, 0.12, 0.18])
def test_disk_full(megabytes, videos, surveys, undisturbed, tmp_path):
    with small_disk(tmp_path / "disk", megabytes) as root:
        assert "No space left on device" in Job(videos, root, surveys=surveys).fail()
        remount(root, "size=64m")
        Job(videos, root, surveys=surveys).finish()
        BOOK.compare("disk full", root, undisturbed)


@pytest.mark.parametrize("largest", [8_000, 20_000])
def test_file_too_large(largest, videos, surveys, undisturbed, tmp_path):
    complaint = Job(videos, tmp_path, surveys=surveys, largest_file=largest, shard_bytes=40_000).fail()
    assert "File too large" in complaint
    Job(videos, tmp_path, surveys=surveys).finish()
    BOOK.compare("file size limit", tmp_path, undisturbed)


@pytest.mark.parametrize("clips", [0, 7])
def test_disk_turned_read_only(clips, videos, surveys, undisturbed, tmp_path):
    with small_disk(tmp_path / "disk", 64) as root:
        job = Job(videos, root, surveys=surveys, hold_at=[clips] if clips else [], hold_when_planned=not clips)
        job.wait_until("holding")
        remount(root, "ro")
        job.go_on()
        assert "Read-only file system" in job.fail()
        remount(root, "rw")
        Job(videos, root, surveys=surveys).finish()
        BOOK.compare("disk read-only", root, undisturbed)


@pytest.mark.parametrize("clips", [0, 7])
def test_permission_withdrawn(clips, videos, surveys, undisturbed):
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is closed to others
        root, user = Path(folder) / "root", NOBODY if os.geteuid() == 0 else 0  # root may do anything anywhere
        shutil.copytree(videos, Path(folder) / "videos")
        root.mkdir()
        for path in (folder, root, Path(folder) / "videos"):
            os.chmod(path, 0o777)
        options = {"hold_at": [clips]} if clips else {"hold_when_planned": True}
        job = Job(Path(folder) / "videos", root, user=user, **options)
        job.wait_until("holding")
        modes = {path: path.stat().st_mode for path in (root, *root.rglob("*")) if path.is_dir()}
        for path in modes:
            path.chmod(0o555)
        job.go_on()
        assert "Permission denied" in job.fail()
        for path, mode in modes.items():
            path.chmod(mode)
        Job(Path(folder) / "videos", root, user=user).finish()
        BOOK.compare("permission withdrawn", root, undisturbed)


@pytest.mark.parametrize("clips", [1, 6, 13, CLIPS])
def test_root_vanishes_for_a_second(clips, videos, surveys, undisturbed, tmp_path):
    root, away = tmp_path / "root", tmp_path / "away"
    job = Job(videos, root, surveys=surveys, hold_at=[clips])
    job.wait_until("holding")
    root.rename(away)
    root.mkdir()  # what is left of a Drive: an empty folder
    job.go_on()
    time.sleep(1)
    root.rmdir()  # is still empty
    away.rename(root)
    assert job.finish()["labelled"] == CLIPS, "it waited and went on"
    BOOK.compare("root away for a second", root, undisturbed)


@pytest.mark.parametrize("moment", range(6))
def test_root_vanishes_at_a_random_moment(moment, videos, surveys, undisturbed, tmp_path):
    root, away, chance = tmp_path / "root", tmp_path / "away", random.Random(SEED + moment)
    job = Job(videos, root, surveys=surveys)
    job.wait_until("tracked", chance.randint(1, CLIPS))
    time.sleep(chance.uniform(0, 0.05))
    root.rename(away)
    time.sleep(0.3)
    assert not root.exists(), "a folder was made in its place"
    away.rename(root)
    job.finish()
    assert Job(videos, root, surveys=surveys).finish()["labelled"] == 0
    BOOK.compare("root away for a moment", root, undisturbed)


@pytest.mark.parametrize("clips", [1, 6, CLIPS])
def test_root_vanishes_for_good(clips, videos, surveys, undisturbed, tmp_path):
    root, away = tmp_path / "root", tmp_path / "away"
    job = Job(videos, root, surveys=surveys, hold_at=[clips], retry_after=[0.1, 0.2])
    job.wait_until("holding")
    root.rename(away)
    root.mkdir()
    job.go_on()
    assert f"the workspace has vanished: '{root}" in job.fail()
    root.rmdir()  # is still empty
    away.rename(root)
    Job(videos, root, surveys=surveys).finish()
    BOOK.compare("root gone", root, undisturbed)


# ------------------------------------------------------------------------------------------------------------ its files


def cut_short(path: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(1, path.stat().st_size))


def emptied(path: Path, chance: random.Random) -> None:
    os.truncate(path, 0)


def with_a_flipped_bit(path: Path, chance: random.Random) -> None:
    """Flips a bit of a picture: what a shard holds most of."""
    with Shard(path) as shard:
        picture = bytes(shard.picture(chance.choice(shard.clips), 0))
    content = bytearray(path.read_bytes())
    content[content.index(picture) + chance.randrange(len(picture))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


DAMAGES = pytest.mark.parametrize("damage", [cut_short, emptied, with_a_flipped_bit])


@DAMAGES
def test_damaged_shards(damage, videos, surveys, undisturbed, tmp_path):
    Job(videos, tmp_path, surveys=surveys).finish()
    shards = sorted((tmp_path / "datasets" / "default" / "shards").glob("*.h5"))
    chance = random.Random(SEED)
    victims = chance.sample(shards, 3)
    for victim in victims:
        damage(victim, chance)
    report = Job(videos, tmp_path, surveys=surveys, verify=True).finish()
    assert len(report["damaged"]) == 3 and all(str(path) in str(report["damaged"]) for path in victims)
    assert report["labelled"] < CLIPS
    BOOK.compare(f"shard {damage.__name__.replace('_', ' ')}", tmp_path, undisturbed, times=3)


@pytest.mark.filterwarnings("ignore:skipped:UserWarning")
def test_a_bit_flipped_anywhere_is_an_error_or_changes_nothing(videos, surveys, undisturbed, tmp_path):
    """Not only in the pictures: in tracks, the index, settings, and what HDF5 notes for itself."""
    Job(videos, tmp_path, surveys=surveys, shard_bytes=10**9).finish()
    (victim,) = (tmp_path / "datasets" / "default" / "shards").glob("*.h5")
    whole, chance, noticed, before = victim.read_bytes(), random.Random(SEED), 0, seen_in_training(tmp_path)
    for _ in range(100):
        content = bytearray(whole)
        content[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        victim.write_bytes(content)
        try:
            assert seen_in_training(tmp_path) == before
        except (ValueError, FileNotFoundError):  # the latter if it is skipped with a warning, as the only one
            noticed += 1
    assert noticed > 50  # most of a shard is pictures and tracks
    victim.write_bytes(content)
    Job(videos, tmp_path, surveys=surveys, verify=True).finish()
    BOOK.compare("bit flipped anywhere", tmp_path, undisturbed, times=100)


@DAMAGES
def test_damaged_partial_shards(damage, videos, surveys, undisturbed, tmp_path):
    job = Job(videos, tmp_path, surveys=surveys, hold_at=[16], shard_bytes=10**9)
    job.wait_until("holding")
    job.send(signal.SIGTERM)
    chance = random.Random(SEED)
    partials = sorted((tmp_path / "scratch").rglob("*.h5"))
    assert len(partials) == 15
    for victim in chance.sample(partials, 4):
        damage(victim, chance)
    again = Job(videos, tmp_path, surveys=surveys)
    again.finish()
    assert len(again.said("tracked")) == CLIPS - 15 + 4, "just those are tracked again"
    BOOK.compare(f"partial shard {damage.__name__.replace('_', ' ')}", tmp_path, undisturbed, times=4)


def test_temporary_files_of_the_dead_go_those_of_the_living_stay(videos, surveys, undisturbed, tmp_path):
    job = Job(videos, tmp_path, surveys=surveys, hold_at=[9])
    job.wait_until("holding")
    job.send(signal.SIGTERM)
    folders = [next((tmp_path / "scratch" / "default").iterdir()), tmp_path / "datasets" / "default" / "shards"]
    living = subprocess.Popen(["sleep", "600"])
    dead = subprocess.Popen(["true"])
    dead.wait()
    for process in (living, dead):
        for folder in folders:
            example = temporary_path(folder / "0123456789abcdef.h5")
            name = example.name.replace(f".{os.getpid()}.", f".{process.pid}.")
            example.with_name(name).write_bytes(b"half a shard")
    Job(videos, tmp_path, surveys=surveys).finish()
    assert len(left_over(tmp_path)) == 2 and all(f".{living.pid}.part" in name for name in left_over(tmp_path))
    living.kill()
    living.wait()
    assert Job(videos, tmp_path, surveys=surveys).finish()["labelled"] == 0
    BOOK.compare("stale temporary file", tmp_path, undisturbed, times=4)


@pytest.mark.parametrize("clock", ["backwards", "1970", "2100"])
def test_a_clock_that_can_not_be_trusted(clock, videos, surveys, undisturbed, tmp_path):
    job = Job(videos, tmp_path, surveys=surveys, clock=clock)
    job.wait_until("tracked", 8)
    job.send(signal.SIGKILL)
    for path in tmp_path.rglob("*"):
        os.utime(path, (4e9, 4e9))
    again = Job(videos, tmp_path, surveys=surveys, clock=clock)
    again.finish()
    assert len(again.said("tracked")) < CLIPS
    BOOK.compare(f"clock {clock}", tmp_path, undisturbed)


# ----------------------------------------------------------------------------------------------------------- its videos


@pytest.fixture
def own_videos(videos, tmp_path):
    """The videos, for a test to spoil."""
    return Path(shutil.copytree(videos, tmp_path / "videos"))


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


def test_a_video_deleted_between_runs_leaves_its_labels(own_videos, root, undisturbed):
    Job(own_videos, root).finish()
    (own_videos / "v2.mkv").unlink()
    report = Job(own_videos, root).finish()
    assert (report["planned"], report["labelled"], report["stale"]) == (CLIPS - 4, 0, [])
    BOOK.compare("video deleted", root, undisturbed)


def test_a_video_changed_between_runs_has_its_clips_replaced(own_videos, videos, root, undisturbed, tmp_path):
    Job(own_videos, root).finish()
    sources.write_scene(own_videos / "v2.mkv", random_scene(16, (48, 64), seed=99))
    report = Job(own_videos, root).finish()
    assert report["labelled"] == 4 and "of another content of v2" in str(report["stale"])
    Job(own_videos, tmp_path / "new").finish()
    changed = samples(tmp_path / "new")
    assert len(changed.keys() & undisturbed.keys()) == CLIPS - 4
    BOOK.compare("video changed", root, changed)
    shutil.copy(videos / "v2.mkv", own_videos)
    Job(own_videos, root).finish()
    BOOK.compare("video changed back", root, undisturbed)


@pytest.mark.parametrize("fault", ["deleted", "changed", "cut short"])
def test_a_video_is_another_when_its_turn_comes(fault, own_videos, videos, root, undisturbed):
    job, victim = Job(own_videos, root, hold_when_planned=True), own_videos / "v3.mkv"
    job.wait_until("holding")
    if fault == "deleted":
        victim.unlink()
    elif fault == "changed":
        shutil.copy(own_videos / "v4.mkv", victim)
    else:
        os.truncate(victim, victim.stat().st_size // 2)
    job.go_on()
    report = job.finish()
    assert report["labelled"] == CLIPS - 4 and report["skipped"].keys() == {"v3"}
    assert "4 of its clips are missing" in report["skipped"]["v3"]
    shutil.copy(videos / "v3.mkv", victim)
    Job(own_videos, root).finish()
    BOOK.compare(f"video {fault} after the plan", root, undisturbed)


def test_a_video_breaks_off_while_it_is_decoded(videos, root, undisturbed, tmp_path):
    """One long enough that decoding, a few clips ahead, can't be through when the first clip is tracked."""
    folder = tmp_path / "long"
    scene = random_scene(120, (240, 320), seed=7)
    sources.write_scene(folder / "long.mkv", scene)
    whole = (folder / "long.mkv").read_bytes()
    Job(folder, tmp_path / "undisturbed").finish()
    expected = samples(tmp_path / "undisturbed")
    job = Job(folder, root, hold_at=[1])
    job.wait_until("holding")
    os.truncate(folder / "long.mkv", len(whole) // 2)
    job.go_on()
    report = job.finish()
    assert 0 < report["labelled"] < 30 and "of its clips are missing" in report["skipped"]["long"]
    assert samples(root).items() <= expected.items(), "what was labelled before is right"
    (folder / "long.mkv").write_bytes(whole)
    Job(folder, root).finish()
    BOOK.compare("video broke off", root, expected)


def test_nothing_was_lost(capsys):
    with capsys.disabled():
        print(f"\n{BOOK}")
    assert BOOK.lost == 0 and BOOK.faults.total() >= 20
