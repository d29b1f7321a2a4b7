"""`dcmsync dump`: help, options, and the wiring of files with what is said of their contents."""

from argparse import Namespace

from dcmsync.commands.options import REQUIRE_END, Command, Option, Streams
from dcmsync.errors import ExitStatus, UsageError

COMMAND = Command(
    name="dump",
    summary="show what is in files: DICOM JSON in a pipe, lines on a terminal",
    description=(
        "Writes the headers of DICOM files: of each PATH, of all files below a PATH that is a folder or a zip archive, "
        "or of the files that the records on standard input name. JSON is the DICOM JSON Model (PS3.18 Annex F), one "
        "object a line for each file, in UTF-8, without group 0002 and group lengths. Text has the columns of dcmdump, "
        "and group 0002.\n\n"
        "ELEMENTS are chosen, at every depth, by keyword (PatientName), tag (00100010, 0010,0010 or (0010,0010)), "
        "group (0010), keyword pattern (Patient*) or private; x stands for any digit of a tag or group (60xx). A "
        "wanted sequence comes with all that is in it; any other is there for what is wanted within. --exclude wins "
        "over --include.\n\n"
        "Bulk data are OB, OD, OF, OL, OV, OW and UN of more than 256 octets, and encapsulated pixel data. When cut, "
        "text shows how they begin, and JSON says where they are, as BulkDataURI: file:///PATH?offset=N&length=N; of a "
        "deflated data set inflated-offset, of a member of an archive with member=NAME before. With none, all elements "
        "of these VRs are left out.\n\n"
        "A file that ends early or breaks the rules is shown as far as it can be read and named on standard error, one "
        "that is no DICOM is only named; then the exit status is 3.\n\n"
        "--diff compares two files element by element, and into sequences: lines of A with -, of B with +; in JSON "
        "one object a line with tag, keyword, a and b. What is encoded otherwise but means the same is the same. The "
        "exit status is 1 when they differ."
    ),
    options=(
        Option(flags=("path",), metavar="PATH", nargs="*", completion="file",
               help="files, folders and archives; - or none: those that the records on stdin name"),
        Option(flags=("--include",), metavar="ELEMENTS", repeat=True, completion="keyword",
               help="show only these, with commas between them"),
        Option(flags=("--exclude",), metavar="ELEMENTS", repeat=True, completion="keyword", help="show none of these"),
        Option(flags=("--bulk",), metavar="HOW", choices=("cut", "base64", "none"), default="cut",
               help="bulk data: cut, whole as base64, or left out; default cut"),
        Option(flags=("--diff",), help="compare two files"),
        Option(flags=("--with-path",), help="add the key path to each object: handy for jq, no longer the JSON model"),
        Option(flags=("--format",), metavar="FORMAT", choices=("json", "text"),
               help="default: text on a terminal, json in a pipe"),
        REQUIRE_END,
    ),
    examples=(
        ("dcmsync dump image.dcm", "the header of a file"),
        ("dcmsync dump --include 'Patient*' --exclude PatientName ./archive | jq -r '.\"00100020\".Value[0]'",
         "the patient IDs below a folder"),
        ("dcmsync query ./archive Modality=CT --level instance | dcmsync dump --include KVP", "of what a query finds"),
        ("dcmsync dump --diff --exclude private,0002 sent.dcm received.dcm", "what has happened on the way?"),
    ),
)


def run(arguments: Namespace, streams: Streams) -> ExitStatus:
    """Dumps files, or compares two."""
    from dcmsync.commands.dumping import Comparing, Dumping
    from dcmsync.commands.files import RecordedFiles, below

    if arguments.diff:
        if len(arguments.path) != 2 or "-" in arguments.path:
            raise UsageError("--diff compares two files", advice="Write: dcmsync dump --diff A B")
        return Comparing(arguments, streams).run(*arguments.path)
    dumping = Dumping(arguments, streams)
    if arguments.path and arguments.path != ["-"]:
        for path in below(arguments.path, dumping.complain):
            dumping.file(path)
        return dumping.status
    if not streams.stdin_is_pipe:
        raise UsageError("there is no file to dump", advice="Name one, or pipe records in: dcmsync query ... |")
    recorded = RecordedFiles(arguments, streams, dumping.complain)
    for path in recorded:
        dumping.file(path)
    if recorded.trouble:
        streams.say(f"the input is not complete: {recorded.trouble}")
        return max(dumping.status, ExitStatus.INCOMPLETE)
    return dumping.status
