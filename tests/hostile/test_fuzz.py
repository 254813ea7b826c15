"""Arbitrary trees and bytes."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.hostile.apps import SampleCreate
from tests.hostile.asgi import Sent
from tests.hostile.inputs import CONTENT_TYPES
from tests.hostile.sites import Sites
from tests.thorough import FULL

SETTINGS = settings(
    max_examples=80 if FULL else 10,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
TEXTS = st.text(st.characters(codec=None), max_size=60)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    TEXTS,
    st.datetimes().map(str),
    st.dates().map(str),
    st.times().map(str),
    st.uuids().map(str),
    st.decimals(places=3, min_value=-(10**12), max_value=10**12).map(str),
)
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=8)
FIELDS = st.sampled_from([name for name in SampleCreate.model_fields if name not in {"wall", "weight", "single", "span", "amount"}])
"""Those left out have faults of their own, see test_fields."""
SAMPLES = st.dictionaries(FIELDS, TREES, max_size=6)


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.only_full
@SETTINGS
@given(changes=SAMPLES, more=st.dictionaries(TEXTS, TREES, max_size=2))
async def test_samples(sites: Sites, changes: dict[str, Any], more: dict[str, Any]) -> None:
    """Any tree in any field, created or changed: stored and readable, or rejected; alike on both databases."""
    create = {"name": "n", "number": 1, **changes, **more}
    await sites.keep_promise(
        "made", [Sent(path=b"/samples", body=encoded(create)), Sent(method="PATCH", path=b"/samples/1", body=encoded(changes))]
    )


@SETTINGS
@given(tree=TREES)
async def test_trees(site: Sites, tree: Any) -> None:
    """Any tree as a whole body, for a model, a recursive one, dicts, lists and bytes."""
    paths = (b"/notes", b"/p/tree", b"/p/scores", b"/p/numbers", b"/p/two", b"/p/bytes", b"/p/any")
    await site.keep_promise("written", [Sent(path=path, body=encoded(tree)) for path in paths])


@SETTINGS
@given(body=st.binary(max_size=200), content_type=st.sampled_from(CONTENT_TYPES) | st.binary(max_size=30))
async def test_bytes(site: Sites, body: bytes, content_type: bytes) -> None:
    """Any bytes under any content type."""
    headers = ((b"content-type", content_type),)
    await site.keep_promise("made", [Sent(headers=headers, body=body)])
    await site.keep_promise("written", [Sent(path=path, headers=headers, body=body) for path in (b"/p/form", b"/p/upload", b"/p/any")])


@SETTINGS
@given(query=st.binary(max_size=60).filter(bytes.isascii), name=st.sampled_from([b"skip", b"limit", b"x"]), cookie=st.binary(max_size=60))
async def test_addresses(site: Sites, query: bytes, name: bytes, cookie: bytes) -> None:
    """Any ASCII in a query, any bytes in a header."""
    await site.keep_promise(
        "made", [Sent(method="GET", query=query, headers=()), Sent(method="GET", query=name + b"=" + query, headers=())]
    )
    headers = ((b"cookie", cookie), (b"x-trace", cookie), (b"x-tags", cookie))
    await site.keep_promise("written", [Sent(method="GET", path=path, headers=headers) for path in (b"/p/cookie", b"/p/header")])
