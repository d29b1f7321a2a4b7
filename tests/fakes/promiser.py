"""A node that takes instances and commits itself to keep them, made with pynetdicom: it behaves as it is told to.

    with Promiser(("127.0.0.1", port), how="elsewhere") as node:
        node.port, node.asked, node.answers

`how` a report comes: "here" on the association that asked, "elsewhere" on a new one, "never"; "wrong" is one for
another transaction first, then the right one. `fails`: SOP Instance UID -> Failure Reason; `silent` are left out.
"""

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, Self

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, StoragePresentationContexts, build_role, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

How = Literal["here", "elsewhere", "never", "wrong"]
JOIN_S = 10.0


class Promiser:
    """A running node. `asked`: the data sets of the requests; `answers`: what reports were answered with."""

    def __init__(
        self,
        known: tuple[str, int],
        *,
        how: How = "here",
        status: int = 0,
        fails: Mapping[str, int] | None = None,
        silent: frozenset[str] = frozenset(),
        offers: bool = True,
        most: int = 10,
    ) -> None:
        self.asked: list[Dataset] = []
        self.answers: list[int | None] = []
        self.stored: list[str] = []
        self._known, self._how, self._status = known, how, status
        self._fails, self._silent = fails or {}, silent
        self._threads: list[threading.Thread] = []
        entity = AE("PROMISER")
        entity.maximum_associations = most
        entity.supported_contexts = StoragePresentationContexts
        if offers:
            entity.add_supported_context(StorageCommitmentPushModel)
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._act)]
        self._server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        assert self._server is not None
        self.port: int = self._server.server_address[1]
        self.locator = f"PROMISER@127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for thread in self._threads:
            thread.join(JOIN_S)
        assert self._server is not None
        self._server.shutdown()

    def _store(self, event: Any) -> int:
        self.stored.append(str(event.request.AffectedSOPInstanceUID))
        return 0

    def _act(self, event: Any) -> tuple[int, None]:
        request = event.action_information
        self.asked.append(request)
        if not self._status and self._how != "never":
            target = self._say_here if self._how == "here" else self._say_elsewhere
            thread = threading.Thread(target=target, args=(event.assoc, request))
            self._threads.append(thread)
            thread.start()
        return self._status, None

    def _say_here(self, association: Any, request: Dataset) -> None:
        self._report(association, request.TransactionUID, request)

    def _say_elsewhere(self, _: Any, request: Dataset) -> None:
        entity = AE("PROMISER")
        entity.add_requested_context(StorageCommitmentPushModel)
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        association = entity.associate(*self._known, ae_title="DCMSYNC", ext_neg=[role])
        if not association.is_established:
            self.answers.append(None)
            return
        if self._how == "wrong":
            self._report(association, generate_uid(), request)
        self._report(association, request.TransactionUID, request)
        association.release()

    def _report(self, association: Any, transaction_uid: str, request: Dataset) -> None:
        report = Dataset()
        report.TransactionUID = transaction_uid
        kept, failed = [], []
        for item in request.ReferencedSOPSequence:
            uid = str(item.ReferencedSOPInstanceUID)
            said = Dataset()
            said.ReferencedSOPClassUID = item.ReferencedSOPClassUID
            said.ReferencedSOPInstanceUID = uid
            if uid in self._fails:
                said.FailureReason = self._fails[uid]
                failed.append(said)
            elif uid not in self._silent:
                kept.append(said)
        if kept:
            report.ReferencedSOPSequence = kept
        if failed:
            report.FailedSOPSequence = failed
        answer, _ = association.send_n_event_report(
            report, 2 if failed else 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        )
        self.answers.append(answer.Status if "Status" in answer else None)
