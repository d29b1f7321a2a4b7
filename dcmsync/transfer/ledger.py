"""The account of one series at one destination: what was asked for, what became of it, and what that makes of it.

Pure bookkeeping and the outcome records; refuses to move anything. The verdict follows the instances, never a status:
the series is done when each instance of its inventory is stored or present.
"""

from collections.abc import Iterator, Mapping

from msgspec import UNSET
from msgspec.structs import replace

from dcmsync.contract import Attributes, Ending, Landed
from dcmsync.errors import DcmsyncError, ExitStatus, OutOfResources, Refused
from dcmsync.records.model import LevelWord, Outcome, Result

_HTTP = range(400, 528)  # statuses of HTTP that are errors; those of DIMSE lie below and above (PS3.7 Annex C)
_TRY_AGAIN = frozenset(("stalled", "disconnected", "unreachable", "rejected", "missing", "local"))
_UNSETTLED = frozenset(("interrupted", "changed"))  # nothing is wrong with the instance; the moment was


class Ledger:
    """One series of one source. `wanted` is its inventory: SOP Instance UID -> SOP Class UID, "" where unknown.

    It is the caller's, who fills it in and keeps it.
    """

    def __init__(
        self,
        *,
        source: str,
        destination: str,
        attributes: Attributes,
        wanted: Mapping[str, str],
        dry_run: bool = False,
    ) -> None:
        self.source = source
        self.study_uid = str(attributes["StudyInstanceUID"])
        self.series_uid = str(attributes.get("SeriesInstanceUID", ""))
        self.attributes = attributes
        self.wanted = wanted
        self.status = ExitStatus.DONE
        self.destination = destination
        self._dry_run = dry_run
        self._outcomes: dict[str, Outcome] = {}
        self._unproven: set[str] = set()
        self._failure: Outcome | None = None
        self._trusted: int | None = None

    @property
    def lacking(self) -> dict[str, str]:
        """What is wanted and has no verdict yet."""
        return {uid: kind for uid, kind in self.wanted.items() if uid not in self._outcomes}

    def lacks(self, sop_instance_uid: str) -> bool:
        """Whether this instance is wanted and has no verdict yet."""
        return sop_instance_uid in self.wanted and sop_instance_uid not in self._outcomes

    def is_fine(self, sop_instance_uid: str) -> bool:
        """Whether this instance is at the destination."""
        outcome = self._outcomes.get(sop_instance_uid)
        return outcome is not None and outcome.outcome in ("stored", "present")

    @property
    def unproven(self) -> dict[str, Outcome]:
        """What was stored by the word of the destination, and nobody has proven yet; by SOP Instance UID."""
        return {uid: self._outcomes[uid] for uid in self.wanted if uid in self._unproven}

    def proven(self) -> None:
        """All that is called stored is there."""
        self._unproven.clear()

    def take_back(self, sop_instance_uid: str) -> None:
        """The destination said that it stored this instance, and does not have it: it lacks again."""
        self._unproven.discard(sop_instance_uid)
        del self._outcomes[sop_instance_uid]

    def doubt(self, sop_instance_uid: str, message: str) -> None:
        """The destination said that it stored this instance, and nobody can tell whether it did."""
        self._unproven.discard(sop_instance_uid)
        self._raise(ExitStatus.FAILED)
        outcome = self._outcomes[sop_instance_uid]
        self._outcomes[sop_instance_uid] = replace(outcome, reason="unproven", message=message)

    def disprove(self, sop_instance_uid: str, reason: str, message: str) -> None:
        """The destination said that it stored this instance, and it is not there, or is another."""
        self._unproven.discard(sop_instance_uid)
        self._raise(ExitStatus.FAILED)
        self._note(sop_instance_uid, "failed", reason=reason, message=message, retry=False)

    def all_present(self, instances: int) -> None:
        """As many instances are there as the source says it has, and that is trusted."""
        self._trusted = instances

    def undo(self, trouble: DcmsyncError) -> None:
        """What was called stored is not there after all, because of `trouble`."""
        for uid, outcome in self._outcomes.items():
            if outcome.outcome == "stored" and not self._dry_run:
                self._raise(trouble.exit_status)
                self._note(uid, "failed", reason=trouble.reason, message=str(trouble), retry=True)

    def present(self, sop_instance_uid: str, path: str, size: int) -> None:
        """An instance is at the destination already, whole."""
        self._note(sop_instance_uid, "present", path=path, size=size)

    def conflict(self, sop_instance_uid: str, message: str) -> None:
        """The destination has another instance of this UID, or may have, and keeps it."""
        self._raise(ExitStatus.FAILED)
        self._note(sop_instance_uid, "conflict", reason="differs", message=f"{message}; --force sends it all the same")

    def would_store(self, sop_instance_uid: str) -> None:
        """A dry run would bring this instance."""
        self._note(sop_instance_uid, "stored")

    def relayed(self, sop_instance_uid: str) -> None:
        """The source says that it sent this instance there itself."""
        self._unproven.add(sop_instance_uid)
        self._note(sop_instance_uid, "stored")

    def landed(self, verdict: Landed) -> None:
        """An instance landed, well or not."""
        uid = verdict.arrival.sop_instance_uid
        earlier = self._outcomes.get(uid)
        if earlier is not None and earlier.outcome != "failed":
            self._twin_landed(verdict, earlier)
            return
        common: dict[str, object] = {
            "SOPClassUID": verdict.arrival.sop_class_uid,
            "TransferSyntaxUID": verdict.arrival.transfer_syntax_uid,
        }
        if verdict.path:
            common["path"] = verdict.path
        if verdict.outcome in ("stored", "present"):
            if verdict.size:
                common["size"] = verdict.size
            if verdict.digest:
                common["digest"] = f"xxh3:{verdict.digest}"
            if verdict.content:
                common["content"] = f"xxh3:{verdict.content}"
            if verdict.reason:
                common |= {"reason": verdict.reason, "message": verdict.message}
            if verdict.outcome == "stored":
                self._unproven.add(uid)
        else:
            common |= {"reason": verdict.reason, "message": verdict.message}
            may_pass = verdict.may_pass or verdict.reason in _UNSETTLED
            if verdict.outcome == "failed":
                common["retry"] = verdict.trouble is not None or may_pass
            lasting = ExitStatus.RETRY if may_pass and verdict.outcome == "failed" else ExitStatus.FAILED
            self._raise(verdict.trouble.exit_status if verdict.trouble else lasting)
        if verdict.status:
            common["status"] = _written(verdict.status)
        self._note(uid, verdict.outcome, **common)

    def _twin_landed(self, verdict: Landed, earlier: Outcome) -> None:
        """The source sent a second instance of the same UID. The same again is no news, anything else a conflict."""
        if verdict.outcome == "present" or f"xxh3:{verdict.digest}" == earlier.digest:
            return
        kept = "both are kept" if verdict.outcome == "stored" else "the first is kept"
        message = f"the source holds two instances of this UID with different content; {kept}"
        self._raise(verdict.trouble.exit_status if verdict.trouble else ExitStatus.FAILED)
        self._note(verdict.arrival.sop_instance_uid, "conflict", reason="twins", message=message, path=earlier.path)

    def refused(self, sop_instance_uid: str, message: str) -> None:
        """An instance that we do not take, whatever the peer does."""
        self._raise(ExitStatus.FAILED)
        self._note(sop_instance_uid, "failed", reason="refused", message=message, retry=False)

    def fail_rest(self, error: DcmsyncError) -> None:
        """Everything that lacks failed, because of `error`; so did the series when its inventory is unknown."""
        status = _written(error.status) if isinstance(error, Refused) and error.status else None
        retry = True if isinstance(error, OutOfResources) else None
        self._give_up(error.reason, str(error), error.exit_status, status, retry=retry)

    def fail_one(self, sop_instance_uid: str, error: DcmsyncError) -> None:
        """One instance failed by itself, because of `error`."""
        self._raise(error.exit_status)
        again = error.reason in _TRY_AGAIN
        self._note(sop_instance_uid, "failed", reason=error.reason, message=str(error), retry=again)

    def refuse_rest(self, message: str, ending: Ending) -> None:
        """Everything that lacks failed, because the peer ended with a failure status."""
        exit_status = ExitStatus.RETRY if ending.may_pass else ExitStatus.FAILED
        self._give_up("refused", message, exit_status, _written(ending.status), retry=ending.may_pass)

    def missing_rest(self, message: str) -> None:
        """Everything that lacks was asked for again and again, and did not come."""
        self._give_up("missing", message, ExitStatus.FAILED, None, retry=False)

    def outcomes(self, *, itemize: bool) -> Iterator[Outcome]:
        """The records of this series: each instance when itemizing, else each that is not fine; the series last.

        Instances stand in the order of the inventory, however they came.
        """
        for uid in self.wanted:
            outcome = self._outcomes.get(uid)
            if outcome is not None and (itemize or outcome.outcome in ("failed", "conflict") or _is_odd(outcome)):
                yield outcome
        if self._failure is not None and not self.wanted:
            yield self._failure
            return
        if self._trusted is not None:
            level: LevelWord = "series" if self.series_uid else "study"
            yield self._outcome(level, "present", instances=self._trusted, present=self._trusted, reason="counts")
            return
        yield self._sum()

    def _sum(self) -> Outcome:
        counts: dict[Result, int] = {}
        for outcome in self._outcomes.values():
            counts[outcome.outcome] = counts.get(outcome.outcome, 0) + 1
        worst: Result = "present"
        for result in ("stored", "conflict", "failed"):
            if counts.get(result):
                worst = result
        failed = [outcome for outcome in self._outcomes.values() if outcome.outcome == "failed"]
        odd = failed or [outcome for outcome in self._outcomes.values() if _is_odd(outcome)]
        common: dict[str, object] = {str(result): count for result, count in counts.items()}
        if odd:
            common |= {"reason": odd[0].reason, "message": odd[0].message, "status": odd[0].status}
        if failed:
            common["retry"] = any(outcome.retry is True for outcome in failed)
        return self._outcome("series", worst, instances=len(self.wanted), **common)

    def _give_up(
        self, reason: str, message: str, exit_status: ExitStatus, status: str | None, retry: bool | None = None
    ) -> None:
        lacking = self.lacking
        again = reason in _TRY_AGAIN if retry is None else retry
        facts = {"reason": reason, "message": message, "status": status or UNSET, "retry": again}
        if lacking or not self.wanted:
            self._raise(exit_status)
        for uid in lacking:
            self._note(uid, "failed", **facts)
        if not self.wanted:
            self._failure = self._outcome("series" if self.series_uid else "study", "failed", **facts)

    def _note(self, sop_instance_uid: str, result: Result, **facts: object) -> None:
        facts.setdefault("SOPClassUID", self.wanted.get(sop_instance_uid) or UNSET)
        self._outcomes[sop_instance_uid] = self._outcome("instance", result, SOPInstanceUID=sop_instance_uid, **facts)

    def _outcome(self, level: LevelWord, result: Result, **facts: object) -> Outcome:
        known: Mapping[str, object] = {
            "StudyInstanceUID": self.study_uid,
            "SeriesInstanceUID": self.series_uid or UNSET,
            "PatientID": self.attributes.get("PatientID", UNSET),
            "source": self.source,
            "destination": self.destination,
            "dry_run": True if self._dry_run else UNSET,
        }
        return Outcome(level=level, outcome=result, **{**known, **facts})  # type: ignore[arg-type]  # keys are fields

    def _raise(self, status: ExitStatus) -> None:
        self.status = max(self.status, status)


def _is_odd(outcome: Outcome) -> bool:
    """Whether something is to be said of an instance that was stored all the same."""
    return outcome.reason in ("unproven", "warning")


def _written(status: int) -> str:
    """A status as records have it: of DIMSE as 0xA700, of HTTP as 404."""
    return str(status) if status in _HTTP else f"0x{status:04X}"
