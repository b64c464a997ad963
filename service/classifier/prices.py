"""List prices, to say what the calls cost."""

from __future__ import annotations

from decimal import Decimal
from typing import Final, NamedTuple

from service.classifier.asking import Usage


class Price(NamedTuple):
    """US dollars per million tokens."""

    input_usd: Decimal
    output_usd: Decimal


# From the models' pages at platform.claude.com, November 2026; prompts below 100 000 tokens.
PRICES: Final = {
    "claude-haiku-5-5": Price(Decimal("0.10"), Decimal("0.50")),
    "claude-haiku-4-5": Price(Decimal("1.00"), Decimal("5.00")),
}
_MILLION: Final = 1_000_000


def price_of(model: str) -> Price | None:
    """The price of a model, dated versions included; None when it is not known here."""
    return next((price for name, price in PRICES.items() if model.startswith(name)), None)


def cost_usd(model: str, usage: Usage) -> Decimal:
    """What these tokens cost; 0 for a model whose price is not known."""
    price = price_of(model)
    if price is None:
        return Decimal(0)
    tokens_usd = usage.input_tokens * price.input_usd + usage.output_tokens * price.output_usd
    return tokens_usd / _MILLION
