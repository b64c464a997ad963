"""After an erasure no table, no log line and, once compacted, no record of the level topic names
whoever was erased; a worker, an API and commands that log all they can took part in it.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from service.api.tokens import development_token
from service.demo.local import LocalKafka
from service.demo.local.ports import free_port
from service.settings import load_settings
from tests.command import settings_for, topic
from tests.kafka.guided import Guided, soon
from tests.kafka.shell import TIMEOUT_S
from tests.mentions import tables_that_mention

pytestmark = pytest.mark.timeout(300)

ORG, GRACE, ZED = "club", "grace.hopper", "zed"
# By a tombstone, by the command, by the API.
ADA, BOB, CYD = ERASED = ("ada.lovelace", "bob.noyce", "cyd.charisse")
NAMES = {ADA: "Augusta King", BOB: "Robert the Mayor", CYD: "Tula Finklea"}
WORDS = (*ERASED, *NAMES.values())
PORTS = ("ENGAGEMENT_WORKER_OPS_PORT", "ENGAGEMENT_API_PORT", "ENGAGEMENT_API_OPS_PORT")
MANY_OBJECTIONS = {"id": "x", "status": "attended", "event_id": "e", "occurred_at": "yesterday"}
# The settings of a level topic that is compacted at once.
COMPACTED = {
    "segment.ms": "300", "min.cleanable.dirty.ratio": "0.001", "delete.retention.ms": "300",
}  # fmt: skip

APPLIED = "SELECT coalesce(sum(next_offset), 0)::int FROM stream_offset"
LEVEL = "SELECT level FROM member_engagement WHERE org_id = $1 AND user_id = $2"


BEFORE = (datetime.now(UTC) - timedelta(minutes=5)).isoformat()


class Club:
    """An organisation whose worker, API and commands leave their log lines in one folder."""

    def __init__(self, bootstrap: str, database: str, prefix: str, folder: Path) -> None:
        self.prefix, self.folder = prefix, folder
        self.settings = settings_for(bootstrap=bootstrap, database=database, prefix=prefix) | {
            "ENGAGEMENT_TOPIC_PARTITIONS": "1",
            "ENGAGEMENT_LOG_LEVEL": "DEBUG",
            "ENGAGEMENT_JWT_DEV_SECRET": "only in this test, and long enough",
            **{name: str(free_port()) for name in PORTS},
        }
        self.shell = Guided(folder, self.settings)
        self._sent = 0

    def send(self, kind: str, key: str, value: str | dict[str, Any] | None) -> None:
        self.shell.send(topic(self.prefix, kind), key, value)
        self._sent += 1

    def say(self, kind: str, user: str, **body: Any) -> None:
        """A record that was recorded five minutes ago."""
        body = {"id": f"{kind}-{self._sent}", "org_id": ORG, "user_id": user, **body}
        self.send(kind, f"{ORG}:{user}", {"recorded_at": BEFORE, **body})

    def attends(self, user: str, event: str, **more: Any) -> None:
        body = {"event_id": event, "status": "attended", "occurred_at": BEFORE} | more
        self.say("ATTENDANCE", user, **body)

    def asks(self, user: str, method: str, path: str, body: str | None = None) -> int:
        """The status that the API answers with."""
        token = development_token(load_settings(self.settings), user, timedelta(minutes=9))
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.settings['ENGAGEMENT_API_PORT']}{path}",
            None if body is None else body.encode(),
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def settle(self) -> None:
        """Wait until all that was sent is applied, evaluated and published."""
        soon(lambda: self.shell.value(APPLIED) == self._sent)
        self.shell.settle()

    def level(self, user: str) -> Any:
        return self.shell.value(LEVEL, ORG, user)

    def published(self) -> list[tuple[str, str]]:
        """Key and value of every record that the level topic still holds."""
        name = topic(self.prefix, "LEVEL")
        consumer = Consumer(
            {"bootstrap.servers": self.shell.bootstrap, "group.id": name,
             "enable.auto.commit": False, "enable.partition.eof": True,
             "isolation.level": "read_uncommitted"}
        )  # fmt: skip
        consumer.assign([TopicPartition(name, 0, 0)])
        found = []
        while (message := consumer.poll(30)) is not None:
            if error := message.error():
                assert error.code() == KafkaError._PARTITION_EOF, error
                break
            found.append(((message.key() or b"").decode(), (message.value() or b"").decode()))
        consumer.close()
        return found

    def logged(self) -> list[str]:
        """All lines that worker, API and commands said beside their results."""
        texts = [path.read_text() for path in sorted(self.folder.glob("terminal-*.err"))]
        return "\n".join(texts).splitlines()


@pytest.fixture
def busy_broker() -> Iterator[LocalKafka]:
    """A broker that looks for something to compact all the time, not every 15 seconds."""
    properties = {
        "log.cleaner.backoff.ms": "200",
        # The usual one takes more than a third of our broker's memory.
        "log.cleaner.dedupe.buffer.size": str(4 * 1024**2),
    }
    with LocalKafka(extra_properties=properties) as broker:
        yield broker


def compact_at_once(bootstrap: str, name: str) -> None:
    """Do with a topic in moments what takes days."""
    entries = [
        ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
        for key, value in COMPACTED.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(30)


def live(club: Club) -> None:
    """All that can be known of somebody, good and bad records alike."""
    club.say("MEMBERSHIP", GRACE, status="active", role="admin", joined_at=BEFORE)
    for user in ERASED:
        club.say("MEMBERSHIP", user, status="active", display_name=NAMES[user],
                 joined_at=BEFORE)  # fmt: skip
        for event in ("e1", "e2", "e3"):
            club.attends(user, event)
        club.say("RSVP", user, event_id="e4", response="going", responded_at=BEFORE)
        update = {"id": f"p-{user}", "user_id": user, "updated_at": BEFORE, "recorded_at": BEFORE}
        club.send("PROFILE_UPDATE", user, update)
        club.say("RSVP", user, **MANY_OBJECTIONS)
        club.say("RSVP", f"{user} ", event_id="e", response="going", responded_at=BEFORE)
        club.send("ATTENDANCE", f"{ORG}:{user}", f'{{"org_id": "{ORG}", "user_id": "{user}')
        club.attends(user, "e5", occurred_at="2100-01-01T00:00:00Z")
    club.attends(ZED, "e1")
    club.settle()
    assert [club.level(user) for user in ERASED] == ["highly_engaged"] * 3


def look_at_them(club: Club) -> None:
    """Every way to read and change somebody, the wrong ones too."""
    for user in ERASED:
        path = f"/v1/orgs/{ORG}/members/{user}"
        override = json.dumps({"level": "moderate", "notes": f"talk to {NAMES[user]}"})
        assert club.asks(GRACE, "PUT", f"{path}/override", override) == 200
        assert club.asks(GRACE, "PUT", f"{path}/override", f'{{"notes": "{user}"') in (400, 422)
        for read in (path, f"{path}/history", f"/v1/orgs/{ORG}/members?q={user}"):
            assert club.asks(GRACE, "GET", read) == 200
        assert club.asks(user, "GET", f"/v1/orgs/{ORG}/me") == 200
        assert club.asks(user, "GET", path) == 403
        assert club.asks(user, "GET", f"/v1/orgs/other/members/{user}") == 404
        assert club.asks(GRACE, "POST", f"{path}/recompute") == 202
    club.shell.run(f"./run engagement recompute --org {ORG} --member {BOB} --force")
    club.shell.run("./run engagement doctor --rebuild")
    club.settle()


def erase_all(club: Club) -> None:
    """In the three ways; and late records bring nobody back."""
    club.send("MEMBERSHIP", f"{ORG}:{ADA}", None)
    club.shell.run(f"./run engagement erase {ORG} {BOB}")
    assert club.asks(GRACE, "DELETE", f"/v1/orgs/{ORG}/members/{CYD}") == 200
    club.settle()
    for user in ERASED:
        club.attends(user, "late")
        club.say("MEMBERSHIP", user, status="active", joined_at=BEFORE)
    club.settle()


def compacted(club: Club) -> list[tuple[str, str]]:
    """The level topic, as soon as it holds nothing of them, while life goes on for Zed.

    A segment is closed, and so can be compacted, only when a later record comes.
    """
    deadline = time.monotonic() + TIMEOUT_S
    events = 1
    while any(user in key + value for key, value in club.published() for user in ERASED):
        assert time.monotonic() < deadline, club.published()
        events += 1
        club.attends(ZED, f"e{events}")
        time.sleep(0.5)
    club.settle()
    return club.published()


def test_nothing_names_who_was_erased(
    busy_broker: LocalKafka, database: str, topic_prefix: str, tmp_path: Path
) -> None:
    club = Club(busy_broker.bootstrap, database, topic_prefix, tmp_path / "club")
    club.shell.run("./run engagement topics apply")
    compact_at_once(busy_broker.bootstrap, topic(topic_prefix, "LEVEL"))
    with (
        club.shell.start("./run engagement worker") as worker,
        club.shell.start("./run engagement api") as api,
    ):
        worker.wait_for('"worker_started"')
        api.wait_for('"api_started"')
        live(club)
        look_at_them(club)
        before = club.published()
        assert all(any(user in key for key, _ in before) for user in ERASED)
        erase_all(club)
        for word in WORDS:
            assert club.shell.connected(partial(tables_that_mention, word=word)) == []
        after = compacted(club)
        # What stays is whole: the last state of everybody else.
        assert {key for key, _ in after} == {f"{ORG}:{GRACE}", f"{ORG}:{ZED}"}
        last = {key: json.loads(value)["level"] for key, value in after}
        assert last[f"{ORG}:{ZED}"] == club.level(ZED) == "highly_engaged"
        assert (worker.ctrl_c(), api.ctrl_c()) == (0, 0)
    logged = club.logged()
    assert any('"records_refused"' in line for line in logged)
    assert not [line for line in logged if "Traceback" in line]
    assert [line for line in logged if any(word in line for word in WORDS)] == []
