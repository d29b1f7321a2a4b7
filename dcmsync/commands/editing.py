"""Edits as verbs have them: from options to what is done to each instance on its way, and what outcomes say of it.

Owns the wiring of the words (`plan/edits`) with what edits (`wire/editing`) and with the engine. Refuses to parse.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from msgspec import UNSET
from msgspec.structs import replace

from dcmsync.errors import LocalTrouble, UsageError
from dcmsync.plan import edits
from dcmsync.records.model import Outcome
from dcmsync.wire.dataset import described, tag_of
from dcmsync.wire.editing import Editor, Provenance, Rules

_SYSTEM = "dcmsync"
_LEVELS = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID", "instance": "SOPInstanceUID"}
_UIDS = tuple(_LEVELS.values())


class Editing:
    """What becomes of each instance (transfer.edited.Edits). `words`: by which it can be made again."""

    def __init__(self, words: Sequence[str], *, salt: bytes = b"", keeps_originals: bool = False) -> None:
        """Raises UsageError."""
        asked = edits.parse(words, tag_of=tag_of, vr_of=_vr_of, keeps_originals=keeps_originals)
        self.words = asked.words
        self.remaps = asked.remaps
        self._remap = edits.remapper(salt) if asked.remaps else None
        moment = datetime.now().astimezone().strftime("%Y%m%d%H%M%S%z")
        self._rules = Rules(
            values={tag: (edit.vr, edit.text) for tag, edit in asked.values.items()},
            deleted=asked.deleted,
            remap=self._remap,
            provenance=Provenance(system=_SYSTEM, moment=moment) if keeps_originals else None,
        )

    def uid(self, uid: str) -> str:
        """The UID that an instance, series or study has afterwards."""
        return self._remap(uid) if self._remap is not None else uid

    def editor(self, transfer_syntax_uid: str) -> Editor:
        """Who edits the next data set."""
        return Editor(self._rules, transfer_syntax_uid)

    def outcome(self, outcome: Outcome) -> Outcome:
        """An outcome in words of the destination, if it is there; what failed is called as at its source."""
        if outcome.outcome not in ("stored", "present"):
            return outcome
        changes: dict[str, object] = {}
        for key in _UIDS:
            old = getattr(outcome, key)
            if old is not UNSET and self.uid(old) != old:
                changes[key] = self.uid(old)
                if key == _LEVELS[outcome.level]:
                    changes["original"] = old
        patient = self._rules.values.get(_PATIENT_ID)
        if outcome.PatientID is not UNSET and (patient is not None or _PATIENT_ID in self._rules.deleted):
            changes["PatientID"] = patient[1] if patient is not None and patient[1] else UNSET
        return replace(outcome, **changes) if changes else outcome


_PATIENT_ID = 0x00100020


def asked(arguments: Namespace) -> Editing | None:
    """The edits that options.EDITING of a verb ask for; None for none. Raises UsageError, LocalTrouble."""
    given: Mapping[str, object] = vars(arguments)
    words = list(arguments.edit or ()) if "edit" in given else []
    if given.get("edit_file"):
        words += edits.lines(_text(str(given["edit_file"])), str(given["edit_file"]))
    if given.get("remap_uids"):
        words.append(edits.REMAP)
    salt_file = given.get("salt_file")
    if salt_file and edits.REMAP not in words:
        raise UsageError("--salt-file is of use with --remap-uids only", advice="Give both, or neither")
    if not words:
        if given.get("keep_originals"):
            raise UsageError("--keep-originals keeps what edits replace, and there are none", advice="Leave it out")
        return None
    if given.get("straight"):
        raise UsageError("--via move has the source send straight to DEST, and edits are made here",
                         advice="Leave out --via move, or the edits")
    for way in ("link", "symlink", "move"):
        if given.get(way):
            raise UsageError(f"--{way} and edits ask for two things: what is edited is another file",
                             advice=f"Leave out --{way}")
    salt = salt_of(str(salt_file)) if salt_file else b""
    editing = Editing(words, salt=salt, keeps_originals=bool(given.get("keep_originals")))
    if editing.remaps and given.get("delete"):
        raise UsageError("--delete compares UIDs, and --remap-uids replaces them", advice="Leave out one of them")
    return editing


def salt_of(path: str) -> bytes:
    """The salt in a file: all octets, but for line ends behind them. Raises LocalTrouble, UsageError when empty."""
    salt = _octets(path).rstrip(b"\r\n")
    if not salt:
        raise UsageError(f"{path}: there is no salt in it", advice="Make one: openssl rand -hex 32 > FILE")
    return salt


def _vr_of(tag: int) -> str:
    return described(tag)[0]


def _text(path: str) -> str:
    try:
        return _octets(path).decode()
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not UTF-8", advice="Save it as UTF-8") from None


def _octets(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise LocalTrouble(f"{path} cannot be read: {(error.strerror or 'unknown error').lower()}") from error
