"""Conversations: an answer belongs to what was asked, and says how it went."""

import pytest
from msgspec import structs

from dcmsync.errors import RemoteProtocolError
from dcmsync.wire.dimse import command as commands
from dcmsync.wire.dimse import operations, status
from dcmsync.wire.dimse.command import Command

CT = "1.2.840.10008.5.1.4.1.1.2"


def answer_to(conversation: operations.Conversation, code: int | None, **changes: object) -> Command:
    values = {
        "field": conversation.request.field | 0x8000,
        "responding_to": conversation.request.message_id,
        "status": code,
        **changes,
    }
    return Command(**values)  # type: ignore[arg-type]  # names are fields


CONVERSATIONS = {
    "C-ECHO": lambda: operations.echo(5),
    "C-FIND": lambda: operations.find(5, operations.STUDY_ROOT_FIND),
    "C-GET": lambda: operations.get(5, operations.STUDY_ROOT_GET),
    "C-STORE": lambda: operations.store(5, CT, "1.2.3"),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_request_has_its_message_id_its_class_and_says_whether_data_follow(name: str) -> None:
    request = CONVERSATIONS[name]().request
    assert request.message_id == 5
    assert request.sop_class_uid
    assert request.has_data_set == (name != "C-ECHO")


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_final_answer_finishes(name: str) -> None:
    conversation = CONVERSATIONS[name]()
    assert conversation.answer(answer_to(conversation, 0)) == 0
    assert conversation.finished


@pytest.mark.parametrize("code", [0xFF00, 0xFF01])
def test_a_pending_answer_does_not_finish(code: int) -> None:
    conversation = operations.find(5, operations.STUDY_ROOT_FIND)
    assert conversation.answer(answer_to(conversation, code)) == code
    assert not conversation.finished


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"responding_to": 6}, "answered message 6 when asked"),
        ({"responding_to": None}, "answered message None"),
        ({"field": 0x8021}, "with command 0x8021"),
        ({"field": 0x0030}, "with command 0x0030"),
        ({"status": None}, "without a status"),
    ],
)
def test_an_answer_to_something_else_is_refused(name: str, changes: dict[str, object], words: str) -> None:
    conversation = CONVERSATIONS[name]()
    with pytest.raises(RemoteProtocolError, match=words):
        conversation.answer(answer_to(conversation, 0, **changes))
    assert not conversation.finished


@pytest.mark.parametrize("code", [0, 0xFF00])
def test_nothing_may_be_answered_after_the_final_answer(code: int) -> None:
    conversation = operations.find(5, operations.STUDY_ROOT_FIND)
    conversation.answer(answer_to(conversation, 0))
    with pytest.raises(RemoteProtocolError, match="again"):
        conversation.answer(answer_to(conversation, code))
    assert conversation.finished


def test_a_cancel_names_the_message() -> None:
    assert operations.get(7, operations.STUDY_ROOT_GET).cancel() == Command(field=0x0FFF, responding_to=7)


def test_counts_are_none_where_nothing_was_said() -> None:
    conversation = operations.get(5, operations.STUDY_ROOT_GET)
    said = operations.counts(answer_to(conversation, 0xFF00, remaining=4, failed=0))
    assert said == operations.Counts(remaining=4, completed=None, failed=0, warnings=None)


def test_a_response_repeats_what_was_asked() -> None:
    request = operations.store(9, CT, "1.2.3").request
    assert operations.respond(request, 0xC000) == Command(
        field=0x8001, responding_to=9, sop_class_uid=CT, sop_instance_uid="1.2.3", status=0xC000
    )
    assert operations.respond(operations.find(9, CT).request, 0xFF00, has_data_set=True).has_data_set


STORE = {
    "field": commands.C_STORE_RQ, "has_data_set": True, "message_id": 1, "sop_class_uid": CT, "sop_instance_uid": "1.2",
}  # fmt: skip


def test_a_store_request_is_checked() -> None:
    assert operations.check_store(Command(**STORE), CT) == (CT, "1.2")  # type: ignore[arg-type]  # names are fields


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sop_class_uid": None}, "lacks a UID"),
        ({"sop_instance_uid": ""}, "lacks a UID"),
        ({"message_id": None}, "its message ID"),
        ({"has_data_set": False}, "without a data set"),
        ({"sop_class_uid": "1.2.3"}, "another SOP class"),
    ],
)
def test_a_store_request_that_lacks_something_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(RemoteProtocolError, match=words):
        operations.check_store(Command(**{**STORE, **changes}), CT)  # type: ignore[arg-type]  # names are fields


def test_statuses_are_of_one_class_each() -> None:
    for code in range(0x10000):
        classes = [
            code in (status.SUCCESS, status.CANCELLED, *status.PENDING),
            status.is_warning(code),
            status.is_failure(code),
        ]
        assert sum(classes) == 1, hex(code)


def test_the_classes_are_pynetdicoms() -> None:
    from pynetdicom.status import QR_FIND_SERVICE_CLASS_STATUS, QR_GET_SERVICE_CLASS_STATUS, code_to_category

    for code in {*QR_FIND_SERVICE_CLASS_STATUS, *QR_GET_SERVICE_CLASS_STATUS}:
        assert status.is_failure(code) == (code_to_category(code) == "Failure"), hex(code)
        assert status.is_warning(code) == (code_to_category(code) == "Warning"), hex(code)


def test_what_may_pass_is_worth_another_try() -> None:
    assert all(status.may_pass(code) for code in (0xA700, 0xA701, 0xC000, 0xCFFF, 0x0110, 0x0213))
    assert not any(status.may_pass(code) for code in (0, 0xFE00, 0xA900, 0x0122, 0x0124, 0xB000))


def test_a_status_has_its_number_and_the_standards_words() -> None:
    assert status.words(0xA700, "C-FIND").startswith('0xA700 "')
    assert "out of resources" in status.words(0xA700, "C-FIND")
    assert status.words(0xA900, "C-STORE") != status.words(0xA900, "C-FIND")
    assert status.words(0x1234, "C-FIND") == "0x1234"


STORED = Command(field=commands.C_STORE_RSP, responding_to=5, status=0xB000, sop_instance_uid="1.2.3")


@pytest.mark.parametrize("answer", [STORED, structs.replace(STORED, sop_instance_uid=None),
                                    structs.replace(STORED, sop_instance_uid="", status=0xA700)])  # fmt: skip
def test_an_answer_to_a_store_may_repeat_its_uid(answer: Command) -> None:
    operations.check_stored(answer, 5, "1.2.3")


@pytest.mark.parametrize(
    "change",
    [{"field": commands.C_ECHO_RSP}, {"responding_to": 4}, {"responding_to": None}, {"status": None},
     {"status": 0xFF00}, {"sop_instance_uid": "1.2.4"}, {"has_data_set": True}],
    ids=str,
)  # fmt: skip
def test_an_answer_to_something_else_than_the_store_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(RemoteProtocolError):
        operations.check_stored(structs.replace(STORED, **change), 5, "1.2.3")
