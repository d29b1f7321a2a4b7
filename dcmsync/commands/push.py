"""`dcmsync push`: help, options, and the wiring of paths or records with the engine."""

from __future__ import annotations

from argparse import Namespace

from dcmsync.commands.options import DELIVERING, EDITING, REQUIRE_END, Command, Option, Streams
from dcmsync.errors import ExitStatus, UsageError

COMMAND = Command(
    name="push",
    summary="deliver files, or what records name, to another machine; writes outcomes",
    description=(
        "Sends to DEST the instances in PATHs (files, folders, zip archives), or what the study, series and instance "
        "records (and failed outcomes) on standard input name, each from its own source. DEST is a DICOM node (by "
        "C-STORE), a DICOMweb service (by STOW-RS, several instances in a request), or a project of XNAT. Writes one "
        "outcome record a series, and one for each instance that is not fine.\n\n"
        "Each instance travels as it is, in its own transfer syntax; one that DEST does not take is named, with its "
        "SOP class and transfer syntax. Files are checked as wholes before anything is sent: what is truncated, "
        "damaged or does not say which instance it is, and what is no DICOM although it was named as a file, is named "
        "in an outcome record and not sent, and the exit status is 3. What comes from another machine passes through "
        "memory (a large instance through an unnamed temporary file).\n\n"
        "DEST is asked what it has, series by series, and that is not sent; --trust says by what it counts as the "
        "same, --force sends it all the same. Other content under the same UID is a conflict, and stays.\n\n"
        "With --via move, a source that is a node is asked to send straight to DEST, by the AE title of DEST; its "
        "administrator must have entered DEST there. What DEST does not list afterwards goes through us, and so does "
        "everything where the source knows no such node.\n\n"
        "Statuses are not believed: when a series was sent, DEST is asked for every instance of it again, and what it "
        "does not list is sent once more, then `failed` with the reason `missing`. A DEST that cannot be asked leaves "
        "its instances `stored` with the reason `unproven`, and the exit status is 3, unless --verify none takes its "
        "word. With --verify commit it is asked for storage commitment instead, a series at a time (up to 5,000 "
        "instances): what it promises to keep is proven, what it will not keep has `failed`. Its report comes on the "
        "same association, or to our port (see --port), so that it has to know our AE title, host and port; "
        "--timeout says how long each report is waited for. What it does not tell is `unproven`.\n\n"
        "A DICOMweb service says of each instance what became of it; one that its answer does not list as stored has "
        "failed, whatever the status, and what it has already counts once it lists it when asked again. To XNAT "
        "instances go as zip archives, those of a study into one session of the pre-archive; a study that is archived "
        "already is refused. XNAT names no instances before they are archived: as many files in a series as should be "
        "there are the proof, where it counts them by series, and where it does not they stay `unproven`; with --trust "
        "counts, what is there by its count is not sent again. An upload whose answer is lost is looked for, not "
        "repeated.\n\n"
        "What DEST has no room for now is tried again after a pause; an instance that breaks associations is tried "
        "last, alone, and never keeps the others from arriving. Run the same command again and it goes on from there."
    ),
    options=(
        Option(flags=("dest",), metavar="DEST", completion="endpoint", help="where to deliver to"),
        Option(flags=("path",), metavar="PATH", nargs="*", completion="file",
               help="files, folders and zip archives to send; without any, the records on standard input say what"),
        *DELIVERING,
        *EDITING,
        REQUIRE_END,
    ),
    examples=(
        ("dcmsync push pacs ./incoming", "all that is in a folder"),
        ("find /data -name '*.dcm' -mtime -1 -print0 | xargs -0 dcmsync push PACS@10.0.0.1:104", "the files of a day"),
        ("dcmsync query old-pacs StudyDate=2023* | dcmsync push new-pacs", "a year, from one node to another"),
        ("dcmsync push https://pacs.example.org/dicom-web study.zip", "a zip archive, to a DICOMweb service"),
        ("dcmsync push xnat+https://xnat.example.org/PROJECT ./scans", "to the pre-archive of a project"),
        ("dcmsync diff ./archive pacs StudyDate=2024* | dcmsync push pacs --verify content",
         "what it lacks, and proof of every octet"),
    ),
)


def run(arguments: Namespace, streams: Streams) -> ExitStatus:
    """Pushes what the paths or standard input name."""
    if not arguments.path and not streams.stdin_is_pipe:
        raise UsageError("push was given neither paths nor records on standard input",
                         advice="Write: dcmsync push DEST PATH..., or dcmsync query ... | dcmsync push DEST")
    if arguments.via == "move":
        if arguments.verify == "content":
            raise UsageError("--verify content compares with what passed through us, and with --via move nothing does",
                             advice="Use dcmsync diff --trust content afterwards")
        arguments = Namespace(**{**vars(arguments), "via": None, "straight": True})  # to DEST, and not to us
    import anyio

    from dcmsync.commands.bringing import Bringing
    from dcmsync.commands.choosing import EVERYTHING, Choice
    from dcmsync.commands.places import Places
    from dcmsync.net.patience import Watch
    from dcmsync.records.stream import Reader
    from dcmsync.transfer.feed import Feed
    from dcmsync.transfer.listing import Listing
    from dcmsync.transfer.works import works

    with Watch() as watch:
        places = Places(arguments, watch, streams)
        if places.is_local(arguments.dest):
            raise UsageError(f"{arguments.dest} is on this machine", advice="Use dcmsync pull or dcmsync sync")
        choice = Choice(arguments.path or (), places, streams, watch)
        bringing = Bringing(
            arguments, streams, places, [arguments.dest], trust=arguments.trust, sources=choice.sources
        )
        listing = Listing(list(choice.sources.items()), EVERYTHING, lambda thing: True, warn=streams.warn)
        reader = Reader(streams.stdin, require_end=arguments.require_end)

        async def push() -> ExitStatus:
            if not arguments.path:
                return await bringing.run(lambda: Feed(works(reader)))
            await listing.run()
            status = max(choice.tell_unsound(bringing.tell), listing.status)
            return max(status, await bringing.run(listing.works))

        status = anyio.run(push)
        trouble = "" if arguments.path else reader.trouble
        return bringing.end(status, input_trouble=trouble, truncated=listing.trouble)
