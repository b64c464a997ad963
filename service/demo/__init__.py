"""The demo and what it runs on: local Kafka and PostgreSQL, a synthetic population."""
