"""Where an instance lies below its destination: `--layout TEMPLATE` -> a relative path. Pure.

Owns the template language and the names that are safe. Refuses to touch a file system.

Theory of operation. A template is split at `/` into components, a component into literals and fields. What a value may
not keep is replaced by `_`; a component in which anything was replaced, cut, or ambiguous carries `~` and a hash of the
original values before its extension. `~` itself is no safe character, so a component with it never meets one without,
and two with it differ by hash: different values have different names.

Not everything that is safe on Linux is different elsewhere: `ab` and `AB` are one name on macOS and Windows. UIDs keep
only digits and dots, so the case twin of a broken UID gets a hash and stays apart. Other values keep their case without
a hash, since nearly every patient ID has capitals: there two patients may share a folder, and the folder store, which
looks at the SOP Instance UID of the file that has a name, keeps their instances apart.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from string import Formatter

from msgspec import Struct

from dcmsync.errors import UsageError

DEFAULT = "{PatientID}/{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm"
UNKNOWN = "unknown"  # stands for a missing or empty value
MAX_COMPONENT_OCTETS = 200  # of the 255 that file systems allow; the rest is for those who must add to a name
HASH_DIGITS = 16

_KEYWORD = re.compile(r"[A-Z][A-Za-z0-9]*|[0-9A-Fa-f]{8}")
_ZERO_PADDED = re.compile(r"0([1-9][0-9]?)d?")
_WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,17}")
_PLAIN = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_^+=,@ .-]{0,98}[A-Za-z0-9_^+=,@-])?")
_PLAIN_UID = re.compile(r"[0-9](?:[0-9.]{0,98}[0-9])?")
_KEPT = frozenset("_^+=,@ .-")
_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,8}")
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(?:\..*)?", re.IGNORECASE)


class Field(Struct, frozen=True):
    """The value of one attribute, zero-padded to `width` when it is a number."""

    keyword: str
    width: int = 0


Component = tuple[str | Field, ...]


class Layout(Struct, frozen=True, kw_only=True):
    """A template that has been understood. `keywords`: the attributes that it needs, in order."""

    template: str
    keywords: tuple[str, ...]
    components: tuple[Component, ...]

    def path(self, attributes: Mapping[str, object]) -> str:
        """The relative POSIX path for an instance with these attributes. No component is empty, `.` or `..`."""
        return "/".join([_named(component, attributes) for component in self.components])


def compile(template: str) -> Layout:
    """A template understood. Raises UsageError."""
    components = tuple(_component(part) for part in _parts(template))
    keywords = [piece.keyword for component in components for piece in component if isinstance(piece, Field)]
    return Layout(template=template, keywords=tuple(dict.fromkeys(keywords)), components=components)


def _parts(template: str) -> list[list[str | Field]]:
    """The components of a template as they stand."""
    parts: list[list[str | Field]] = [[]]
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as trouble:
        raise _wrong(template, str(trouble)) from None
    for literal, keyword, spec, conversion in parsed:
        first, *others = literal.split("/")
        parts[-1].extend([first] if first else [])
        parts.extend([other] if other else [] for other in others)
        if keyword is not None:
            parts[-1].append(_field(template, keyword, spec or "", conversion))
    if not all(parts):
        raise _wrong(template, "it begins or ends with /, or has nothing between two of them")
    return parts


def _field(template: str, keyword: str, spec: str, conversion: str | None) -> Field:
    if conversion or not _KEYWORD.fullmatch(keyword):
        raise _wrong(template, f"{{{keyword}}} is no DICOM keyword, such as {{PatientID}}, nor ggggeeee")
    padded = _ZERO_PADDED.fullmatch(spec)
    if spec and not padded:
        raise _wrong(template, f"{{{keyword}:{spec}}}: a format can only pad with zeros, such as {{SeriesNumber:03}}")
    return Field(keyword, int(padded[1]) if padded else 0)


def _component(pieces: list[str | Field]) -> Component:
    """A component with its neighbouring literals joined. Raises UsageError when its literals are unsafe."""
    joined: list[str | Field] = []
    for piece in pieces:
        if isinstance(piece, str) and joined and isinstance(joined[-1], str):
            joined[-1] += piece
        else:
            joined.append(piece)
    shown = "".join(piece if isinstance(piece, str) else "0" for piece in joined)
    if _safe(shown) != shown:
        raise UsageError(
            f"the layout has a part that is not safe as a name on every file system: {shown!r}",
            advice="use letters, digits and ._-^+=,@ in it; begin with none of .- and end with no dot or space",
        )
    return tuple(joined)


def _wrong(template: str, why: str) -> UsageError:
    return UsageError(f"the layout {template!r} cannot be understood: {why}", advice="write { and } as {{ and }}")


def _named(component: Component, attributes: Mapping[str, object]) -> str:
    """The name of one component."""
    fields = (piece for piece in component if isinstance(piece, Field))
    return _name_of(component, tuple([_text(attributes.get(field.keyword)) or UNKNOWN for field in fields]))


@lru_cache(maxsize=1024)  # the instances of a series share most components
def _name_of(component: Component, texts: tuple[str, ...]) -> str:
    """The name of a component whose fields have these texts."""
    written: list[str] = []
    is_kept = True
    left = iter(texts)
    for piece in component:
        if isinstance(piece, str):
            written.append(piece)
            continue
        text = next(left)
        shown = _shown(text, piece)
        is_kept = is_kept and shown is not None
        written.append(text if shown is None else shown)
    name = "".join(written)
    if is_kept and (len(texts) < 2 or _splits(component, written)) and _safe(name) == name:
        return name
    return _hashed(name, _extension(component), texts)


def _text(value: object) -> str:
    """A plain value as DICOM writes it."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return "\\".join(map(_text, value))
    return str(value)


def _shown(text: str, field: Field) -> str | None:
    """A value as a name shows it; None when that cannot be done without doubt about what it was."""
    if text == UNKNOWN:
        return text
    if field.width:
        return format(int(text), f"0{field.width}") if _WHOLE_NUMBER.fullmatch(text) else None
    if field.keyword.endswith("UID"):
        return text if _PLAIN_UID.fullmatch(text) else None
    return text


def _splits(component: Component, written: list[str]) -> bool:
    """Whether the values can be told apart again: each ends where the literal after it first occurs."""
    for index in range(len(component) - 2):
        if isinstance(component[index], Field):
            after = component[index + 1]
            if isinstance(after, Field) or (written[index] + after).find(after) != len(written[index]):
                return False
    return not (len(component) > 1 and isinstance(component[-1], Field) and isinstance(component[-2], Field))


def _safe(name: str) -> str:
    """The name itself when every file system takes it as it is; else something near it that they all take."""
    if _PLAIN.fullmatch(name) and not _RESERVED.fullmatch(name):
        return name
    name = unicodedata.normalize("NFC", name)
    name = "".join(character if _is_kept(character) else "_" for character in name) or "_"
    if name[0] in " .-":
        name = "_" + name[1:]
    if name[-1] in " .":
        name = name[:-1] + "_"
    if _RESERVED.fullmatch(name):
        name = "_" + name
    return name if len(name.encode()) <= MAX_COMPONENT_OCTETS else _cut(name, MAX_COMPONENT_OCTETS)


def _is_kept(character: str) -> bool:
    """Whether a name may have it: letters and digits of any script with their marks, and a little punctuation."""
    return character.isalnum() or character in _KEPT or unicodedata.category(character)[0] == "M"


def _hashed(name: str, extension: str, texts: Sequence[str]) -> str:
    """A safe name that no other values get: `~` and a hash of these, before the extension."""
    whole = texts[0] if len(texts) == 1 else "".join(f"{len(text)}:{text}" for text in texts)
    digest = blake2b(whole.encode("utf-8", "surrogatepass"), digest_size=HASH_DIGITS // 2).hexdigest()
    stem = _safe(name.removesuffix(extension))
    return f"{_cut(stem, MAX_COMPONENT_OCTETS - len(extension) - 1 - HASH_DIGITS)}~{digest}{extension}"


def _extension(component: Component) -> str:
    """The extension that the template itself gives, or nothing."""
    last = component[-1]
    dot = last.rfind(".") if isinstance(last, str) else -1
    return last[dot:] if isinstance(last, str) and dot >= 0 and _EXTENSION.fullmatch(last[dot:]) else ""


def _cut(name: str, octets: int) -> str:
    return name.encode()[:octets].decode("utf-8", "ignore")
