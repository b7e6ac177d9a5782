"""How busy the machine is, and that threads wait without burning what others need."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from flowlib import devices
from flowlib.devices import cpu_threads, describe_load


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


ALLOCATE = """
import ctypes, resource
from flowlib.devices import M_MMAP_THRESHOLD, keep_freed_memory
import torch

# As glibc begins: later it raises this by itself, once or never, as chunks happen to lie.
ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 128 << 10)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        tensors = [torch.ones(2 << 20) for _ in range(12)]
        del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
plain = faults()
kept = keep_freed_memory()
faults()
print(plain, kept, faults())
"""


@pytest.mark.skipif("glibc" not in platform.libc_ver(), reason="another C library than glibc")
def test_freed_memory_is_used_again():
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", ALLOCATE], env=environment, capture_output=True, text=True, check=True)
    plain, kept, after = done.stdout.split()
    assert kept == "True" and int(plain) > 200 and int(after) < 20, done.stdout
    set_by_user = subprocess.run(
        [sys.executable, "-c", ALLOCATE], env=environment | {"MALLOC_TRIM_THRESHOLD_": "131072"}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert set_by_user.stdout.split()[1] == "False"


@pytest.mark.parametrize("count", [0, 1, 3])
def test_threads_are_as_many_as_asked_for_and_then_as_before(count):
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), cpu_threads(count):
        assert torch.get_num_threads() == (count or before)
        raise ZeroDivisionError
    assert torch.get_num_threads() == before
