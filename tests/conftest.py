"""Fixtures that every test may ask for, and the order of the tests: fast ones first, whole
notebooks last.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def rng() -> np.random.Generator:
    """The one source of randomness of a test; it starts from the same state in each."""
    return np.random.default_rng(1)


@pytest.fixture(scope="session")
def root() -> Path:
    """The top folder of the repository."""
    return ROOT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put whole notebooks last, the later ones of them, which take longer, first; keep the tests of
    one file on one worker, but spread the notebooks.
    """
    whole = [item for item in items if item.get_closest_marker("notebook") is not None]
    items[:] = [item for item in items if item not in whole] + whole[::-1]
    for item in items:
        if item.get_closest_marker("notebook") is None:
            item.add_marker(pytest.mark.xdist_group(str(item.path)))


@pytest.fixture(scope="session")
def network_loads() -> Callable[[str], list[str]]:
    """What an HTML page would load over the network: scripts, styles, pictures, frames; plain links
    are no loads.
    """

    def find(page: str) -> list[str]:
        tags = re.findall(
            r"<(?:script|link|img|iframe|source|object|embed)\b[^>]*(?:src|href|data)\s*=\s*[\"']?(?:https?:)?//[^>]*>",
            page,
        )
        return tags + re.findall(r"@import[^;]*;|url\(\s*[\"']?(?:https?:)?//[^)]*\)", page)

    return find
