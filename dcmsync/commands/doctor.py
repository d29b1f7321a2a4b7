"""`dcmsync doctor`: looks at a node, and says what works, what to set, and what has to be registered."""

from __future__ import annotations

from argparse import Namespace
from datetime import date
from functools import partial
from os import environ
from typing import TYPE_CHECKING

from dcmsync.commands import drafting
from dcmsync.commands.options import CALLING, PORT, TIMEOUT, Command, Option, Streams
from dcmsync.errors import ExitStatus, UsageError

if TYPE_CHECKING:
    from dcmsync.commands.examining import Examination
    from dcmsync.commands.places import Places
    from dcmsync.config import Config
    from dcmsync.endpoints.dimse.place import DimseNode
    from dcmsync.net.patience import Watch
    from dcmsync.plan.diagnosis import Finding, Findings

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
        "Of a DICOMweb service: QIDO-RS at each level, with and without a study, pages, metadata, and WADO-RS in its "
        "shapes; of one instance no more than its beginning is read without --deep, and nothing is ever sent to be "
        "stored.\n\n"
        "At its end come the section of the configuration that fits, which --write puts there, and what the "
        "administrator of the node has to register. Exit status 0 when what `pull` needs works, 1 when it does not, 5 "
        "when the node cannot be reached or rejects us."
    ),
    options=(
        Option(flags=("endpoint",), metavar="ENDPOINT", completion="endpoint",
               help="the node, as AET@host:port, https://host/path or by name"),
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
        ("dcmsync doctor ARCHIVE@10.0.0.1:104 PatientID=TEST1 --deep --write pacs",
         "look at the studies of a test patient, have one instance sent, and remember the node as pacs"),
    ),
)


def run(arguments: Namespace, streams: Streams) -> ExitStatus:
    """Looks, tells, and writes down what it learnt."""
    import anyio

    from dcmsync import config
    from dcmsync.commands.examining_web import WebExamination
    from dcmsync.commands.places import Places
    from dcmsync.contract import Level
    from dcmsync.locator import Http
    from dcmsync.net.patience import Watch
    from dcmsync.plan.diagnosis import Findings
    from dcmsync.plan.levels import check, read_words

    sample, wanted = read_words(arguments.key)
    if wanted:
        raise UsageError(f"{wanted[0]} has no value", advice="Write KEY=VALUE")
    check(sample, Level.STUDY)
    reading = config.read(arguments.config, environ)
    if arguments.write in reading.config.endpoints:
        raise UsageError(f"{arguments.write} is in the configuration already", advice="Choose another name")
    teller = _Teller(arguments, streams)
    found = Findings(teller.tell)
    with Watch() as watch:
        places = Places(arguments, watch, streams)
        if isinstance(places.parse(arguments.endpoint), Http):
            service = WebExamination(places.door(arguments.endpoint), found)
            is_reached = anyio.run(partial(service.run, sample, deep=arguments.deep))
            default, words = "dicomweb", None
        else:
            examination = _examination(arguments, watch, streams, places, found)
            look = partial(examination.run, sample, today=date.today(), deep=arguments.deep)
            is_reached = anyio.run(places.receiving, look)
            peer, port = places.node(arguments.endpoint).peer, arguments.port or reading.config.local.port
            default, words = peer.called_ae.lower(), (peer.calling_ae, examination.own_host, port)
    is_named = arguments.endpoint in reading.config.endpoints
    name = arguments.write or (arguments.endpoint if is_named else default)
    if is_reached:
        section = found.section(name, _said(arguments, reading.config, str(places.parse(arguments.endpoint))))
        teller.conclude(section, found, words)
        if arguments.write:
            drafting.add(reading.file, section, check=lambda text: config.parse(text, str(reading.file)))
            streams.say(f"{reading.file}: {arguments.write} added")
    teller.end(complete=is_reached)
    if not is_reached:
        return ExitStatus.UNREACHABLE
    return ExitStatus.DONE if found.can_pull else ExitStatus.NO


def _examination(
    arguments: Namespace, watch: Watch, streams: Streams, places: Places, found: Findings
) -> Examination:
    """What looks at a DIMSE node."""
    from dcmsync.commands.examining import Examination
    from dcmsync.commands.places import Places
    from dcmsync.net.channel import Limits

    def retrieving(service: str, model: str) -> DimseNode:
        given = Namespace(**{**vars(arguments), "via": service, "model": model})
        return Places(given, watch, streams, mailbox=places.mailbox).node(arguments.endpoint)

    limits = Limits(timeout_s=places.timeout_s(arguments.endpoint))
    return Examination(places.node(arguments.endpoint), watch, limits, found, retrieving)


def _said(arguments: Namespace, settings: Config, locator: str) -> dict[str, object]:
    """What is set for the node, or was given for it."""
    from dcmsync.config import Endpoint
    from dcmsync.keys import keys

    endpoint = settings.endpoints.get(arguments.endpoint, Endpoint(locator=locator))
    values = {key.name: getattr(endpoint, key.name) for key in keys(Endpoint) if not key.is_secret}
    defaults = {key.name: key.default for key in keys(Endpoint)}
    said = {name: value for name, value in values.items() if value != defaults[name]}
    return {**said, "calling": arguments.calling} if arguments.calling else said


class _Teller:
    """Tells findings as they come: lines for people, records for programs."""

    def __init__(self, arguments: Namespace, streams: Streams) -> None:
        from dcmsync.records.stream import Writer

        self._is_text = arguments.format == "text" or (arguments.format is None and streams.is_terminal)
        self._stdout = streams.stdout
        self._writer = Writer(streams.stdout)

    def tell(self, finding: Finding) -> None:
        """One verdict."""
        self._put(finding.line(), finding.record())

    def conclude(self, section: str, found: Findings, own: tuple[str, str, int] | None) -> None:
        """What to do with all of it. `own`: the AE title, host and port of ours that a node must know."""
        from dcmsync.plan.diagnosis import registration

        verdict = "pull will work" if found.can_pull else "pull will not work as it is"
        self._put(f"\nAs far as was seen, {verdict}.\n\nFor the configuration:\n\n{section}", {
            "type": "settings", "toml": section, "can_pull": found.can_pull})
        if own is None:
            return
        ae_title, host, port = own
        words = registration(ae_title, host, port)
        self._put(f"For the administrator of the node:\n\n{words}", {
            "type": "registration", "ae_title": ae_title, "host": host, "port": port, "message": words})

    def end(self, *, complete: bool) -> None:
        """The last line of a stream of records."""
        if not self._is_text:
            self._writer.end(complete=complete)

    def _put(self, text: str, record: dict[str, object]) -> None:
        from dcmsync.wire.listing import safe

        if self._is_text:
            self._stdout.write("".join(f"{safe(line)}\n" for line in text.split("\n")).encode())
            self._stdout.flush()
        else:
            self._writer.write(record)
