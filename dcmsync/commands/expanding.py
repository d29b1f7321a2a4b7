"""What a record on standard input is a parent of: which query of which source lists what is below it."""

from msgspec import UNSET, Struct, structs

from dcmsync.contract import Attributes, Level
from dcmsync.errors import InputError
from dcmsync.plan.levels import Query
from dcmsync.records.model import Patient, Series, Study
from dcmsync.records.stream import Line
from dcmsync.transfer.works import work_of


class Parent(Struct, frozen=True, kw_only=True):
    """One record that is expanded. `known` holds for all below it; `series` is its study and series UID, "" for none.

    Of a patient nothing is known that could not be otherwise in a study: its ID is asked for.
    """

    source: str
    query: Query
    known: Attributes = {}
    series: tuple[str, str] = ("", "")


def parent_of(line: Line, query: Query) -> Parent | None:
    """What is to be expanded to the level of `query`; None for a record that is deep enough, or has nothing below.

    Raises InputError for a record that lacks its source or what it is identified by.
    """
    record, level = line.record, query.level
    if isinstance(record, Patient):
        return _patient(record, line.number, query) if level > Level.PATIENT else None
    is_above = isinstance(record, Study | Series if level is Level.INSTANCE else Study) and level > Level.STUDY
    work = work_of(record, line.number) if is_above else None
    if work is None:
        return None
    series = str(work.attributes["StudyInstanceUID"]), str(work.attributes.get("SeriesInstanceUID", ""))
    return Parent(source=work.source, query=query, known=work.attributes, series=series)


def _patient(record: Patient, number: int, query: Query) -> Parent:
    if record.source is UNSET or not record.source:
        raise InputError("the record has no `source`, so there is nowhere to ask", line=number,
                         advice="Records of `dcmsync query` have one")  # fmt: skip
    patient_id = record.PatientID
    if not isinstance(patient_id, str) or not patient_id:
        raise InputError("the patient record has no PatientID, so its studies cannot be asked for", line=number)
    asked = query.keys.get("PatientID", patient_id)
    if asked != patient_id:
        raise InputError("the patient record has another PatientID than is asked for", line=number,
                         advice="Leave PatientID out, or filter the records before")  # fmt: skip
    return Parent(source=record.source, query=structs.replace(query, keys={**query.keys, "PatientID": patient_id}))
