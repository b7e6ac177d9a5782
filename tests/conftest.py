"""Shared fixtures. Shapes in public signatures are checked while tests run (jaxtyping + beartype), free otherwise."""

import os
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
from beartype import BeartypeConf, beartype
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

# Before torch is imported. Where the suite runs in several processes, each has a core: threads that share it only wait.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int will do where a float is asked for
hook = install_import_hook("flowlib", "conftest.typechecked")

# The same examples in every run: the suite tells whether a change broke something. To look for examples that break what
# is there: pytest --hypothesis-profile=explore, as often as you like.
# Nothing is timed: on a busy machine everything takes long.
UNTIMED: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("same", derandomize=True, **UNTIMED)
settings.register_profile("explore", derandomize=False, print_blob=True, **UNTIMED)
settings.load_profile("same")

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the checkout; a user's clone has none, and the test is skipped."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared beside this checkout (reference data of the developers)")
    return SHARED


@pytest.fixture
def refuses():
    """`with refuses("regex"):` expects a ValueError as a user meets it, that is without the checks of the tests."""

    @contextmanager
    def context(match: str, error: type[Exception] = ValueError):
        jaxtyping.config.update("jaxtyping_disable", True)
        try:
            with pytest.raises(error, match=match):
                yield
        finally:
            jaxtyping.config.update("jaxtyping_disable", False)

    return context
