"""What a verb says of the files of a local place that are no whole instances: records, or a word to people."""

from collections.abc import Callable, Collection, Iterable, Mapping

from msgspec.structs import replace

from dcmsync.commands.options import Streams
from dcmsync.commands.places import Places
from dcmsync.contract import Catalogue, Level
from dcmsync.endpoints.folder.media import is_directory
from dcmsync.errors import ExitStatus
from dcmsync.plan.levels import Query
from dcmsync.plan.unsound import is_trouble, may_be_meant, outcome

Series = tuple[str, str]
"""Study and Series Instance UID; "" for the second when all of the study is meant."""


def tell_unsound(
    catalogue: Catalogue,
    source: str,
    query: Query,
    *,
    write: Callable[[Mapping[str, object]], None],
    warn: Callable[[str], None],
    note: Callable[[str], None],
    among: Collection[Series] | None = None,
    are_named: bool = False,
) -> bool:
    """Names what may belong to the question, and says whether there was any.

    `among`: only what is known to belong to these. At instance level each file is a record; else they are counted.
    `are_named`: each file was named by somebody, so that one that is no DICOM is trouble too.
    """
    troubles = strangers = 0
    for holding in catalogue.others():
        if is_directory(holding.path):
            continue
        if not (are_named or is_trouble(holding)):
            strangers += 1
            continue
        own = {(holding.study_uid, ""), (holding.study_uid, holding.series_uid)}
        if not (own & set(among) if among is not None else may_be_meant(holding, query.keys)):
            continue
        troubles += 1
        if query.level is Level.INSTANCE:
            write(outcome(holding, source))
    if strangers:
        note(f"{source}: {strangers:,} files are no DICOM")
    if troubles:
        asks = "" if query.level is Level.INSTANCE else "; --level instance names them"
        warn(f"{source}: {troubles:,} files are truncated, damaged or nameless, and do not count{asks}")
    return troubles > 0


def tell_unsound_of(
    sources: Iterable[str],
    places: Places,
    query: Query,
    *,
    write: Callable[[Mapping[str, object]], None],
    streams: Streams,
) -> ExitStatus:
    """Names each such file of those sources that are on this machine: nothing brings them."""
    asked = replace(query, level=Level.INSTANCE)
    status = ExitStatus.DONE
    for word in filter(places.is_local, sources):
        catalogue = places.catalogue(str(places.parse(word)))
        if tell_unsound(catalogue, word, asked, write=write, warn=streams.warn, note=streams.note):
            status = ExitStatus.FAILED
    return status
