"""Which SOP classes a modality makes, for servers that do not tell the class of an instance (PS3.3 §C.7.3.1.1.1).

A guess for presentation contexts, never a judgement: an instance of another class is asked for again.
"""

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_LIKELY = {
    "CT": ("2", "2.1", "7", "2.2"),
    "MR": ("4", "4.1", "4.2", "4.3"),
    "PT": ("128", "130", "128.1"),
    "NM": ("20", "7"),
    "US": ("6.1", "3.1", "6.2"),
    "IVUS": ("6.1", "3.1"),
    "CR": ("1", "1.1"),
    "DX": ("1.1", "1.1.1", "1"),
    "MG": ("1.2", "1.2.1", "13.1.3"),
    "IO": ("1.3", "1.3.1", "1.1"),
    "PX": ("1.1", "1.1.1"),
    "XA": ("12.1", "12.1.1", "13.1.1"),
    "RF": ("12.2", "12.2.1"),
    "RTIMAGE": ("481.1",),
    "RTDOSE": ("481.2",),
    "RTSTRUCT": ("481.3",),
    "RTRECORD": ("481.4", "481.6", "481.7", "481.9"),
    "RTPLAN": ("481.5", "481.8"),
    "SR": ("88.11", "88.22", "88.33", "88.67"),
    "KO": ("88.59",),
    "PR": ("11.1", "11.2", "11.3", "11.8"),
    "SEG": ("66.4",),
    "REG": ("66.1", "66.3"),
    "DOC": ("104.1", "104.2"),
    "ES": ("77.1.1", "77.1.1.1"),
    "GM": ("77.1.2", "77.1.2.1"),
    "SM": ("77.1.6", "77.1.3"),
    "XC": ("77.1.4", "77.1.4.1"),
    "OP": ("77.1.5.1", "77.1.5.2"),
    "OPT": ("77.1.5.4",),
    "ECG": ("9.1.1", "9.1.2"),
    "OT": ("7", "7.2", "7.4", "7.1"),
    "SC": ("7", "7.4", "7.2", "7.1"),
}


def likely(modality: str) -> tuple[str, ...]:
    """The SOP classes that a series of this modality most likely has, four at most; none for an unknown modality."""
    return tuple(_STORAGE + tail for tail in _LIKELY.get(modality, ()))
