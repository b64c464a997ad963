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
deterministic = true

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


async def explore(api: ApiProcess, folder: Path, examples: int) -> tuple[int, str]:
    """Run schemathesis over the whole description; its exit code and what it says."""
    config = folder / "schemathesis.toml"
    config.write_text(CONFIG.format(address=api.address, token=api.token(ADMIN), examples=examples))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run",
        f"{api.address}/openapi.json", "--no-color",
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
    async with httpx2.AsyncClient(base_url=api.address) as client:
        headers = {"Authorization": f"Bearer {api.token(ADMIN)}"}
        response = await client.get(f"/v1/orgs/{ORG}/members/{MEMBER}/history", headers=headers)
    # It did reach the rules: overrides were set.
    assert {item["kind"] for item in response.json()["items"]} == {"level", "override"}
