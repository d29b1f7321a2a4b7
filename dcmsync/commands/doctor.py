"""`dcmsync doctor`: looks at a node, and says what works, what to set, and what has to be registered."""

from __future__ import annotations

from argparse import Namespace
from os import environ

from dcmsync.commands import drafting
from dcmsync.commands.options import CALLING, PORT, TIMEOUT, Command, Option, Streams
from dcmsync.errors import ExitStatus, UsageError

COMMAND = Command(
    name="doctor",
    summary="see what works with a node, what to set, and what must be registered there",
    description=(
        "Tries the node step by step, and says of each whether it works: connection, association, TLS and until when "
        "its certificate is good, echo; the information models; C-FIND of studies, series and instances; the keys that "
        "it returns and matches by, counts, lists of UIDs, character set, a limit if one is met; the contexts for "
        "C-GET, C-MOVE and C-STORE.\n\n"
        "It asks little: for the studies of today (or of the last week, or month, until there is one), or those that "
        "KEY=VALUE chooses, and of them for one; by Patient Root for those of some patients. It never "
        "lists everything, stores nothing, and moves nothing but one instance with --deep.\n\n"
        "Of a place that speaks HTTP, of any kind: whether it answers and lets us in, its certificate, the levels and "
        "keys that it can be asked by, and whether it gives: of one instance no more than its beginning is read "
        "without --deep, and nothing is ever sent to be stored. Of a DICOMweb service moreover pages, questions "
        "without a study, metadata, and WADO-RS in its shapes. Where another place gives what it lists (retrieve), "
        "that one is looked at, too; WADO-URI and RAD-69 cannot be asked, and need such a pair.\n\n"
        "At its end come the section of the configuration that fits, which --write puts there, and what the "
        "administrator of the node has to register. Exit status 0 when what `pull` needs works, 1 when it does not, 5 "
        "when the node cannot be reached or rejects us."
    ),
    options=(
        Option(flags=("endpoint",), metavar="ENDPOINT", completion="endpoint",
               help="the place, as AET@host:port, https://host/path or by name"),
        Option(flags=("key",), metavar="KEY=VALUE", nargs="*", completion="keyword",
               help="which studies to look at, instead of today's"),
        Option(flags=("--deep",), help="have one instance sent by each service that is offered; it is not kept"),
        Option(flags=("--write",), metavar="NAME", help="add the node to the configuration under this name"),
        Option(flags=("--format",), metavar="FORMAT", choices=("text", "ndjson"),
               help="how to write the verdicts; default: text on a terminal, ndjson in a pipe"),
        PORT,
        TIMEOUT,
        CALLING,
    ),
    examples=(
        ("dcmsync doctor ARCHIVE@10.0.0.1:104", "see whether pull will work, and why not"),
        ("dcmsync doctor https://pacs.example.org/dicom-web", "look at a DICOMweb service"),
        ("dcmsync doctor mint+https://vna.example.org/mint", "look at a MINT search"),
        ("dcmsync doctor ARCHIVE@10.0.0.1:104 PatientID=TEST1 --deep --write pacs",
         "look at the studies of a test patient, have one instance sent, and remember the node as pacs"),
    ),
)


def run(arguments: Namespace, streams: Streams) -> ExitStatus:
    """Looks, tells, and writes down what it learnt."""
    from dcmsync import config
    from dcmsync.commands.diagnosing import Diagnosis
    from dcmsync.commands.teller import Teller
    from dcmsync.contract import Level
    from dcmsync.net.patience import Watch
    from dcmsync.plan.levels import check, read_words

    sample, wanted = read_words(arguments.key)
    if wanted:
        raise UsageError(f"{wanted[0]} has no value", advice="Write KEY=VALUE")
    check(sample, Level.STUDY)
    reading = config.read(arguments.config, environ)
    if arguments.write in reading.config.endpoints:
        raise UsageError(f"{arguments.write} is in the configuration already", advice="Choose another name")
    teller = Teller(arguments, streams)
    with Watch() as watch:
        diagnosis = Diagnosis(arguments, streams, watch, reading.config, teller.tell)
        is_reached = diagnosis.run(sample)
    if is_reached:
        section = diagnosis.section(arguments.write)
        teller.conclude(diagnosis, section)
        if arguments.write:
            drafting.add(reading.file, section, check=lambda text: config.parse(text, str(reading.file)))
            streams.say(f"{reading.file}: {arguments.write} added")
    teller.end(complete=is_reached)
    if not is_reached:
        return ExitStatus.UNREACHABLE
    return ExitStatus.DONE if diagnosis.found.can_pull else ExitStatus.NO
