"""What C-STORE needs of a session: which contexts to propose, and what an answer means (PS3.4 §B.2, PS3.7 Annex C).

Owns the classes of its statuses: success, stored with something to say, not now, never. Refuses to send.
"""

from collections.abc import Sequence

from dcmsync.contract import Arrival, Ending
from dcmsync.wire.dimse import status
from dcmsync.wire.dimse.command import Command
from dcmsync.wire.upperlayer import contexts

_NOT_NOW = (status.PROCESSING_FAILURE, 0x0213)  # PS3.7 §C.5.12, C.5.22: what was going on then may be over

_STORED = Ending()

Kind = tuple[str, str]
"""SOP class and transfer syntax: what a presentation context is for."""


def kind_of(arrival: Arrival) -> Kind:
    """The context that an instance needs: in the syntax that it has, for nothing is ever transcoded."""
    return arrival.sop_class_uid, arrival.transfer_syntax_uid


def kinds_of(arrivals: Sequence[Arrival], others: int) -> list[Kind]:
    """What to propose for instances like these, beside so many other contexts; those that come first go first."""
    return list(dict.fromkeys(map(kind_of, arrivals)))[: contexts.MAX_CONTEXTS - others]


def ending_of(answer: Command, name: str) -> Ending:
    """What the answer to a C-STORE says. 0xA9xx and 0xCxxx are final: the instance itself is what the peer dislikes."""
    code = answer.status or 0
    if code == status.SUCCESS:
        return _STORED
    words = f"{name}: answered {status.words(code, 'C-STORE')}"
    if status.is_warning(code):
        return Ending(status=code, is_warning=True, why=words)
    may_pass = code >> 8 == status.OUT_OF_RESOURCES >> 8 or code in _NOT_NOW
    return Ending(status=code, may_pass=may_pass, why=words)
