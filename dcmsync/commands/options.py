"""The option row: one definition from which the parser, `--help`, man pages and completions are made.

A verb file declares `COMMAND = Command(...)` and a `run(arguments, streams) -> ExitStatus`. Nothing here parses;
`cli/parse.py` turns rows into an argparse parser, `cli/pages.py` turns that into pages.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from dcmsync.plan.timetable import Timetable

Completion = Literal["file", "directory", "endpoint", "keyword"] | None


class Option(Struct, frozen=True, kw_only=True):
    """One option or positional argument.

    `flags`: ("-n", "--dry-run"), or one bare name for a positional ("endpoint").
    `metavar` is None for a switch. `parse` raises ValueError with words on bad input.
    `nargs`: "?", "*", "+", or None for exactly one. `repeat` collects every use in a list.
    """

    flags: tuple[str, ...]
    help: str
    metavar: str | None = None
    parse: Callable[[str], object] = str
    default: object = None
    choices: tuple[str, ...] = ()
    nargs: str | None = None
    repeat: bool = False
    completion: Completion = None


class Command(Struct, frozen=True, kw_only=True):
    """One verb: its one-line `summary`, its `description` (paragraphs), its rows and its examples.

    `examples` are (command line, what it does) pairs, printed first in `--help` and in the man page.
    """

    name: str
    summary: str
    description: str
    options: tuple[Option, ...]
    examples: tuple[tuple[str, str], ...] = ()


class Meter(Protocol):
    """Shows how far the work is. The front door gives a bar on a terminal, and a silent one elsewhere."""

    def total(self, instances: int | None, provisional: bool) -> None:
        """Sets how many instances there are to do: None where nobody knows, `provisional` while input still comes."""

    def advance(self, instances: int, octets: int) -> None:
        """Adds what was done just now."""

    def close(self) -> None:
        """Takes the bar away. Idempotent."""


class Silent:
    """The meter that shows nothing."""

    def total(self, instances: int | None, provisional: bool) -> None:
        """Ignored."""

    def advance(self, instances: int, octets: int) -> None:
        """Ignored."""

    def close(self) -> None:
        """Nothing to take away."""


def hush(text: str) -> None:
    """Says nothing of `text`."""


class Streams(Struct, frozen=True, kw_only=True):
    """What the front door hands to a verb: binary standard streams, and where people's text goes.

    `say(text)` writes one line to people (stderr), after the verb's name; `warn(text)` one about what
    may surprise (a level of its own in JSON), `note(text)` only with -v.
    `is_terminal` tells of stdout. `meter()` starts a progress bar, to be closed by the verb.
    """

    stdin: BinaryIO
    stdout: BinaryIO
    say: Callable[[str], None]
    note: Callable[[str], None]
    stdin_is_pipe: bool
    is_terminal: bool
    stderr_is_terminal: bool
    meter: Callable[[], Meter] = Silent
    warn: Callable[[str], None] = hush


def duration(text: str) -> float:
    """Seconds from `30`, `2.5`, `90s`, `10m`, `2h` or `1d`.

    Raises ValueError with words.
    """
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(text[-1:])
    number = text[:-1] if unit else text
    try:
        seconds = float(number) * (unit or 1)
    except ValueError:
        raise ValueError(f"{text!r} is no duration: write 30, 90s, 10m, 2h or 1d") from None
    if not 0 < seconds < 1e9:
        raise ValueError(f"{text!r} is no duration that one can wait for")
    return seconds


def positive(text: str) -> int:
    """A whole number from 1 up. Raises ValueError with words."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def port(text: str) -> int:
    """A TCP port. Raises ValueError with words."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise ValueError(f"{text!r} is no port: write 1 to 65535")
    return int(text)


CONFIG = Option(flags=("--config",), metavar="FILE", completion="file",
                help="read the configuration from FILE (also DCMSYNC_CONFIG)")
QUIET = Option(flags=("-q", "--quiet"), metavar=None, help="say nothing but errors on stderr")
VERBOSE = Option(flags=("-v", "--verbose"), metavar=None, help="say more on stderr")
LOG_FORMAT = Option(flags=("--log-format",), metavar="FORMAT", choices=("text", "json"), default="text",
                    help="messages on stderr as text or as JSON, one object a line")
FORMAT = Option(flags=("--format",), metavar="FORMAT", choices=("ndjson", "tree", "table", "csv", "uids"),
                help="how to write records; default: tree on a terminal, ndjson in a pipe")
DEFAULT_TIMEOUT_S = 60.0  # where neither the command line nor the configuration says otherwise
TIMEOUT = Option(flags=("--timeout",), metavar="SECONDS", parse=duration,
                 help="give up on a peer that makes no progress for this long (30, 90s, 2m); default 60")
PORT = Option(flags=("--port",), metavar="N", parse=port,
              help="where we listen for what nodes send by C-MOVE; default: the configuration's, or 11112")
VIA = Option(flags=("--via",), metavar="HOW", choices=("get", "move"),
             help="retrieve from nodes by C-GET (get) or by C-MOVE (move); default: C-GET, C-MOVE where it is refused")
CALLING = Option(flags=("--calling",), metavar="AET", help="our own AE title; default DCMSYNC")
JOBS = Option(flags=("--jobs", "-j"), metavar="N", parse=positive,
              help="series to retrieve at a time at most, each on an association: more as long as that is faster, "
                   "fewer when the node says that it grants no more; default 16")
DRY_RUN = Option(flags=("-n", "--dry-run"), help="write the same records as the real run would, and touch nothing")
CACHE = Option(flags=("--cache",), metavar="FILE", completion="file",
               help="remember local files in FILE; default: one file for each folder, in the user's cache folder")
NO_CACHE = Option(flags=("--no-cache",), help="remember nothing: read every local file that matters")
REQUIRE_END = Option(flags=("--require-end",), help="treat a stream of records without its end record as incomplete")

EVERYWHERE: tuple[Option, ...] = (CONFIG, QUIET, VERBOSE, LOG_FORMAT)

EDITING: tuple[Option, ...] = (
    Option(flags=("--edit",), metavar="KEY=VALUE", repeat=True, completion="keyword",
           help="set this element of each instance on its way; KEY= empties it, KEY- deletes it"),
    Option(flags=("--edit-file",), metavar="FILE", completion="file",
           help="more edits, one a line, written as for --edit; lines that begin with # say nothing"),
    Option(flags=("--remap-uids",),
           help="replace the UIDs of instances, series, studies and frames of reference, and all references to them; "
                "one UID always becomes the same other one"),
    Option(flags=("--salt-file",), metavar="FILE", completion="file",
           help="with --remap-uids: a secret on which the new UIDs depend, so that they cannot be traced back"),
    Option(flags=("--keep-originals",),
           help="keep what edits replace in the Original Attributes Sequence of each instance"),
)
"""What every verb has that may edit instances on their way."""

def rates(text: str) -> "Timetable":
    """A rate, or a timetable of rates. Raises ValueError with words."""
    from dcmsync.plan.timetable import read

    return read(text)


def amount(text: str) -> int:
    """Octets, from 500M or 1.5G. Raises ValueError with words."""
    from dcmsync.plan.timetable import octets

    return octets(text)


PACE: tuple[Option, ...] = (
    Option(flags=("--bwlimit",), metavar="RATE", parse=rates,
           help="move no more than this a second over the network, as in 512k or 10M; or a timetable of local times, "
                "as in '08:00,512k 18:00,10M 23:00,off' or 'Mon-08:00,1M Sat-00:00,off'"),
    Option(flags=("--max-duration",), metavar="TIME", parse=duration,
           help="take no more work after so long (8h, 90m); what is in flight is finished"),
    Option(flags=("--max-transfer",), metavar="SIZE", parse=amount,
           help="take no more work after so much was brought (500M, 100G); what is in flight is finished"),
)
"""What every verb has that moves instances."""

BRINGING: tuple[Option, ...] = (
    Option(flags=("--layout",), metavar="TEMPLATE",
           help="where an instance goes below DEST; default "
                "{PatientID}/{StudyInstanceUID}/{SeriesInstanceUID}/{SOPInstanceUID}.dcm"),
    Option(flags=("--link",), help="from folders: make hard links where the file system can, copies elsewhere"),
    Option(flags=("--symlink",), help="from folders: make symbolic links to the files where they are"),
    Option(flags=("--move",), help="from folders: remove each file once every DEST has its instance, proven"),
    Option(flags=("--itemize", "-i"), help="one outcome for each instance, not only for those that are not fine"),
    Option(flags=("--force", "-f"), help="fetch what is there already, and replace what differs"),
    DRY_RUN,
    JOBS,
    FORMAT,
    CACHE,
    NO_CACHE,
    VIA,
    PORT,
    *PACE,
    TIMEOUT,
    CALLING,
)
"""What every verb has that brings instances to this machine."""

TRUST = Option(flags=("--trust",), metavar="WHAT", choices=("counts", "uids", "content"), default="uids",
               help="by what an instance counts as the same: counts, uids (default) or content")
VERIFY = Option(flags=("--verify",), metavar="HOW", choices=("none", "uids", "content", "commit"), default="uids",
                help="how a node is to prove that it has what was sent: asked for every instance again (uids, the "
                     "default), fetched back and compared (content), asked to promise that it keeps it (commit), or by "
                     "its word alone (none)")
ITEMIZE = Option(flags=("--itemize", "-i"),
                 help="one outcome for each instance, not only for those that are not fine")

DELIVERING: tuple[Option, ...] = (
    ITEMIZE,
    Option(flags=("--force", "-f"), help="send what is there already, too"),
    TRUST,
    VERIFY,
    DRY_RUN,
    Option(flags=("--jobs", "-j"), metavar="N", parse=positive,
           help="associations with DEST at a time at most, and series to read at a time: more as long as that is "
                "faster, fewer when DEST says that it grants no more; default 16"),
    FORMAT,
    CACHE,
    NO_CACHE,
    Option(flags=("--via",), metavar="HOW", choices=("get", "move"),
           help="have a node that records name send straight to DEST, by C-MOVE, where it knows DEST (move), or "
                "retrieve from it by C-GET (get); default: what comes from nodes goes through us"),
    PORT,
    *PACE,
    TIMEOUT,
    CALLING,
)
"""What a verb has that delivers instances to another machine."""
