"""C-FIND, answered (PS3.4 §C.4.1): things of an index that match a question, and what is said of each.

Owns the search and the shape of an answer. Refuses to touch a socket. A search looks UIDs up where they are given and
judges the rest; in between it gives None, so that others get their turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from dcmsync.node.index import Depth, Index, Study, Thing
from dcmsync.node.question import Question
from dcmsync.wire import dataset

_BREATH = 200  # things looked at before others get their turn

Value = TypeVar("Value")


def search(index: Index, question: Question) -> Iterator[Thing | None]:
    """Everything that matches, in the order it was met; None now and then while nothing does.

    The index may change meanwhile: what comes into a level that is being walked is not found, what goes may be.
    """
    judges = question.judges
    keywords = tuple(judges)
    for looked_at, thing in enumerate(_candidates(index, question), 1):
        described = index.describe(thing, keywords)
        if all(judge(described.get(keyword)) for keyword, judge in judges.items()):
            yield thing
        elif looked_at % _BREATH == 0:
            yield None


def answer(index: Index, thing: Thing, question: Question, own_ae: str, transfer_syntax_uid: str) -> bytes:
    """The identifier that says what was asked of a thing, in UTF-8. Keys without a value are there, empty."""
    values: dict[str, object] = dict.fromkeys((*question.wanted, *question.unknown), "")
    values.update(index.describe(thing, question.wanted))
    values.update(RetrieveAETitle=own_ae, InstanceAvailability="ONLINE")
    return dataset.encode_values(values, question.depth.name, transfer_syntax_uid)


def _candidates(index: Index, question: Question) -> Iterator[Thing]:
    """The things of the asked level below the UIDs that were given."""
    if question.depth == Depth.PATIENT:
        for studies in _chosen(index.patients, question.uids.get(Depth.PATIENT)):
            for study in list(studies.values())[:1]:  # none, if all were removed meanwhile
                yield Thing(study)
        return
    for study in _studies(index, question):
        if question.depth == Depth.STUDY:
            yield Thing(study)
            continue
        for series in _chosen(study.series, question.uids.get(Depth.SERIES)):
            if question.depth == Depth.SERIES:
                yield Thing(study, series)
                continue
            for image in _chosen(series.images, question.uids.get(Depth.IMAGE)):
                yield Thing(study, series, image)


def _studies(index: Index, question: Question) -> Iterable[Study]:
    patient_ids = question.uids.get(Depth.PATIENT)
    uids = question.uids.get(Depth.STUDY)
    if patient_ids is None:
        return _chosen(index.studies, uids)
    return [study for patient_id in patient_ids for study in _chosen(index.patients.get(patient_id, {}), uids)]


def _chosen(things: Mapping[str, Value], uids: tuple[str, ...] | None) -> list[Value]:
    """The things with these UIDs, each once; all of them where none is named."""
    return [things[uid] for uid in _keys(things, uids)]


def _keys(things: Mapping[str, object], uids: tuple[str, ...] | None) -> list[str]:
    if uids is None:
        return list(things)
    return [uid for uid in dict.fromkeys(uids) if uid in things]
