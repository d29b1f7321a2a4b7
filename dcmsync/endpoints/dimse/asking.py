"""How one node is asked: by which information model, what beyond the baseline, and which patient a study is of.

Owns the SOP class and the identifier of a question (PS3.4 §C.4, §C.6). Refuses to ask. Shared by the sessions of a
node, so that what one has learned the others know.

Theory of operation: where patients stand above studies, each request below them carries a PatientID. It comes with the
question, or is remembered from an answer; who has neither has to look for it patient by patient.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from dcmsync.contract import PATIENT_KEYWORDS, Ask, Level
from dcmsync.errors import Refused
from dcmsync.wire import dataset
from dcmsync.wire.dimse.models import PATIENT_ROOT, STUDY_ROOT, Model
from dcmsync.wire.upperlayer import extension
from dcmsync.wire.upperlayer.extension import Extension, Wishes

_WORDS = {Level.PATIENT: "PATIENT", Level.STUDY: "STUDY", Level.SERIES: "SERIES", Level.INSTANCE: "IMAGE"}
_REMEMBERED = 100_000  # studies, some 200 octets each
_WILD = frozenset("*?\\")
_DOES_NOT_MATCH_CLASS = 0xA900  # PS3.4 table C.4-1


class Asker:
    """How the node called `name` is asked. `warn` hears once of what it does not agree to."""

    def __init__(
        self,
        name: str = "",
        model: Model = STUDY_ROOT,
        wishes: Wishes = Wishes(),  # noqa: B008  # a frozen value
        *,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.model = model
        self.wishes = wishes
        self._name = name
        self._warn = warn
        self._warned: set[str] = set()
        self._patients: dict[str, str] = {}  # StudyInstanceUID -> PatientID

    @property
    def root(self) -> Level:
        """The level that a walk begins at."""
        return Level.PATIENT if self.model.has_patients else Level.STUDY

    def find_class(self, level: Level) -> str:
        """The SOP class of C-FIND for a level: patients are asked of Patient Root, whatever the model.

        Raises Refused when the model has no such level.
        """
        if level > Level.STUDY and not self.model.has_series:
            words = f"{self._name}: the {self.model.words} model has nothing below studies"
            advice = 'Ask with --level study, or set model = "patient"'
            raise Refused(words, status=_DOES_NOT_MATCH_CLASS, advice=advice)
        if level is Level.PATIENT and not self.model.has_patients:
            return PATIENT_ROOT.find
        return self.model.find

    def extensions(self, find_class: str) -> tuple[Extension, ...]:
        """What to ask for when an association opens."""
        return (extension.of_find(find_class, self.wishes),) if self.wishes.is_any else ()

    def agreed(self, octets: bytes) -> Wishes:
        """What the node agrees to of what was asked for."""
        granted = extension.agreed(octets)
        wished = self.wishes
        found = Wishes(
            relational=wished.relational and granted.relational,
            fuzzy=wished.fuzzy and granted.fuzzy,
            timezone=wished.timezone and granted.timezone,
        )
        for is_lacking, words in (
            (wished.relational > found.relational, "relational queries: asking level by level"),
            (wished.fuzzy > found.fuzzy, "fuzzy matching: names match as they are written"),
            (wished.timezone > found.timezone, "our time zone: dates and times are in its own"),
        ):
            if is_lacking and words not in self._warned:
                self._warned.add(words)
                self._warn(f"{self._name}: it does not agree to {words}")
        return found

    def encode(
        self, keys: Mapping[str, str], level: Level, syntax: str, *, agreed: Wishes, character_set: str = ""
    ) -> bytes:
        """The identifier of a question in a transfer syntax."""
        asked = dict(keys)
        if self.model.has_patients and level > Level.PATIENT:  # what is known of a patient belongs to its own level
            asked = {key: value for key, value in keys.items() if key == "PatientID" or key not in PATIENT_KEYWORDS}
        if agreed.timezone:
            asked["TimezoneOffsetFromUTC"] = time.strftime("%z")
        return dataset.encode_identifier(asked, _WORDS[level], syntax, character_set=character_set)

    def lacks_patient(self, ask: Ask) -> bool:
        """Whether a question has to name its patient first."""
        patient_id = ask.keys.get("PatientID", "")
        is_open = not patient_id or bool(_WILD & set(patient_id))
        return self.model.has_patients and ask.level > Level.PATIENT and is_open

    def remember(self, study_uid: str, patient_id: str) -> None:
        """Takes in whose study it is."""
        if self.model.has_patients and study_uid and patient_id:
            if len(self._patients) >= _REMEMBERED:
                self._patients.clear()
            self._patients[study_uid] = patient_id

    def patient_of(self, study_uid: str) -> str:
        """The PatientID of a study; "" where it is not known."""
        return self._patients.get(study_uid, "")

    def above(self, study_uid: str) -> dict[str, str]:
        """What a retrieval of that study carries besides its own keys."""
        return {"PatientID": self.patient_of(study_uid)} if self.model.has_patients else {}
