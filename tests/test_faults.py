"""Labelling survives what happens to it: after every fault, the job run again makes the dataset it would have made."""

import random
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from labelling_faults import Book, Job, left_over, samples

from flowlib import sources
from flowlib.labelling.pipeline import DEPTH
from flowlib.synthetic import random_scene

BOOK = Book()
CLIPS = 24  # of the job that is disturbed
SEED = 20260917


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
    assert max(twice) <= DEPTH + 2
