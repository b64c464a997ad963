"""The description and the API agree: schemathesis calls everything, as an administrator."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from tests.api_community import ADMIN, MEMBER, ORG, SILENT, settle
from tests.api_process import ApiProcess, api_process

# Well-formed values may still make no sense together, or to the state of things.
CONFIG = f"""
base-url = "{{address}}"
headers = {{{{ Authorization = "Bearer {{token}}" }}}}

[parameters]
"path.org" = "{ORG}"
"path.user" = "{MEMBER}"

[phases]
stateful.enabled = false

[checks]
positive_data_acceptance.expected-statuses = ["2xx", "401", "404", "409", "412", "422"]

[generation]
max-examples = {{examples}}
deterministic = {{deterministic}}

# An erased member would leave little to explore for the others.
[[operations]]
include-name = "DELETE /v1/orgs/{{{{org}}}}/members/{{{{user}}}}"
parameters = {{{{ "path.user" = "{SILENT}" }}}}
"""


@pytest.fixture
async def api(database: str) -> AsyncIterator[ApiProcess]:
    community = await settle(database)
    try:
        async with api_process(database) as running:
            yield running
    finally:
        await community.connection.close()


async def explore(api: ApiProcess, folder: Path, examples: int, *seed: str) -> tuple[int, str]:
    """Run schemathesis over the whole description; its exit code and what it says.

    Without a seed it is the same every time.
    """
    config = folder / "schemathesis.toml"
    given = {"address": api.address, "token": api.token(ADMIN), "examples": examples}
    config.write_text(CONFIG.format(**given, deterministic=str(not seed).lower()))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run",
        f"{api.address}/openapi.json", "--no-color", *(f"--seed={each}" for each in seed),
        cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    output = (await process.stdout.read()).decode()
    return await process.wait(), output


@pytest.mark.timeout(240)
async def test_nothing_that_the_description_allows_surprises(
    api: ApiProcess, tmp_path: Path
) -> None:
    code, output = await explore(api, tmp_path, 15)
    assert code == 0, output
    assert "14 selected" in output, output
    async with httpx2.AsyncClient(base_url=api.address) as client:
        headers = {"Authorization": f"Bearer {api.token(ADMIN)}"}
        response = await client.get(f"/v1/orgs/{ORG}/members/{MEMBER}/history", headers=headers)
    # It did reach the rules: overrides were set.
    assert {item["kind"] for item in response.json()["items"]} == {"level", "override"}


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", ["1", "20261125", "987654321"])
async def test_nor_does_more_of_it_by_chance(api: ApiProcess, tmp_path: Path, seed: str) -> None:
    code, output = await explore(api, tmp_path, 75, seed)
    assert code == 0, output
