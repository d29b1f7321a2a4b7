"""One conversation with a DICOMweb server: QIDO-RS, WADO-RS and STOW-RS as `contract.py` promises.

Owns what an answer to a search must tell before it counts, and patients, which DICOMweb does not know: they are
gathered from studies. Refuses to match (whoever asks does), and to judge what arrives.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from dcmsync.contract import PATIENT_KEYWORDS, Ask, Attributes, Ending, Level, Manner, Receiver, Together, Want
from dcmsync.endpoints.dicomweb.asking import Search, search_of
from dcmsync.endpoints.dicomweb.describing import Describer
from dcmsync.endpoints.dicomweb.listing import Lister
from dcmsync.endpoints.dicomweb.retrieving import Retriever
from dcmsync.endpoints.dicomweb.storing import Storer
from dcmsync.quirks import Quirks
from dcmsync.wire import jsonvalues
from dcmsync.wire.upperlayer.extension import Wishes


class Session:
    """Satisfies contract.Holds, contract.StoresTogether and contract.Describes. `quirks` are those of its server."""

    def __init__(
        self,
        lister: Lister,
        retriever: Retriever,
        storer: Storer,
        describer: Describer,
        quirks: Quirks,
        wishes: Wishes,
    ) -> None:
        self.quirks = quirks
        self.is_ready_for = storer.is_ready_for
        self.prepare = storer.prepare
        self.store = storer.store
        self.store_together = storer.store_together
        self.commit = storer.commit
        self.describe = describer.describe
        self._lister = lister
        self._retriever = retriever
        self._storer = storer
        self._wishes = wishes

    @property
    def together(self) -> Together:
        """How much may go into one delivery."""
        return self._storer.together

    async def find(self, ask: Ask) -> AsyncGenerator[Attributes | Ending, None]:
        """The answers of one search, page by page; see `contract.Finds`."""
        if ask.level is Level.PATIENT:
            answers = self._patients(ask)
        else:
            takes_lists = not self.quirks.no_uid_lists
            answers = self._list(search_of(ask, takes_lists=takes_lists, fuzzy=self._wishes.fuzzy))
        async with aclosing(answers):
            async for answer in answers:
                yield answer

    async def fetch(self, want: Want, receiver: Receiver) -> Ending:
        """WADO-RS of a series, or of some of its instances; see `contract.Fetches`."""
        return await self._retriever.fetch(want, receiver)

    async def manner(self, level: Level) -> Manner:
        """How things of a level are asked for. Where it is wished for, the server is tried: nothing else tells."""
        relational = self._wishes.relational and level > Level.STUDY and await self._lister.is_relational(level)
        return Manner(relational=relational, fuzzy=self._wishes.fuzzy)

    async def rest(self) -> None:
        """Nothing is held: a connection that idles serves whoever is next."""

    async def _list(self, search: Search) -> AsyncGenerator[Attributes | Ending, None]:
        """The answers. One that lacks what the server was not fully asked by is not known to match."""
        read = jsonvalues.reader(search.wanted)
        untold = dict.fromkeys(sorted(search.weakened), 0)
        told: set[str] = set()
        async with aclosing(self._lister.pages(search)) as pages:
            async for page in pages:
                if isinstance(page, Ending):
                    yield _ending(page, [keyword for keyword in untold if untold[keyword] and keyword not in told])
                    return
                for thing in page:
                    attributes = read(thing)
                    lacking = [keyword for keyword in untold if keyword not in attributes]
                    told.update(keyword for keyword in untold if keyword in attributes)
                    for keyword in lacking:
                        untold[keyword] += 1
                    if not lacking:
                        yield attributes

    async def _patients(self, ask: Ask) -> AsyncGenerator[Attributes | Ending, None]:
        """Patients, each once, from what the studies say."""
        own = PATIENT_KEYWORDS - {keyword for keyword in PATIENT_KEYWORDS if keyword.startswith("NumberOfPatient")}
        keys = {keyword: value for keyword, value in ask.keys.items() if keyword in own}
        wanted = tuple(dict.fromkeys(keyword for keyword in (*ask.keys, *ask.wanted) if keyword in own))
        seen: set[tuple[str, str]] = set()
        async with aclosing(self.find(Ask(level=Level.STUDY, keys=keys, wanted=wanted))) as studies:
            async for study in studies:
                if isinstance(study, Ending):
                    yield study
                    return
                patient = {keyword: study[keyword] for keyword in wanted if keyword in study}
                mark = str(patient.get("PatientID", "")), str(patient.get("IssuerOfPatientID", ""))
                if mark not in seen:
                    seen.add(mark)
                    yield patient


def _ending(ending: Ending, untold: list[str]) -> Ending:
    """How a list ended of which nothing told what it was to be matched by: it may lack what was left out."""
    if not untold or ending.truncated:
        return ending
    why = f"the peer cannot be asked by {untold[0]} as it is written, and does not tell it either"
    return Ending(truncated=True, is_last_word=True, why=why)


