"""Real PostgreSQL and Apache Kafka on this machine, as child processes, without Docker or Java."""

from service.demo.local.kafka import LocalKafka
from service.demo.local.keeper import Keeper, LocalServerError
from service.demo.local.postgres import LocalPostgres
from service.demo.local.servers import Servers, servers

__all__ = ["Keeper", "LocalKafka", "LocalPostgres", "LocalServerError", "Servers", "servers"]
