"""The JSON Schema of the records."""

from dcmsync.records.schema import DESCRIPTIONS, schema


def test_every_key_of_ours_is_explained() -> None:
    for name, definition in schema()["$defs"].items():
        for key, property_ in definition["properties"].items():
            assert key[0].isupper() or property_.get("description"), f"{name}.{key}"


def test_no_explanation_is_left_over() -> None:
    keys = {key for definition in schema()["$defs"].values() for key in definition["properties"]}
    assert set(DESCRIPTIONS) <= keys


def test_more_keys_are_allowed() -> None:
    assert all(definition["additionalProperties"] is True for definition in schema()["$defs"].values())


def test_all_types_are_there() -> None:
    kinds = {definition["properties"]["type"]["enum"][0] for definition in schema()["$defs"].values()}
    assert kinds == {"patient", "study", "series", "instance", "outcome", "end"}
