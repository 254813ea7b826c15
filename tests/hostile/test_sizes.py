"""Ten megabytes in, and how little comes out."""

import json
from collections.abc import Iterator

import pytest
from tests.hostile.asgi import JSON, Sent
from tests.hostile.promise import CANARY, MOST_BYTES
from tests.hostile.sites import Sites
from tests.hostile.values import nested
from tests.thorough import FULL

HUGE = 10_000_000 if FULL else 3_000_000
FORM = ((b"content-type", b"application/x-www-form-urlencoded"),)
MULTIPART = ((b"content-type", b"multipart/form-data; boundary=b"),)
SECRET = CANARY.encode()


def keys(count: int) -> bytes:
    return b"{" + b",".join(b'"k%d":1' % number for number in range(count)) + b"}"


def huge_bodies() -> Iterator[bytes]:
    secrets = SECRET * (HUGE // len(SECRET))
    yield b'{"title":["%s"]}' % secrets
    yield b'{"%s":1}' % secrets
    yield keys(900_000)
    yield b'{"title":[' + b"1," * (HUGE // 2) + b"1]}"
    yield b'{"title":"' + rb"\ud800" * (HUGE // 6) + b'"}'
    yield b'{"title":' + b"1" * HUGE + b"}"
    yield b" " * HUGE
    yield nested(b"[", HUGE // 2, b"]")
    yield b"\xff" * HUGE


@pytest.mark.only_full
@pytest.mark.parametrize("app", ["made", "written"])
async def test_huge_bodies(site: Sites, app: str) -> None:
    """Ten megabytes are a 4xx problem of a few bytes, with and without a limit, and nothing of them is in it."""
    before = await site.every[0].look()

    await site.keep_promise(app, (Sent(body=body) for body in huge_bodies()))

    assert await site.every[0].look() == before


async def test_huge_forms_and_bytes(site: Sites) -> None:
    """The same for forms, files and raw bytes in hand-written routes."""
    body = b"\xff" * HUGE
    part = b'--b\r\nContent-Disposition: form-data; name="note"\r\n\r\n' + body + b"\r\n--b--\r\n"
    await site.keep_promise("written", [Sent(path=b"/p/bytes", headers=(), body=body), Sent(path=b"/p/stream", headers=(), body=body)])
    await site.keep_promise(
        "written", [Sent(path=b"/p/form", headers=FORM, body=b"age=" + body), Sent(path=b"/p/form", headers=MULTIPART, body=part)]
    )


@pytest.mark.parametrize("declared", [True, False], ids=["content-length", "chunked"])
async def test_a_body_beyond_the_limit_is_a_413(site: Sites, declared: bool) -> None:
    """Create_app bounds every body: megabytes are rejected as a problem before they are read."""
    body = b'{"title":"%s"}' % (SECRET * (HUGE // len(SECRET)))
    length = ((b"content-length", str(len(body)).encode()),) if declared else ()
    sent = Sent(headers=(*JSON, *length), body=body)

    await site.keep_promise("made", [sent])

    assert (await site.every[0].ask("made", sent)).status == 413


async def test_many_errors_are_a_small_answer(site: Sites) -> None:
    """Errors with names of 600 bytes each, as JSON escapes them, are an answer of bounded size."""
    names = [json.dumps("\x01" * 100 + str(number)).encode() for number in range(200)]
    scores = b"{" + b",".join(b"%s:{%s:null}" % (name, name) for name in names) + b"}"

    await site.keep_promise(
        "written", [Sent(path=b"/p/scores", body=scores), Sent(path=b"/p/numbers", body=b"[" + b"null," * 5000 + b"null]")]
    )


async def test_a_deep_error_is_a_small_answer(site: Sites) -> None:
    """In a model that contains itself the client chooses the number of names in loc, too: each of 100 errors has them all."""
    branch = b'{"name":"x","branches":{"%s":' % (b"k" * 100)
    leaves = b'{"name":"x","leaves":[' + b"{}," * 99 + b"{}]}"
    tree = branch * 100 + leaves + b"}}" * 100

    answer = await site.every[0].ask("written", Sent(path=b"/p/tree", body=tree))

    assert (answer.status, answer.error) == (422, None)
    assert len(answer.body) < MOST_BYTES
