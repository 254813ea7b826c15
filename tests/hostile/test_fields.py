"""Values of fields: whatever JSON carries, into every type of column."""

import json
from collections.abc import Iterator

import pytest
from tests.hostile.asgi import Sent
from tests.hostile.sites import Sites
from tests.hostile.values import DEEP, FLOATS, LABELS, MOMENTS, MONSTERS, SPANS, TYPES, VALUES, changes_of, creations_of, samples_of

FIELDS = tuple(VALUES)


def _both_of(fields: tuple[str, ...]) -> Iterator[Sent]:
    """Yield creations, and changes for every third value: the checks are the same."""
    for field in fields:
        yield from (creations_of(field, value) for value in VALUES[field])
        yield from (changes_of(field, value) for value in VALUES[field][::3])


@pytest.mark.only_full
@pytest.mark.parametrize("fields", [FIELDS[:9], FIELDS[9:]], ids=["first", "last"])
async def test_every_type_of_json_into_every_field(sites: Sites, fields: tuple[str, ...]) -> None:
    """A field of the wrong type is stored or rejected, and alike on both databases."""
    await sites.keep_promise("made", (creations_of(field, value) for field in fields for value in TYPES))


async def test_null_into_every_field(sites: Sites) -> None:
    """Null is stored where the column takes it and rejected elsewhere, in a change as in a creation."""
    await sites.keep_promise("made", samples_of({field: [b"null"] for field in FIELDS}))


@pytest.mark.parametrize("fields", [FIELDS[:5], FIELDS[5:10], FIELDS[10:]], ids=["texts and numbers", "decimals and moments", "others"])
async def test_values_that_fit_badly(sites: Sites, fields: tuple[str, ...]) -> None:
    """NUL, surrogates, huge numbers, NaN, odd dates and the like are stored or rejected, and alike on both databases."""
    await sites.keep_promise("made", _both_of(fields))


@pytest.mark.only_full
async def test_values_that_fit_badly_into_a_service_called_by_hand(sites: Sites) -> None:
    """The same in a hand-written route, on an engine of the application."""
    await sites.keep_promise("written", (creations_of(field, value) for field in FIELDS for value in VALUES[field][::3]))


@pytest.mark.only_full
async def test_values_that_fit_badly_into_sql_by_hand(sites: Sites) -> None:
    """Where only the handlers stand between a hand-written INSERT and the client, a rejected value is not a 5xx either.

    The databases differ here, and documents are left out, which are not checked before they are stored.
    """
    requests = [creations_of(field, value) for field in FIELDS if field != "data" for value in VALUES[field][::3]]
    await sites.keep_promise("written", (sent.to(b"/sql") for sent in requests), alike=False)


async def test_a_value_that_is_rejected_is_named(sites: Sites) -> None:
    """The field is in the answer, on both databases."""
    for field, value in (
        ("name", rb'"\u0000"'),
        ("number", b"2147483648"),
        ("price", b"99999999.995"),
        ("data", rb'["\ud800"]'),
        ("small", b"40000"),
    ):
        for site in sites.every:
            answer = await site.ask("made", changes_of(field, value))

            assert (answer.status, [item["loc"] for item in json.loads(answer.body)["errors"]]) == (422, [[field]])


async def test_deep_documents(sites: Sites) -> None:
    """What Python's JSON reads and Pydantic cannot write is rejected before it is stored: one such row would break every list."""
    await sites.keep_promise("made", samples_of({"data": DEEP}))


async def test_monstrous_decimals(sites: Sites) -> None:
    """A decimal that some database cannot hold is rejected by all: SQLite makes it infinite, asyncpg zero."""
    await sites.keep_promise("made", samples_of({"amount": MONSTERS, "price": MONSTERS}))


async def test_a_decimal_that_was_stored_is_the_one_that_was_sent(sites: Sites) -> None:
    """No huge number becomes another one on its way."""
    for site in sites.every:
        for value in MONSTERS:
            created = await site.ask("made", creations_of("amount", value))
            if created.status == 201:
                row = await site.ask("made", Sent(method="GET", path=created.header(b"location"), headers=()))

                assert row.status == 200, f"{site.name}: {value[:40]!r}"
                assert float(json.loads(row.body)["amount"]) == float(value.strip(b'"')), f"{site.name}: {value[:40]!r}"


async def test_floats(sites: Sites) -> None:
    """NaN, infinity and what is beyond four bytes: alike on both databases, also where the column is NOT NULL."""
    await sites.keep_promise("made", samples_of({"weight": FLOATS, "single": FLOATS}))


async def test_moments_without_a_zone(sites: Sites) -> None:
    """A column of naive datetimes takes or rejects an aware one alike on both databases."""
    await sites.keep_promise("made", samples_of({"wall": MOMENTS}))


async def test_long_spans(sites: Sites) -> None:
    """An interval of thousands of years: alike on both databases."""
    await sites.keep_promise("made", samples_of({"span": SPANS}))


@pytest.mark.only_full
async def test_names_in_an_open_schema(sites: Sites) -> None:
    """Names that the model has for itself are unknown fields to a client."""
    await sites.keep_promise("made", LABELS)


@pytest.mark.only_full
@pytest.mark.parametrize("field", ["text", "count", "flag", "day"])
async def test_types_in_an_open_schema(sites: Sites, field: str) -> None:
    """An undeclared field reaches its column as any type of JSON, and no row is stored that cannot be read."""
    create = [Sent(path=b"/labels", body=b'{"name":"l%d","%s":%s}' % (index, field.encode(), value)) for index, value in enumerate(TYPES)]
    change = [Sent(method="PATCH", path=b"/labels/first", body=b'{"%s":%s}' % (field.encode(), value)) for value in TYPES]
    await sites.keep_promise("made", [*create, *change])
