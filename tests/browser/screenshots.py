"""Pictures of what tests see, to be looked at: of everything, or those that docs show.

`TEST_SCREENSHOTS=FOLDER ./run test tests/browser` takes a picture of every page and state, whole.
With `docs/screenshots` as the folder it takes those of KEPT, from the top of the page.
"""

from __future__ import annotations

import os
from pathlib import Path

from playwright.async_api import Page

DOCS = Path(__file__).parents[2] / "docs" / "screenshots"
FOLDER = (
    Path(os.environ["TEST_SCREENSHOTS"]).resolve() if "TEST_SCREENSHOTS" in os.environ else None
)
KEPT = frozenset(
    {
        "overview-desktop", "overview-dark", "overview-phone", "members-desktop", "member-desktop",
        "member-dark", "thresholds-preview-desktop", "conflict-desktop",
    }
)  # fmt: skip
# So that a picture stays below 200 KB.
KEPT_HEIGHT = 1_000
MAX_BYTES = 200_000


async def shoot(page: Page, name: str) -> None:
    """Take a picture of the page as it is, if pictures are wanted."""
    if FOLDER is None:
        return
    if FOLDER != DOCS:
        await page.screenshot(path=FOLDER / f"{name}.png", full_page=True)
    elif name in KEPT:
        width, height = await page.evaluate("[innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": width, "height": min(height, KEPT_HEIGHT)}
        picture = await page.screenshot(full_page=True, clip=clip)  # type: ignore[arg-type]
        assert len(picture) < MAX_BYTES, f"{name}: {len(picture)} bytes"
        (FOLDER / f"{name}.png").write_bytes(picture)
