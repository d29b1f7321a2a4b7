"""Who may open an association with a listener of ours, and for what (PS3.8 §7.1.1, PS3.7 §D.3.3.4).

Owns titles, the lists of who may come, and the presentation contexts that are accepted. Refuses to look at anything but
the address and the request.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address

from msgspec import Struct

from dcmsync.net.mailbox import plain_address
from dcmsync.wire.dimse.commitment import PUSH_MODEL
from dcmsync.wire.dimse.operations import (
    PATIENT_ROOT_FIND,
    PATIENT_ROOT_GET,
    PATIENT_ROOT_MOVE,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    VERIFICATION,
)
from dcmsync.wire.dimse.storage import is_storage
from dcmsync.wire.upperlayer import contexts
from dcmsync.wire.upperlayer.codec import AssociateAccept, AssociateReject, AssociateRequest

FINDS = frozenset((STUDY_ROOT_FIND, PATIENT_ROOT_FIND))
GETS = frozenset((STUDY_ROOT_GET, PATIENT_ROOT_GET))
MOVES = frozenset((STUDY_ROOT_MOVE, PATIENT_ROOT_MOVE))
PATIENT_ROOTS = frozenset((PATIENT_ROOT_FIND, PATIENT_ROOT_GET, PATIENT_ROOT_MOVE))

CALLING_NOT_RECOGNISED = AssociateReject(1, 1, 3)  # PS3.8 table 9-21: permanent, service-user
CALLED_NOT_RECOGNISED = AssociateReject(1, 1, 7)
WITHOUT_IDENTITY = AssociateReject(1, 1, 1)  # no reason given: the table knows none for this (PS3.7 §D.3.3.7)

SERVICES = frozenset((VERIFICATION, *FINDS, *GETS, *MOVES, PUSH_MODEL))

_PLAIN = (contexts.EXPLICIT_LITTLE, contexts.IMPLICIT_LITTLE)

Network = IPv4Network | IPv6Network


class Policy(Struct, frozen=True, kw_only=True):
    """Whom a listener admits: both the title and the address must be among those that may come; None is all.

    `services`: SOP classes that it answers besides those of storage.
    """

    ae_title: str
    calling_aes: frozenset[str] | None = None
    networks: tuple[Network, ...] | None = None
    requires_identity: bool = False
    services: frozenset[str] = SERVICES
    max_pdu_octets: int = 1 << 20

    def admits(self, host: str) -> bool:
        """Whether an address may come at all."""
        address = ip_address(plain_address(host))
        return self.networks is None or any(address in network for network in self.networks)

    def decide(self, request: AssociateRequest) -> AssociateAccept | AssociateReject:
        """The answer to a request. Contexts for storage are accepted in any syntax, for private classes as well.

        Whatever identity is given is accepted; it is checked against nothing.
        """
        if self.calling_aes is not None and request.calling_ae not in self.calling_aes:
            return CALLING_NOT_RECOGNISED
        if request.called_ae != self.ae_title:
            return CALLED_NOT_RECOGNISED
        if self.requires_identity and request.identity is None:
            return WITHOUT_IDENTITY
        syntaxes_of: dict[str, tuple[str, ...]] = {}
        for context in request.contexts:
            offered = context.transfer_syntaxes if is_storage(context.abstract_syntax) else ()
            mine = _PLAIN if context.abstract_syntax in self.services else offered
            syntaxes_of[context.abstract_syntax] = (*syntaxes_of.get(context.abstract_syntax, ()), *mine)
        results, roles = contexts.answer(request, syntaxes_of)
        return AssociateAccept(
            called_ae=request.called_ae,
            calling_ae=request.calling_ae,
            results=results,
            roles=roles,
            identity_response=b"" if request.identity is not None and request.identity.wants_response else None,
            max_pdu_octets=self.max_pdu_octets,
        )
