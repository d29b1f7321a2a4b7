"""Some of the contents: the events that a judge of tags lets through, balanced as they were.

Owns what a choice means for what is nested: an unwanted sequence goes with all that is in it, a wanted one comes with
all that is in it and is not unwanted, and any other is there for what is wanted within. Refuses to judge tags.
"""

from collections.abc import Callable, Iterable, Iterator

from dcmsync.wire.events import Closed, Element, Event, Item, ItemEnd, Opened

Judge = Callable[[int], bool | None]
"""Wanted with what is in it, unwanted with what is in it, or None: only something in it may be wanted."""


def chosen(events: Iterable[Event], judge: Judge, *, with_empty_items: bool) -> Iterator[Event]:
    """The wanted ones of `events`. Sequences and items are held back until something in them is wanted.

    `with_empty_items`: items in which nothing is wanted are there, empty, where another one of their sequence is.
    """
    held: list[Opened | Item] = []  # the innermost that are open, as far as they are held back
    depth = 0  # how many sequences are open
    wanted: int | None = None  # the depth of a wanted sequence that is open
    unwanted: int | None = None  # and of an unwanted one
    for event in events:
        if isinstance(event, Closed):
            depth -= 1
        if unwanted is not None:
            if isinstance(event, Closed) and depth == unwanted:
                unwanted = None
        elif isinstance(event, Element | Opened):
            is_wanted = judge(event.tag)
            if is_wanted is None and wanted is not None:
                is_wanted = True
            if is_wanted:
                yield from _released(held, with_empty_items=with_empty_items)
                yield event
            if isinstance(event, Opened):
                if is_wanted is None:
                    held.append(event)
                elif not is_wanted:
                    unwanted = depth
                elif wanted is None:
                    wanted = depth
        elif wanted is not None:
            yield event
            if isinstance(event, Closed) and depth == wanted:
                wanted = None
        elif isinstance(event, Item):
            held.append(event)
        elif isinstance(event, ItemEnd | Closed):
            if not held:
                yield event
            else:
                innermost = held.pop()
                if isinstance(innermost, Item) and not held and with_empty_items:
                    yield from (innermost, event)
        if isinstance(event, Opened):
            depth += 1


def _released(held: list[Opened | Item], *, with_empty_items: bool) -> Iterator[Event]:
    """What was held back, and before an item those of its sequence that hold nothing."""
    for place, event in enumerate(held):
        if isinstance(event, Item) and place and with_empty_items:
            for number in range(1, event.number):
                yield from (Item(number, 0), ItemEnd())
        yield event
    held.clear()
