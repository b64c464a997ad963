"""`./run servers`: Kafka and PostgreSQL for a machine without them, until Ctrl-C.

Says what to export so that the commands find them. The data is temporary.
"""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import ExitStack
from typing import Final

import click

from service.demo.local.kafka import LocalKafka
from service.demo.local.keeper import LocalServerError
from service.demo.local.postgres import LocalPostgres
from service.demo.local.servers import DATABASE

KAFKA_PORT: Final = 9092
POSTGRES_PORT: Final = 5432


@click.command()
@click.option("--kafka-port", default=KAFKA_PORT, show_default=True)
@click.option("--postgres-port", default=POSTGRES_PORT, show_default=True)
def main(kafka_port: int, postgres_port: int) -> None:
    """Run Kafka and PostgreSQL on loopback until Ctrl-C; the data goes with them."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    try:
        with ExitStack() as stack:
            click.echo("starting Kafka and PostgreSQL", err=True)
            kafka = stack.enter_context(LocalKafka(port=kafka_port))
            postgres = stack.enter_context(LocalPostgres(port=postgres_port))
            click.echo(f"export KAFKA_BOOTSTRAP_SERVERS={kafka.bootstrap}")
            click.echo(f"export DATABASE_URL={postgres.create_database(DATABASE)}")
            sys.stdout.flush()
            click.echo("ready; Ctrl-C ends them", err=True)
            ended.wait()
    except KeyboardInterrupt:
        click.echo("ending", err=True)
    except LocalServerError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main(prog_name="./run servers")
