"""The pictures that docs show: those that the tests of the pages take, and small."""

from __future__ import annotations

from tests.browser.screenshots import DOCS, KEPT, MAX_BYTES


def test_docs_hold_the_pictures_that_tests_take_and_no_more() -> None:
    assert {path.stem for path in DOCS.iterdir()} == KEPT
    for path in DOCS.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG"), path.name
        assert path.stat().st_size < MAX_BYTES, path.name
