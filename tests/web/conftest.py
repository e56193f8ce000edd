# SPDX-License-Identifier: Apache-2.0
"""A browser for the tests of the page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from .browser import FLAGS, find_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give what a real browser does by the clock another chance or two; what is broken fails three times."""
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name.startswith("test_page"):
            item.add_marker(pytest.mark.flaky(reruns=2))


# One for each file, not one for all: as long as it is there, this thread has a running event loop, which other tests
# that use asyncio do not bear.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window; skips, and says how to install it, where there is none."""
    path = find_chromium()
    if path is None:
        pytest.skip("the page is tested in Chromium, which is not here: sudo apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[test]'")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, headless=True, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def screenshots(tmp_path: Path) -> Iterator[Path]:
    """Where screenshots go: those of the README where ``make screenshots`` says so."""
    folder = Path(os.environ.get("RFVIT_SCREENSHOTS", tmp_path))
    yield folder
    sizes = []
    for path in folder.glob("*.png"):
        with Image.open(path) as picture:
            few_colours = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, 2, dither=Image.Dither.NONE)
        few_colours.save(path, optimize=True)  # a third of the size, and nobody sees it
        sizes.append(path.stat().st_size)
    assert all(size > 20_000 for size in sizes)  # there is something to be seen
    assert sum(sizes) < 300_000
