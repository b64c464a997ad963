"""Are the locked packages known to be vulnerable?

    python -m tests.guards.dependencies

Asks the advisories of PyPI by pip-audit. Where those are out of reach (a mirror seldom has them)
the answer is "not done" and exit code 3, never "nothing found": before the audit counts, a release
that is known to be vulnerable has to be found out, and every package has to be known.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
LOCK: Final = ROOT / "requirements.lock"
NOT_DONE: Final = 3
CANARY: Final = "jinja2==2.10"
CANARY_TIMEOUT_S: Final = 60
AUDIT_TIMEOUT_S: Final = 900

# Advisory -> why it does not concern us, and until when that is believed (a date).
ACCEPTED: Final[Mapping[str, str]] = {}

_PIN: Final = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)")


class OutOfReach(Exception):
    """Nobody answers who would know."""


def unpinned(lock: str) -> Iterator[str]:
    """Requirements of a lock that are not fixed to one version with hashes."""
    logical = lock.replace("\\\n", " ").splitlines()
    for line in logical:
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if _PIN.match(text) is None or "--hash=sha256:" not in text:
            yield text.split(" ")[0]


def pins(lock: str) -> dict[str, str]:
    """Name -> version."""
    return {match[1]: match[2] for line in lock.splitlines() if (match := _PIN.match(line))}


def ask(requirements: str, timeout_s: float) -> list[dict[str, Any]]:
    """What pip-audit says of each package. Raises OutOfReach."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "requirements.txt"
        path.write_text(requirements, encoding="utf-8")
        command = [sys.executable, "-m", "pip_audit", "-r", str(path), "--no-deps", "--disable-pip",
                   "--progress-spinner", "off", "--format", "json"]  # fmt: skip
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=timeout_s, check=False
            )
            answer = json.loads(done.stdout)
        except (ValueError, subprocess.TimeoutExpired) as error:
            raise OutOfReach(type(error).__name__) from None
    dependencies: list[dict[str, Any]] = answer["dependencies"]
    return dependencies


def judged(dependencies: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """(what is vulnerable and not accepted, what could not be looked up)."""
    vulnerable = [
        f"{one['name']} {one['version']}: {advisory['id']}"
        f" (mended in {', '.join(advisory['fix_versions']) or 'no release'})"
        for one in dependencies
        for advisory in one.get("vulns", ())
        if not {advisory["id"], *advisory.get("aliases", ())} & ACCEPTED.keys()
    ]
    return vulnerable, [one["name"] for one in dependencies if "skip_reason" in one]


def require_reach() -> None:
    """Find the canary out. Raises OutOfReach when nobody knows that it is vulnerable."""
    vulnerable, _ = judged(ask(CANARY + "\n", CANARY_TIMEOUT_S))
    if not vulnerable:
        raise OutOfReach(f"the advisories do not know that {CANARY} is vulnerable")


def main() -> int:
    """Audit; 0, 1 for a finding, 3 when nobody could be asked."""
    lock = LOCK.read_text(encoding="utf-8")
    if loose := list(unpinned(lock)):
        sys.stderr.write(f"not fixed to a version with hashes: {', '.join(loose)}\n")
        return 1
    wanted = pins(lock)
    try:
        require_reach()
        said = ask("".join(f"{name}=={version}\n" for name, version in wanted.items()),
                   AUDIT_TIMEOUT_S)  # fmt: skip
    except OutOfReach as error:
        sys.stderr.write(f"NOT DONE, {len(wanted)} packages were not audited: {error}\n")
        return NOT_DONE
    vulnerable, unknown = judged(said)
    for line in vulnerable:
        sys.stderr.write(f"vulnerable: {line}\n")
    if missing := sorted(set(unknown) | (wanted.keys() - {one["name"] for one in said})):
        sys.stderr.write(f"not known to the advisories: {', '.join(missing)}\n")
    sys.stderr.write(f"{len(said)} packages, {len(vulnerable)} findings\n")
    return 1 if vulnerable or missing else 0


if __name__ == "__main__":
    sys.exit(main())
