"""`dcmsync pull`: help, options, and the wiring of records on standard input with the engine."""

from __future__ import annotations

from argparse import Namespace

from dcmsync.commands.options import BRINGING, EDITING, REQUIRE_END, Command, Option, Streams
from dcmsync.errors import ExitStatus, UsageError

COMMAND = Command(
    name="pull",
    summary="bring what the records name to this machine; writes outcomes",
    description=(
        "Reads study, series and instance records (and failed outcomes) from standard input, retrieves what they name "
        "from their own source (a DICOM node, a DICOMweb service, a folder, a zip archive …), and writes one outcome "
        "record a series, and one for each instance that is not fine.\n\n"
        "The inventory of each series is asked for at instance level. What DEST holds already, whole, is not "
        "fetched; what does not come is asked for again; an instance stands under its name only when it is whole, "
        "checked and durable. Exit status 0 means that every instance of the inventory is there, proven.\n\n"
        "A node is asked by C-GET, or with --via move by C-MOVE: it then sends to us, at --port, and must know our AE "
        "title, host and port. Only what was asked for is taken, and only from that node. Without --via, C-MOVE is "
        "tried where C-GET is refused (see dcmsync-locators(7)).\n\n"
        "A DICOMweb service is asked by WADO-RS for instances as it stores them: a series in one answer, and what "
        "lacks of it one by one.\n\n"
        "DEST is a folder, or a zip archive (….zip), which is made, or made anew with more in it, all at once at the "
        "end.\n\n"
        "Ctrl-C once finishes the series in flight, twice aborts. Run the same command again and it goes on from there."
    ),
    options=(
        Option(flags=("dest",), metavar="DEST", nargs="?", completion="directory",
               help="the folder or archive to bring to"),
        Option(flags=("--metadata",),
               help="instead, write what is known of each instance but its bulk data, one object of the DICOM JSON "
                    "model a line, as dump does, to standard output; from DICOMweb services"),
        *BRINGING,
        *EDITING,
        REQUIRE_END,
    ),
    examples=(
        ("dcmsync query pacs StudyDate=20240101- | dcmsync filter ModalitiesInStudy=CT | dcmsync pull ./archive",
         "the CT studies since New Year"),
        ("dcmsync pull ./archive --layout '{PatientID}/{SeriesNumber:03}/{InstanceNumber:05}.dcm' < records.ndjson",
         "names of one's own"),
        ("dcmsync filter outcome=failed retry=true < log.ndjson | dcmsync pull ./archive", "try again what may work"),
        ("dcmsync query pacs PatientID=P1 | dcmsync pull ./a --via move --port 11113", "by C-MOVE, to a port of ours"),
        ("dcmsync query pacs PatientID=P1 | dcmsync pull p1.zip", "a patient's studies in one file"),
        ("dcmsync query web PatientID=P1 | dcmsync pull --metadata | jq -r '.\"00180087\".Value[0]' | sort | uniq -c",
         "the field strengths of a patient's images, without fetching one"),
    ),
)


def run(arguments: Namespace, streams: Streams) -> ExitStatus:
    """Pulls what standard input names."""
    if not streams.stdin_is_pipe:
        raise UsageError("pull reads records from standard input, and there is none",
                         advice="Write: dcmsync query ENDPOINT KEY=VALUE | dcmsync pull DEST")
    if arguments.metadata:
        from dcmsync.commands.describing import describe

        return describe(arguments, streams)
    if arguments.dest is None:
        raise UsageError("there is no place to bring things to", advice="Write: dcmsync pull DEST")
    import anyio

    from dcmsync.commands.bringing import Bringing
    from dcmsync.commands.places import Places
    from dcmsync.net.patience import Watch
    from dcmsync.records.stream import Reader
    from dcmsync.transfer.feed import Feed
    from dcmsync.transfer.works import works

    with Watch() as watch:
        bringing = Bringing(arguments, streams, Places(arguments, watch, streams), [arguments.dest])
        reader = Reader(streams.stdin, require_end=arguments.require_end)

        async def bring() -> ExitStatus:
            return await bringing.run(lambda: Feed(works(reader)))

        return bringing.end(anyio.run(bring), input_trouble=reader.trouble)
