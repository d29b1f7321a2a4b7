"""The JSON Schema of the records, made from the structs of `model`.

Owns the words that explain the keys of ours; DICOM's own keywords are explained by PS3.6. Refuses to validate: the
decoder does that.
"""

from typing import Any

import msgspec

from dcmsync.records.model import Record

DESCRIPTIONS: dict[str, str] = {
    "type": "what the record is about",
    "source": "the locator of the place that holds the thing",
    "change": "what `diff` found: the destination lacks it, has it otherwise, has it though the source does not, "
              "or has the same",
    "path": "the file of the instance, at its source",
    "size": "octets of the file",
    "digest": "hash of every octet of the file: the algorithm, a colon, and hexadecimal digits",
    "content": "hash of the data set in its normal form, the same however a file writes it; written as `digest` is",
    "level": "what the outcome is about: a study, a series or an instance",
    "outcome": "stored; present: already there, proven the same; failed; conflict: same UID, other content; skipped",
    "destination": "the locator of the place it went to",
    "reason": "a word for programs: why",
    "message": "a sentence for people: why",
    "status": "the DIMSE status, as 0xA700, or that of HTTP, as 404",
    "retry": "whether trying again may help",
    "dry_run": "nothing was done: this is what would have been",
    "instances": "how many instances the series has",
    "stored": "how many of them were stored",
    "present": "how many of them were there already, proven the same",
    "failed": "how many of them failed",
    "conflict": "how many of them have other content at the destination",
    "skipped": "how many of them were skipped",
    "original": "the UID that the instance or series has at its source, where it was given another on the way",
    "format": "the format of the records; 1",
    "complete": "false when the producer knows that something is lacking",
    "records": "how many records came before this one, from the same producer",
    "splits": "how many times a query was split because the peer cuts long lists short",
}


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of one record, any of its types. More properties than are named may always be there."""
    made = msgspec.json.schema(Record)
    for definition in made["$defs"].values():
        for name, property_ in definition["properties"].items():
            property_.pop("default", None)
            if name in DESCRIPTIONS:
                property_["description"] = DESCRIPTIONS[name]
        definition.setdefault("additionalProperties", True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "dcmsync record, format 1", **made}
