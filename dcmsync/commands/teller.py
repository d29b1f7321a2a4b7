"""Who tells what `doctor` sees, as it comes: lines for people, records for programs."""

from __future__ import annotations

from argparse import Namespace

from dcmsync.commands.diagnosing import Diagnosis
from dcmsync.commands.options import Streams
from dcmsync.plan.diagnosis import Finding, registration
from dcmsync.records.stream import Writer
from dcmsync.wire.listing import safe


class Teller:
    """One run's."""

    def __init__(self, arguments: Namespace, streams: Streams) -> None:
        self._is_text = arguments.format == "text" or (arguments.format is None and streams.is_terminal)
        self._stdout = streams.stdout
        self._writer = Writer(streams.stdout)

    def tell(self, finding: Finding) -> None:
        """One verdict."""
        self._put(finding.line(), finding.record())

    def conclude(self, diagnosis: Diagnosis, section: str) -> None:
        """What to do with all of it."""
        can_pull = diagnosis.found.can_pull
        verdict = "pull will work" if can_pull else "pull will not work as it is"
        self._put(f"\nAs far as was seen, {verdict}.\n\nFor the configuration:\n\n{section}", {
            "type": "settings", "toml": section, "can_pull": can_pull})
        if (own := diagnosis.own) is None:
            return
        words = registration(own.ae_title, own.host, own.port, with_tls=own.with_tls)
        self._put(f"For the administrator of the node:\n\n{words}", {
            "type": "registration", "ae_title": own.ae_title, "host": own.host, "port": own.port, "message": words,
            **({"tls": True} if own.with_tls else {})})

    def end(self, *, complete: bool) -> None:
        """The last line of a stream of records."""
        if not self._is_text:
            self._writer.end(complete=complete)

    def _put(self, text: str, record: dict[str, object]) -> None:
        if self._is_text:
            self._stdout.write("".join(f"{safe(line)}\n" for line in text.split("\n")).encode())
            self._stdout.flush()
        else:
            self._writer.write(record)
