"""`dcmsync demo`: help, options, and the play itself. Every command is run as it is shown, in a process of its own.

Refuses to believe a command: what arrived is compared with what was sent. Leaves nothing behind unless asked to.
"""

import os
from argparse import Namespace
from typing import TYPE_CHECKING

from dcmsync.commands.options import Command, Option, Streams
from dcmsync.errors import ExitStatus, LocalTrouble, UsageError

if TYPE_CHECKING:
    from dcmsync.node.stage import Stage

COMMAND = Command(
    name="demo",
    summary="show query, filter and pull at work, on this machine alone",
    description=(
        "Makes a small archive in a temporary folder, of the files that pydicom ships and a few series made on the "
        "spot, serves it on a free port of this machine, and then queries, filters and pulls as one would from a "
        "PACS, twice. Every command is shown as one can type it. What arrived is compared with the archive, octet for "
        "octet.\n\n"
        "Exit status 0 when all of it was proven, 3 when not. Nothing is left behind, unless --keep names a folder."
    ),
    options=(
        Option(flags=("--keep",), metavar="DIR", completion="directory",
               help="work in DIR, which must be new or empty, and leave everything there"),
    ),
    examples=(
        ("dcmsync demo", "see it work"),
        ("dcmsync demo --keep ./demo && dcmsync serve ./demo/archive", "and go on with what it made"),
    ),
)


def run(arguments: Namespace, streams: Streams) -> ExitStatus:
    """Plays the demonstration in a folder of its own."""
    from tempfile import TemporaryDirectory

    from dcmsync.node.stage import Stage

    if arguments.keep is None:
        with TemporaryDirectory(prefix="dcmsync-demo-") as folder:
            return _play(Stage(folder, streams.stdout), kept=None)
    try:
        os.makedirs(arguments.keep, exist_ok=True)
        if os.listdir(arguments.keep):
            raise UsageError(f"{arguments.keep} is not empty", advice="Name a folder that is new or empty")
    except OSError as error:
        raise LocalTrouble(f"{arguments.keep}: {error.strerror}") from error
    return _play(Stage(os.path.abspath(arguments.keep), streams.stdout), kept=arguments.keep)


def _play(stage: "Stage", kept: str | None) -> ExitStatus:
    from dcmsync.node.samples import make_archive

    stage.heading("An archive to play with")
    os.mkdir(stage.path("archive"))
    made = make_archive(stage.path("archive"))
    stage.text(f"{made.copied} files that pydicom ships and {made.made} made just now, in {stage.path('archive')}")
    with stage.serving("archive") as node:
        _ask_and_bring(stage, node)
        stage.heading("Everything, in whatever transfer syntax it is")
        outcomes = stage.pipe(f"dcmsync query {node} --all", "dcmsync pull ./everything", shown=2)
        stage.check("everything is there", holds=_sum(outcomes, "stored") == made.copied + made.made)
        stage.compare("everything", "archive", made.copied + made.made)
    stage.heading("Done, and all of it proven" if stage.is_proven else "Something is wrong: look for NOT above")
    if kept is not None:
        stage.text(f"Look around in {kept}. To go on: dcmsync serve {os.path.join(kept, 'archive')}")
    return ExitStatus.DONE if stage.is_proven else ExitStatus.FAILED


def _ask_and_bring(stage: "Stage", node: str) -> None:
    """The pipe, twice."""
    demo = f"dcmsync query {node} 'PatientID=DEMO-*' --level series"
    stage.heading("What is there? As a tree, for people")
    stage.pipe(f"{demo} --format tree")
    stage.heading("The largest CT series of each study, as records: one JSON object a line, for programs")
    chosen = "dcmsync filter Modality=CT --largest 1 --per study"
    records = stage.pipe(demo, chosen)
    wanted = sum(int(record.get("NumberOfSeriesRelatedInstances", 0)) for record in records)
    patients = [record.get("PatientID") for record in records if record.get("type") == "series"]
    stage.check("two series were chosen, one of each patient", holds=patients == ["DEMO-1", "DEMO-2"])
    stage.heading("Bring them here. Each series ends in an outcome")
    outcomes = stage.pipe(demo, chosen, "dcmsync pull ./pulled")
    stage.check(f"all {wanted} instances were stored", holds=_sum(outcomes, "stored") == wanted > 0)
    stage.heading("What is in the folder now")
    stage.tree("pulled")
    stage.compare("pulled", "archive", wanted)
    stage.heading("The same again: nothing is fetched that is here already, whole")
    outcomes = stage.pipe(demo, chosen, "dcmsync pull ./pulled")
    stage.check(f"all {wanted} instances were present", holds=_sum(outcomes, "present") == wanted)


def _sum(outcomes: list[dict[str, object]], word: str) -> int:
    """How many instances the outcomes of series count under `word`; -1 where one counts anything else, too."""
    series = [outcome for outcome in outcomes if outcome.get("type") == "outcome"]
    if any(outcome.get("instances") != outcome.get(word) for outcome in series):
        return -1
    return sum(int(str(outcome.get(word, 0))) for outcome in series)
