"""Whether rows of the level history are one unbroken chain per member."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

LEVELS = {"highly_engaged", "moderate", "at_risk", "new", "inactive", None}

Row = Mapping[str, Any]
"""`org_id, user_id, from_level, to_level, effective_at, revision` of one change record."""


def check_history(rows: Iterable[Row], current: Mapping[tuple[str, str], str | None]) -> list[str]:
    """Every way in which the rows, in any order, fail to lead to the current levels; none: [].

    `current` maps (org_id, user_id) to the level shown now; who is not in it has level None.
    """
    chains: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        chains[row["org_id"], row["user_id"]].append(row)
    problems: list[str] = []
    for member in sorted(chains.keys() | current.keys()):
        chain = sorted(chains.get(member, []), key=lambda row: int(row["revision"]))
        found = _chain_problems(chain, current.get(member))
        problems += [f"{member[0]}:{member[1]}: {problem}" for problem in found]
    return problems


def _chain_problems(chain: list[Row], current: str | None) -> list[str]:
    problems = [problem for row in chain for problem in _row_problems(row)]
    if chain and chain[0]["from_level"] is not None:
        problems.append(f"the first row is from {chain[0]['from_level']}, not from null")
    for before, after in pairwise(chain):
        at = f"revision {after['revision']}"
        if after["revision"] == before["revision"]:
            problems.append(f"{at} is there twice")
        if after["from_level"] != before["to_level"]:
            problems.append(f"{at} is from {after['from_level']}, not from {before['to_level']}")
        if after["effective_at"] < before["effective_at"]:
            problems.append(f"{at} takes effect before the row before it")
    last = chain[-1]["to_level"] if chain else None
    if last != current:
        problems.append(f"the chain ends in {last}, but the level is {current}")
    return problems


def _row_problems(row: Row) -> list[str]:
    problems = []
    if row["from_level"] == row["to_level"]:
        problems.append(f"revision {row['revision']} changes nothing")
    unknown = {row["from_level"], row["to_level"]} - LEVELS
    problems += [f"revision {row['revision']} has unknown level {level}" for level in unknown]
    if row["revision"] < 1:
        problems.append(f"revision {row['revision']} is not positive")
    return problems
