"""Changing a file of settings: by an editor or by adding to it, checked first, and put in its place all at once.

Owns that the file is at every moment either the old one or the new one, whole. Refuses to know what may stand in it.
"""

import os
import shlex
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import mkstemp

from dcmsync.errors import DcmsyncError, LocalTrouble, UsageError

_FALLBACK = "vi"


def replace(file: Path, text: str) -> None:
    """Puts `text` into the file, durable when this returns; a link stays one. New files are for their owner alone.

    Raises LocalTrouble; the file is then as it was.
    """
    target = Path(os.path.realpath(file))
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o600
        descriptor, temporary = mkstemp(prefix=f".{target.name}-", dir=target.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as draft:
                draft.write(text)
                draft.flush()
                os.fchmod(draft.fileno(), mode)
                os.fsync(draft.fileno())
            os.rename(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise LocalTrouble(f"{file}: cannot be written: {error.strerror}") from error


def add(file: Path, section: str, *, check: Callable[[str], object]) -> None:
    """Adds a section at the end of the file; what stands there stays as it is, comments and all.

    Raises what `check` says of the whole, and LocalTrouble; the file is then as it was.
    """
    before = _read(file) or ""
    gap = "\n" if before and not before.endswith("\n") else ""
    after = f"{before}{gap}{chr(10) if before else ''}{section}"
    check(after)
    replace(file, after)


def edit(
    file: Path, *, fresh: str, check: Callable[[Path], None], environ: Mapping[str, str], say: Callable[[str], None]
) -> bool:
    """Has the user's editor change the file, which begins as `fresh` where there is none. Whether it changed.

    `check` judges the changed text, in a file of its own. What it refuses is kept beside the file, and the next call
    goes on from there; the file stays as it was. Raises UsageError, LocalTrouble, and what `check` raises.
    """
    draft = file.with_name(f"{file.name}.draft")
    before = _read(file)
    begun = _read(draft)
    if begun is not None:
        say(f"{draft}: going on from there")
    replace(draft, before if begun is None and before is not None else begun or fresh)
    _run_editor(draft, environ)
    after = _read(draft) or ""
    if after == before or (before is None and after == fresh and begun is None):
        draft.unlink()
        say(f"{file}: nothing was changed")
        return False
    try:
        check(draft)
    except DcmsyncError as error:
        error.advice = f"{error.advice or 'Mend that'}. {file} is as it was; dcmsync config edit goes on from {draft}"
        raise
    if _read(file) != before:
        raise LocalTrouble(f"{file}: somebody else has changed it meanwhile", advice=f"Your changes are in {draft}")
    replace(file, after)
    draft.unlink()
    return True


def _run_editor(file: Path, environ: Mapping[str, str]) -> None:
    words = shlex.split(environ.get("VISUAL") or environ.get("EDITOR") or _FALLBACK)
    try:
        status = subprocess.run([*words, str(file)], check=False).returncode
    except OSError as error:
        advice = f"{error.strerror}. Set VISUAL or EDITOR to one that there is"
        raise UsageError(f"the editor {words[0]} cannot be run", advice=advice) from None
    if status:
        raise UsageError(f"the editor ended with status {status}", advice=f"Nothing was changed; see {file}")


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise LocalTrouble(f"{file}: cannot be read: {error}") from error
