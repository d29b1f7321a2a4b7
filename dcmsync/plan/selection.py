"""Which elements somebody wants to see: keywords, tags, groups, patterns and `private`, to include and to exclude.

Owns reading these words and judging a tag by them. An exclude wins over an include. Refuses to know PS3.6: keywords
come from the caller.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from dcmsync.errors import UsageError

_TAG = re.compile(r"\(?([0-9a-fx]{4}),?([0-9a-fx]{4})\)?", re.ASCII | re.IGNORECASE)
_GROUP = re.compile(r"[0-9a-fx]{4}", re.ASCII | re.IGNORECASE)
_WORD = re.compile(r"\(?[0-9a-fx]{4},[0-9a-fx]{4}\)?(?=,|$)|[^,]+", re.ASCII | re.IGNORECASE)

Judge = Callable[[int, str], bool]
"""Whether one word is true of a tag and its keyword."""


class Selection:
    """What is wanted, by the words of --include and --exclude. Raises UsageError for a word that means nothing."""

    def __init__(self, include: Sequence[str], exclude: Sequence[str], *, keywords: Callable[[], Iterable[str]],
                 keyword_of: Callable[[int], str], tag_of: Callable[[str], int]) -> None:
        self._keywords = keywords
        self._keyword_of = keyword_of
        self._tag_of = tag_of
        self._includes = [self._read(word) for words in include for word in _WORD.findall(words)]
        self._excludes = [self._read(word) for words in exclude for word in _WORD.findall(words)]
        self._known: dict[int, bool | None] = {}

    @property
    def is_everything(self) -> bool:
        """Whether nothing was asked for in particular."""
        return not (self._includes or self._excludes)

    def judge(self, tag: int) -> bool | None:
        """True: wanted, with all that is in it. False: neither. None: only something in it may be wanted."""
        if tag not in self._known:
            if len(self._known) > _MAX_KNOWN:
                self._known.clear()
            keyword = self._keyword_of(tag)
            if any(is_true(tag, keyword) for is_true in self._excludes):
                self._known[tag] = False
            else:
                wanted = not self._includes or any(is_true(tag, keyword) for is_true in self._includes)
                self._known[tag] = True if wanted else None
        return self._known[tag]

    def _read(self, word: str) -> Judge:
        word = word.strip()
        if word == "private":
            return lambda tag, keyword: bool(tag >> 16 & 1)
        found = _TAG.fullmatch(word)
        if found:
            return _mask("".join(found.groups()))
        if _GROUP.fullmatch(word):
            return _mask(word + "xxxx")
        if "*" in word or "?" in word:
            if not any(fnmatchcase(keyword, word) for keyword in self._keywords()):
                raise UsageError(f"no keyword of DICOM matches {word!r}",
                                 advice="Patterns are like Patient*, and upper and lower case differ")
            return lambda tag, keyword: bool(keyword) and fnmatchcase(keyword, word)
        self._check(word)
        return lambda tag, keyword: keyword == word

    def _check(self, word: str) -> None:
        """Raises UsageError when the word is no keyword, not even of a repeating group."""
        if word not in self._keywords():
            self._tag_of(word)


_MAX_KNOWN = 100_000


def _mask(digits: str) -> Judge:
    """The judge of a tag of eight digits, where x stands for any."""
    bits = int("".join("0" if digit in "xX" else "f" for digit in digits), 16)
    wanted = int(digits.replace("x", "0").replace("X", "0"), 16)
    return lambda tag, keyword: tag & bits == wanted
