"""`dcmsync schema`: prints the JSON Schema of the records. Refuses to know it: `records/schema.py` does."""

from argparse import Namespace

import msgspec

from dcmsync.commands.options import Command, Streams
from dcmsync.errors import ExitStatus

COMMAND = Command(
    name="schema",
    summary="print the JSON Schema of the records",
    description="Prints the JSON Schema (2020-12) that every line of a record stream of format 1 obeys. A record may "
                "carry more keys than the schema names, and readers pass them on; dcmsync-records(5) tells what the "
                "keys mean.",
    options=(),
    examples=(("dcmsync schema | jq '.\"$defs\".Series.properties | keys'", "list the keys of a series record"),),
)


def run(arguments: Namespace, streams: Streams) -> ExitStatus:
    """Writes the schema to stdout, indented."""
    from dcmsync.records.schema import schema

    text = msgspec.json.format(msgspec.json.encode(schema()), indent=2)
    streams.stdout.write(text + b"\n")
    streams.stdout.flush()
    return ExitStatus.DONE
