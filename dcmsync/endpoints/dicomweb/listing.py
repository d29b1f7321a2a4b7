"""Lists of a DICOMweb server, page by page (PS3.18 §8.3.4.4), to an end that is known to be one.

Owns the size of a page, and what the sessions of one place have learned of it: how long a page may be, and whether an
offset is heeded. Refuses to know what the things are.

Theory of operation. Nothing in an answer says how many there are, and servers cut pages without a word. A server that
has given a page of n things cuts none of fewer, so a shorter page is the last one; after any other, one more is asked
for, until none comes. A page that brings nothing new was given before: that server pays no heed to offsets, so what it
gives in one page is all that it ever gives. A limit upon all pages together does not show at all, but for the length of
the list: who asked looks at that, and asks again in parts.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence

from msgspec import Struct

from dcmsync.contract import Ending, Level
from dcmsync.endpoints.dicomweb.asking import Search
from dcmsync.errors import Refused, RemoteProtocolError
from dcmsync.net.http import Answer, Door
from dcmsync.wire import jsonvalues

PAGES = (1000, 200, 100)
"""How many things to ask for at once; the smaller ones for those who refuse the others (Azure gives 200 at most)."""
MAX_PAGE_OCTETS = 64 << 20
_MEDIA_TYPES = ("application/dicom+json", "application/json")
MAX_THINGS = 5_000_000
_MOST_CLAIMS = 100_000
_OK, _NONE, _BAD, _GONE, _NOT_ACCEPTABLE, _TOO_MANY = 200, 204, 400, 404, 406, 413
_EXPECTED = (_OK, _NONE, _BAD, _GONE, _NOT_ACCEPTABLE, _TOO_MANY)
_ADVICE = "Is it the base URL of a DICOMweb service?"


class Page(Struct, frozen=True):
    """Some things, of `limit` that were asked for. `has_more`: the server says that there are more of them."""

    things: jsonvalues.Things
    limit: int
    has_more: bool = False


class Lister:
    """Lists for all sessions of one place. `page`: how many things it gives at once, at most; `counts`: whether what
    it says of the number of things below one can be believed.
    """

    def __init__(
        self, door: Door, warn: Callable[[str], None], *, page: int | None = None, counts: bool = True
    ) -> None:
        self._door = door
        self._believes_counts = counts
        self._warn = warn
        self._relational: dict[Level, bool] = {}
        self._sizes = tuple(dict.fromkeys(min(size, page or size) for size in PAGES))
        self._media_type = _MEDIA_TYPES[0]
        self._longest: dict[Level, int] = {}
        self._heeds_offset = True
        self._claims: dict[str, int] = {}  # UID of a study or series -> how many series or instances it says it has

    async def pages(self, search: Search) -> AsyncGenerator[jsonvalues.Things | Ending, None]:
        """Each page that has something new in it, as it comes; one Ending, last. Raises PeerError."""
        unique = jsonvalues.reader((_TAGS[search.level],))
        keyword = search.level.unique_key
        seen: set[int] = set()
        offset, has_more = 0, False
        while True:
            page = await self._page(search, offset)
            if isinstance(page, Ending):
                yield page
                return
            marks = {hash(str(unique(thing).get(keyword))) for thing in page.things}
            if not page.things:
                yield _cut("says that there are more, and does not give them") if has_more else self._end(search, seen)
                return
            if offset and marks <= seen:
                self._heeds_offset = False
                is_full = has_more or offset == page.limit
                yield _cut("gives the same page again instead of the next") if is_full else self._end(search, seen)
                return
            seen |= marks
            self._learn(search.level, page.things)
            yield page.things
            has_more = page.has_more
            offset += len(page.things)
            if offset > MAX_THINGS:
                raise RemoteProtocolError(f"{self._door.name}: gave more than {MAX_THINGS:,} answers")
            is_all = search.is_everything and not has_more and len(seen) == self._claims.get(search.parent)
            if self._is_last(search.level, page) or is_all:
                yield self._end(search, seen)
                return

    def _end(self, search: Search, seen: set[int]) -> Ending:
        """How a list ended that nothing says was cut, but perhaps its length."""
        count, claimed = len(seen), self._claims.get(search.parent) if search.is_everything else None
        if claimed is not None and count < claimed:
            return _cut(f"says that there are {claimed:,}, and lists {count:,}")
        if claimed is None and _is_round(count - 1):
            return _cut(f"lists {count:,}, one more than a limit may be")
        is_matched_here = bool(search.weakened)  # then what does not match is no news
        return Ending(is_last_word=is_matched_here and self._heeds_offset and not _is_round(count))

    async def answers(self) -> None:
        """Asks for one study, to see that it can be asked. Raises PeerError."""
        search = Search(level=Level.STUDY, path="studies", query=(), wanted=())
        await self._page(search, 0, sizes=(1,))

    async def is_relational(self, level: Level) -> bool:
        """Whether it lists things without the study that they are in; found out once."""
        if level not in self._relational:
            path = "series" if level is Level.SERIES else "instances"
            search = Search(level=level, path=path, query=(), wanted=())
            try:
                await self._page(search, 0, sizes=(1,))
                self._relational[level] = True
            except Refused as refusal:
                self._relational[level] = False
                self._warn(f"{refusal.message}: asking level by level")
        return self._relational[level]

    def _learn(self, level: Level, things: jsonvalues.Things) -> None:
        """Remembers how many things are below each of these, as it says."""
        if level not in _COUNTED or not self._believes_counts:
            return
        read = jsonvalues.reader(_COUNTED[level])
        for thing in things:
            uid, count = [*read(thing).values(), None, None][:2]
            if isinstance(uid, str) and isinstance(count, int):
                if len(self._claims) >= _MOST_CLAIMS:
                    self._claims.clear()
                self._claims[uid] = count

    def _is_last(self, level: Level, page: Page) -> bool:
        """Whether nothing can come after this page; remembers its length."""
        count, longest = len(page.things), self._longest.get(level, 0)
        self._longest[level] = max(longest, count)
        if page.has_more:
            return False
        return count < min(longest, page.limit) if self._heeds_offset else count != page.limit

    async def _page(self, search: Search, offset: int, *, sizes: Sequence[int] = ()) -> Page | Ending:
        """One page, or why there is none. A first page that is refused is asked for again, shorter.

        `sizes`: how many things to ask for, where that is not what was found to be allowed.
        """
        is_list, sizes = not sizes, sizes or self._sizes
        media_types = [self._media_type, *(each for each in _MEDIA_TYPES if each != self._media_type)]
        while True:
            query = [*search.query, ("limit", str(sizes[0]))]
            if offset:
                query.append(("offset", str(offset)))
            headers = {"Accept": media_types[0]}
            async with self._door.exchange(
                "GET", search.path, query=query, headers=headers, expected=_EXPECTED
            ) as answer:
                if answer.status in (_OK, _NONE) or (answer.status == _GONE and search.parent):
                    self._sizes = tuple(sizes) if is_list else self._sizes
                    self._media_type = media_types[0]
                    things = await self._read(answer) if answer.status == _OK else jsonvalues.Things()
                    return Page(things, sizes[0], _says_more(answer))
                words = await answer.words()
            if answer.status in (_TOO_MANY, _BAD) and not offset and len(sizes) > 1:
                sizes = sizes[1:]
            elif answer.status == _TOO_MANY:
                return _cut(f"answers {words}")
            elif answer.status == _NOT_ACCEPTABLE and len(media_types) > 1:
                del media_types[0]
            else:
                raise self._refused(search, answer.status, words)

    async def _read(self, answer: Answer) -> jsonvalues.Things:
        octets = await answer.read(MAX_PAGE_OCTETS)
        try:
            return jsonvalues.objects(octets)
        except RemoteProtocolError as error:
            kind = answer.media_type or "something"
            words = f"{self._door.name}: answered a search with {kind} that is no DICOM JSON"
            raise RemoteProtocolError(words, advice=_ADVICE) from error

    def _refused(self, search: Search, status: int, words: str) -> Refused:
        advice = _ADVICE if status == _GONE and search.level is Level.STUDY else None
        words = f"{self._door.name}: the search for {search.path} was refused: {words}"
        return Refused(words, status=status, advice=advice)


_COUNTED = {Level.STUDY: (0x0020000D, 0x00201206), Level.SERIES: (0x0020000E, 0x00201209)}
_TAGS = {Level.STUDY: 0x0020000D, Level.SERIES: 0x0020000E, Level.INSTANCE: 0x00080018}


def _says_more(answer: Answer) -> bool:
    """Whether a warning (PS3.18 §8.3.4.4) says that there are more than came."""
    warnings = (value.lower() for name, value in answer.headers.items() if name.lower() == "warning")
    return any("299" in warning and "additional" in warning for warning in warnings)


def _is_round(count: int) -> bool:
    """Whether a limit may have this length. Orthanc 1.10 gives one more than its LimitFindResults, over all pages."""
    return count >= 100 and str(count).rstrip("0") in ("1", "2", "25", "5")


def _cut(why: str) -> Ending:
    return Ending(truncated=True, why=f"the peer {why}")
