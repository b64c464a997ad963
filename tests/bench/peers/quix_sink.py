"""Quix Streams' PostgreSQL sink in its upsert mode: the last record read wins, whichever is newer.

Arguments: bootstrap servers, topic, records, database URL, group, commit interval in seconds.
"""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import unquote, urlsplit

from quixstreams import Application
from quixstreams.sinks.community.postgresql import PostgreSQLSink

from tests.bench.peers.progress import Progress


class CountingSink(PostgreSQLSink):  # type: ignore[misc]  # its package is not in our environment
    """The sink, saying how much it has written."""

    progress: Progress
    began = False

    def add(self, *arguments: Any, **more: Any) -> None:
        """Take one record."""
        if not self.began:
            self.began = True
            self.progress.begin()
        super().add(*arguments, **more)

    def write(self, batch: Any) -> None:
        """Write and count."""
        super().write(batch)
        self.progress.add(batch.size)


def main(arguments: list[str]) -> None:
    """Run the application; the benchmark ends it."""
    bootstrap, topic, total, url, group, interval_s = arguments
    parts = urlsplit(url)
    sink = CountingSink(
        host=parts.hostname,
        port=parts.port,
        dbname=parts.path.lstrip("/"),
        user=parts.username,
        password=unquote(parts.password or ""),
        table_name="attendance",
        primary_key_columns=["org_id", "user_id", "event_id"],
        upsert_on_primary_key=True,
        include_metadata=False,
    )
    sink.progress = Progress(int(total))
    application = Application(
        broker_address=bootstrap,
        consumer_group=group,
        auto_offset_reset="earliest",
        auto_create_topics=False,
        use_changelog_topics=False,
        commit_interval=float(interval_s),
        loglevel="WARNING",
    )
    frame = application.dataframe(application.topic(topic, value_deserializer="json"))
    frame.sink(sink)
    application.run()


if __name__ == "__main__":
    main(sys.argv[1:])
