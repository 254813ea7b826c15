"""Paths, queries, methods and headers."""

import pytest
from tests.hostile.asgi import JSON, Sent
from tests.hostile.inputs import COOKIES, HEADERS, HOSTS, KEYS, METHODS, PATHS, PREFLIGHTS, QUERIES, RAW_QUERIES
from tests.hostile.sites import Sites
from tests.thorough import sample

UUID = b"/00000000-0000-0000-0000-000000000000"


def get(path: bytes, query: bytes = b"", *headers: tuple[bytes, bytes], host: bytes = b"test") -> Sent:
    return Sent(method="GET", path=path, query=query, headers=headers, host=host)


@pytest.mark.only_full
async def test_keys(sites: Sites) -> None:
    """Whatever stands for a whole number in the path is a 404 or a 422, alike on both databases."""
    await sites.keep_promise(
        "made", (Sent(method=method, path=b"/notes/" + key, body=b"{}") for key in KEYS for method in ("GET", "PATCH", "DELETE"))
    )


@pytest.mark.only_full
async def test_keys_that_are_text(sites: Sites) -> None:
    """NUL, surrogates and what is too long are no label's name, alike on both databases."""
    await sites.keep_promise(
        "made", (Sent(method=method, path=b"/labels/" + key, body=b"{}") for key in KEYS for method in ("GET", "DELETE"))
    )


async def test_keys_of_two_parts(site: Sites) -> None:
    """The same for a UUID and a day."""
    await site.keep_promise(
        "made", (get(path) for key in KEYS for path in (b"/tickets/" + key + b"/2024-01-01", b"/tickets" + UUID + b"/" + key))
    )


async def test_path_parameters_by_hand(site: Sites) -> None:
    """The same for a number, a UUID, a day and a truth value in a hand-written route."""
    parts = [b"1", UUID[1:], b"2024-01-01", b"true"]
    paths = (b"/".join([*parts[:position], key, *parts[position + 1 :]]) for position in range(4) for key in KEYS)
    await site.keep_promise("written", (get(b"/p/path/" + path) for path in paths))


async def test_keys_by_hand(sites: Sites) -> None:
    """An unbounded number or text given to a service by hand; a path of files."""
    await sites.keep_promise("written", (get(path + key) for key in KEYS for path in (b"/notes/", b"/labels/")))
    await sites.keep_promise("written", (get(b"/p/file/" + key) for key in KEYS))


@pytest.mark.parametrize("app", ["made", "written"])
async def test_paths(site: Sites, app: str) -> None:
    """Dots, slashes, escapes, other hosts and 100,000 characters where a path should be."""
    await site.keep_promise(app, (Sent(method=method, path=path, body=b"{}") for path in PATHS for method in ("GET", "POST", "OPTIONS")))


async def test_queries(sites: Sites) -> None:
    """Odd pages and unknown, repeated, bracketed and endless parameters, alike on both databases."""
    await sites.keep_promise("made", (get(b"/notes", query) for query in QUERIES))


async def test_queries_that_are_not_read(site: Sites) -> None:
    """They do not matter where no parameter is declared."""
    paths = (b"/nowhere", b"/notes/1", b"/health", b"/docs")
    await site.keep_promise("made", (get(path, query) for query in (*QUERIES, *RAW_QUERIES) for path in paths))


async def test_bytes_in_a_query_that_passes(site: Sites) -> None:
    """A value that is no UTF-8 and is replaced by a later one reaches the Link header; it is no 5xx."""
    await site.keep_promise("made", (get(b"/notes", query) for query in RAW_QUERIES))


@pytest.mark.parametrize("app", ["made", "written"])
async def test_queries_that_are_redirected(site: Sites, app: str) -> None:
    """The framework's redirect to the path without the slash carries the query along; it is no 5xx."""
    await site.keep_promise(app, (get(b"/notes/", query) for query in QUERIES if query.isascii()))


async def test_query_parameters_by_hand(site: Sites) -> None:
    """Every type of parameter in a hand-written route."""
    names = (b"number", b"ratio", b"price", b"flag", b"colour", b"day", b"at", b"span", b"ids")
    await site.keep_promise("written", (get(b"/p/query", name + b"=" + key) for key in KEYS for name in names))


async def test_sql_by_hand(sites: Sites) -> None:
    """Unbounded numbers and any text in a hand-written SELECT: the databases differ, but there is no 5xx."""
    await sites.keep_promise("written", (get(b"/sql", name + b"=" + key) for key in KEYS for name in (b"number", b"name")), alike=False)


async def test_pages_by_hand(sites: Sites) -> None:
    """Unbounded skip and limit given to a service by hand."""
    numbers = (b"0", b"2147483647", b"2147483648", b"9223372036854775807", b"9223372036854775808", b"1" * 30, b"1" * 4000)
    await sites.keep_promise("written", (get(b"/notes", name + b"=" + number) for number in numbers for name in (b"skip", b"limit")))


async def test_negative_pages_by_hand(site: Sites) -> None:
    """A negative number, which ``skip: int = 0, limit: int = 100`` lets through, is not a 5xx."""
    await site.keep_promise("written", [get(b"/notes", b"skip=-1"), get(b"/notes", b"limit=-1")])


@pytest.mark.parametrize("app", ["made", "written"])
async def test_methods(site: Sites, app: str) -> None:
    """An unknown method is a 405 or 404 problem on every path."""
    paths = (b"/notes", b"/notes/1", b"/nowhere", b"/health", b"/docs", b"/notes/")
    await site.keep_promise(app, (Sent(method=method, path=path, body=b'{"title":1}') for method in METHODS for path in paths))


@pytest.mark.parametrize("app", ["made", "written"])
async def test_headers(site: Sites, app: str) -> None:
    """Odd bytes, conditions, ranges, tokens and traces in the headers change nothing and come back nowhere."""
    rejected = Sent(body=b'{"title":1}')
    for header in sample(HEADERS):
        await site.keep_promise(
            app, [get(b"/notes", b"", header), Sent(headers=(*JSON, header), body=rejected.body), get(b"/nowhere", b"", header, header)]
        )


async def test_preflights(site: Sites) -> None:
    """A rejected preflight of CORS is a 4xx and has the shape of all others."""
    await site.keep_promise("made", (Sent(method="OPTIONS", headers=headers) for headers in PREFLIGHTS))


@pytest.mark.parametrize("app", ["made", "written"])
async def test_hosts(site: Sites, app: str) -> None:
    """Any Host header, on each kind of path."""
    await site.keep_promise(
        app, (get(path, host=host) for host in HOSTS for path in (b"/notes", b"/notes/", b"/nowhere", b"/docs", b"/health"))
    )


async def test_cookies(site: Sites) -> None:
    """Odd cookies are a 422 at most."""
    await site.keep_promise("written", (get(b"/p/cookie", b"", (b"cookie", cookie)) for cookie in COOKIES))


async def test_header_parameters(site: Sites) -> None:
    """Odd header parameters, alone and repeated, are a 422 at most."""
    values = (*KEYS, b"\xff", b"\0", b"")
    for value in sample(values):
        await site.keep_promise(
            "written", [get(b"/p/header", b"", (b"x-trace", value)), get(b"/p/header", b"", (b"x-tags", value), (b"x-tags", value))]
        )
