"""The front door of all benchmarks: `./run bench NAME [--json FILE] [--quick]`.

A benchmark is a module of this package with

    def main(json_path: Path | None, quick: bool, **options) -> dict

that gives its record (see `ground.report`) or just its metrics. Options beyond the two are the
keyword parameters of its `main`, converted by their annotation.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PACKAGE = "tests.bench"
FIXED = ("json_path", "quick")
FLAGS = ("quick", "help", "write_docs")


class WrongUse(Exception):
    """The command line can't be understood."""


def names() -> list[str]:
    """The benchmarks there are."""
    return sorted(
        path.stem
        for path in HERE.glob("*.py")
        if not path.stem.startswith(("_", "test_", "conftest"))
        and "def main(" in path.read_text(encoding="utf-8")
    )


def usage() -> str:
    """What may be said."""
    return (
        "usage: ./run bench NAME [--json FILE] [--quick] [--OPTION VALUE ...]\n"
        f"  NAME    {', '.join(names())}\n"
        "  --json  also write the figures to a file\n"
        "  --quick small sizes: whether it runs, not how fast\n"
        "  --write-docs  keep the figures in docs/performance/ and write the pages there anew\n"
        "  ./run bench NAME --help lists the options of one\n"
    )


def parse(arguments: Sequence[str]) -> dict[str, str]:
    """`--name value`, `--name=value` and `--flag` as a dict; the flag's value is empty."""
    found: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise WrongUse(f"unexpected {word!r}")
        name, equals, value = word[2:].partition("=")
        if name not in FLAGS and not equals and rest and not rest[0].startswith("--"):
            value = rest.pop(0)
        found[name.replace("-", "_")] = value
    return found


def options_of(main: Callable[..., Any], given: dict[str, str]) -> dict[str, Any]:
    """Convert options by the annotations of `main`. Raises WrongUse."""
    hints = typing.get_type_hints(main)
    parameters = inspect.signature(main).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    converted: dict[str, Any] = {}
    for name, text in given.items():
        if name in FIXED or (name not in parameters and not takes_any):
            raise WrongUse(f"no option --{name.replace('_', '-')}")
        converted[name] = _convert(name, text, hints.get(name, str))
    return converted


def _convert(name: str, text: str, hint: Any) -> Any:
    kinds = [kind for kind in (typing.get_args(hint) or (hint,)) if kind is not type(None)]
    kind = kinds[0]
    if kind is bool:
        return text not in ("0", "false", "no")
    try:
        return kind(text)
    except (TypeError, ValueError) as error:
        raise WrongUse(f"--{name.replace('_', '-')} {text!r}: {error}") from error


def run(arguments: Sequence[str]) -> int:
    """Run one benchmark; the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(usage())
        return 0 if arguments else 2
    name = arguments[0]
    if name not in names():
        raise WrongUse(f"no benchmark {name!r}")
    main = importlib.import_module(f"{PACKAGE}.{name}").main
    given = parse(arguments[1:])
    if "help" in given:
        _explain(name, main)
        return 0
    json_path = Path(given.pop("json")) if given.get("json") else None
    quick = given.pop("quick", None) is not None
    for_docs = given.pop("write_docs", None) is not None
    if quick and for_docs:
        raise WrongUse("a quick run's figures are not for the docs")
    _finish(name, main(json_path, quick, **options_of(main, given)), json_path, for_docs=for_docs)
    return 0


def _finish(name: str, result: dict[str, Any], json_path: Path | None, *, for_docs: bool) -> None:
    from tests.bench import pages
    from tests.bench.ground import report

    if "metrics" not in result:
        result = report.report(name, result)
    report.show(result)
    if json_path is not None:
        report.write(json_path, result)
    if for_docs:
        pages.write(name, result)


def _explain(name: str, main: Callable[..., Any]) -> None:
    sys.stdout.write(f"{inspect.getdoc(main) or name}\n")
    for parameter in inspect.signature(main).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            option = parameter.name.replace("_", "-")
            sys.stdout.write(f"  --{option}  ({parameter.annotation})\n")


if __name__ == "__main__":
    try:
        sys.exit(run(sys.argv[1:]))
    except WrongUse as error:
        sys.stderr.write(f"{usage()}bench: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
