"""From the word for a place to the place: configuration, locator and identity, for every verb that connects.

Imports nothing that connects until a place is opened.
"""

from argparse import Namespace
from os import environ
from typing import TYPE_CHECKING

from dcmsync import config, locator
from dcmsync.commands.options import DEFAULT_TIMEOUT_S
from dcmsync.errors import UsageError

if TYPE_CHECKING:
    from dcmsync.endpoints.dimse import DimseNode
    from dcmsync.net.patience import Watch


class Places:
    """The places of one run. `arguments` has config, timeout and calling, as the shared options give them."""

    def __init__(self, arguments: Namespace, watch: "Watch") -> None:
        self._config = config.load(arguments.config, environ)
        self._arguments = arguments
        self._watch = watch

    def open(self, word: str) -> "DimseNode":
        """The remote place called `word`. Raises UsageError."""
        from dcmsync.endpoints import open_place

        set_up = self._config.endpoints.get(word)
        found = locator.parse(set_up.locator if set_up else word, names=self._config.endpoints)
        calling = self._arguments.calling or (set_up and set_up.calling) or self._config.local.ae_title
        timeout_s = self._arguments.timeout
        if set_up and set_up.timeout and timeout_s is None:
            timeout_s = set_up.timeout
        return open_place(found, calling_ae=calling, timeout_s=timeout_s or DEFAULT_TIMEOUT_S, watch=self._watch)

    def jobs(self, word: str) -> int:
        """How many series to retrieve there at a time: the command line's word, the configuration's, or four."""
        set_up = self._config.endpoints.get(word)
        return self._arguments.jobs or (set_up and set_up.jobs) or DEFAULT_JOBS

    @property
    def most_jobs(self) -> int:
        """The most that any place may get."""
        return max([self.jobs(""), *map(self.jobs, self._config.endpoints)])


DEFAULT_JOBS = 4


def folder(word: str) -> str:
    """The path of a destination folder. Raises UsageError when the word names something else."""
    found = locator.parse(word)
    if not isinstance(found, locator.Folder):
        advice = "pull brings things to this machine: name a folder, as in ./archive"
        raise UsageError(f"{word} is no folder", advice=advice)
    return found.path
