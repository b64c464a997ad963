"""Ids on the command line: what is none is wrong use, and nothing is done."""

from __future__ import annotations

import pytest

from service.cli import main
from tests.command import settings_for

COMMANDS = [
    ["erase", "{}", "ada"],
    ["erase", "club", "{}"],
    ["thresholds", "show", "{}"],
    ["thresholds", "set", "{}", "--new-member-days", "30"],
    ["thresholds", "set", "club", "--author", "{}", "--new-member-days", "30"],
    ["thresholds", "preview", "{}"],
    ["recompute", "--org", "{}"],
    ["recompute", "--org", "club", "--member", "{}"],
    ["token", "{}"],
    ["token", "ada", "--link", "{}"],
]


@pytest.mark.parametrize("wrong", ["", " ", "a:b", "x y", ".a", "ä", "a\n", "a" * 129])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_what_is_no_id_is_wrong_use(
    command: list[str],
    wrong: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Where it does go on, it finds nobody, and the exit code is another.
    for name, value in settings_for().items():
        monkeypatch.setenv(name, value)
    assert main.run([part.format(wrong) for part in command]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "an id is made of letters, digits and" in captured.err
