"""What the demo runs on: given servers where the environment names them, else our own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from service.demo.local.kafka import LocalKafka
from service.demo.local.postgres import LocalPostgres

DATABASE = "engagement"


@dataclass(frozen=True)
class Servers:
    """Where Kafka and PostgreSQL are; the local objects are null for servers that were given."""

    kafka_bootstrap_servers: str
    database_url: str
    kafka: LocalKafka | None
    postgres: LocalPostgres | None


@contextmanager
def servers(
    environment: Mapping[str, str],
    data_dir: Path | None = None,
    *,
    kafka_port: int | None = None,
    postgres_port: int | None = None,
) -> Iterator[Servers]:
    """Servers for as long as the context lasts.

    `KAFKA_BOOTSTRAP_SERVERS` and `DATABASE_URL` in `environment` are used as they are; what is
    not named is started here, data in `data_dir` or temporary, on these ports or on free ones.
    Blocking: some six seconds, at the very first start also a download. Raises LocalServerError.
    """
    bootstrap = environment.get("KAFKA_BOOTSTRAP_SERVERS")
    url = environment.get("DATABASE_URL")
    with ExitStack() as stack:
        kafka = postgres = None
        if not bootstrap:
            kafka = LocalKafka(data_dir / "kafka" if data_dir else None, kafka_port)
            stack.callback(kafka.close)
        if not url:
            postgres = LocalPostgres(data_dir / "postgres" if data_dir else None, postgres_port)
            stack.callback(postgres.close)
        pool = ThreadPoolExecutor(2)
        try:
            for started in [pool.submit(server.start) for server in (kafka, postgres) if server]:
                started.result()
        except BaseException:
            # Ctrl-C, or one failed: end what is still starting instead of waiting for it.
            stack.close()
            raise
        finally:
            pool.shutdown()
        yield Servers(
            kafka_bootstrap_servers=bootstrap or (kafka.bootstrap if kafka else ""),
            database_url=url or (postgres.create_database(DATABASE) if postgres else ""),
            kafka=kafka,
            postgres=postgres,
        )
