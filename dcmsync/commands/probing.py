"""Asking a DIMSE node just enough to know how it answers: C-FIND at each level, keys, counts, lists, character set.

Owns what is asked, in which order. Nothing is listed in whole: studies of a day, the series of one of them, the
instances of one of those; and a list that grows beyond `MOST` is left by aborting the association. Where the patient
stands above the study, some patients are looked at until one has a study.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import date, timedelta
from uuid import uuid4

from msgspec import Struct

from dcmsync.contract import PATIENT_KEYWORDS, Level, Want
from dcmsync.endpoints.dimse.asking import Asker
from dcmsync.errors import PeerError, Refused
from dcmsync.net.association import Peer, associate
from dcmsync.net.channel import Limits
from dcmsync.net.patience import Watch
from dcmsync.plan import diagnosis, levels
from dcmsync.plan.diagnosis import Finding, Findings
from dcmsync.wire import dataset
from dcmsync.wire.dimse import status
from dcmsync.wire.upperlayer import contexts
from dcmsync.wire.upperlayer.codec import ProposedContext
from dcmsync.wire.upperlayer.extension import Wishes

MOST = 500  # answers of one list
SYNTAXES = (contexts.EXPLICIT_LITTLE, contexts.IMPLICIT_LITTLE)
_DAYS = (0, 7, 30)  # how far to look back for a study
_PATIENTS = 20  # of which one may have a study, where the model has patients
_MATCHED = ("PatientID", "PatientName", "StudyDate", "StudyTime", "AccessionNumber", "StudyID", "StudyDescription",
            "ModalitiesInStudy")  # fmt: skip
_OTHER = {"StudyDate": "18500101", "StudyTime": "000000.000001", "ModalitiesInStudy": "ZZ"}
_NO_SUCH = "ZZDCMSYNCZZ"


class _Listed(Struct):
    """The answers to one C-FIND. `is_cut`: the peer ended it early; `is_left`: we did."""

    answers: list[dict[str, object]] = []
    is_cut: bool = False
    is_left: bool = False

    def things(self, key: str) -> list[dict[str, object]]:
        """The answers that say which thing they are of."""
        return [answer for answer in self.answers if answer.get(key)]


class Probe:
    """The questions of one examination. Afterwards `want` is an instance that may be retrieved, None without any."""

    def __init__(self, peer: Peer, watch: Watch, limits: Limits, found: Findings, asker: Asker) -> None:
        """`asker` has the information model."""
        self.want: Want | None = None
        self._peer = peer
        self._watch = watch
        self._limits = limits
        self._found = found
        self._asker = asker
        self._patient: dict[str, str] = {}  # its ID, where the model has patients
        self._lengths: list[int] = []
        self._cut: list[int] = []
        self._text = diagnosis.Text()

    async def run(self, sample: Mapping[str, str], today: date) -> None:
        """Asks at each level, and about the ways to ask. `sample`: keys of the studies to look at."""
        studies = await self._checked("find study", lambda: self._studies(sample, today))
        if studies:
            study = diagnosis.smallest(studies, "NumberOfStudyRelatedInstances")
            await self._checked("matching", lambda: self._matching(study))
            series = await self._checked("find series", lambda: self._series(study))
            if series:
                await self._checked("find instance", lambda: self._instances(study, series))
        self._found.add(diagnosis.limit_finding(self._lengths, self._cut, self._found.learnt))
        self._found.add(diagnosis.text_finding(self._text, self._found.learnt))

    async def _checked(
        self, check: str, ask: Callable[[], Awaitable[list[dict[str, object]]]]
    ) -> list[dict[str, object]]:
        """What `ask` gives; nothing, and a finding, when the peer does not go along."""
        try:
            return await ask()
        except PeerError as error:
            self._note(check, False, error.message, error.advice or "")
            return []

    async def _studies(self, sample: Mapping[str, str], today: date) -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        listed = _Listed()
        wanted = self._told(levels.STUDY_KEYS)
        async with aclosing(self._ways(sample, today)) as ways:
            async for keys in ways:
                listed = await self._list(Level.STUDY, keys, wanted)
                found = listed.things("StudyInstanceUID")
                if found:
                    break
        nowhere = await self._list(Level.STUDY, {"StudyInstanceUID": f"2.25.{uuid4().int}"}, ())
        if nowhere.answers:
            self._note("find study", False, "a UID that does not exist was answered with studies",
                       "It ignores StudyInstanceUID, so that nothing can be asked for")
            return []
        if not found:
            self._note("find study", True, "answered; no study was found to look at closer",
                       "Name some: dcmsync doctor NODE StudyDate=20240131")
            return []
        self._note("find study", True, f"answered with {len(found)}{' and more' if listed.is_left else ''}")
        self._found.add(diagnosis.keys_finding(wanted, found))
        await self._uid_list(Level.STUDY, found, {})
        return found

    async def _ways(self, sample: Mapping[str, str], today: date) -> AsyncGenerator[Mapping[str, str], None]:
        """The keys by which studies to look at may be found, one attempt after the other."""
        if not self._asker.model.has_patients:
            for days in _DAYS:
                yield sample or {"StudyDate": _since(today, days)}
                if sample:
                    return
            return
        of_patient = {key: value for key, value in sample.items() if key in PATIENT_KEYWORDS}
        patients = await self._list(Level.PATIENT, of_patient, levels.PATIENT_KEYS)
        of_study = {key: value for key, value in sample.items() if key not in PATIENT_KEYWORDS}
        for patient in patients.things("PatientID")[:_PATIENTS]:
            self._patient = {"PatientID": str(patient["PatientID"])}
            yield of_study

    def _told(self, keys: Sequence[str]) -> tuple[str, ...]:
        """Those of the keys of a study that are asked of studies."""
        has_patients = self._asker.model.has_patients
        return tuple(key for key in keys if not has_patients or key not in PATIENT_KEYWORDS)

    async def _matching(self, study: Mapping[str, object]) -> list[dict[str, object]]:
        """Whether a key with another value finds the study no more, and with its own, where it is told, still does."""
        above = {"StudyInstanceUID": str(study["StudyInstanceUID"])}
        tried: dict[str, bool] = {}
        for key in self._told(_MATCHED):
            value = study.get(key)
            own = str(value[0] if isinstance(value, list) else value or "")
            if not own.isascii() or set(own) & set("*?\\"):
                continue
            try:
                other = await self._list(Level.STUDY, {**above, key: _OTHER.get(key, _NO_SUCH)}, ())
                same = await self._list(Level.STUDY, {**above, key: own}, ()) if own else other
            except Refused:
                tried[key] = False
                continue
            if own or other.answers:
                tried[key] = bool(same.answers) and not other.answers
        self._found.add(diagnosis.matching_finding(tried, study, self._found.learnt))
        return []

    async def _series(self, study: Mapping[str, object]) -> list[dict[str, object]]:
        above = {"StudyInstanceUID": str(study["StudyInstanceUID"])}
        found = (await self._list(Level.SERIES, above, levels.SERIES_KEYS)).things("SeriesInstanceUID")
        self._note("find series", bool(found), f"answered with {len(found)}")
        return found

    async def _instances(
        self, study: Mapping[str, object], series: Sequence[Mapping[str, object]]
    ) -> list[dict[str, object]]:
        chosen = diagnosis.smallest(series, "NumberOfSeriesRelatedInstances")
        above = {key: str(each[key]) for key, each in (("StudyInstanceUID", study), ("SeriesInstanceUID", chosen))}
        listed = await self._list(Level.INSTANCE, above, levels.INSTANCE_KEYS)
        found = listed.things("SOPInstanceUID")
        self._note("find instance", bool(found), f"answered with {len(found)}{' and more' if listed.is_left else ''}")
        claims = [("NumberOfStudyRelatedSeries", study, len(series))]
        claims += [] if listed.is_left else [("NumberOfSeriesRelatedInstances", chosen, len(found))]
        self._found.add(diagnosis.counts_finding(claims, self._found.learnt))
        if found:
            await self._uid_list(Level.INSTANCE, found, above)
            self.want = Want(
                study_uid=above["StudyInstanceUID"], series_uid=above["SeriesInstanceUID"], whole=False,
                instances={str(found[0]["SOPInstanceUID"]): str(found[0].get("SOPClassUID", ""))},
                patient_id=self._patient.get("PatientID", str(study.get("PatientID", ""))),
            )  # fmt: skip
        return found

    async def _uid_list(self, level: Level, found: Sequence[Mapping[str, object]], above: Mapping[str, str]) -> None:
        """Whether two UIDs in one key find two things. Asked once, at the first level that has two."""
        uids = [str(each[level.unique_key]) for each in found[:2]]
        if len(set(uids)) < 2 or self._found.has("uid lists"):
            return
        came: set[object] = set()
        with suppress(Refused):
            listed = await self._list(level, {**above, level.unique_key: "\\".join(uids)}, ())
            came = {answer.get(level.unique_key) for answer in listed.answers}.intersection(uids)
        self._found.add(diagnosis.lists_finding(len(came), self._found.learnt))

    async def _list(self, level: Level, keys: Mapping[str, str], wanted: Sequence[str]) -> _Listed:
        """One C-FIND on an association of its own, up to MOST answers. Raises PeerError."""
        above = self._patient if level > Level.PATIENT else {}
        asked = {level.unique_key: "", **dict.fromkeys(wanted, ""), **keys, **above}
        listed = _Listed()
        find_class = self._asker.find_class(level)
        proposed = (ProposedContext(1, find_class, SYNTAXES),)
        async with associate(self._peer, proposed, watch=self._watch, limits=self._limits) as association:
            answers = association.find(
                find_class, lambda syntax: self._asker.encode(asked, level, syntax, agreed=Wishes())
            )
            async with aclosing(answers):
                async for answer in answers:
                    if answer.status not in status.PENDING:
                        listed.is_cut = self._is_cut(answer.status)
                    elif answer.identifier is not None:
                        listed.answers.append(self._read(answer.identifier, answer.transfer_syntax))
                        association.progress()
                        if len(listed.answers) == MOST:
                            listed.is_left = True
                            await association.abort()
                            break
        if listed.is_cut:
            self._cut.append(len(listed.answers))
        elif not listed.is_left:
            self._lengths.append(len(listed.answers))
        return listed

    def _is_cut(self, code: int) -> bool:
        """Whether a final status means that the list was cut. Raises Refused."""
        if code == status.CANCELLED or code >> 8 == status.OUT_OF_RESOURCES >> 8:
            return True
        if status.is_failure(code):
            raise Refused(f"the query was refused: {status.words(code, 'C-FIND')}", status=code)
        return False

    def _read(self, identifier: bytes, syntax: str) -> dict[str, object]:
        answer = dataset.decode_identifier(identifier, syntax, keep_empty=True)
        self._text.take(answer.pop("SpecificCharacterSet", None), answer.values())
        return answer

    def _note(self, check: str, ok: bool | None, words: str, advice: str = "") -> None:
        self._found.add(Finding(check=check, ok=ok, words=words, advice=advice))


def _since(today: date, days: int) -> str:
    return f"{today:%Y%m%d}" if not days else f"{today - timedelta(days=days):%Y%m%d}-{today:%Y%m%d}"
