"""Every file that is remembered of a folder, read again: is it still what it was?

Owns which files are read, the outcome of each, and that what was found is remembered. Refuses to mend: a file that
rotted is known as such afterwards, and the next sync replaces it.

Theory of operation. What is known of a file is compared before anything is brought up to date, so that a change shows
as a change and is not simply taken in. What comes to light for the first time is read afterwards, to know its digests.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain

from msgspec import Struct

from dcmsync.contract import Catalogue, Holding
from dcmsync.errors import ExitStatus
from dcmsync.plan.proof import Holds, Lowest
from dcmsync.records.paths import path_keys

BATCH_FILES = 100

ReadAgain = Callable[[Holding], Holding | None]


class Settings(Struct, frozen=True, kw_only=True):
    """How to read again. `portion`: which instances; `place`: how records call the folder."""

    place: str
    portion: Holds | Lowest
    itemize: bool = False


class Rereading:
    """One run over a catalogue."""

    def __init__(
        self,
        catalogue: Catalogue,
        settings: Settings,
        *,
        read_again: ReadAgain,
        take_stock: Callable[[], object],
        write: Callable[[Mapping[str, object]], None],
    ) -> None:
        self._catalogue = catalogue
        self._settings = settings
        self._read_again = read_again
        self._take_stock = take_stock
        self._write = write
        self._fresh: list[Holding] = []
        self._gone: list[str] = []
        self._unreadable: set[str] = set()
        self.read = self.bad = 0

    def run(self) -> ExitStatus:
        """Reads what is known, then what is new. Raises LocalTrouble."""
        is_chosen = self._is_chosen()
        for known in self._remembered():
            if is_chosen(known.sop_instance_uid):
                self._compare(known)
        self._keep(0)
        self._take_stock()
        is_chosen = self._is_chosen()
        for known in self._catalogue.holdings():
            if not known.read_ns and known.path not in self._unreadable and is_chosen(known.sop_instance_uid):
                self._compare(known)
        self._keep(0)
        return ExitStatus.NO if self.bad else ExitStatus.DONE

    def _is_chosen(self) -> Holds:
        portion = self._settings.portion
        if not isinstance(portion, Lowest):
            return portion
        chosen = portion.afresh()
        for known in self._remembered():
            chosen.offer(known.sop_instance_uid)
        return chosen.is_chosen

    def _remembered(self) -> Iterator[Holding]:
        """What was a whole instance once. What is found rotten, or sound again, meanwhile is not met twice."""
        rotten = [known for known in self._catalogue.others() if known.state == "rotten"]
        return chain(self._catalogue.holdings(), rotten)

    def _compare(self, known: Holding) -> None:
        self.read += 1
        try:
            fresh = self._read_again(known)
        except OSError as trouble:
            self._unreadable.add(known.path)
            self._say(known, "unreadable", (trouble.strerror or "unreadable").lower())
            return
        if fresh is None:
            self._gone.append(known.path)
            self._say(known, "missing", "the file is gone")
        else:
            self._fresh.append(fresh)
            self._say(fresh, *_judge(known, fresh))
        self._keep(BATCH_FILES)

    def _say(self, holding: Holding, reason: str, message: str) -> None:
        self.bad += bool(reason)
        if not (reason or self._settings.itemize):
            return
        self._write({
            "type": "outcome",
            "level": "instance",
            "outcome": "failed" if reason else "present",
            "StudyInstanceUID": holding.study_uid,
            "SeriesInstanceUID": holding.series_uid,
            "SOPInstanceUID": holding.sop_instance_uid,
            "destination": self._settings.place,
            **path_keys(holding.path),
            "size": holding.stamp.size,
            **({"digest": f"xxh3:{holding.digest}"} if holding.digest and not reason else {}),
            **({"reason": reason} if reason else {}),
            "message": message,
        })  # fmt: skip

    def _keep(self, few: int) -> None:
        """Remembers what was found, once it is more than a few."""
        if len(self._fresh) > few:
            self._catalogue.remember(self._fresh)
            self._fresh.clear()
        if len(self._gone) > few:
            self._catalogue.forget(self._gone)
            self._gone.clear()


def _judge(known: Holding, fresh: Holding) -> tuple[str, str]:
    """What is wrong with a file, in a word and a sentence; no word when nothing is."""
    if fresh.state == "rotten":
        return "rotten", "its octets changed, and its size and time did not: the next sync replaces it"
    if fresh.state != "whole":
        return fresh.state.replace(" ", "_"), fresh.reason
    if known.digest and known.digest == fresh.digest:
        return "", "every octet is as it was"
    if known.digest or known.stamp.size != fresh.stamp.size:
        return "changed", "the file changed since it was remembered"
    return "", "every octet was read, for the first time"
