"""Negotiation of presentation contexts, with pynetdicom's negotiation as the oracle."""

import random

import pytest
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor, negotiate_as_requestor

from dcmsync.errors import LocalProtocolError
from dcmsync.wire.upperlayer import contexts
from dcmsync.wire.upperlayer.codec import AssociateAccept, AssociateRequest, ContextResult, ProposedContext, Role
from dcmsync.wire.upperlayer.contexts import ALL_SYNTAXES, Context

CLASSES = [f"1.2.840.10008.5.1.4.1.1.{n}" for n in (1, 2, 4, 7, 20)]
SYNTAXES = list(ALL_SYNTAXES[:6])


def request_of(proposed: tuple[ProposedContext, ...], roles: tuple[Role, ...] = ()) -> AssociateRequest:
    return AssociateRequest(called_ae="A", calling_ae="B", contexts=proposed, roles=roles)


def theirs(context_id: int, uid: str, syntaxes: tuple[str, ...], result: int | None = None) -> PresentationContext:
    context = PresentationContext()
    context.context_id = context_id
    if uid:
        context.abstract_syntax = uid
    context.transfer_syntax = list(syntaxes)
    if result is not None:
        context.result = result
    return context


def draw(dice: random.Random) -> tuple[ProposedContext, ...]:
    return tuple(
        ProposedContext(2 * n + 1, dice.choice(CLASSES), tuple(dice.sample(SYNTAXES, dice.randint(1, 4))))
        for n in range(dice.randint(1, 12))
    )


@pytest.mark.parametrize("seed", range(40))
def test_the_requestor_understands_results_as_pynetdicom_does(seed: int) -> None:
    dice = random.Random(seed)
    proposed = draw(dice)
    results = tuple(
        ContextResult(c.context_id, dice.choice((0, 0, 0, 1, 2, 3, 4)), dice.choice(c.transfer_syntaxes))
        for c in proposed
        if dice.random() < 0.9
    )
    agreed = contexts.accepted(
        request_of(proposed), AssociateAccept(called_ae="", calling_ae="", results=results)
    )
    oracle = negotiate_as_requestor(
        [theirs(c.context_id, c.abstract_syntax, c.transfer_syntaxes) for c in proposed],
        [theirs(r.context_id, "", (r.transfer_syntax,), r.result) for r in results],
    )
    assert agreed == {
        c.context_id: Context(c.context_id, str(c.abstract_syntax), str(c.transfer_syntax[0]))
        for c in oracle
        if c.result == 0
    }


@pytest.mark.parametrize("seed", range(40))
def test_the_acceptor_answers_as_pynetdicom_does(seed: int) -> None:
    dice = random.Random(1000 + seed)
    proposed = draw(dice)
    taken = {uid: tuple(dice.sample(SYNTAXES, 3)) for uid in CLASSES[:3]}
    ours, roles = contexts.answer(request_of(proposed), taken)
    oracle, _ = negotiate_as_acceptor(
        [theirs(c.context_id, c.abstract_syntax, c.transfer_syntaxes) for c in proposed],
        [theirs(1, uid, syntaxes) for uid, syntaxes in taken.items()],
    )
    assert {r.context_id: r.result for r in ours} == {c.context_id: c.result for c in oracle}
    assert roles == ()
    offers = {c.context_id: c for c in proposed}
    for result in ours:
        offer = offers[result.context_id]
        if result.result == 0:  # the first of the requestor's that we take: its order is its preference
            assert result.transfer_syntax == next(
                s for s in offer.transfer_syntaxes if s in taken[offer.abstract_syntax]
            )


def test_the_acceptor_agrees_to_roles_as_proposed() -> None:
    roles = (Role(CLASSES[0], scu=False, scp=True),)
    request = request_of((ProposedContext(1, CLASSES[0], (SYNTAXES[0],)),), roles)
    assert contexts.answer(request, {}, SYNTAXES) == ((ContextResult(1, 0, SYNTAXES[0]),), roles)


def test_a_context_without_transfer_syntax_is_refused() -> None:
    (result,), _ = contexts.answer(request_of((ProposedContext(1, CLASSES[0], ()),)), {}, SYNTAXES)
    assert result.result == 4


@pytest.mark.parametrize(
    "result",
    [
        ContextResult(5, 0, SYNTAXES[0]),  # never proposed
        ContextResult(1, 0, SYNTAXES[1]),  # a transfer syntax never offered
        ContextResult(1, 3, SYNTAXES[0]),  # refused
    ],
)
def test_a_result_that_nobody_asked_for_opens_nothing(result: ContextResult) -> None:
    request = request_of((ProposedContext(1, CLASSES[0], (SYNTAXES[0],)),))
    assert contexts.accepted(request, AssociateAccept(called_ae="", calling_ae="", results=(result,))) == {}


def test_one_context_a_pair_with_odd_ids() -> None:
    proposed = contexts.propose([(CLASSES[0], SYNTAXES[0]), (CLASSES[0], SYNTAXES[1])], first_id=5)
    assert proposed == (
        ProposedContext(5, CLASSES[0], (SYNTAXES[0],)),
        ProposedContext(7, CLASSES[0], (SYNTAXES[1],)),
    )
    assert contexts.propose([]) == ()


def test_128_fit_and_no_more() -> None:
    pairs = [(f"1.2.{n}", SYNTAXES[0]) for n in range(129)]
    assert contexts.propose(pairs[:128])[-1].context_id == 255
    with pytest.raises(LocalProtocolError, match="129"):
        contexts.propose(pairs)
    with pytest.raises(LocalProtocolError):
        contexts.propose(pairs[:127], first_id=5)


def test_native_syntaxes_come_first_and_each_pair_once() -> None:
    pairs = contexts.storage_pairs(CLASSES[:2], {CLASSES[1]: [ALL_SYNTAXES[7]]})
    assert pairs[0] == (CLASSES[1], ALL_SYNTAXES[7])
    assert len(pairs) == len(set(pairs)) == 2 * len(ALL_SYNTAXES)
    assert pairs[1:3] == [(CLASSES[0], ALL_SYNTAXES[0]), (CLASSES[1], ALL_SYNTAXES[0])]
