"""Whole bodies, content types and forms."""

import gc

import pytest
from tests.hostile.asgi import JSON, Sent
from tests.hostile.inputs import BODIES, CONTENT_TYPES, FORMS, MULTIPARTS, READABLE, TORN_MULTIPARTS
from tests.hostile.promise import CANARY, verdict
from tests.hostile.sites import Sites

TAKE_FORMS = (b"/p/form", b"/p/fields", b"/p/upload")
NOTE = b'{"title":"%s"}' % CANARY.encode()


async def test_bodies(sites: Sites) -> None:
    """No JSON, another type of JSON, wrong encodings, 100,000 levels: a 4xx problem, and no row."""
    await sites.keep_promise("made", (Sent(path=b"/notes", body=body) for body in (*BODIES, *READABLE)))

    answers = [await sites.every[0].ask("made", Sent(path=b"/notes", body=body)) for body in BODIES]
    assert {verdict(answer) for answer in answers} <= {(422, "invalid_request"), (400, "bad_request"), (422, "invalid_data")}


async def test_bodies_to_other_schemas(site: Sites) -> None:
    """The same where fields are many, open or forbidden."""
    await site.keep_promise("made", (Sent(path=path, body=body) for path in (b"/samples", b"/labels", b"/tickets") for body in BODIES))


async def test_bodies_of_changes(site: Sites) -> None:
    """The same for PATCH, where an empty object changes nothing."""
    await site.keep_promise("made", (Sent(method="PATCH", path=b"/notes/1", body=body) for body in (*BODIES, *READABLE)))


async def test_bodies_to_routes_by_hand(site: Sites) -> None:
    """The same in hand-written routes: models, recursive ones, dicts, lists, bytes, several parameters, anything."""
    names = (b"bytes", b"stream", b"any", b"tree", b"scores", b"numbers", b"two", b"form")
    paths = (b"/notes", *(b"/p/" + name for name in names))
    await site.keep_promise("written", (Sent(path=path, body=body) for path in paths for body in (*BODIES, *READABLE)))


async def test_content_types(site: Sites) -> None:
    """A wrong, odd, doubled or missing content type is a 4xx problem at most."""
    headers = [*(((b"content-type", value),) for value in CONTENT_TYPES), (), JSON * 2, (*JSON, (b"content-type", b"text/plain"))]
    bodies = (NOTE, b"", b"\xff")
    for app, path in (
        ("made", b"/notes"),
        ("written", b"/p/any"),
        ("written", b"/p/form"),
        ("written", b"/p/upload"),
        ("written", b"/p/bytes"),
    ):
        await site.keep_promise(app, (Sent(path=path, headers=each, body=body) for each in headers for body in bodies))


async def test_forms(site: Sites) -> None:
    """An odd form, or JSON that is called one, is a 4xx problem at most."""
    headers = ((b"content-type", b"application/x-www-form-urlencoded"),)
    await site.keep_promise("written", (Sent(path=path, headers=headers, body=body) for path in TAKE_FORMS for body in (*FORMS, *BODIES)))


async def test_multipart(site: Sites) -> None:
    """Odd boundaries, charsets and parts are a 4xx problem at most, whose text repeats nothing."""
    requests = (Sent(path=path, headers=((b"content-type", kind),), body=body) for path in TAKE_FORMS for kind, body in MULTIPARTS)
    await site.keep_promise("written", requests)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_torn_multipart(site: Sites) -> None:
    """A file that breaks off is a 4xx problem; Starlette leaves its temporary file to the garbage collector."""
    await site.keep_promise(
        "written", (Sent(path=b"/p/upload", headers=((b"content-type", kind),), body=body) for kind, body in TORN_MULTIPARTS)
    )

    gc.collect()


@pytest.mark.parametrize(("app", "path"), [("made", b"/notes"), ("written", b"/notes"), ("written", b"/p/bytes"), ("written", b"/p/form")])
async def test_a_client_that_leaves(site: Sites, app: str, path: bytes) -> None:
    """Half a body and then nothing: no exception leaves the app, and no row is stored."""
    before = await site.every[0].look()

    answer = await site.every[0].ask(app, Sent(path=path, body=NOTE, ends=False))

    assert answer.error is None
    assert answer.status < 500
    assert await site.every[0].look() == before
