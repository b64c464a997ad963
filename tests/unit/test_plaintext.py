"""Nothing is sent unencrypted to another machine unless somebody says so."""

from __future__ import annotations

import pytest

from db.pool import tls_arguments
from service.classifier.choice import claude_of
from service.errors import SettingsError
from service.settings import load_settings
from streams.connection import client_arguments

ALLOWED = {"ENGAGEMENT_ALLOW_PLAINTEXT": "true"}

HERE = [
    "postgresql://u:p@127.0.0.1:5432/d",
    "postgresql://u:p@localhost/d",
    "postgresql://u@[::1]:5432/d",
    "postgresql:///d",
    "postgresql:///d?host=/var/run/postgresql",
    "postgresql://%2Fvar%2Frun%2Fpostgresql/d",
    "postgresql://127.0.0.1:5432,127.0.0.1:5433/d",
]
ELSEWHERE = [
    "postgresql://u:p@db.example/d",
    "postgresql://u:p@10.0.0.7:5432/d?sslmode=disable",
    "postgresql://db.example/d?sslmode=prefer",
    "postgresql://db.example/d?application_name=sslmode=require",
    "postgresql://db.example/d?sslmode=require&sslmode=disable",
    "postgresql:///d?host=db.example",
    "postgresql://127.0.0.1/d?host=127.0.0.1,db.example",
    "postgresql://127.0.0.1,db.example/d",
    "postgresql://u:p@localhost@db.example/d",
    "postgresql:///d?service=elsewhere",
    "postgresql://[2001:db8::1]:5432/d",
]


@pytest.mark.parametrize("url", HERE)
def test_postgresql_on_this_machine_needs_no_tls(url: str) -> None:
    assert tls_arguments(load_settings({"DATABASE_URL": url})) == {}


@pytest.mark.parametrize("url", ELSEWHERE)
def test_postgresql_elsewhere_needs_tls_or_a_word(url: str) -> None:
    with pytest.raises(SettingsError, match="no TLS to a host other than loopback"):
        tls_arguments(load_settings({"DATABASE_URL": url}))
    assert tls_arguments(load_settings({"DATABASE_URL": url, **ALLOWED})) == {}


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_a_mode_that_insists_on_tls_is_enough(mode: str) -> None:
    url = f"postgresql://db.example/d?sslmode={mode}"
    assert tls_arguments(load_settings({"DATABASE_URL": url})) == {}


@pytest.mark.parametrize("name", ["PGHOST", "PGSERVICE"])
def test_no_variable_of_the_driver_says_where_the_database_is(name: str) -> None:
    with pytest.raises(SettingsError, match=f"names no host, and {name} is not read"):
        load_settings({"DATABASE_URL": "postgresql:///d", name: "db.example"})
    named = load_settings({"DATABASE_URL": "postgresql://localhost/d", name: "db.example"})
    assert "localhost" in named.database_url.get_secret_value()


def test_a_missing_file_of_certificates_is_named() -> None:
    given = {"ENGAGEMENT_DATABASE_SSL_CA_FILE": "/nowhere/ca.pem"}
    with pytest.raises(SettingsError, match="ENGAGEMENT_DATABASE_SSL_CA_FILE: No such file"):
        tls_arguments(load_settings(given))
    given = {
        "ENGAGEMENT_KAFKA_SECURITY_PROTOCOL": "SSL",
        "ENGAGEMENT_KAFKA_SSL_CA_FILE": "/nowhere/ca.pem",
    }
    with pytest.raises(SettingsError, match="ENGAGEMENT_KAFKA_SSL_CA_FILE"):
        client_arguments(load_settings(given))


@pytest.mark.parametrize("servers", ["127.0.0.1:9092", "localhost:1,127.0.0.1:2", "[::1]:9092"])
def test_kafka_on_this_machine_needs_no_tls(servers: str) -> None:
    found = client_arguments(load_settings({"KAFKA_BOOTSTRAP_SERVERS": servers}))
    assert found["security_protocol"] == "PLAINTEXT"


@pytest.mark.parametrize("servers", ["kafka.example:9092", "127.0.0.1:1,10.0.0.7:2"])
@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SASL_PLAINTEXT"])
def test_kafka_elsewhere_needs_tls_or_a_word(servers: str, protocol: str) -> None:
    given = {
        "KAFKA_BOOTSTRAP_SERVERS": servers,
        "ENGAGEMENT_KAFKA_SECURITY_PROTOCOL": protocol,
        "ENGAGEMENT_KAFKA_SASL_USERNAME": "engagement",
        "ENGAGEMENT_KAFKA_SASL_PASSWORD": "word",
    }
    with pytest.raises(SettingsError, match="no TLS to a host other than loopback"):
        client_arguments(load_settings(given))
    assert client_arguments(load_settings({**given, **ALLOWED}))


def test_kafka_wants_a_name_and_a_password_for_sasl() -> None:
    given = {"ENGAGEMENT_KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}
    with pytest.raises(SettingsError, match=r"KAFKA_SASL_USERNAME and .*_PASSWORD: needed"):
        client_arguments(load_settings(given))


def test_claude_elsewhere_is_asked_by_https_only() -> None:
    def given(url: str, **more: str) -> object:
        return claude_of(
            load_settings({"ANTHROPIC_API_KEY": "key", "ANTHROPIC_BASE_URL": url, **more})
        )

    with pytest.raises(SettingsError, match="ANTHROPIC_BASE_URL: must be https"):
        given("http://proxy.example")
    assert given("http://127.0.0.1:9")
    assert given("https://proxy.example")
    assert given("http://proxy.example", **ALLOWED)


@pytest.mark.parametrize("address", ["db:x", "db:0", "db:65536", "a:1,b:y", "[::1]:z"])
def test_a_wrong_port_is_said_without_the_url(address: str) -> None:
    with pytest.raises(SettingsError, match="DATABASE_URL: has a port that is none") as raised:
        load_settings({"DATABASE_URL": f"postgresql://u:hush@{address}/d"})
    assert "hush" not in str(raised.value)
