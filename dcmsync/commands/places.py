"""From the word for a place to the place: configuration, locator, identity and cache, for every verb that needs one.

Imports nothing that connects or reads until a place is opened.
"""

from argparse import Namespace
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from os import environ
from typing import TYPE_CHECKING, TypeVar

from msgspec import structs

from dcmsync import config, locator, quirks
from dcmsync.commands.options import DEFAULT_TIMEOUT_S, Streams
from dcmsync.commands.pairing import giver_of
from dcmsync.errors import UsageError
from dcmsync.quirks import Quirks

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from dcmsync.contract import Catalogue, Source
    from dcmsync.endpoints import Setting, WebAccess
    from dcmsync.endpoints.dimse.place import DimseNode
    from dcmsync.net.mailbox import Mailbox
    from dcmsync.net.patience import Watch
    from dcmsync.net.throttle import Throttle
    from dcmsync.net.tls import Secure
    from dcmsync.plan.expression import Selectors
    from dcmsync.wire.digests import Digests

T = TypeVar("T")


class Places:
    """The places of one run. `arguments` has what the shared options give: config, and where the verb has them
    timeout, calling, via, model, port, jobs, cache and no_cache.
    """

    def __init__(
        self,
        arguments: Namespace,
        watch: "Watch",
        streams: Streams,
        *,
        mailbox: "Callable[[], Mailbox] | None" = None,
    ) -> None:
        """`mailbox`: where C-MOVE brings things to, if other places of this run open it."""
        self._config = config.load(arguments.config, environ)
        self._given = vars(arguments)
        self._watch = watch
        self._streams = streams
        self._catalogues: dict[str, Catalogue] = {}
        self._accesses: dict[str, WebAccess] = {}
        self._warned: set[str] = set()
        self._receiving: TaskGroup | None = None
        self._mailbox: Mailbox | None = None
        self._open_mailbox = mailbox or self.mailbox

    async def receiving(self, main: "Callable[[], Awaitable[T]]") -> "T":
        """What `main` gives. While it runs, a mailbox may be opened for what C-MOVE brings."""
        import anyio

        if self._receiving is not None:  # there is one mailbox in a run
            return await main()
        async with anyio.create_task_group() as self._receiving:
            result = await main()
            self._receiving.cancel_scope.cancel()
        if self._mailbox is not None and self._mailbox.refused:
            self._streams.warn(f"instances that nobody had asked for were refused: {self._mailbox.refused:,}")
        return result

    def mailbox(self) -> "Mailbox":
        """The one mailbox of the run, listening. Raises LocalTrouble when the port cannot be had."""
        from dcmsync.net.channel import Limits
        from dcmsync.net.mailbox import Mailbox

        assert self._receiving is not None  # whoever retrieves runs within `receiving`
        if self._mailbox is None:
            local = self._config.local
            timeouts = [each.timeout or DEFAULT_TIMEOUT_S for each in self._config.endpoints.values()]
            timeout_s = self._given.get("timeout") or max(timeouts, default=DEFAULT_TIMEOUT_S)
            limits = Limits(timeout_s=timeout_s, throttle=self._throttle)
            self._mailbox = Mailbox(
                local.bind, self._given.get("port") or local.port, limits=limits, watch=self._watch,
                secure=self._mailbox_security(),
            )  # fmt: skip
            self._receiving.start_soon(self._mailbox.run)
        return self._mailbox

    def _mailbox_security(self) -> "Secure | None":
        """How the mailbox is secured; None in plain. Raises UsageError, LocalTrouble."""
        local = self._config.local
        if not local.tls:
            return None
        from dcmsync.commands.credentials import listening
        from dcmsync.net import tls

        return tls.server(listening(local, certificate=None, key=None, ca=None, warn=self._warn_once))

    def _mailbox_for(self, word: str, place: locator.Locator) -> "Callable[[], Mailbox]":
        """What opens the mailbox for what a place sends to us; says so where that goes in plain, and the rest not."""

        def opened() -> "Mailbox":
            mailbox = self._open_mailbox()
            if isinstance(place, locator.Node) and place.tls and not mailbox.is_secured:
                self._warn_once(f"{word}: what it sends to us goes over the network in plain text; tls of [local] in "
                                "the configuration would hide it")  # fmt: skip
            return mailbox

        return opened

    def parse(self, word: str) -> locator.Locator:
        """What the word names. Raises UsageError."""
        set_up = self._config.endpoints.get(word)
        return locator.parse(set_up.locator if set_up else word, names=self._config.endpoints)

    def is_local(self, word: str) -> bool:
        """Whether the place is on this machine. Raises UsageError."""
        return isinstance(self.parse(word), locator.Folder | locator.Archive)

    def open(self, word: str) -> "Source":
        """The place called `word`, to bring things from; two as one where another gives what it lists.

        Raises UsageError.
        """
        giver = self.giver(word)
        if giver is None:
            return self.alone(word)
        from dcmsync.endpoints.paired.place import Paired

        return Paired(self.alone(word), lambda: self.alone(giver), self.quirks(giver))

    def giver(self, word: str) -> str | None:
        """The endpoint that gives what the place called `word` lists, by name, if it is another. Raises UsageError."""
        return giver_of(word, self._config.endpoints)

    def alone(self, word: str) -> "Source":
        """The place called `word`, whoever gives what it lists. Raises UsageError."""
        from dcmsync.endpoints import open_place

        return open_place(self.parse(word), self.setting(word))

    def setting(self, word: str) -> "Setting":
        """What a place is opened with. Raises UsageError."""
        from dcmsync.commands.authorities import web_access
        from dcmsync.commands.aws import aws_access
        from dcmsync.commands.credentials import access
        from dcmsync.commands.meaning import check
        from dcmsync.endpoints import Dialect, Setting
        from dcmsync.wire.upperlayer.extension import Wishes

        set_up = self._config.endpoints.get(word)
        place = self.parse(word)
        if set_up is not None:
            check(place, set_up, word)
        calling = self._given.get("calling") or (set_up and set_up.calling) or self._config.local.ae_title
        setting = Setting(
            calling_ae=calling,
            timeout_s=self.timeout_s(word),
            watch=self._watch,
            catalogue=self.catalogue,
            skipped=self.skipped,
            warn=self._streams.warn,
            via=self._given.get("via") or (set_up and set_up.via) or None,
            mailbox=self._mailbox_for(word, place),
            senders=set_up.senders if set_up else (),
            quirks=self.quirks(word),
            access=access(place, set_up, name=word, environ=environ, warn=self._warn_once),
            aws=aws_access(place, set_up, name=word, environ=environ),
            dialect=Dialect(
                date_parameters=set_up.date_parameters,
                repository=set_up.repository,
                home_community=set_up.home_community,
                ignored_errors=set_up.ignore_errors,
            ) if set_up else Dialect(),
            throttle=self._throttle,
            model=self._given.get("model") or (set_up.model if set_up else "study"),
            wishes=Wishes(
                relational=bool(self._given.get("relational") or (set_up and set_up.relational)),
                fuzzy=bool(self._given.get("fuzzy") or (set_up and set_up.fuzzy)),
                timezone=bool(set_up and set_up.timezone),
            ),
            digests=digests() if isinstance(place, locator.Archive) else None,
        )
        if word not in self._accesses:  # one token for all sessions of a run
            self._accesses[word] = web_access(
                place, set_up, name=word, environ=environ, warn=self._warn_once,
                door=lambda url, name, access: structs.replace(setting, web=access).door(url, name),
            )
        return structs.replace(setting, web=self._accesses[word])

    @cached_property
    def _throttle(self) -> "Throttle | None":
        """What slows the traffic of this run down, all of it together."""
        timetable = self._given.get("bwlimit")
        if timetable is None:
            return None
        from datetime import datetime

        from dcmsync.net.throttle import Throttle

        return Throttle(lambda: timetable.rate(datetime.now()))  # local time, as people write it

    def _warn_once(self, words: str) -> None:
        if words not in self._warned:
            self._warned.add(words)
            self._streams.warn(words)

    def timeout_s(self, word: str) -> float:
        """How long to wait for progress there: the command line's word, the configuration's, or the default."""
        set_up = self._config.endpoints.get(word)
        return self._given.get("timeout") or (set_up and set_up.timeout) or DEFAULT_TIMEOUT_S

    def quirks(self, word: str) -> Quirks:
        """What is to be heeded of the place. Raises UsageError."""
        set_up = self._config.endpoints.get(word)
        try:
            return quirks.read(set_up) if set_up else Quirks()
        except UsageError as error:
            raise UsageError(f"{word}: {error.message}", advice=error.advice) from None

    def node(self, word: str) -> "DimseNode":
        """The DIMSE node called `word`. Raises UsageError when it is something else."""
        from dcmsync.endpoints.dimse.place import DimseNode

        if not isinstance(self.parse(word), locator.Node):
            raise UsageError(f"{word} is no DIMSE node", advice="Name one, as in AET@host:port")
        place = self.alone(word)
        assert isinstance(place, DimseNode)
        return place

    def catalogue(self, path: str) -> "Catalogue":
        """What is remembered of the local place at `path`; the same one for the whole run. Raises UsageError."""
        from dcmsync.cache.store import open_store

        if path not in self._catalogues:
            named = self._given.get("cache")
            folder = None if named or self._given.get("no_cache", True) else config.cache_folder()
            self._catalogues[path] = open_store(path, named=named, folder=folder, warn=self._streams.warn)
        return self._catalogues[path]

    def skipped(self, path: str, why: str) -> None:
        """Says, to who asks for more, that something in a local place was passed by. Its name is not told."""
        self._streams.note(f"passed by: {why}")

    @property
    def local(self) -> config.Local:
        """What the configuration says of this side."""
        return self._config.local

    @property
    def routes(self) -> Mapping[str, config.Route]:
        """The routes of the configuration."""
        return self._config.routes

    @property
    def selectors(self) -> "Selectors":
        """The selectors of the configuration."""
        return {name: selector.lists() for name, selector in self._config.selectors.items()}

    def jobs(self, word: str) -> int:
        """How many associations to use there at most: the command line's word, the configuration's, or sixteen.

        Where the associations are few, one of them is left for queries. Of two places that are one, the fewer count.
        """
        set_up = self._config.endpoints.get(word)
        jobs: int = self._given.get("jobs") or (set_up and set_up.jobs) or DEFAULT_JOBS
        granted = self.quirks(word).max_associations
        jobs = jobs if granted is None else max(1, min(jobs, granted - 1))
        giver = self.giver(word)
        return jobs if giver is None else min(jobs, self.jobs(giver))

    @property
    def most_jobs(self) -> int:
        """The most that any place may get."""
        return max([self.jobs(""), *map(self.jobs, self._config.endpoints)])


def digests() -> "Digests":
    """How the digests of what an archive holds are computed."""
    from dcmsync.cache.digest import content_of, hasher
    from dcmsync.wire.digests import Digests

    return Digests(hasher=hasher, content=content_of)


DEFAULT_JOBS = 16  # at most: the pace of a place says how many
