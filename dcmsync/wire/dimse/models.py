"""The information models of Query/Retrieve: their SOP classes, and the levels that they have (PS3.4 §C.6).

Patient/Study Only was retired from the standard in 2004; old nodes know nothing else.
"""

from collections.abc import Mapping

from msgspec import Struct

from dcmsync.wire.dimse import operations


class Model(Struct, frozen=True, kw_only=True):
    """One model. `has_patients`: the patient stands above the study, and its ID in every request below it."""

    words: str
    find: str
    get: str
    move: str
    has_patients: bool = False
    has_series: bool = True


STUDY_ROOT = Model(  # §C.6.2
    words="Study Root",
    find=operations.STUDY_ROOT_FIND,
    move=operations.STUDY_ROOT_MOVE,
    get=operations.STUDY_ROOT_GET,
)
PATIENT_ROOT = Model(  # §C.6.1
    words="Patient Root",
    find=operations.PATIENT_ROOT_FIND,
    move=operations.PATIENT_ROOT_MOVE,
    get=operations.PATIENT_ROOT_GET,
    has_patients=True,
)
PATIENT_STUDY_ONLY = Model(
    words="Patient/Study Only",
    find="1.2.840.10008.5.1.4.1.2.3.1",
    move="1.2.840.10008.5.1.4.1.2.3.2",
    get="1.2.840.10008.5.1.4.1.2.3.3",
    has_patients=True,
    has_series=False,
)
MODELS: Mapping[str, Model] = {"study": STUDY_ROOT, "patient": PATIENT_ROOT, "patient-study": PATIENT_STUDY_ONLY}
"""By their name in the configuration."""
