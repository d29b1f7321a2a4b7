"""DIMSE status codes: what class they are of, and the standard's words for them (PS3.7 Annex C, PS3.4).

pynetdicom's tables are looked up only when words are needed.
"""

SUCCESS = 0x0000
CANCELLED = 0xFE00
PENDING = (0xFF00, 0xFF01)
OUT_OF_RESOURCES = 0xA700
CANNOT_UNDERSTAND = 0xC000
REFUSED_CLASS = 0x0122
UNRECOGNISED_OPERATION = 0x0211
PROCESSING_FAILURE = 0x0110
DOES_NOT_MATCH_CLASS = 0xA900
WARNING_SUBOPERATIONS = 0xB000

_SERVICES = {
    "C-FIND": "QR_FIND_SERVICE_CLASS_STATUS",
    "C-GET": "QR_GET_SERVICE_CLASS_STATUS",
    "C-MOVE": "QR_MOVE_SERVICE_CLASS_STATUS",
    "C-STORE": "STORAGE_SERVICE_CLASS_STATUS",
    "C-ECHO": "GENERAL_STATUS",
}


def is_warning(status: int) -> bool:
    """Whether `status` is of the warning class (PS3.7 §C.3)."""
    return status in (0x0001, 0x0107, 0x0116) or status >> 12 == 0xB


def is_failure(status: int) -> bool:
    """Whether `status` is of the failure class: neither success, warning, cancel nor pending (PS3.7 §C.4)."""
    return not (status in (SUCCESS, CANCELLED, *PENDING) or is_warning(status))


def may_pass(status: int) -> bool:
    """Whether trying again may help: out of resources and the sporadic failures (0xA7xx, 0xCxxx, 0x0110, 0x0213)."""
    return status >> 8 == 0xA7 or status >> 12 == 0xC or status in (PROCESSING_FAILURE, 0x0213)


def words(status: int, operation: str) -> str:
    """`0xA700 "out of resources"`: the number, and the standard's words where it has any."""
    from pynetdicom import status as tables

    table: dict[int, tuple[str, str]] = getattr(tables, _SERVICES.get(operation, "GENERAL_STATUS"))
    category, meaning = table.get(status, tables.GENERAL_STATUS.get(status, ("", "")))
    said = meaning or category
    return f'0x{status:04X} "{said.lower()}"' if said else f"0x{status:04X}"
