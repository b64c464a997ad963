"""`engagement demo`."""

from __future__ import annotations

import click

from service.demo.local import LocalServerError


@click.command()
@click.option("--check", is_flag=True, help="No live screen: settle, compare with the oracle, end.")
@click.option("--keep", is_flag=True, help="Keep the data, and go on with it the next time.")
@click.option("--claude", is_flag=True, help="Claude explains; a stand-in where no key is set.")
@click.option("--members", type=click.IntRange(1, 1_000_000), default=5_000, show_default=True)
@click.option("--days", type=click.IntRange(1, 3_650), default=400, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="Another made-up population.")
@click.pass_context
def demo(
    ctx: click.Context, check: bool, keep: bool, claude: bool, members: int, days: int, seed: int
) -> None:
    """Show the whole service at work: what goes in, what comes out, who is where.

    Starts Kafka and PostgreSQL on this machine (or uses KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL
    where they are set), a worker, sends real and made-up attendance, then a few records a second.
    Ctrl-C ends all of it and leaves nothing behind.
    """
    from service.demo.show import Options, show

    if check and claude:
        raise click.UsageError("--check compares with the rules, from which Claude may differ")
    options = Options(check=check, keep=keep, claude=claude, members=members, days=days, seed=seed)
    try:
        ctx.exit(show(options))
    except LocalServerError as error:
        raise click.ClickException(str(error)) from None
