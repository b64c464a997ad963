"""The pages: links lead somewhere, commands named exist, generated parts are what the code says."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import click
import pytest

from service.cli.documents import PAGES as GENERATED
from service.cli.documents import filled, outdated
from service.cli.main import engagement
from tests.command import resolve
from tests.fences import PAGES, ROOT, anchor_of, blocks_of, headings_of, without_blocks

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`]+)`")
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def links(text: str) -> list[str]:
    """What a page links to, pictures included."""
    found: list[str] = LINK.findall(CODE.sub("", without_blocks(text)))
    return found


def broken(page: Path, link: str) -> str:
    """What is wrong with a link; nothing for those that lead to other places."""
    if re.match(r"[a-z]+:", link):
        return ""
    name, _, anchor = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    if not target.is_relative_to(ROOT) or not target.exists():
        return f"{link}: there is no {name}"
    if anchor and anchor not in {anchor_of(heading) for heading in headings_of(target)}:
        return f"{link}: {target.name} has no such heading"
    return ""


@EACH_PAGE
def test_every_link_leads_somewhere(page: Path) -> None:
    found = [broken(page, link) for link in links(page.read_text())]
    assert [problem for problem in found if problem] == []


def test_every_page_is_found_from_the_readme() -> None:
    linked = {name.partition("#")[0] for name in links((ROOT / "README.md").read_text())}
    assert {str(page.relative_to(ROOT)) for page in PAGES} - {"README.md"} <= linked


def test_a_link_that_leads_nowhere_is_found() -> None:
    page = ROOT / "README.md"
    text = (
        "[a](docs/deploy.md#no) ![b\nc](docs/no.png) [d](#decisions) `[e](f)`\n```\n[g](h)\n```\n"
    )
    assert [bool(broken(page, link)) for link in links(text)] == [True, True, False]
    assert len(links(page.read_text())) > 10


@EACH_PAGE
def test_every_file_named_exists(page: Path) -> None:
    spans = CODE.findall(without_blocks(page.read_text()))
    named = [span for span in spans if re.match(r"(service|db|streams|tests|docs|deploy)/", span)]
    assert [name for name in named if not (ROOT / name.partition("#")[0]).exists()] == []


def commands_named(page: Path) -> Iterator[str]:
    """`./run ...` and `engagement ...` wherever the page says them."""
    text = page.read_text()
    # A command may be broken over two lines of prose.
    spans = [" ".join(span.split()) for span in CODE.findall(without_blocks(text))]
    lines = [
        line.partition(" #")[0].strip()
        for block in blocks_of(page)
        if block.language == "sh"
        for line in block.text.splitlines()
    ]
    for command in spans + lines:
        if command.startswith(("./run ", "engagement ")) and "..." not in command:
            yield command


def run_commands() -> set[str]:
    """What `./run` takes."""
    loader = SourceFileLoader("run_script", str(ROOT / "run"))
    spec = spec_from_loader(loader.name, loader)
    assert spec
    module = module_from_spec(spec)
    loader.exec_module(module)
    found: dict[str, object] = module.COMMANDS
    return set(found)


@EACH_PAGE
def test_every_command_named_exists(page: Path) -> None:
    for command in commands_named(page):
        name, *arguments = shlex.split(command)
        if name == "./run":
            assert arguments[0] in run_commands(), command
            if arguments[0] == "engagement":
                del arguments[0]
            elif arguments[0] != "demo":
                continue
        if "--help" not in arguments:
            # In prose a command is often named alone.
            with suppress(click.MissingParameter):
                resolve(engagement, arguments)


def test_the_pages_do_name_commands() -> None:
    found = {command for page in PAGES for command in commands_named(page)}
    assert len(found) > 40
    assert {"./run demo --check", "engagement dlq show TOPIC/PARTITION/OFFSET"} <= found


def test_what_is_generated_is_what_the_code_says() -> None:
    assert list(outdated()) == []


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_part_that_fell_behind_is_noticed(name: str) -> None:
    text = (ROOT / name).read_text()
    changed = re.sub(r"(<!-- generated: .*?\n\n\|)", r"\1 old", text)
    if name == "docs/consumers.md":
        assert changed == text
    else:
        assert changed != text
        assert filled(changed) == text
