"""The guards of `./run check` find what they are there for."""

from __future__ import annotations

import secrets
import string
from pathlib import Path
from typing import Any

import pytest

from tests.guards import dependencies, secrets_in_files
from tests.guards.dependencies import OutOfReach, judged, pins, unpinned
from tests.guards.secrets_in_files import FORMS, looks_made_by_chance, secrets_in

HASH = "--hash=sha256:" + "0" * 64
ALPHABET = string.ascii_letters + string.digits


def chance(length: int) -> str:
    """A random text that has a digit, as nearly all have."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length - 1)) + "7"


def planted() -> dict[str, str]:
    """One line of each form; put together here, so that this file holds none."""
    return {
        "private key": "-----BEGIN " + "EC PRIVATE KEY-----",
        "Anthropic key": "key: sk-" + "ant-" + chance(40),
        "OpenAI key": "sk-" + chance(48),
        "AWS key": "AKIA" + "ABCDEFGHIJKLMNOP",
        "Google key": "AIza" + chance(35),
        "GitHub token": "ghp_" + chance(36),
        "GitLab token": "glpat-" + chance(20),
        "Slack token": "xoxb-" + chance(30),
        "PyPI token": "pypi-" + chance(60),
        "npm token": "npm_" + chance(36),
        "Stripe key": "sk_" + "live_" + chance(24),
        "JSON Web Token": f"eyJ{chance(30)}.eyJ{chance(30)}.{chance(40)}",
        "password in an address": f"postgresql://app:{chance(24)}@db.example/x",
        "value of a secret": f'client_secret = "{chance(32)}"',
    }


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_secret_is_found_and_not_repeated(form: str, capsys: object) -> None:
    line = planted()[form]
    found = list(secrets_in("a.py", f"first\n{line}\n"))
    assert ("a.py", 2, form) in found
    assert not list(secrets_in("a.py", f"{line}  # {secrets_in_files.MARK}"))


@pytest.mark.parametrize(
    "line",
    [
        "DATABASE_URL=postgresql://scoring_worker:change-me-too@db.example:5432/engagement",
        "POSTGRES_PASSWORD: not-for-production-2026",
        'token = request.headers["Authorization"]',
        "password=${POSTGRES_PASSWORD}",
        "secret_fields: tuple[str, ...] = field_names_of(Settings)",
    ],
)
def test_words_are_no_secrets(line: str) -> None:
    assert not list(secrets_in("a.py", line))


def test_chance_looks_like_chance() -> None:
    assert all(looks_made_by_chance(chance(24)) for _ in range(200))


def test_a_planted_secret_fails_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.py").write_text(planted()["GitHub token"])
    monkeypatch.setattr(secrets_in_files, "ROOT", tmp_path)
    monkeypatch.setattr(secrets_in_files, "files", lambda: ["config.py"])
    assert secrets_in_files.main() == 1
    (tmp_path / "config.py").write_text("nothing")
    assert secrets_in_files.main() == 0
    monkeypatch.setattr(secrets_in_files, "files", list)
    assert secrets_in_files.main() == 1


def test_the_lock_fixes_everything() -> None:
    lock = dependencies.LOCK.read_text()
    assert list(unpinned(lock)) == []
    assert len(pins(lock)) > 100
    loose = f"good==1.0 \\\n    {HASH}\nloose>=2\nbare==3\ngit+https://x/y\n"
    assert list(unpinned(loose)) == ["loose>=2", "bare==3", "git+https://x/y"]


ADVISORY = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.1"]}


def test_findings_and_what_nobody_knows_are_told_apart() -> None:
    said: list[dict[str, Any]] = [
        {"name": "good", "version": "1", "vulns": []},
        {"name": "bad", "version": "2", "vulns": [ADVISORY]},
        {"name": "odd", "skip_reason": "not found"},
    ]
    assert judged(said) == (["bad 2: PYSEC-1 (mended in 2.1)"], ["odd"])


def test_an_accepted_advisory_is_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies, "ACCEPTED", {"CVE-1": "not used here"})
    assert judged([{"name": "bad", "version": "2", "vulns": [ADVISORY]}]) == ([], [])


def answer(monkeypatch: pytest.MonkeyPatch, *, canary: bool, lock: str, unknown: bool) -> int:
    """What the audit ends with when pip-audit says this."""

    def ask(requirements: str, _timeout_s: float) -> list[dict[str, object]]:
        if requirements.startswith(dependencies.CANARY):
            return [{"name": "jinja2", "version": "2.10", "vulns": [ADVISORY] if canary else []}]
        if unknown:
            return [{"name": name, "skip_reason": "not found"} for name in pins(lock)]
        return [{"name": name, "version": "1", "vulns": []} for name in pins(lock)]

    monkeypatch.setattr(dependencies, "ask", ask)
    return dependencies.main()


def test_silence_is_never_taken_for_good_news(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = dependencies.LOCK.read_text()
    assert answer(monkeypatch, canary=True, lock=lock, unknown=False) == 0
    assert answer(monkeypatch, canary=True, lock=lock, unknown=True) == 1
    assert answer(monkeypatch, canary=False, lock=lock, unknown=False) == dependencies.NOT_DONE

    def nobody(*_: object) -> list[dict[str, object]]:
        raise OutOfReach("timeout")

    monkeypatch.setattr(dependencies, "ask", nobody)
    assert dependencies.main() == dependencies.NOT_DONE
