"""From a request to who answers it: resources, methods, and what is refused before anybody is asked.

Owns the table of paths, Host, OPTIONS and 405. Refuses to decode a path: the UIDs in it are looked up as they are, in
an index, so that no name of a file is ever made of one.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from aiohttp import hdrs, web

from dcmsync.net.patience import Guard
from dcmsync.node.index import Depth
from dcmsync.node.web import answering, asking, bulk, describing, retrieving, searching, storing
from dcmsync.node.web.asked import Asked, House, Tally, is_own
from dcmsync.node.web.refusing import Refusal

Answer = Callable[[Asked], Awaitable[web.StreamResponse]]

_UID = r"[A-Za-z0-9._\-]{1,64}"
_STUDY = rf"/studies/(?P<study>{_UID})"
_SERIES = rf"{_STUDY}/series/(?P<series>{_UID})"
_INSTANCE = rf"{_SERIES}/instances/(?P<instance>{_UID})"
_GROUPS = {"study": Depth.STUDY, "series": Depth.SERIES, "instance": Depth.IMAGE}
_BEFORE_PATH = re.compile(r"https?://[^/?#]*")  # RFC 9112 §3.2.2: the absolute form is to be understood

_STUDIES: Answer = partial(searching.answer, depth=Depth.STUDY)
_ALL_SERIES: Answer = partial(searching.answer, depth=Depth.SERIES)
_INSTANCES: Answer = partial(searching.answer, depth=Depth.IMAGE)

RESOURCES: tuple[tuple[re.Pattern[str], Mapping[str, Answer]], ...] = tuple(
    (re.compile(path), methods)
    for path, methods in (
        (r"/studies", {"GET": _STUDIES, "POST": storing.answer}),
        (r"/series", {"GET": _ALL_SERIES}),
        (r"/instances", {"GET": _INSTANCES}),
        (_STUDY, {"GET": retrieving.answer, "POST": storing.answer}),
        (rf"{_STUDY}/metadata", {"GET": describing.answer}),
        (rf"{_STUDY}/series", {"GET": _ALL_SERIES}),
        (rf"{_STUDY}/instances", {"GET": _INSTANCES}),
        (_SERIES, {"GET": retrieving.answer}),
        (rf"{_SERIES}/metadata", {"GET": describing.answer}),
        (rf"{_SERIES}/instances", {"GET": _INSTANCES}),
        (_INSTANCE, {"GET": retrieving.answer}),
        (rf"{_INSTANCE}/metadata", {"GET": describing.answer}),
        (rf"{_INSTANCE}/bulkdata/(?P<start>\d{{1,15}})-(?P<length>\d{{1,15}})", {"GET": bulk.answer}),
        (r"/wado", {"GET": retrieving.answer_uri}),
    )
)


async def answer(
    request: web.BaseRequest, house: House, guard: Guard, tally: Tally, *, is_loopback: bool
) -> web.StreamResponse:
    """Answers one request. Raises Refusal, ConnectionError, and what those who answer do."""
    _check_host(request, is_loopback=is_loopback)
    path, _, query = _BEFORE_PATH.sub("", request.raw_path, count=1).partition("?")
    part, methods = _resource(path)
    allowed = ", ".join(["GET", "HEAD", *(method for method in methods if method != "GET"), "OPTIONS"])
    if request.method == hdrs.METH_OPTIONS:
        return answering.words(200, f"allowed: {allowed}", {hdrs.ALLOW: allowed})
    who = methods.get("GET" if request.method == hdrs.METH_HEAD else request.method)
    if who is None:
        raise Refusal(405, f"{request.method[:16]} is not allowed here, but {allowed}", {hdrs.ALLOW: allowed})
    parameters = asking.parameters(query)
    named = [value for name, value in parameters if name == "accept"]  # PS3.18 §8.3.3.1: it overrides the header
    return await who(Asked(
        request=request, house=house, guard=guard, tally=tally, part=part,
        uids={depth: part[group] for group, depth in _GROUPS.items() if group in part},
        parameters=[(name, value) for name, value in parameters if name != "accept"],
        accept=",".join(named or request.headers.getall(hdrs.ACCEPT, ())),
    ))  # fmt: skip


def _resource(path: str) -> tuple[Mapping[str, str], Mapping[str, Answer]]:
    """What a path names: the parts of it, and who answers by method. Raises Refusal."""
    for pattern, methods in RESOURCES:
        found = pattern.fullmatch(path.removesuffix("/"))
        if found is not None:
            return found.groupdict(), methods
    raise Refusal(404, "no such resource: there are /studies, /series and /instances (DICOMweb), and /wado")


def _check_host(request: web.BaseRequest, *, is_loopback: bool) -> None:
    """Refuses, on a port for this machine alone, what names another than this machine. That there is one, aiohttp sees.

    Else a page of a foreign site could have its name resolved to 127.0.0.1, and read what is served here.
    """
    host = request.headers.get(hdrs.HOST, "")
    if is_loopback and host and not is_own(host):
        raise Refusal(421, "this port is for this machine alone: call it localhost, or by its address")

