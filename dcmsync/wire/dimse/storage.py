"""Which SOP classes are of instances that are stored (PS3.4 Annex B, GG), so that their contexts may be accepted.

Those that will be defined one day are among them, and so are private ones: instances are kept as they come.
"""

_DICOM = "1.2.840.10008."
_IMAGES_AND_DOCUMENTS = "1.2.840.10008.5.1.4.1.1."
_OTHERS = frozenset(
    (
        "1.2.840.10008.5.1.4.34.7",  # RT Beams Delivery Instruction
        "1.2.840.10008.5.1.4.34.10",  # RT Brachy Application Setup Delivery Instruction
        "1.2.840.10008.5.1.4.38.1",  # Hanging Protocol
        "1.2.840.10008.5.1.4.39.1",  # Color Palette
        "1.2.840.10008.5.1.4.43.1",  # Generic Implant Template
        "1.2.840.10008.5.1.4.44.1",  # Implant Assembly Template
        "1.2.840.10008.5.1.4.45.1",  # Implant Template Group
    )
)


def is_storage(sop_class_uid: str) -> bool:
    """Whether instances of a class are stored: of DICOM's own, those that stand for storage; of all others, any."""
    return bool(sop_class_uid) and (
        not sop_class_uid.startswith(_DICOM)
        or sop_class_uid.startswith(_IMAGES_AND_DOCUMENTS)
        or sop_class_uid in _OTHERS
    )
