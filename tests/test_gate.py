"""The gate: the linter, the formatter and the type checker have nothing to say."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CLONE = Path(__file__).parents[1]


def check(*words: str) -> None:
    result = subprocess.run([sys.executable, "-m", *words], cwd=CLONE, capture_output=True, text=True)
    assert result.returncode == 0, f"{' '.join(words)}\n{result.stdout[-6000:]}{result.stderr[-2000:]}"


def test_the_linter_has_no_complaint():
    check("ruff", "check", ".")


def test_the_formatter_would_change_nothing():
    check("ruff", "format", "--check", ".")


def test_the_types_fit():
    if shutil.which("node") is None and os.environ.get("PYRIGHT_PYTHON_GLOBAL_NODE") == "1":
        pytest.skip("pyright runs on node, and there is none on this machine")
    started = subprocess.run([sys.executable, "-m", "pyright", "--version"], capture_output=True, text=True)
    if started.returncode != 0:
        pytest.skip(f"pyright can't start here, for example for want of node: {started.stderr[-300:]}")
    check("pyright", "--project", "pyproject.toml", "--pythonpath", sys.executable)
