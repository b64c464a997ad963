"""Decides what engagement means: levels, signals, rules, texts, and the use cases around them."""
