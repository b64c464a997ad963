"""Looks for secrets in every file that git knows of. Offline, a second or two.

    python -m tests.guards.secrets_in_files

Finds what has a form of its own (private keys, tokens of well-known services) and what is called a
secret and looks made by chance. Passwords of the tests' own are words, so they are not found; a
finding that is none gets the mark `not-a-secret` on its line.
"""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
MARK: Final = "not-a-secret"
MAX_BYTES: Final = 2_000_000
# Bits per character from which a text looks made by chance.
ENTROPY: Final = 3.2
MIN_LENGTH: Final = 14

FORMS: Final = {
    "private key": re.compile(r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----"),
    "Anthropic key": re.compile(r"\bsk-ant-[A-Za-z0-9_-]{20,}"),
    "OpenAI key": re.compile(r"\bsk-(?:proj-)?[A-Za-z0-9]{32,}"),
    "AWS key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "Google key": re.compile(r"\bAIza[0-9A-Za-z_-]{35}"),
    "GitHub token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})"),
    "GitLab token": re.compile(r"\bglpat-[A-Za-z0-9_-]{20,}"),
    "Slack token": re.compile(r"\bxox[abprs]-[A-Za-z0-9-]{20,}"),
    "PyPI token": re.compile(r"\bpypi-[A-Za-z0-9_-]{50,}"),
    "npm token": re.compile(r"\bnpm_[A-Za-z0-9]{36}\b"),
    "Stripe key": re.compile(r"\b[rs]k_live_[A-Za-z0-9]{20,}"),
    "JSON Web Token": re.compile(r"\beyJ[\w-]{15,}\.eyJ[\w-]{15,}\.[\w-]{20,}"),
    "password in an address": re.compile(
        r"\b(?:postgres(?:ql)?|https?|amqp|redis)://[^\s:/@\"'{}$<>]+:(?P<value>[^\s/@\"'{}$<>]{8,})@"
    ),
    "value of a secret": re.compile(
        r"(?i)(?:password|passwd|secret|token|api_?key|private_?key)[\"']?\s*[:=]\s*"
        r"[\"']?(?P<value>[A-Za-z0-9+/_=-]{16,})"
    ),
}
# These two go by how a value looks; the others have a form that nothing else has.
BY_LOOKS: Final = ("password in an address", "value of a secret")


class Found(NamedTuple):
    """One finding. The secret itself is not repeated."""

    path: str
    line: int
    form: str


def secrets_in(path: str, text: str) -> Iterator[Found]:
    """Findings in a text."""
    for number, line in enumerate(text.splitlines(), start=1):
        if MARK in line:
            continue
        for form, pattern in FORMS.items():
            for match in pattern.finditer(line):
                if form not in BY_LOOKS or looks_made_by_chance(match["value"]):
                    yield Found(path, number, form)


def looks_made_by_chance(value: str) -> bool:
    """Whether this is a random text and no name or word."""
    # Words are put together by hyphens; what is drawn by chance has long parts without.
    part = max(re.split(r"[-_./]", value), key=len)
    if len(part) < MIN_LENGTH or not (re.search(r"\d", part) and re.search(r"[A-Za-z]", part)):
        return False
    shares = [count / len(part) for count in Counter(part).values()]
    return -sum(share * math.log2(share) for share in shares) >= ENTROPY


def files() -> list[str]:
    """What git knows of, and what it would take up."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    )  # fmt: skip
    return sorted(set(listed.stdout.decode().split("\0")) - {""})


def main() -> int:
    """Scan; how many files were looked at is said, so that none at all is noticed."""
    found: list[Found] = []
    looked_at = 0
    for name in files():
        path = ROOT / name
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            continue
        looked_at += 1
        found += secrets_in(name, path.read_text(encoding="utf-8", errors="ignore"))
    for one in found:
        sys.stderr.write(f"{one.path}:{one.line}: looks like a secret ({one.form})\n")
    sys.stderr.write(f"{looked_at} files, {len(found)} findings\n")
    return 1 if found or not looked_at else 0


if __name__ == "__main__":
    sys.exit(main())
