"""Real PostgreSQL and Apache Kafka on this machine, as child processes, without Docker or Java."""

from service.demo.local.kafka import LocalKafka
from service.demo.local.keeper import Keeper, LocalServerError
from service.demo.local.postgres import LocalPostgres

__all__ = ["Keeper", "LocalKafka", "LocalPostgres", "LocalServerError"]
