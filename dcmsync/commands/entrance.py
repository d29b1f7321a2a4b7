"""The way into a place that speaks HTTP: whether it answers, what TLS comes to, and whether it lets us in.

Owns the first request, and what is told of it. Refuses to know what the place is for: `examining_http` does.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import anyio
from msgspec.structs import replace

from dcmsync.contract import Source
from dcmsync.endpoints import Setting, open_place
from dcmsync.errors import Insecure, PeerError, Rejected, Unreachable
from dcmsync.locator import Http, is_secured
from dcmsync.plan.diagnosis import Finding, Findings, tls_finding

if TYPE_CHECKING:
    from dcmsync.net.tls import Spoken


@runtime_checkable
class Echoes(Protocol):
    """A place that can be asked whether it answers: 0, or the status that says it does not. Raises PeerError."""

    async def echo(self) -> int: ...


class Entrance:
    """That of one place. `place` is the place, opened so that what TLS comes to is heard; `answers`: it understood us.
    """

    def __init__(self, locator: Http, setting: Setting, found: Findings) -> None:
        self.answers = False
        self.setting = replace(setting, spoken=self._hear)
        self.place: Source = open_place(locator, self.setting)
        self._locator = locator
        self._found = found
        self._spoken: Spoken | None = None

    async def open(self, today: date) -> bool:
        """Knocks. False when the place cannot be reached, or does not let us in."""
        assert isinstance(self.place, Echoes)  # all that speak HTTP are
        begun = anyio.current_time()
        try:
            status = await self.place.echo()
        except PeerError as error:
            if self._spoken is not None:
                self._tell_security(today)
            check = "login" if isinstance(error, Rejected) and not isinstance(error, Insecure) else "echo"
            self._note(check, False, error.message, error.advice or "")
            return not isinstance(error, Unreachable | Rejected)
        self._tell_security(today)
        if status:
            self._note("echo", False, f"it answers {status}", "Check host and path of the locator")
            return True
        self.answers = True
        self._note("echo", True, f"answered within {anyio.current_time() - begun:.2f} s")
        shows_who = self.setting.web.authority is not None or self.setting.aws is not None
        self._note("login", True, "what is set lets us in" if shows_who else "none is set, and none was asked for")
        return True

    def _hear(self, spoken: Spoken) -> None:
        self._spoken = self._spoken or spoken

    def _tell_security(self, today: date) -> None:
        if self._spoken is not None:
            terms = self.setting.web.terms
            self._found.add(tls_finding(
                self._spoken.version, self._spoken.cipher, profile=terms.profile if terms else "bcp195",
                ends=self._spoken.ends.date() if self._spoken.ends else None, today=today, learnt=self._found.learnt,
            ))  # fmt: skip
        elif self._is_secured:
            self._note("tls", None, "it is spoken through a proxy, which hides its certificate from this check")
        else:
            self._note("tls", True, "not spoken: who is on the way can read along")

    @property
    def _is_secured(self) -> bool:
        aws = self.setting.aws
        return is_secured(self._locator) and not (aws is not None and aws.endpoint_url.startswith("http:"))

    def _note(self, check: str, ok: bool | None, words: str, advice: str = "") -> None:
        self._found.add(Finding(check=check, ok=ok, words=words, advice=advice))
