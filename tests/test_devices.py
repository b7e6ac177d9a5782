"""How busy the machine is, and that threads wait without burning what others need."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowlib import devices
from flowlib.devices import describe_load


@pytest.mark.parametrize(
    "load, cores, said",
    [
        (0.31, 2, "load 0.3 on 2 cores"),
        (1.9, 1, "load 1.9 on 1 core"),
        (9.0, 2, "load 9.0 on 2 cores, so it will take longer"),
    ],
)
def test_the_load_is_told_with_what_it_means(monkeypatch, load, cores, said):
    monkeypatch.setattr(devices.os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda process: set(range(cores)))
    assert describe_load() == said


def test_where_nobody_knows_the_load_nothing_is_told(monkeypatch):
    def unknown():
        raise OSError("no such file")

    monkeypatch.setattr(devices.os, "getloadavg", unknown)
    assert describe_load() == ""


@pytest.mark.parametrize("given, policy", [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "active"}, "active")])
def test_waiting_threads_sleep_unless_the_user_says_otherwise(given, policy):
    environment = {key: text for key, text in os.environ.items() if key != "OMP_WAIT_POLICY"} | given
    environment |= {"PYTHONPATH": str(Path(__file__).parents[1])}
    code = "import flowlib, os; print(os.environ['OMP_WAIT_POLICY'])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == policy
