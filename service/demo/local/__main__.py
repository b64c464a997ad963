"""`./run servers`: Kafka and PostgreSQL for a machine without them, until Ctrl-C.

Says what to export so that the commands find them. The data is temporary.
"""

from __future__ import annotations

import signal
import sys
import threading
from typing import Final

import click

from service.demo.local.keeper import LocalServerError
from service.demo.local.ports import free_port, take
from service.demo.local.servers import servers

KAFKA_PORT: Final = 9092
POSTGRES_PORT: Final = 5432


@click.command()
@click.option("--kafka-port", type=int, help=f"{KAFKA_PORT}, or another if that is taken.")
@click.option("--postgres-port", type=int, help=f"{POSTGRES_PORT}, or another if that is taken.")
def main(kafka_port: int | None, postgres_port: int | None) -> None:
    """Run Kafka and PostgreSQL on loopback until Ctrl-C; the data goes with them."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    try:
        click.echo("starting Kafka and PostgreSQL", err=True)
        with servers(
            {},
            kafka_port=kafka_port or usual_or_free(KAFKA_PORT),
            postgres_port=postgres_port or usual_or_free(POSTGRES_PORT),
        ) as found:
            click.echo(f"export KAFKA_BOOTSTRAP_SERVERS={found.kafka_bootstrap_servers}")
            click.echo(f"export DATABASE_URL={found.database_url}")
            sys.stdout.flush()
            click.echo("ready; Ctrl-C ends them", err=True)
            ended.wait()
    except KeyboardInterrupt:
        click.echo("ending", err=True)
    except LocalServerError as error:
        raise click.ClickException(str(error)) from None


def usual_or_free(port: int) -> int:
    """The port, or a free one when somebody has it: many machines run a PostgreSQL already.

    Also when somebody is about to have it: another start, whose servers do not listen yet.
    """
    if take(port):
        return port
    click.echo(f"port {port} is taken, so it will be another", err=True)
    return free_port()


if __name__ == "__main__":
    main(prog_name="./run servers")
