"""What the metric tests share: one trained classifier of the digits, in a cache of their own."""

import pytest

from saddlepoint.data import load
from saddlepoint.metrics import Scorer


@pytest.fixture(scope="session")
def digits():
    return load("digits")


@pytest.fixture(scope="session")
def scorer(digits, tmp_path_factory):
    """Trains the classifier once: some eight seconds."""
    return Scorer(digits, cache=tmp_path_factory.mktemp("classifiers"))


@pytest.fixture(autouse=True)
def no_cache_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("SADDLE_CACHE", str(tmp_path / "cache"))
