"""Presentation contexts: which to propose, which to accept, and what came of it (PS3.8 §7.1.1.13, PS3.7 §D.3.3.4).

Theory of operation: one context per (SOP class, transfer syntax). A context that offers several syntaxes leaves the
choice to the peer, who then must transcode or refuse what it holds in another one; a context for each lets every
instance travel as it is stored. 128 contexts fit one association; more work means another association.
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from dcmsync.errors import LocalProtocolError
from dcmsync.wire.upperlayer.codec import (
    AssociateAccept,
    AssociateRequest,
    ContextResult,
    ProposedContext,
    Role,
)

MAX_CONTEXTS = 128

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"

UNCOMPRESSED = (EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED)
ENCAPSULATED = (
    "1.2.840.10008.1.2.4.70",  # JPEG Lossless, first-order prediction
    "1.2.840.10008.1.2.4.90",  # JPEG 2000, lossless only
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.50",  # JPEG Baseline
    "1.2.840.10008.1.2.4.51",  # JPEG Extended
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.81",  # JPEG-LS near-lossless
    "1.2.840.10008.1.2.5",  # RLE
    "1.2.840.10008.1.2.4.57",  # JPEG Lossless
    "1.2.840.10008.1.2.4.100",  # MPEG2 main
    "1.2.840.10008.1.2.4.101",  # MPEG2 main, high level
    "1.2.840.10008.1.2.4.102",  # MPEG-4 AVC high
    "1.2.840.10008.1.2.4.103",  # MPEG-4 AVC BD-compatible
    "1.2.840.10008.1.2.4.104",  # MPEG-4 AVC 2D
    "1.2.840.10008.1.2.4.105",  # MPEG-4 AVC 3D
    "1.2.840.10008.1.2.4.106",  # MPEG-4 AVC stereo
    "1.2.840.10008.1.2.4.107",  # HEVC main
    "1.2.840.10008.1.2.4.108",  # HEVC main 10
    "1.2.840.10008.1.2.4.201",  # HTJ2K lossless
    "1.2.840.10008.1.2.4.202",  # HTJ2K lossless RPCL
    "1.2.840.10008.1.2.4.203",  # HTJ2K
    "1.2.840.10008.1.2.4.92",  # JPEG 2000 part 2 lossless
    "1.2.840.10008.1.2.4.93",  # JPEG 2000 part 2
    "1.2.840.10008.1.2.4.110",  # JPEG XL lossless
    "1.2.840.10008.1.2.4.111",  # JPEG XL JPEG recompression
    "1.2.840.10008.1.2.4.112",  # JPEG XL
)
ALL_SYNTAXES = UNCOMPRESSED + ENCAPSULATED

COMMON_SYNTAXES = (EXPLICIT_LITTLE, IMPLICIT_LITTLE, "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.90")
COMMON_CLASSES = tuple(
    f"1.2.840.10008.5.1.4.1.1.{tail}"
    for tail in (
        "2", "2.1", "4", "4.1", "4.2", "7", "7.2", "7.4", "6.1", "3.1", "20", "128", "130", "1", "1.1", "1.2", "12.1",
        "12.2", "13.1.3", "11.1", "88.11", "88.22", "88.33", "88.59", "88.67", "104.1", "481.1", "481.2", "481.3",
        "66.4", "77.1.4",
    )
)  # fmt: skip
"""What to propose when the SOP classes are unknown: 31 of the classes that archives hold most, four syntaxes each."""


class Context(Struct, frozen=True):
    """An accepted presentation context."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str


def storage_pairs(classes: Iterable[str], native: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """(SOP class, transfer syntax) pairs to ask for, the known native syntaxes of each class first.

    Where the native syntaxes of a class are known, the rest still follows: a list of answers may be incomplete.
    """
    first = [(uid, syntax) for uid in classes for syntax in native.get(uid, ())]
    known = set(first)
    rest = [(uid, syntax) for syntax in ALL_SYNTAXES for uid in classes if (uid, syntax) not in known]
    return first + rest


def propose(pairs: Iterable[tuple[str, str]], *, first_id: int = 1) -> tuple[ProposedContext, ...]:
    """One context a pair, IDs odd and ascending. Raises LocalProtocolError beyond 128."""
    contexts = tuple(
        ProposedContext(first_id + 2 * index, uid, (syntax,)) for index, (uid, syntax) in enumerate(pairs)
    )
    if contexts and contexts[-1].context_id > 2 * MAX_CONTEXTS - 1:
        raise LocalProtocolError(f"{len(contexts)} presentation contexts do not fit one association")
    return contexts


def accepted(request: AssociateRequest, accept: AssociateAccept) -> dict[int, Context]:
    """The contexts that both sides agreed on, by ID. Results for contexts never proposed are ignored."""
    proposed = {context.context_id: context for context in request.contexts}
    agreed: dict[int, Context] = {}
    for result in accept.results:
        context = proposed.get(result.context_id)
        if context is None or result.result != 0 or result.transfer_syntax not in context.transfer_syntaxes:
            continue
        agreed[result.context_id] = Context(result.context_id, context.abstract_syntax, result.transfer_syntax)
    return agreed


def answer(
    request: AssociateRequest, syntaxes_of: Mapping[str, Sequence[str]], others: Sequence[str] = ()
) -> tuple[tuple[ContextResult, ...], tuple[Role, ...]]:
    """An acceptor's results (table 9-18), and the roles it agrees to.

    `syntaxes_of`: abstract syntax -> transfer syntaxes we take, `others`: those for any abstract syntax not named.
    Of the syntaxes that a context offers, the first that we take is chosen: the requestor's order is its preference.
    Roles are agreed to as proposed: the embedded node both stores and serves.
    """
    results = []
    for context in request.contexts:
        taken = syntaxes_of.get(context.abstract_syntax, others)
        chosen = next((syntax for syntax in context.transfer_syntaxes if syntax in taken), None)
        if chosen is not None:
            results.append(ContextResult(context.context_id, 0, chosen))
        else:
            refusal = 4 if taken else 3  # 4 transfer syntaxes not supported, 3 abstract syntax not supported
            offered = context.transfer_syntaxes[0] if context.transfer_syntaxes else IMPLICIT_LITTLE
            results.append(ContextResult(context.context_id, refusal, offered))
    return tuple(results), request.roles
