"""The pages as a reader follows them: every block, word for word and in order, and what it gives.

The machine is the one that the README makes: `./run servers`, the tables, the topics, a worker.
Only the address of the broker, the folder of files and the ports of our own processes are others.
"""

from __future__ import annotations

import json
import re
import time
import urllib.error
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.demo.local.ports import free_port
from tests.certificates import Authority
from tests.fences import PAGES, ROOT, Block, blocks, blocks_of
from tests.kafka.guided import (
    ELSEWHERE,
    RUN,
    Guided,
    home,
    kinds_of_metrics,
    scraped,
    signed_in,
    soon,
)
from tests.kafka.shell import DOCUMENTED_BROKER, Shell, Terminal

pytestmark = pytest.mark.timeout(300)

SERVERS, WORKER, ATTENDANCE, MEMBERSHIP, API, TOKEN = blocks(
    "README.md", "sh", "With your own data"
)
PORTS = ("ENGAGEMENT_WORKER_OPS_PORT", "ENGAGEMENT_API_PORT", "ENGAGEMENT_API_OPS_PORT")

APPLIED = "SELECT coalesce(sum(next_offset), 0) FROM stream_offset WHERE topic = $1"
LEVELS = """
SELECT org_id || ':' || user_id AS key, level FROM member_engagement WHERE level IS NOT NULL"""


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guided]:
    """README's first terminal, and the shell of whoever reads on."""
    folder = tmp_path_factory.mktemp("reader")
    first = Shell(DOCUMENTED_BROKER, folder, home())
    with first.start_block(SERVERS) as terminal:
        terminal.wait_for("ready")
        lines = [line.removeprefix("export ") for line in terminal.printed.splitlines()]
        exported = {name: value for name, _, value in (line.partition("=") for line in lines)}
        guided = Guided(folder, {**exported, **{name: str(free_port()) for name in PORTS}})
        guided.ran |= first.ran
        yield guided
        assert terminal.ctrl_c() == 0, terminal.said


@pytest.fixture(scope="module")
def worker(shell: Guided) -> Iterator[Terminal]:
    """README's second terminal."""
    with shell.start_block(WORKER) as terminal:
        terminal.wait_for('"worker_started"')
        yield terminal
        assert terminal.ctrl_c() == 0, terminal.said
        assert "Traceback" not in terminal.said


@pytest.fixture(scope="module")
def attendance(shell: Guided, worker: Terminal) -> str:
    """What the third one prints first."""
    return shell.run_block(ATTENDANCE)


# ---------------------------------------------------------------------------------------- README


def test_readme(shell: Guided, attendance: str) -> None:
    sent, *lines = attendance.splitlines()
    assert sent == "4 records sent, 0 rows refused"
    # Each line: when, where, whose, what.
    assert sorted(line.split()[2:4] for line in lines) == [
        ["my-club:ada", "level=highly_engaged"],
        ["my-club:bob", "level=new"],
    ]
    check_that_again_changes_nothing(shell)
    shell.run_block(MEMBERSHIP)
    check_the_admin_pages(shell)
    (consumer,) = blocks("README.md", "python", "Your first consumer")
    printed = shell.run_block(consumer).splitlines()
    assert len(printed) == 2
    assert set(printed) < {
        "ada None -> highly_engaged signals",
        "bob None -> new signals",
        "grace None -> new membership",
    }
    check_that_a_later_row_corrects(shell)
    assert "Commands:" in shell.run("./run engagement --help")
    assert shell.run("./run engagement doctor").endswith("all well\n")
    assert "KAFKA_BOOTSTRAP_SERVERS" in shell.run("./run engagement config")
    shell.assert_followed("README.md")


def check_that_again_changes_nothing(shell: Guided) -> None:
    before = shell.value("SELECT max(revision) FROM member_engagement")
    shell.run(ATTENDANCE.text.splitlines()[-2])
    soon(lambda: shell.value(APPLIED, "community.attendance.v1") == 8)
    shell.settle()
    assert shell.value("SELECT max(revision) FROM member_engagement") == before == 1


def check_that_a_later_row_corrects(shell: Guided) -> None:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    columns = "org_id,user_id,event_id,status,occurred_at,recorded_at"
    row = f"my-club,ada,third-evening,absent,{now},{now}"
    shell.run(f"printf '{columns}\\n{row}\\n' | ./run engagement import attendance -")
    soon(lambda: dict(shell.rows(LEVELS))["my-club:ada"] == "new")


def check_the_admin_pages(shell: Guided) -> None:
    with shell.start_block(API) as api:
        api.wait_for('"api_started"')
        link = shell.run_block(TOKEN).strip()
        address, overview = signed_in(link)
        assert address.endswith("/admin/orgs/my-club")
        assert "Highly engaged" in overview
        with pytest.raises(urllib.error.HTTPError, match="401"):
            signed_in(link)
        check_metrics(shell)
        assert api.ctrl_c() == 0, api.said


def check_metrics(shell: Guided) -> None:
    """The two processes show what the page's table says, and nobody's id."""
    ports = [shell.environment[f"ENGAGEMENT_{name}_OPS_PORT"] for name in ("WORKER", "API")]
    shown = [scraped(f"http://127.0.0.1:{port}/metrics") for port in ports]
    assert not [text for text in shown if re.search(r"\b(my-club|ada|bob|grace)\b", text)]
    found = {name: kind for text in shown for name, kind in kinds_of_metrics(text).items()}
    table = (ROOT / "docs/metrics.md").read_text()
    documented = dict(re.findall(r"^\| `(engagement_\w+)` \| (\w+) \|", table, re.MULTILINE))
    assert found == documented


# ------------------------------------------------------------------------------------- producers

INPUTS = {
    "community.attendance.v1": "SELECT id FROM attendance WHERE org_id = $1 AND user_id = 'ada'",
    "community.rsvp.v1": "SELECT id FROM rsvp WHERE org_id = $1 AND user_id = 'ada'",
    "community.profile-update.v1": "SELECT id FROM profile WHERE $1 <> '' ORDER BY recorded_at",
    "community.membership.v1": "SELECT id FROM membership WHERE org_id = $1 AND user_id = 'ada'",
    "community.organization.v1": "SELECT id FROM organization WHERE org_id = $1",
}
CLUB = "riverside-chess"
GRACE = "SELECT count(*) FROM membership WHERE org_id = $1 AND user_id = 'grace'"


def test_producers(shell: Guided, worker: Terminal) -> None:
    page = "docs/producers.md"
    for topic, query in INPUTS.items():
        check_examples(shell, topic, query)
    (by_console,) = blocks(page, "sh", "Inputs")
    shell.run_block(by_console)
    bob = "SELECT id FROM attendance WHERE org_id = $1 AND user_id = 'bob'"
    soon(lambda: shell.rows(bob, CLUB) == [("att-1003",)])
    check_erasing(shell)
    tail, validate = blocks(page, "sh", "What can go wrong")
    with shell.start_block(tail) as watching:
        watching.wait_for("from now on")
        shell.send("community.rsvp.v1", f"{CLUB}:ada", {"id": "r"})
        watching.wait_for("[schema: ")
        assert watching.ctrl_c() == 0, watching.said
    assert shell.run_block(validate) == "2 records, 0 wrong\n"
    shell.assert_followed(page)


def check_examples(shell: Guided, topic: str, query: str) -> None:
    """The command sends the first example; the second, by another client, corrects it."""
    *examples, by_kcat = blocks("docs/producers.md", heading=f"`{topic}`")
    first, second = (json.loads(example.text) for example in examples)
    shell.run_block(by_kcat)
    soon(lambda: shell.rows(query, CLUB) == [(first["id"],)])
    key = ":".join(first[name] for name in ("org_id", "user_id") if name in first)
    shell.send(topic, key, first, second)
    kept = [first, second] if topic == "community.profile-update.v1" else [second]
    soon(lambda: shell.rows(query, CLUB) == [(body["id"],) for body in kept])
    shell.ran.update(examples)


def check_erasing(shell: Guided) -> None:
    joined = json.loads(blocks("docs/producers.md", "json", "`community.membership.v1`")[0].text)
    shell.send("community.membership.v1", f"{CLUB}:grace", joined | {"user_id": "grace"})
    soon(lambda: shell.value(GRACE, CLUB) == 1)
    (erase,) = blocks("docs/producers.md", "sh", "Erasing a member")
    shell.run_block(erase)
    soon(lambda: shell.value(GRACE, CLUB) == 0)
    assert shell.value("SELECT count(*) FROM erasure") > 0


# ------------------------------------------------------------------------------------- consumers


def test_consumers(shell: Guided, attendance: str) -> None:
    page = "docs/consumers.md"
    shell.settle()
    tails, console, kcat = blocks(page, "sh", "Only looking")
    levels = dict(shell.rows(LEVELS))
    with shell.start_block(console) as waiting:
        (table,) = blocks(page, "python", "A table of levels")
        counts = Counter(levels.values())
        expected = "".join(f"{level}\t{number}\n" for level, number in sorted(counts.items()))
        assert shell.run_block(table) == expected
        (greeter,) = blocks(page, "python", "Reacting to changes")
        greeted = shell.run_block(greeter).splitlines()
        assert len(greeted) == 2
        assert all(re.fullmatch(r"\S+: \S+ -> \S+ \(\w+\)", line) for line in greeted)
        by_ours = shell.run_block(tails).splitlines()
        changes = [json.loads(line) for line in by_ours if line.startswith("{")]
        by_kcat = [line.split(" ", 1) for line in shell.run_block(kcat).splitlines()]
        # The same records, whoever reads.
        assert in_order((key, json.loads(body)) for key, body in by_kcat) == in_order(
            (change["key"], change["value"]) for change in changes
        )
        assert len(changes) == shell.value("SELECT count(*) FROM engagement_level_history")
        assert waiting.wait() == 0, waiting.said
    last = dict(line.split("\t") for line in waiting.printed.splitlines())
    found = {key: json.loads(body)["level"] for key, body in last.items() if body != "tombstone"}
    assert found == levels
    shell.assert_followed(page)


def in_order(changes: Iterable[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    return sorted(changes, key=lambda change: (change[0], change[1]["revision"]))


# --------------------------------------------------------------------------------------- runbook


def test_runbook(shell: Guided, attendance: str, worker: Terminal) -> None:
    page = "docs/runbook.md"
    said = {block: run_of_runbook(shell, worker, block) for block in blocks(page, "sh")}
    by_heading: dict[str, list[str]] = {}
    for block, text in said.items():
        by_heading.setdefault(block.heading, []).append(text)
    assert by_heading["Runbook"][0].endswith("all well\n")
    listed, resumed, replayed = by_heading["A partition has stopped"]
    assert len([line for line in listed.splitlines() if line.startswith("community.")]) == 10
    assert "goes on at offset" in resumed
    assert replayed == "1 dead letters would be replayed\n"
    assert by_heading["The daily run fails"][0].startswith("no run yet")
    assert "0 differ" in by_heading["The daily run finds members of whom nobody knew"][0]
    receipt = json.loads(by_heading["Somebody is to be erased"][0])
    assert {one["where"] for one in receipt["remaining"]} >= {"change topic", "dead-letter topic"}
    # New thresholds, though with the same numbers, are in every record.
    shell.settle()
    versions = "SELECT DISTINCT thresholds_version FROM member_engagement WHERE org_id = 'my-club'"
    soon(lambda: shell.rows(versions) == [(1,)])
    shell.assert_followed(page)


def run_of_runbook(shell: Guided, worker: Terminal, block: Block) -> str:
    if block.heading == "A partition has stopped" and "list" in block.text:
        (example, _) = blocks("docs/producers.md", "json", "`community.attendance.v1`")
        future = json.loads(example.text) | {"occurred_at": "2100-01-01T00:00:00Z"}
        shell.send("community.attendance.v1", f"{CLUB}:ada", future, *["{"] * 60)
        worker.wait_for('"partition_stopped"')
    return shell.run_block(block)


# -------------------------------------------------------------------------------------- the rest


def test_deploying(shell: Guided, tmp_path: Path) -> None:
    """What is exported is a setting, and none of it is shown that is secret."""
    page = "docs/deploy.md"
    authority = Authority(tmp_path)
    for name in ("kafka-ca.pem", "postgres-ca.pem"):
        (tmp_path / name).write_bytes(authority.ca_file.read_bytes())
    for heading in ("Encryption and login", "PostgreSQL"):
        (exports,) = blocks(page, "sh", heading)
        script = exports.text.replace("/etc/engagement/", f"{tmp_path}/")
        printed = shell.run(f"{script}./run engagement config")
        shell.ran.add(exports)
        for line in exports.text.splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            (row,) = [row for row in printed.splitlines() if row.startswith(f"{name} ")]
            assert " environment " in row
            assert ("***" in row) == ("change-me" in value)
        assert "change-me" not in printed
    shell.assert_followed(page)


def test_no_other_page_has_anything_to_run() -> None:
    followed = {"README.md", *(f"docs/{name}.md" for name in
                ("producers", "consumers", "runbook", "deploy"))}  # fmt: skip
    for path in PAGES:
        page = str(path.relative_to(ROOT))
        languages = {block.language for block in blocks_of(path)}
        assert languages <= {"", *RUN}, page
        assert page in followed or not languages & set(RUN), page
    for key in ELSEWHERE:
        assert blocks(key[0], key[2] if len(key) > 2 else "", key[1])
