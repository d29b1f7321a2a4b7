"""Who may come, and which contexts are accepted."""

import pytest

from dcmsync.node.policy import Policy
from dcmsync.wire.dimse.operations import STUDY_ROOT_FIND, VERIFICATION
from dcmsync.wire.upperlayer.codec import AssociateAccept, AssociateReject, AssociateRequest, ProposedContext, Role
from tests.samples import CT_IMAGE_STORAGE, EXPLICIT_LITTLE


def request(*contexts: tuple[str, tuple[str, ...]], called: str = "NODE", calling: str = "ME") -> AssociateRequest:
    proposed = (ProposedContext(2 * n + 1, uid, syntaxes) for n, (uid, syntaxes) in enumerate(contexts))
    return AssociateRequest(called_ae=called, calling_ae=calling, contexts=tuple(proposed),
                            roles=(Role(CT_IMAGE_STORAGE, scu=False, scp=True),))


def results(*contexts: tuple[str, tuple[str, ...]]) -> list[tuple[int, str]]:
    decision = Policy(ae_title="NODE").decide(request(*contexts))
    assert isinstance(decision, AssociateAccept)
    assert decision.roles == (Role(CT_IMAGE_STORAGE, scu=False, scp=True),)
    return [(result.result, result.transfer_syntax) for result in decision.results]


def test_another_called_title_is_rejected() -> None:
    assert Policy(ae_title="NODE").decide(request(called="OTHER")) == AssociateReject(1, 1, 7)


def test_a_calling_title_that_is_not_allowed_is_rejected() -> None:
    policy = Policy(ae_title="NODE", calling_aes=frozenset({"YOU"}))
    assert policy.decide(request()) == AssociateReject(1, 1, 3)
    assert isinstance(policy.decide(request(calling="YOU")), AssociateAccept)


@pytest.mark.parametrize("uid", [CT_IMAGE_STORAGE, "1.2.840.10008.5.1.4.1.1.999.1", "1.3.12.2.1107.5.9.1", "2.25.7",
                                 "1.2.840.10008.5.1.4.38.1"])  # fmt: skip
@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, "1.2.840.10008.1.2.4.90", "1.2.3.4.5.6"])
def test_storage_is_accepted_in_any_syntax(uid: str, syntax: str) -> None:
    assert results((uid, (syntax,))) == [(0, syntax)]


@pytest.mark.parametrize("uid", ["1.2.840.10008.5.1.4.31", "1.2.840.10008.1.20.2", "1.2.840.10008.5.1.4.1.2.3.2",
                                 "1.2.840.10008.3.1.2.3.3", ""])  # fmt: skip
def test_services_that_are_not_ours_are_refused(uid: str) -> None:
    assert results((uid, (EXPLICIT_LITTLE,)))[0][0] == 3


def test_queries_are_not_compressed() -> None:
    assert results((STUDY_ROOT_FIND, ("1.2.840.10008.1.2.4.90",)), (VERIFICATION, (EXPLICIT_LITTLE,))) == [
        (4, "1.2.840.10008.1.2.4.90"), (0, EXPLICIT_LITTLE),
    ]  # fmt: skip
