"""What `dump` does with each file, and with two: opened, read, chosen from, written.

Owns the order of these and the exit status. Refuses to know how anything looks: `wire/` does.
"""

import os
from argparse import Namespace
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import chain
from urllib.parse import quote

import msgspec

from dcmsync.commands.files import File, Member, opened
from dcmsync.commands.options import Streams
from dcmsync.errors import ExitStatus
from dcmsync.plan.selection import Selection
from dcmsync.wire import contrast, dataset, dicomjson, listing
from dcmsync.wire.choice import chosen
from dcmsync.wire.events import Contents, Element, Event, Opened


class Dumping:
    """Dumps one file after the other; `status` is the worst of what happened."""

    def __init__(self, arguments: Namespace, streams: Streams) -> None:
        self.status = ExitStatus.DONE
        self._streams = streams
        self._selection = _selection(arguments)
        self._bulk: dicomjson.BulkWord = arguments.bulk
        self._is_text = _is_text(arguments, streams)
        self._with_path = arguments.with_path

    def complain(self, path: str, why: str) -> None:
        """Names a file that is not, or not wholly, dumped."""
        self._streams.say(f"{listing.safe(path)}: {why}")
        self.status = max(self.status, ExitStatus.FAILED)

    def file(self, file: File) -> None:
        """Dumps one file, as far as it can be read."""
        path = str(file)
        try:
            with opened(file) as source:
                contents = Contents(source)
                trouble = self._text(path, contents) if self._is_text else self._json(file, contents)
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            self.complain(path, error.strerror or "unreadable")
            return
        self._streams.stdout.flush()
        if trouble:
            self.complain(path, trouble)

    def _json(self, file: File, contents: Contents) -> str:
        """Writes the object of a file. Gives what is wrong with the file."""
        for _ in contents.meta():
            pass  # not in the model, but it may be where the file breaks off
        events = _chosen(contents.data_set(), self._selection, with_empty_items=True)
        parts, limit = dicomjson.fold(events, self._bulk, _locator(file, contents))
        if contents.state == "not dicom":
            return _trouble(contents)
        put = self._streams.stdout.write
        if self._with_path and isinstance(parts[0], bytes):
            rest = parts[0][1:]
            parts[0] = b'{"path":' + _text_json(str(file)) + (b"" if rest == b"}" else b",") + rest
        dicomjson.write(parts, contents.chunks, put)
        put(b"\n")
        return limit or _trouble(contents)

    def _text(self, path: str, contents: Contents) -> str:
        """Writes the lines of a file. Gives what is wrong with the file."""
        put = self._streams.stdout.write
        events = _chosen(chain(contents.meta(), contents.data_set()), self._selection, with_empty_items=False)
        for number, line in enumerate(listing.lines(events, self._bulk)):
            if not number:
                put(f"# {listing.safe(path)}\n".encode())
            dicomjson.write(line, contents.chunks, put)
            put(b"\n")
        return _trouble(contents)


class Comparing:
    """Compares two files."""

    def __init__(self, arguments: Namespace, streams: Streams) -> None:
        self._streams = streams
        self._selection = _selection(arguments)
        self._is_text = _is_text(arguments, streams)

    def run(self, *paths: str) -> ExitStatus:
        """Writes what differs between two files."""
        status = ExitStatus.DONE
        with ExitStack() as stack:
            contents = []
            for path in paths:
                try:
                    contents.append(Contents(stack.enter_context(opened(path))))
                except OSError as error:
                    self._streams.say(f"{listing.safe(path)}: {error.strerror or 'unreadable'}")
                    status = ExitStatus.FAILED
            if status is ExitStatus.DONE:
                found, is_all = contrast.differences(
                    self._leaves(contents[0]), self._leaves(contents[1]), (contents[0].chunks, contents[1].chunks)
                )
                self._write(found, paths, contents)
                status = ExitStatus.NO if found or not is_all else status
                if not is_all:
                    self._streams.warn(f"more than {contrast.MAX_DIFFERENCES} differences: these are not all")
            for path, each in zip(paths, contents, strict=False):
                if _trouble(each):
                    self._streams.say(f"{listing.safe(path)}: {_trouble(each)}")
                    status = max(status, ExitStatus.FAILED)
        return status

    def _leaves(self, contents: Contents) -> Iterable[contrast.Leaf]:
        events = chain(contents.meta(), contents.data_set())
        return contrast.leaves(_chosen(events, self._selection, with_empty_items=False))

    def _write(self, found: list[contrast.Difference], paths: tuple[str, ...], contents: list[Contents]) -> None:
        put = self._streams.stdout.write
        for difference in found:
            where = contrast.path_text(difference.path)
            tag = difference.path[(len(difference.path) - 1) & ~1]
            sides = list(zip("ab", "-+", (difference.left, difference.right), paths, contents, strict=True))
            if self._is_text:
                for _, sign, leaf, _, _ in sides:
                    if leaf:
                        put(f"{sign} {where} {_words(leaf)} {listing.keyword_of(tag)}".rstrip().encode() + b"\n")
                continue
            members = [b'"tag":' + _text_json(where), b'"keyword":' + _text_json(listing.keyword_of(tag))]
            for name, _, leaf, path, each in sides:
                if leaf:
                    members.append(f'"{name}":'.encode() + _object(leaf, _locator(path, each)))
            put(b"{" + b",".join(members) + b"}\n")


def _selection(arguments: Namespace) -> Selection:
    return Selection(arguments.include, arguments.exclude, keywords=dataset.keywords, keyword_of=listing.keyword_of,
                     tag_of=dataset.tag_of)


def _is_text(arguments: Namespace, streams: Streams) -> bool:
    return bool(arguments.format == "text" or (streams.is_terminal and arguments.format is None))


def _chosen(events: Iterable[Event], selection: Selection, *, with_empty_items: bool) -> Iterable[Event]:
    if selection.is_everything:
        return events
    return chosen(events, selection.judge, with_empty_items=with_empty_items)


def _trouble(contents: Contents) -> str:
    """What is wrong with a file that has been read; "" when it is whole."""
    if contents.state == "whole":
        return ""
    if contents.state == "not dicom":
        return f"no DICOM: {contents.reason}"
    return f"not whole: {contents.reason} (at octet {contents.offset})"


def _locator(file: File, contents: Contents) -> dicomjson.Locate:
    """How to say where a value is in the file."""
    word = "inflated-offset" if contents.is_deflated else "offset"
    path, member = (file.path, f"member={quote(os.fsencode(file.name))}&") if isinstance(file, Member) else (file, "")
    place = f"file://{quote(os.fsencode(os.path.abspath(path)))}?{member}"
    return lambda start, length: f"{place}{word}={start}&length={length}"


def _text_json(text: str) -> bytes:
    return msgspec.json.encode(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))


def _words(leaf: contrast.Leaf) -> str:
    """What stands on one side of a difference."""
    found = leaf.found
    if isinstance(found, Element):
        return f"{found.vr} {listing.shown(found)}"
    if isinstance(found, Opened):
        return f"{found.vr} ({leaf.items} {'fragments' if found.has_fragments else 'items'})"
    return f"({found.length} octets at {found.start})"


def _object(leaf: contrast.Leaf, locate: dicomjson.Locate) -> bytes:
    """What stands on one side of a difference, as an attribute object where it is one."""
    found = leaf.found
    if isinstance(found, Element):
        return dicomjson.attribute(found, locate)
    if isinstance(found, Opened):
        return msgspec.json.encode({"vr": found.vr, "fragments" if found.has_fragments else "items": leaf.items})
    return msgspec.json.encode({"length": found.length, "BulkDataURI": locate(found.start, found.length)})
