"""Which endpoint gives what another one lists: the key `retrieve`, followed and judged.

Owns the complaints about names that are not there, and about places that would give each other's things for ever.
"""

from collections.abc import Mapping
from difflib import get_close_matches

from dcmsync.config import Endpoint
from dcmsync.errors import UsageError


def giver_of(word: str, endpoints: Mapping[str, Endpoint]) -> str | None:
    """The name of the endpoint that gives what the place called `word` lists; None where it does so itself.

    Where that one names another, it is the other. Raises UsageError when one is no endpoint, or leads back to where it
    came from.
    """
    passed = [word]
    while (endpoint := endpoints.get(passed[-1])) is not None and endpoint.retrieve is not None:
        name = endpoint.retrieve
        if name not in endpoints:
            near = get_close_matches(name, endpoints, n=1)
            advice = f"Did you mean {near[0]}?" if near else "Write [endpoints.NAME] for it"
            raise UsageError(f"{passed[-1]}: retrieve names {name}, which is no endpoint of the configuration",
                             advice=advice)  # fmt: skip
        if name in passed:
            way = " -> ".join((*passed[passed.index(name) :], name))
            raise UsageError(f"{word}: retrieve leads in a circle: {way}", advice="Leave one of them out")
        passed.append(name)
    return passed[-1] if len(passed) > 1 else None
