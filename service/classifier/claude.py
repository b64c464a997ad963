"""Claude through the official SDK: the one place that knows the request's shape.

`import anthropic` costs seconds, so it happens with the first question, in a thread.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any, Final

from service.classifier.answer import TOOL_NAME, tool
from service.classifier.asking import CallFailed, Failure, Reply, Request, ToolCall, Usage

if TYPE_CHECKING:
    import anthropic

ATTEMPT_TIMEOUT_S: Final = 45.0
MAX_OUTPUT_TOKENS: Final = 1024
# Set aside in the budget for one call: system text, message and tool, and the longest answer.
RESERVED_TOKENS: Final = 3_000

# No model reads or writes as much at once; sums of what is below it fit the columns for long.
_MOST_TOKENS: Final = 100_000_000

_OVERLOADED: Final = 529
_DENIED: Final = (401, 402, 403, 404)
_RATE_LIMITED: Final = 429
_TIMED_OUT: Final = (408, 504)
_SERVER_ERRORS: Final = 500
# The server may have written an answer that we did not get.
_MAYBE_BILLED: Final = (Failure.TIMEOUT, Failure.CONNECTION, Failure.UNREADABLE)


def request_body(model: str, request: Request) -> dict[str, Any]:
    """The arguments of `messages.create`, the same for every model we support.

    A forced tool excludes thinking, which newer models turn on by themselves; they also refuse
    sampling parameters, so there are none.
    """
    return {
        "model": model,
        "max_tokens": MAX_OUTPUT_TOKENS,
        "system": request.system,
        "messages": [{"role": "user", "content": request.message}],
        "tools": [tool()],
        "tool_choice": {"type": "tool", "name": TOOL_NAME, "disable_parallel_tool_use": True},
        "thinking": {"type": "disabled"},
    }


class Claude:
    """An `Asker` for one model. `base_url` None is the SDK's default."""

    def __init__(
        self,
        api_key: str,
        model: str,
        *,
        base_url: str | None = None,
        timeout_s: float = ATTEMPT_TIMEOUT_S,
    ) -> None:
        self.model = model
        self._api_key = api_key
        self._base_url = base_url
        self._timeout_s = timeout_s
        self._client: anthropic.AsyncAnthropic | None = None
        self._opening = asyncio.Lock()

    async def ask(self, request: Request) -> Reply:
        """One attempt of at most `timeout_s`, whatever the server wants us to wait for."""
        client = await self._open()
        sdk = importlib.import_module("anthropic")
        try:
            async with asyncio.timeout(self._timeout_s):
                message = await client.messages.create(**request_body(self.model, request))
        except TimeoutError:
            raise _failed(Failure.TIMEOUT, f"no answer within {self._timeout_s:g} s") from None
        except sdk.APITimeoutError:
            raise _failed(Failure.TIMEOUT, "the connection timed out") from None
        except sdk.APIStatusError as error:
            raise _from_status(error) from None
        except sdk.APIConnectionError as error:
            cause = type(error.__cause__ or error).__name__
            # Without a connection nothing was asked.
            raise _failed(Failure.CONNECTION, cause, was_sent=cause != "ConnectError") from None
        except (sdk.APIError, ValueError) as error:
            raise _failed(Failure.UNREADABLE, type(error).__name__) from None
        return _reply(message)

    async def aclose(self) -> None:
        """Close the connections; the next question opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _open(self) -> anthropic.AsyncAnthropic:
        async with self._opening:
            if self._client is None:
                sdk = await asyncio.to_thread(importlib.import_module, "anthropic")
                # Retries are ours: each is counted, and paid for, by the budget.
                self._client = sdk.AsyncAnthropic(
                    api_key=self._api_key,
                    base_url=self._base_url,
                    timeout=self._timeout_s,
                    max_retries=0,
                )
            return self._client


def _reply(message: Any) -> Reply:
    """By type, not by position: a thinking block may come first.

    The SDK does not check shapes: a success may be no message, or one whose price nobody can tell.
    """
    try:
        calls = tuple(
            ToolCall(block.name, block.input)
            for block in message.content
            if block.type == "tool_use"
        )
        return Reply(message.stop_reason, calls, _usage(message.usage))
    except (AttributeError, TypeError, ValueError) as error:
        raise _failed(Failure.UNREADABLE, type(error).__name__) from None


def _usage(usage: Any) -> Usage:
    cached = (usage.cache_creation_input_tokens, usage.cache_read_input_tokens)
    cached_tokens = sum(_tokens(number) for number in cached if number is not None)
    return Usage(_tokens(usage.input_tokens) + cached_tokens, _tokens(usage.output_tokens))


def _tokens(number: Any) -> int:
    if type(number) is not int or not 0 <= number <= _MOST_TOKENS:
        raise ValueError("not a number of tokens")
    return number


def _from_status(error: anthropic.APIStatusError) -> CallFailed:
    status = error.status_code
    if status == _RATE_LIMITED:
        failure = Failure.RATE_LIMITED
    elif status == _OVERLOADED:
        failure = Failure.OVERLOADED
    elif status in _TIMED_OUT:
        failure = Failure.TIMEOUT
    elif status >= _SERVER_ERRORS:
        failure = Failure.SERVER_ERROR
    else:
        failure = Failure.DENIED if status in _DENIED else Failure.REJECTED
    # The body may quote the request: the status has to do.
    return _failed(failure, f"status {status}", _retry_after_s(error.response.headers))


def _retry_after_s(headers: Any) -> float | None:
    try:
        wait_s = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return wait_s if wait_s >= 0 else None


def _failed(
    failure: Failure, message: str, retry_after_s: float | None = None, *, was_sent: bool = True
) -> CallFailed:
    maybe_billed = was_sent and failure in _MAYBE_BILLED
    return CallFailed(failure, message, retry_after_s=retry_after_s, maybe_billed=maybe_billed)
