"""Instances into the pre-archive of a project: zip archives to XNAT's import service.

Owns which session an instance goes to, what it is called there, and that nothing is sent twice by mistake. Refuses to
prove what arrived (who sent it asks again), to archive, and to overwrite.

Theory of operation. XNAT makes a new session for each upload unless it is told which one to add to, so the first batch
of a study looks for one: in the pre-archive it is added to; a study that is in the archive already is refused as a
duplicate. All batches of a study go to the same session, one after the other. An upload is not repeatable: when its
answer does not come, the session is looked at before anything else is done, and only if it did not grow by all that was
sent are the instances told as lost, to be sent again. An upload that is refused may have left instances: they go again
one by one, into the same session.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote

import anyio
import anyio.to_thread
from msgspec import Struct

from dcmsync.contract import Ending, Parcel
from dcmsync.endpoints.xnat.listing import Kept, Lister, newest, path_of
from dcmsync.endpoints.xnat.packing import Pack
from dcmsync.errors import LocalTrouble, OutOfResources, PeerError, Refused, Rejected
from dcmsync.net.http import Door, Query
from dcmsync.net.parcels import read_at_of
from dcmsync.wire.arrived import STUDY_INSTANCE_UID
from dcmsync.wire.dimse import status
from dcmsync.wire.elements import walk
from dcmsync.wire.part10 import text
from dcmsync.wire.source import Distant

IMPORT = "data/services/import"
_ACCESSION_NUMBER, _PATIENT_ID, _STUDY_ID = 0x00080050, 0x00100020, 0x00200010
_TOLD = frozenset((_ACCESSION_NUMBER, _PATIENT_ID, STUDY_INSTANCE_UID, _STUDY_ID))
_DUPLICATE = 0x0111  # PS3.7 §C.5.7
_FULL = 507
_DISLIKED = frozenset((400, 409, 422))  # one instance of it, or all
_JUDGED = _DISLIKED | {200, 201}
_SETTLE_S = (0.25, 1.0, 3.0)
_ODD = re.compile(r"[^A-Za-z0-9_-]")
_HEADING = re.compile(r"<h3>(.*?)</h3>", re.DOTALL | re.IGNORECASE)
_ANSWER_OCTETS = 1 << 20

Answer = Ending | LocalTrouble


class Named(Struct, frozen=True):
    """A study, and what a session of it is to be called; `subject` is "" where XNAT may choose."""

    study_uid: str
    subject: str
    label: str


class Importer:
    """Uploads to one project, for all sessions with it."""

    def __init__(self, door: Door, lister: Lister) -> None:
        self.name = door.name
        self._door = door
        self._lister = lister
        self._paths: dict[str, str] = {}  # Study Instance UID -> its session
        self._counts: dict[str, int] = {}  # and how many files that has, if all that were sent are there
        self._turns: dict[str, anyio.Lock] = {}

    async def store(self, parcels: Sequence[Parcel]) -> list[Answer]:
        """The word on each, in order. Raises PeerError when nobody knows what has arrived."""
        named = await anyio.to_thread.run_sync(lambda: [named_by(parcel) for parcel in parcels])
        answers: dict[int, Answer] = {}
        studies: dict[str, list[int]] = {}
        for at, each in enumerate(named):
            if isinstance(each, LocalTrouble):
                answers[at] = each
            elif each.study_uid:
                studies.setdefault(each.study_uid, []).append(at)
            else:
                words = f"{self.name}: not sent: the instance does not say which study it is of"
                answers[at] = Ending(status=status.DOES_NOT_MATCH_CLASS, why=words)
        trouble: PeerError | None = None
        for study_uid, places in studies.items():
            first, some = named[places[0]], [parcels[at] for at in places]
            assert isinstance(first, Named)
            if trouble is None:
                try:
                    async with self._turns.setdefault(study_uid, anyio.Lock()):
                        answers.update(zip(places, await self._store(first, some), strict=True))
                    continue
                except PeerError as error:
                    trouble = error
            answers.update(dict.fromkeys(places, _not_now(trouble)))
        if trouble is not None and all(_is_not_now(answer, trouble) for answer in answers.values()):
            raise trouble
        return [answers[at] for at in range(len(parcels))]

    async def _store(self, named: Named, parcels: Sequence[Parcel]) -> list[Answer]:
        """The word on each instance of one study. Raises PeerError."""
        session = await self._session_for(named.study_uid)
        if isinstance(session, Ending):
            return [session] * len(parcels)
        body = await anyio.to_thread.run_sync(Pack, parcels)
        if (unread := body.trouble) is not None:
            return await self._without(unread, named, parcels)
        before = self._counts.get(named.study_uid, 0)
        if session is not None and named.study_uid not in self._counts:
            before = await self._lister.instances(session)
        try:
            said = await self._upload(named, session, body)
        except (PeerError, LocalTrouble) as error:
            if isinstance(error, Rejected):
                raise
            arrived = await self._look_for(named.study_uid) - before  # fewer, too, where the site drops some
            if body.trouble is not None:
                return await self._without(body.trouble, named, parcels)
            if arrived != len(parcels):
                raise
            return [Ending()] * len(parcels)
        if said.status in _DISLIKED and len(parcels) > 1:
            await self._look_for(named.study_uid)  # what stood before the one that it disliked is there
            return await self._one_by_one(named, parcels)
        if not said.status:
            self._counts[named.study_uid] = before + len(parcels)
            said = await self._settled(named)
        return [said] * len(parcels)

    async def _one_by_one(self, named: Named, parcels: Sequence[Parcel]) -> list[Answer]:
        """The word on each, of which one spoilt an upload. What arrived is known even if a later one breaks."""
        answers: list[Answer] = []
        for parcel in parcels:
            try:
                answers += await self._store(named, [parcel])
            except PeerError as error:
                if not answers:
                    raise
                return [*answers, *[_not_now(error)] * (len(parcels) - len(answers))]
        return answers

    async def _without(
        self, trouble: tuple[int, LocalTrouble], named: Named, parcels: Sequence[Parcel]
    ) -> list[Answer]:
        """The word on all but the one that could not be read, which ended an upload, or kept it from beginning."""
        at, why = trouble
        rest = [*parcels[:at], *parcels[at + 1 :]]
        answers = await self._store(named, rest) if rest else []
        return [*answers[:at], why, *answers[at:]]

    async def _session_for(self, study_uid: str) -> Kept | Ending | None:
        """The session that a study goes to, None for a new one; an ending when nothing of it may be sent now."""
        path = self._paths.get(study_uid)
        session = await self._lister.session(path) if path is not None else None
        if session is None:  # or it was archived while more of it waited
            known = await self._lister.of_study(study_uid)
            session = newest(known)
            if session is None and known:
                words = f"{self.name}: not sent: the archive has the study already, as {known[0].label}"
                return Ending(status=_DUPLICATE, why=f"{words}; dcmsync diff --trust counts compares them")
        if session is None or session.path != path:
            self._counts.pop(study_uid, None)
        for wait_s in _SETTLE_S:
            if session is None or session.is_settled:
                break
            await anyio.sleep(wait_s)
            session = await self._lister.session(session.path)
        if session is not None and not session.is_settled:
            words = f"{self.name}: the session is {session.status} in the pre-archive"
            return Ending(status=status.OUT_OF_RESOURCES, may_pass=True, why=words)
        if session is not None:
            self._paths[study_uid] = session.path
        return session

    async def _look_for(self, study_uid: str) -> int:
        """How many files of a study are in the pre-archive; the next batch goes there. Raises PeerError."""
        if study_uid in self._paths:
            session = await self._lister.session(self._paths[study_uid])
        else:
            session = newest([kept for kept in await self._lister.prearchive() if kept.study_uid == study_uid])
        if session is None:
            return 0
        self._paths[study_uid] = session.path
        self._counts[study_uid] = await self._lister.instances(session)
        return self._counts[study_uid]

    async def _upload(self, named: Named, session: Kept | None, body: Pack) -> Ending:
        """One upload: status 0 when XNAT took it; of HTTP when it disliked an instance of it, or all.

        Raises Rejected, PeerError.
        """
        target = f"/prearchive/projects/{self._lister.project}" if session is None else unquote(session.path)
        query: Query = (("import-handler", "DICOM-zip"), ("inbody", "true"), ("dest", target))
        if session is None:
            query = (*query, *((("subject", named.subject),) if named.subject else ()), ("session", named.label))
        try:
            async with self._door.exchange(
                "POST", IMPORT, query=query, body=body, headers={"Accept": "*/*"}, repeatable=False,
                expected=_JUDGED,
            ) as answer:
                said = (await answer.read(_ANSWER_OCTETS)).decode("utf-8", "replace")
                code = answer.status
        except OutOfResources as error:
            return Ending(status=status.OUT_OF_RESOURCES, may_pass=True, why=error.message)
        except Refused as error:
            if error.status == _FULL:
                return Ending(status=status.OUT_OF_RESOURCES, may_pass=True, why=error.message)
            raise Rejected(f"{self.name}: takes no uploads: {error.message.removeprefix(f'{self.name}: ')}") from error
        if code >= 400:
            return Ending(status=code, why=f"{self.name}: answered {code}: {_said(said)}")
        path = next((line.strip() for line in said.splitlines() if "/prearchive/" in line), "")
        if path and session is None:
            self._paths[named.study_uid] = path_of(path)
        return Ending()

    async def _settled(self, named: Named) -> Ending:
        """What has become of a session after an upload that XNAT took."""
        path = self._paths.get(named.study_uid)
        session = await self._lister.session(path) if path else None
        words = f"{self.name}: took the upload, and "
        if session is None:
            return Ending(status=status.WARNING_SUBOPERATIONS, is_warning=True, why=f"{words}lists no session of it")
        if session.study_uid != named.study_uid:
            words += "keeps it under another Study Instance UID"
            return Ending(status=status.WARNING_SUBOPERATIONS, is_warning=True, why=words)
        if session.status.strip("_").upper() in ("CONFLICT", "ERROR"):
            words += f"marks its session {session.label} in the pre-archive as {session.status}"
            return Ending(status=status.WARNING_SUBOPERATIONS, is_warning=True, why=words)
        return Ending()


def named_by(parcel: Parcel) -> Named | LocalTrouble:
    """What an instance says of its study, and the names that follow from it. Reads its first elements."""
    try:
        source = Distant(read_at_of(parcel), parcel.size)
        syntax = parcel.arrival.transfer_syntax_uid
        found = walk(source, syntax, wanted=_TOLD, stop_after=max(_TOLD)).values
    except OSError as trouble:
        return LocalTrouble(f"a file cannot be read: {(trouble.strerror or 'unknown error').lower()}")
    told = {tag: text(found[tag][1]) if tag in found else "" for tag in _TOLD}
    study_uid, subject = told[STUDY_INSTANCE_UID], cleaned(told[_PATIENT_ID])
    own_id = f"{told[_PATIENT_ID]}_{told[_STUDY_ID]}" if told[_PATIENT_ID] and told[_STUDY_ID] else study_uid
    return Named(study_uid, subject, cleaned(told[_ACCESSION_NUMBER] or own_id))


def _not_now(error: PeerError) -> Ending:
    """The answer to what was not sent, or may not have arrived, because another upload broke."""
    return Ending(status=status.OUT_OF_RESOURCES, may_pass=True, why=error.message)


def _is_not_now(answer: Answer, error: PeerError) -> bool:
    return isinstance(answer, Ending) and answer == _not_now(error)


def cleaned(label: str) -> str:
    """A label as XNAT has them: letters, digits, `_` and `-`."""
    return _ODD.sub("_", label.strip())[:64]


def _said(page: str) -> str:
    """What an error says: of a page, its heading."""
    found = _HEADING.search(page)
    words = re.sub(r"<[^>]*>", " ", found[1] if found else page)
    return " ".join("".join(c if c.isprintable() else " " for c in words).split())[:200]
