"""Every exception of dcmsync, and the exit status that each one leads to.

    DcmsyncError                    70  (a bug, unless a child says otherwise)
    ├── UsageError                   2  the command line, the config, a locator
    ├── InputError                   6  a record stream that is broken or incomplete
    ├── LocalTrouble                 7  disk full, unwritable, locked
    ├── DestinationLost              *  a destination takes no more, for a reason that has a status of its own
    ├── Uneditable                   3  an instance to which the edits that were asked for cannot be made
    ├── LocalProtocolError          70  we asked our own engine for what the standard forbids
    └── PeerError                    4  something about the other side
        ├── Unreachable              5  no connection, or no such host
        ├── Rejected                 5  A-ASSOCIATE-RJ, or no context accepted
        │   ├── Insecure             5  no TLS as it is asked for, or a certificate that is not accepted
        │   └── Unasked              5  a place of a kind that gives, but cannot be asked what it has
        ├── Stalled                  4  a deadline passed
        ├── Disconnected             4  A-ABORT, or the socket closed too early
        ├── RemoteProtocolError      4  the peer broke the standard
        └── Refused                  3  a DIMSE status of the failure class
            └── OutOfResources       4  one that says "not now", again and again

One thing failing is an outcome record; the run failing is one of these. Messages say what happened, to which
thing, and what to do next; none of them carries patient data.
"""

import errno
from enum import IntEnum


class ExitStatus(IntEnum):
    """What a process says at its end. Higher trouble wins: statuses combine by `max`."""

    DONE = 0
    NO = 1
    USAGE = 2
    FAILED = 3
    RETRY = 4
    UNREACHABLE = 5
    INCOMPLETE = 6
    LOCAL = 7
    BUG = 70
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


EXIT_MEANINGS: dict[ExitStatus, str] = {
    ExitStatus.DONE: "done, and all of it proven",
    ExitStatus.NO: "the answer is no (diff: they differ; verify: not the same; echo: no answer)",
    ExitStatus.USAGE: "the command line or the configuration is wrong; nothing was done",
    ExitStatus.FAILED: "some things failed for good",
    ExitStatus.RETRY: "some things failed, and trying again may help",
    ExitStatus.UNREACHABLE: "the peer cannot be reached, rejected us, or did not authorise us",
    ExitStatus.INCOMPLETE: "the peer cut a query short, or the input was broken or incomplete",
    ExitStatus.LOCAL: "trouble on this machine: disk full, unwritable, locked",
    ExitStatus.BUG: "a bug in dcmsync",
    ExitStatus.INTERRUPTED: "ended by SIGINT (Ctrl-C)",
    ExitStatus.BROKEN_PIPE: "the reader of standard output went away",
    ExitStatus.TERMINATED: "ended by SIGTERM",
}


class DcmsyncError(Exception):
    """A reason to end the run. `advice` says what to do next, when there is something."""

    exit_status: ExitStatus = ExitStatus.BUG
    reason: str = "bug"

    def __init__(self, message: str, *, advice: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.message}. {self.advice}" if self.advice else self.message


class UsageError(DcmsyncError):
    """The command line, the configuration or a locator cannot be understood."""

    exit_status = ExitStatus.USAGE
    reason = "usage"


class InputError(DcmsyncError):
    """A record stream is broken: `line` is the number of the line, from 1, where one is to blame."""

    exit_status = ExitStatus.INCOMPLETE
    reason = "input"

    def __init__(self, message: str, *, line: int | None = None, advice: str | None = None) -> None:
        super().__init__(message if line is None else f"line {line}: {message}", advice=advice)
        self.line = line


class LocalTrouble(DcmsyncError):
    """This machine said no: disk full, unwritable, locked."""

    exit_status = ExitStatus.LOCAL
    reason = "local"


class DestinationLost(DcmsyncError):
    """A destination takes no more; `cause` says why. Not a PeerError: what is being retrieved is not to blame."""

    def __init__(self, cause: DcmsyncError) -> None:
        super().__init__(cause.message, advice=cause.advice)
        self.cause = cause
        self.exit_status = cause.exit_status
        self.reason = cause.reason


class Uneditable(DcmsyncError):
    """Edits cannot be made to an instance. `reason` says whether that lies in them, or in its data set."""

    exit_status = ExitStatus.FAILED

    def __init__(self, message: str, *, reason: str = "edit") -> None:
        super().__init__(message)
        self.reason = reason


class LocalProtocolError(DcmsyncError):
    """Our own code asked the wire engine for something the standard forbids. Always a bug."""

    reason = "bug"


class PeerError(DcmsyncError):
    """Something about the other side. Trying again may help."""

    exit_status = ExitStatus.RETRY
    reason = "peer"


class Unreachable(PeerError):
    """No connection could be made."""

    exit_status = ExitStatus.UNREACHABLE
    reason = "unreachable"


class Rejected(PeerError):
    """The association was rejected, or the peer accepted nothing that we need (PS3.8 §9.3.4)."""

    exit_status = ExitStatus.UNREACHABLE
    reason = "rejected"

    def __init__(self, message: str, *, transient: bool = False, advice: str | None = None) -> None:
        super().__init__(message, advice=advice)
        self.transient = transient


class Insecure(Rejected):
    """TLS could not be agreed on as it is asked for, or a certificate is not accepted."""

    reason = "tls"


class Unasked(Rejected):
    """A place of a kind that gives, but cannot be asked what it has."""


class Stalled(PeerError):
    """A deadline passed without progress; the socket is closed."""

    reason = "stalled"


class Disconnected(PeerError):
    """The peer aborted, or the connection ended before the work did."""

    reason = "disconnected"


class RemoteProtocolError(PeerError):
    """The peer sent what the standard forbids, or more than our limits allow."""

    reason = "protocol"


class Refused(PeerError):
    """The peer answered with a failure status (PS3.7 Annex C); `status` is its number."""

    exit_status = ExitStatus.FAILED
    reason = "refused"

    def __init__(self, message: str, *, status: int, advice: str | None = None) -> None:
        super().__init__(message, advice=advice)
        self.status = status


class OutOfResources(Refused):
    """The peer has no room, and had none however often it was asked (0xA7xx)."""

    exit_status = ExitStatus.RETRY


_TROUBLE = {
    errno.ENOSPC: "no space left on the disk of the destination",
    errno.EDQUOT: "the disk quota of the destination is used up",
    errno.EFBIG: "the file is larger than the file system or the process may write",
    errno.EROFS: "the destination is on a read-only file system",
    errno.EIO: "the disk of the destination reports an input/output error",
    errno.EACCES: "the destination may not be written",
    errno.EPERM: "the destination may not be written",
    errno.EMFILE: "too many open files in this process",
    errno.ENFILE: "too many open files on this machine",
    errno.ENOMEM: "no memory left",
    errno.ESTALE: "the network file system of the destination went away",
}


def local_trouble(trouble: OSError) -> LocalTrouble:
    """What an error of the operating system means for the run, in words. Names no file."""
    words = _TROUBLE.get(trouble.errno or 0) or (trouble.strerror or "unknown error").lower()
    return LocalTrouble(words, advice="mend that, then run the same command again: it goes on from there")


def is_of_the_machine(trouble: OSError) -> bool:
    """Whether the error would meet the next instance too, so that the run had better end."""
    return trouble.errno in _TROUBLE
