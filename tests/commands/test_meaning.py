"""Keys of an endpoint that say nothing to a place of its kind."""

import re

import pytest

from dcmsync.commands.meaning import check
from dcmsync.config import Endpoint
from dcmsync.errors import UsageError
from dcmsync.locator import parse

NODE, FOLDER, WEB = "ARCHIVE@host:104", "./archive", "https://host/dicom-web"
MINT, RAD69, WADO = "mint+https://host/mint", "rad69+https://host/rids", "wado-uri+https://host/wado"
XNAT, AHI = "xnat+https://host/P", "ahi://" + "0" * 32 + "?region=us-east-1"


@pytest.mark.parametrize("locator, keys, whom", [
    (WEB, {"via": "get"}, "via is for DIMSE nodes"),
    (WEB, {"calling": "ME"}, "calling is for DIMSE nodes"),
    (FOLDER, {"senders": ("host",)}, "senders is for DIMSE nodes"),
    (XNAT, {"model": "patient"}, "model is for DIMSE nodes"),
    (WADO, {"timezone": True}, "timezone is for DIMSE nodes"),
    (MINT, {"fuzzy": True}, "fuzzy is for DIMSE nodes and DICOMweb"),
    (AHI, {"relational": True}, "relational is for DIMSE nodes and DICOMweb"),
    (FOLDER, {"user": "ada"}, "user is for places on another machine"),
    ("./a.zip", {"ca": "x.pem"}, "ca is for places on another machine"),
    (FOLDER, {"verify": False}, "verify is for places on another machine"),
    (NODE, {"login": "vitrea"}, "login is for DICOMweb, WADO-URI, MINT and RAD-69"),
    (AHI, {"login": "impax", "login_url": "https://host"}, "login is for DICOMweb"),
    (WEB, {"date_parameters": "snake"}, "date_parameters is for MINT"),
    (MINT, {"repository": "1.2"}, "repository is for RAD-69"),
    (WADO, {"ignore_errors": ("XDSMissingDocument",)}, "ignore_errors is for RAD-69"),
    (WEB, {"retrieve_by": "frames"}, "retrieve_by is for AWS HealthImaging"),
    (WEB, {"image_sets": "all"}, "image_sets is for AWS HealthImaging"),
    (WEB, {"login_url": "https://host/login"}, "without login"),
    (MINT, {"realm": "Other"}, "without login"),
])  # fmt: skip
def test_a_key_that_would_be_ignored_is_refused(locator: str, keys: dict[str, object], whom: str) -> None:
    endpoint = Endpoint(locator=locator, **keys)  # type: ignore[arg-type]  # one of its keys
    with pytest.raises(UsageError, match=rf"^pacs: .*{re.escape(whom)}"):
        check(parse(locator), endpoint, "pacs")


@pytest.mark.parametrize("locator, keys", [
    (NODE, {"via": "move", "senders": ("host",), "model": "patient", "user": "ada", "calling": "ME"}),
    (WEB, {"user": "ada", "ca": "x.pem", "relational": True, "login": "impax", "login_url": "https://host"}),
    (MINT, {"date_parameters": "snake", "login": "vitrea", "login_url": "https://host", "realm": "Other"}),
    (RAD69, {"repository": "1.2", "home_community": "urn:oid:1", "ignore_errors": ("XDSMissingDocument",)}),
    (AHI, {"image_sets": "all", "retrieve_by": "frames", "token_file": "token"}),
    (FOLDER, {"jobs": 2, "retrieve": "other"}),
])  # fmt: skip
def test_a_key_that_says_something_is_taken(locator: str, keys: dict[str, object]) -> None:
    check(parse(locator), Endpoint(locator=locator, **keys), "pacs")  # type: ignore[arg-type]  # as above
