"""What sources say of instances without giving them: one line of DICOM JSON for each, in the order in which they come.

Owns that each instance of the inventory is described once, or is known to be lacking: a series is asked for as a whole,
then what lacks one by one. Refuses to move an instance. Series follow each other; nothing is held but UIDs of one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing

from dcmsync.contract import Attributes, Describes, Level, Session, Source, Want
from dcmsync.errors import ExitStatus, LocalTrouble, PeerError, Refused, Rejected, Stalled, Unreachable, UsageError
from dcmsync.plan.levels import Query
from dcmsync.transfer.inventory import Inventory
from dcmsync.transfer.works import Work

Told = tuple[str, str, list[str]]
"""Study and Series Instance UID, and the SOP Instance UIDs that are wanted of the series."""


class Describing:
    """One run. `write` takes each line without its end; `say` and `warn` hear of trouble, without patient data."""

    def __init__(
        self,
        open_source: Callable[[str], Source],
        *,
        write: Callable[[bytes], object],
        say: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        self.status = ExitStatus.DONE
        self._open_source = open_source
        self._write = write
        self._say = say
        self._warn = warn
        self._sessions: dict[str, Session] = {}

    async def run(self, works: AsyncIterable[Sequence[Work]]) -> ExitStatus:
        """Describes all of it. Raises UsageError where a source can give nothing of the kind, InputError."""
        async with AsyncExitStack() as stack:
            async for group in works:
                session = await self._session(group[0].source, stack)
                try:
                    async with aclosing(self._series(group, session)) as series:
                        async for told in series:
                            if not await self._is_reached(group[0].source, session, told):
                                break
                except (PeerError, LocalTrouble) as error:
                    self._fail(str(error), error.exit_status)
        return self.status

    async def _session(self, source: str, stack: AsyncExitStack) -> Session:
        if source not in self._sessions:
            session = await stack.enter_async_context(self._open_source(source).session())
            if not isinstance(session, Describes):
                raise UsageError(
                    f"{source} does not tell metadata by itself",
                    advice="DICOMweb services do; of others, pull the instances, and use dcmsync dump",
                )
            self._sessions[source] = session
        return self._sessions[source]

    async def _series(self, group: Sequence[Work], session: Session) -> AsyncGenerator[Told, None]:
        """The series that a record, or several instances of one, name, each with its inventory."""
        first = group[0]
        if first.level is Level.INSTANCE:
            yield _told(first.attributes, [str(work.attributes["SOPInstanceUID"]) for work in group])
            return
        inventory = Inventory(session, name=first.source, warn=self._warn)
        query = Query(level=Level.INSTANCE, keys={}, usual=False)
        told: Told | None = None
        async with aclosing(inventory.walk(query, first.attributes)) as instances:
            async for instance in instances:
                uid = str(instance["SOPInstanceUID"])
                if told is not None and told[1] == instance["SeriesInstanceUID"]:
                    told[2].append(uid)
                    continue
                if told is not None:
                    yield told
                told = _told(instance, [uid])
        if not inventory.is_complete:
            self._fail("", ExitStatus.INCOMPLETE)
        if told is None:
            raise Refused(f"{first.source}: the {first.level.word} is not there (any more)", status=0)
        yield told

    async def _is_reached(self, source: str, session: Session, told: Told) -> bool:
        """Describes one series; whether the next may be asked for, too."""
        try:
            await self._describe(source, session, told)
        except PeerError as error:
            self._fail(str(error), error.exit_status)
            return not isinstance(error, Unreachable | Rejected | Stalled)
        return True

    async def _describe(self, source: str, session: Session, told: Told) -> None:
        """Writes what is said of each instance of a series, once. Raises PeerError."""
        assert isinstance(session, Describes)
        study_uid, series_uid, uids = told
        lacking = dict.fromkeys(uids, "")
        fault: PeerError | None = None
        for whole in (True, False):
            want = Want(study_uid=study_uid, series_uid=series_uid, instances=dict(lacking), whole=whole)
            if whole and len(uids) == 1:
                continue
            try:
                async with aclosing(session.describe(want)) as descriptions:
                    async for description in descriptions:
                        if description.sop_instance_uid in lacking:
                            del lacking[description.sop_instance_uid]
                            self._write(description.json)
            except PeerError as error:
                fault = error
            if not lacking:
                return
        if fault is not None:
            raise fault
        self._fail(f"{source}: tells no metadata of {len(lacking):,} instances of a series", ExitStatus.FAILED)

    def _fail(self, words: str, status: ExitStatus) -> None:
        self.status = max(self.status, status)
        if words:
            self._say(words)


def _told(attributes: Attributes, uids: list[str]) -> Told:
    return str(attributes["StudyInstanceUID"]), str(attributes["SeriesInstanceUID"]), uids
