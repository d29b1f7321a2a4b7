"""What a request is refused with."""

from __future__ import annotations

from collections.abc import Mapping


class Refusal(Exception):
    """A request that is not done: the HTTP status that says so, words for people, and headers that belong to it."""

    def __init__(self, status: int, words: str, headers: Mapping[str, str] = {}) -> None:
        super().__init__(words)
        self.status = status
        self.words = words
        self.headers = headers


def not_acceptable(what: str) -> Refusal:
    """Nothing that Accept names can be given."""
    return Refusal(406, f"not acceptable: {what}")
