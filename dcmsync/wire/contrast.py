"""Two contents, element by element: what one has and the other has not, or has otherwise.

Owns when two values mean the same: byte order, padding, and VRs that an encoding leaves out make no difference, nor do
group lengths and trailing padding. Refuses to read files: values that stayed where they are come in chunks.

Theory of operation. Both streams are read at once, and what is alike is forgotten at once; only what has not met its
other half is kept. So memory is bounded by the differences, in whatever order the elements are.
"""

from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct

from dcmsync.wire.dataset import decode_text
from dcmsync.wire.dicomjson import UNITS, turned
from dcmsync.wire.events import BULK_VRS, Closed, Element, Event, Fragment, Item, Opened

MAX_DIFFERENCES = 200_000
_TRAILING_PADDING = 0xFFFCFFFC

Path = tuple[int, ...]
"""Tag, item number, tag, ...: where something is. A fragment has its number last."""
Chunks = Callable[[int, int], Iterator[bytes]]


class Leaf(Struct, frozen=True):
    """One thing to compare: an element, a fragment, or a sequence, of which only the number of items counts."""

    path: Path
    found: Element | Fragment | Opened
    items: int = 0


class Difference(Struct, frozen=True):
    """What differs at `path`; None on the side that lacks it."""

    path: Path
    left: Leaf | None
    right: Leaf | None


def leaves(events: Iterable[Event]) -> Iterator[Leaf]:
    """The things to compare, in the order in which they are met; a sequence comes when it ends."""
    here: Path = ()
    opened: list[tuple[Opened, Path, int]] = []
    for event in events:
        if isinstance(event, Element):
            if event.tag & 0xFFFF and event.tag != _TRAILING_PADDING:
                yield Leaf((*here, event.tag), event)
        elif isinstance(event, Opened):
            opened.append((event, (*here, event.tag), 0))
        elif isinstance(event, Item | Fragment):
            sequence, path, _ = opened[-1]
            opened[-1] = sequence, path, event.number
            here = (*path, event.number)
            if isinstance(event, Fragment):
                yield Leaf(here, event)
        elif isinstance(event, Closed):
            sequence, path, count = opened.pop()
            here = path[:-1]
            yield Leaf(path, sequence, count)


def differences(
    left: Iterable[Leaf], right: Iterable[Leaf], chunks: tuple[Chunks, Chunks]
) -> tuple[list[Difference], bool]:
    """What differs, in the order of paths, and whether that is all: not, when there are too many."""
    streams = iter(left), iter(right)
    single: tuple[dict[Path, Leaf], dict[Path, Leaf]] = {}, {}
    last: list[Path | None] = [(), ()]
    found: list[Difference] = []
    while last != [None, None]:
        side = _behind(last)
        leaf = next(streams[side], None)
        last[side] = leaf.path if leaf else None
        if leaf is None:
            continue
        other = single[1 - side].pop(leaf.path, None)
        if other is None:
            path = leaf.path
            while path in single[side]:  # an element that is there twice
                path = (*path, 0)
            single[side][path] = leaf
        else:
            pair = (leaf, other) if side == 0 else (other, leaf)
            if not _are_same(*pair, chunks):
                found.append(Difference(leaf.path, *pair))
        if len(found) + len(single[0]) + len(single[1]) > MAX_DIFFERENCES:
            return found, False
    found += [Difference(leaf.path, leaf, None) for leaf in single[0].values()]
    found += [Difference(leaf.path, None, leaf) for leaf in single[1].values()]
    return sorted(found, key=lambda difference: difference.path), True


def path_text(path: Path) -> str:
    """`00081111[1].00080018`; a fragment is `7FE00010[2]`."""
    return "".join(f"[{number}]" if place % 2 else f"{'.' if place else ''}{number:08X}"
                   for place, number in enumerate(path))


def _behind(last: list[Path | None]) -> int:
    """The side to read from: the one that is behind."""
    left, right = last
    if left is None or right is None:
        return 1 if left is None else 0
    return 0 if left <= right else 1


def _are_same(left: Leaf, right: Leaf, chunks: tuple[Chunks, Chunks]) -> bool:
    one, other = left.found, right.found
    if isinstance(one, Element) and isinstance(other, Element):
        return _are_same_elements(one, other, chunks)
    if isinstance(one, Fragment) and isinstance(other, Fragment):
        return one.length == other.length and _are_same_octets((one, other), (1, 1), chunks)
    return isinstance(one, Opened) and isinstance(other, Opened) and (
        one.has_fragments == other.has_fragments and left.items == right.items)


def _are_same_elements(left: Element, right: Element, chunks: tuple[Chunks, Chunks]) -> bool:
    known = [element.vr for element in (left, right) if element.is_stated and element.vr != "UN"]
    if len(known) == 2 and known[0] != known[1]:
        return False
    vr = known[0] if known else left.vr if left.vr != "UN" else right.vr
    if left.is_here and right.is_here:
        ours, theirs = _plain(left, vr), _plain(right, vr)
        if ours == theirs or vr in UNITS or vr in BULK_VRS:
            return ours == theirs
        return _text(left, vr) == _text(right, vr)
    units = tuple(1 if element.little else UNITS.get(element.vr, 1) for element in (left, right))
    return left.length == right.length and _are_same_octets((left, right), (units[0], units[1]), chunks)


def _are_same_octets(
    pair: tuple[Element | Fragment, Element | Fragment], units: tuple[int, int], chunks: tuple[Chunks, Chunks]
) -> bool:
    """Whether two values of one length are alike, numbers of `units` octets turned."""
    streams = (chunks[side](pair[side].start, pair[side].length) for side in (0, 1))
    return all(turned(ours, units[0]) == turned(theirs, units[1]) for ours, theirs in zip(*streams, strict=True))


def _plain(element: Element, vr: str) -> bytes:
    """The value in little endian, without padding."""
    octets = element.octets if element.little else turned(element.octets, UNITS.get(element.vr, 1))
    return octets if vr in UNITS or vr in BULK_VRS else octets.rstrip(b" \0")


def _text(element: Element, vr: str) -> str:
    return decode_text(vr, element.octets, element.character_set).rstrip(" \0")
