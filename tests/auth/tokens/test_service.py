"""Tokens: what is written and what is accepted."""

import json
from base64 import urlsafe_b64decode
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jose import jwt
from pydantic import SecretStr
from pydantic_settings import BaseSettings
from tests.auth.people import SECRET, tokens
from tests.auth.tokens.hostile_tokens import Forge

from fastapi_kit.auth import JWTService, TokenClaims, TokenPolicy
from fastapi_kit.errors import ConfigurationError, InvalidTokenError
from fastapi_kit.settings import KitSettings
from fastapi_kit.testing import FrozenClock

NOON = datetime(2030, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(NOON)


def service(clock: FrozenClock | None = None, **policy: Any) -> JWTService:
    options = {} if clock is None else {"clock": clock}
    return JWTService(secret_key=SECRET, policy=TokenPolicy(**policy), **options)


def parts_of(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, payload = (json.loads(urlsafe_b64decode(part + "==")) for part in token.split(".")[:2])
    return header, payload


# --- What is written ---


def test_an_access_token(clock: FrozenClock) -> None:
    """R19: the header and the claims of an access token."""
    token = service(clock).create_access_token("7", scopes=["b", "a"], sid="s", extra={"tenant": 3})

    header, payload = parts_of(token)
    assert header == {"alg": "HS256", "typ": "JWT"}
    jti = payload.pop("jti")
    assert payload == {
        "sub": "7",
        "type": "access",
        "iat": int(NOON.timestamp()),
        "exp": int(NOON.timestamp()) + 1800,
        "scope": "a b",
        "sid": "s",
        "tenant": 3,
    }
    assert len(jti) == 22


def test_claims_come_back(clock: FrozenClock) -> None:
    """R19: decode returns the claims that were written."""
    made = service(clock, issuer="me", audience="api")

    claims = made.decode(made.create_access_token("7", scopes=["b", "a"], sid="s", extra={"tenant": {"id": 3}}))

    assert claims == TokenClaims(
        sub="7",
        type="access",
        jti=claims.jti,
        iat=NOON,
        exp=NOON + timedelta(minutes=30),
        scopes=frozenset({"a", "b"}),
        iss="me",
        aud=("api",),
        sid="s",
        extra={"tenant": {"id": 3}},
    )


def test_claims_cannot_be_changed() -> None:
    """R19: claims cannot be changed, the extra ones included."""
    claims: Any = tokens.decode(tokens.create_access_token("7", extra={"a": 1}))

    with pytest.raises(AttributeError):
        claims.sub = "8"
    with pytest.raises(TypeError):
        claims.extra["a"] = 2


def test_every_token_is_one_of_its_kind() -> None:
    """R16: every token has an id of 128 random bits."""
    ids = {tokens.decode(tokens.create_access_token("7")).jti for _ in range(1000)}

    assert len(ids) == 1000
    assert all(len(urlsafe_b64decode(jti + "==")) == 16 for jti in ids)


TYPES = ("access", "refresh", "verify", "reset", "mfa", "api")


@pytest.mark.parametrize("made", TYPES)
@pytest.mark.parametrize("asked", TYPES)
def test_no_token_works_in_anothers_place(made: Any, asked: Any) -> None:
    """R17: a token of one type is rejected as any other."""
    token = tokens.create_token("7", type=made, lifetime=timedelta(minutes=1))

    if made == asked:
        assert tokens.decode(token, type=asked).type == made
    else:
        with pytest.raises(InvalidTokenError, match="type"):
            tokens.decode(token, type=asked)


def test_a_refresh_token(clock: FrozenClock) -> None:
    """R17: the lifetime of a refresh token is that of the policy, or an argument."""
    made = service(clock, refresh_lifetime=timedelta(days=3))

    claims = made.decode(made.create_refresh_token("7", scopes=["a"], sid="s"), type="refresh")
    short = made.decode(made.create_refresh_token("7", lifetime=timedelta(hours=1)), type="refresh")
    assert (claims.exp, claims.scopes, claims.sid) == (NOON + timedelta(days=3), {"a"}, "s")
    assert short.exp == NOON + timedelta(hours=1)


def test_scopes_from_a_generator() -> None:
    """R19: scopes from a generator are not lost."""
    scopes: Any = (name for name in ("b", "a"))

    assert tokens.decode(tokens.create_access_token("7", scopes=scopes)).scopes == {"a", "b"}


def test_the_arguments_stay_as_they_are() -> None:
    """R19: the arguments are not changed."""
    extra: dict[str, Any] = {"a": [1]}
    scopes = ["b", "a", "a"]

    claims = tokens.decode(tokens.create_access_token("7", extra=extra, scopes=scopes))
    assert (extra, scopes, claims.scopes) == ({"a": [1]}, ["b", "a", "a"], {"a", "b"})


@pytest.mark.parametrize("name", ["sub", "exp", "iat", "nbf", "jti", "type", "iss", "aud", "scope", "sid", "act"])
def test_reserved_claims(name: str) -> None:
    """R19: a reserved claim as an extra claim raises ConfigurationError."""
    with pytest.raises(ConfigurationError, match=name):
        tokens.create_access_token("7", extra={name: "x"})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", {"\ud800": 1}, [[float("-inf")]]], ids=ascii)
def test_claims_that_json_has_not(value: Any) -> None:
    """R19: NaN, infinity and lone surrogates raise ConfigurationError."""
    with pytest.raises(ConfigurationError):
        tokens.create_access_token("7", extra={"x": value})


@pytest.mark.parametrize("value", [NOON, {1: 2}, {"a"}, object(), b"x", (1, 2)], ids=lambda value: type(value).__name__)
def test_claims_that_are_no_json(value: Any) -> None:
    """R19: extra claims that are not plain JSON raise TypeError."""
    with pytest.raises(TypeError):
        tokens.create_access_token("7", extra={"x": value})


@pytest.mark.parametrize("subject", [None, 7, uuid4(), b"7", ["7"]], ids=lambda subject: type(subject).__name__)
def test_a_subject_is_a_text(subject: Any) -> None:
    """R14: a subject that is not a str raises TypeError; python-jose would sign a number that it then rejects."""
    with pytest.raises(TypeError, match=r"str\(user.id\)"):
        tokens.create_access_token(subject)


@pytest.mark.parametrize("subject", ["", " ", "\n", "a\0b", "\u200b", "\ud800"], ids=ascii)
def test_a_subject_can_be_printed(subject: str) -> None:
    """R14: an empty or unprintable subject raises ConfigurationError."""
    with pytest.raises(ConfigurationError):
        tokens.create_access_token(subject)


@pytest.mark.parametrize("scopes", [["a b"], [""], ['a"b'], ["a\\b"], ["é"], ["a\n"]])
def test_scopes_are_tokens(scopes: list[str]) -> None:
    """R19: a scope must be one of RFC 6749, 3.3."""
    with pytest.raises(ConfigurationError):
        tokens.create_access_token("7", scopes=scopes)


@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(seconds=-1), timedelta(milliseconds=999), timedelta(days=3_000_000)])
def test_a_lifetime_that_is_none(lifetime: timedelta) -> None:
    """R11: a lifetime is at least one second, and ends before the year 10000."""
    with pytest.raises(ConfigurationError):
        tokens.create_access_token("7", lifetime=lifetime)


def test_a_lifetime_is_a_timedelta() -> None:
    """R11: a number as the lifetime raises TypeError, because it has no unit."""
    with pytest.raises(TypeError):
        tokens.create_access_token("7", lifetime=30)  # type: ignore[arg-type]


def test_a_clock_has_a_zone() -> None:
    """R19: a clock without a time zone raises TypeError at start."""
    with pytest.raises(TypeError, match="time zone"):
        JWTService(secret_key=SECRET, clock=datetime.now)
    with pytest.raises(TypeError):
        JWTService(secret_key=SECRET, clock=lambda: 0)  # type: ignore[arg-type,return-value]


def test_a_clock_of_another_zone(clock: FrozenClock) -> None:
    """R19: the zone of the clock does not matter."""
    tokyo = FrozenClock(NOON.astimezone(timezone(timedelta(hours=9))))

    assert service(clock).decode(service(tokyo).create_access_token("7")).iat == NOON


def test_a_token_that_would_be_too_long() -> None:
    """R2: a token that would be too long to decode raises ConfigurationError."""
    with pytest.raises(ConfigurationError, match="max_length"):
        tokens.create_access_token("7", extra={"x": "x" * 8192})


# --- What is read: time ---


def test_the_moment_it_expires(clock: FrozenClock) -> None:
    """R11: without leeway a token is expired at the very second of ``exp`` (RFC 7519, 4.1.4)."""
    made = service(clock, leeway=timedelta(0))
    token = made.create_access_token("7", lifetime=timedelta(seconds=10))
    clock.advance(timedelta(seconds=9, microseconds=999_999))

    assert made.decode(token)
    clock.advance(timedelta(microseconds=1))
    with pytest.raises(InvalidTokenError, match="expired"):
        made.decode(token)


def test_the_leeway(clock: FrozenClock) -> None:
    """R13: the default leeway is 10 seconds, for clocks that are ahead or behind."""
    made, token = service(clock), service(clock).create_access_token("7")
    clock.advance(timedelta(minutes=30, seconds=9))

    assert made.decode(token)
    clock.advance(timedelta(seconds=1))
    with pytest.raises(InvalidTokenError, match="expired"):
        made.decode(token)
    early = FrozenClock(NOON - timedelta(seconds=10))
    assert service(early).decode(token)
    early.advance(timedelta(seconds=-1))
    with pytest.raises(InvalidTokenError, match="future"):
        service(early).decode(token)


def test_not_before(clock: FrozenClock) -> None:
    """R12: a token is rejected before its ``nbf``."""
    forge = Forge(now=NOON.timestamp())

    assert service(clock).decode(forge.token(nbf=forge.now + 10))
    with pytest.raises(InvalidTokenError, match="not valid yet"):
        service(clock).decode(forge.token(nbf=forge.now + 11))


def test_a_token_never_lives_longer_than_it_may() -> None:
    """R11: a clock between two seconds does not lengthen a lifetime."""
    clock = FrozenClock(NOON + timedelta(microseconds=999_999))

    claims = service(clock).decode(service(clock).create_access_token("7", lifetime=timedelta(seconds=5)))
    assert claims.exp <= clock() + timedelta(seconds=5)


@pytest.mark.parametrize("leeway", [timedelta(seconds=-1), timedelta(seconds=301)])
def test_a_leeway_out_of_bounds(leeway: timedelta) -> None:
    """R13: leeway is 0 to 300 seconds."""
    with pytest.raises(ConfigurationError, match="leeway"):
        TokenPolicy(leeway=leeway)
    assert TokenPolicy().leeway <= timedelta(seconds=30)
    assert TokenPolicy(leeway=timedelta(seconds=300))


# --- What is read: issuer and audience ---


@pytest.mark.parametrize(("written", "accepted"), [("me", True), ("you", False), ("ME", False), ("me ", False), (..., False)])
def test_a_configured_issuer(written: Any, accepted: bool) -> None:
    """R15: a configured issuer is required, and must be equal."""
    assert accepts(service(issuer="me"), Forge().token(iss=written)) == accepted


@pytest.mark.parametrize(
    ("written", "accepted"),
    [("api", True), (["api"], True), (["x", "api"], True), ("x", False), ([], False), (["x"], False), (..., False), (["api", 1], False)],
)
def test_a_configured_audience(written: Any, accepted: bool) -> None:
    """R15: a configured audience is required, alone or in a list."""
    assert accepts(service(audience="api"), Forge().token(aud=written)) == accepted


@pytest.mark.parametrize("written", ["api", ["api"], [], ""])
def test_an_audience_that_is_not_ours(written: Any) -> None:
    """R15: without a configured audience, a token that names one is rejected."""
    assert not accepts(service(), Forge().token(aud=written))


def accepts(made: JWTService, token: str) -> bool:
    try:
        made.decode(token)
    except InvalidTokenError:
        return False
    return True


# --- What is read: the header ---


@pytest.mark.parametrize("typ", ["JWT", "jwt", "application/jwt", ...])
def test_a_token_says_that_it_is_a_jwt(typ: Any) -> None:
    """R18: the header's ``typ`` is ``JWT``, in any case, or missing."""
    assert accepts(service(), Forge().token({"typ": typ}))


@pytest.mark.parametrize("typ", ["at+jwt", "application/at+jwt", "dpop+jwt", "logout+jwt", "secevent+jwt", "JOSE", "", None, 1, ["JWT"]])
def test_another_typ(typ: Any) -> None:
    """R18: a token of another kind is rejected by its ``typ`` (RFC 8725, 3.11)."""
    assert not accepts(service(), Forge().token({"typ": typ}))


# --- Policy ---


@pytest.mark.parametrize(
    "policy",
    [{"max_length": 511}, {"max_length": 2**21}, {"access_lifetime": timedelta(0)}, {"issuer": ""}, {"audience": "\n"}],
)
def test_a_policy_out_of_bounds(policy: dict[str, Any]) -> None:
    """R13: a policy with a value out of bounds raises ConfigurationError."""
    with pytest.raises(ConfigurationError):
        TokenPolicy(**policy)


def test_from_settings() -> None:
    """R13: from_settings reads the key, the algorithm, the lifetimes, the issuer and the audience."""
    settings = KitSettings.model_validate(
        {
            "SECRET_KEY": SecretStr(SECRET + "kR4vN8sB2xQ6wT0zL5yH9cF3mJ7dG1pA"),
            "ALGORITHM": "HS512",
            "ACCESS_TOKEN_EXPIRE_MINUTES": 5,
            "REFRESH_TOKEN_EXPIRE_DAYS": 2,
            "TOKEN_ISSUER": "me",
            "TOKEN_AUDIENCE": "api",
        }
    )

    made = JWTService.from_settings(settings)
    header, payload = parts_of(made.create_access_token("7"))
    assert (header["alg"], payload["iss"], payload["aud"]) == ("HS512", "me", "api")
    assert (made.policy.access_lifetime, made.policy.refresh_lifetime) == (timedelta(minutes=5), timedelta(days=2))


def test_the_secret_that_is_made_for_development(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """R9: outside production, from_settings works without any setting."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SECRET_KEY", raising=False)

    first, second = JWTService.from_settings(KitSettings()), JWTService.from_settings(KitSettings())
    assert second.decode(first.create_access_token("7")).sub == "7"


class TutorialSettings(BaseSettings):
    SECRET_KEY: str = SECRET
    ALGORITHM: str = "HS256"
    ACCESS_TOKEN_EXPIRE_MINUTES: int = 5


class CompleteSettings(TutorialSettings):
    REFRESH_TOKEN_EXPIRE_DAYS: int = 2
    TOKEN_ISSUER: str | None = None
    TOKEN_AUDIENCE: str | None = "api"


def test_settings_of_another_class() -> None:
    """R13: other settings than KitSettings work if they have the fields; an error names all fields that are missing."""
    complete: Any = CompleteSettings()
    made = JWTService.from_settings(complete)
    assert (made.policy.access_lifetime, made.policy.audience) == (timedelta(minutes=5), "api")

    for settings in (TutorialSettings(), object()):
        foreign: Any = settings
        with pytest.raises(ConfigurationError, match="REFRESH_TOKEN_EXPIRE_DAYS, TOKEN_ISSUER, TOKEN_AUDIENCE:") as caught:
            JWTService.from_settings(foreign)
        assert type(settings).__name__ in str(caught.value)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("algorithm", ["none", "RS256", "HS999"])
def test_settings_that_do_not_fit(algorithm: str) -> None:
    """R5: an unknown algorithm, or one that does not fit the secret, is rejected without showing it."""
    settings = KitSettings.model_validate({"SECRET_KEY": SecretStr(SECRET), "ALGORITHM": algorithm})

    with pytest.raises(ConfigurationError) as caught:
        JWTService.from_settings(settings)
    assert SECRET not in str(caught.value)


# --- Subjects ---


@pytest.mark.parametrize("sub", ["1 ", "+1", "01", "1_0", "1.0", "0x1", "one", "\u0661", "1e3"])
def test_a_subject_that_is_no_int(sub: str) -> None:
    """R14: a subject is an int only if it is the one spelling of that int."""
    claims = TokenClaims(sub=sub, type="access", jti="x" * 22, iat=NOON, exp=NOON)

    with pytest.raises(InvalidTokenError):
        claims.subject(int)


def test_subjects_of_other_types() -> None:
    """R14: a subject is read as the type of your key."""
    ident = uuid4()
    claims = tokens.decode(tokens.create_access_token(str(ident)))

    assert claims.subject(UUID) == ident
    assert claims.subject(str) == str(ident)
    assert claims.subject(lambda sub: sub.upper()) == str(ident).upper()
    for convert in (int, lambda sub: {}[sub] if sub == "" else int(sub)):
        with pytest.raises(InvalidTokenError):
            claims.subject(convert)


# --- Other libraries ---


def test_python_jose_reads_ours() -> None:
    """R1: python-jose decodes our tokens."""
    claims = jwt.decode(tokens.create_access_token("7", extra={"a": 1}), SECRET, algorithms=["HS256"])

    assert (claims["sub"], claims["a"]) == ("7", 1)


def test_we_read_python_joses() -> None:
    """R1: we decode the tokens of python-jose."""
    token = jwt.encode(Forge().payload, SECRET, algorithm="HS256")

    assert tokens.decode(token).sub == "1"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60), JSON)
def test_whatever_can_be_written_is_read(subject: str, value: Any) -> None:
    """R19: subject and extra claims come back unchanged, or raise when they are written."""
    try:
        token = tokens.create_access_token(subject, extra={"x": value})
    except (ConfigurationError, TypeError):
        return
    claims = tokens.decode(token)
    assert (claims.sub, claims.extra["x"]) == (subject, value)


@pytest.mark.parametrize(
    "header", [{"crit": ["exp"]}, {"crit": []}, {"crit": None}, {"b64": False, "crit": ["b64"]}, {"b64": False}, {"b64": None}]
)
def test_required_extensions(header: dict[str, Any]) -> None:
    """R7: a header that requires any extension is rejected (RFC 7515, 4.1.11)."""
    with pytest.raises(InvalidTokenError, match="extension"):
        tokens.decode(Forge().token(header))
    assert tokens.decode(Forge().token({"b64": True}))


def test_an_id_of_your_own() -> None:
    """R16: a refresh token may get its id from a store. An id that is too short to be random is rejected."""
    jti = "q" * 16

    assert tokens.decode(tokens.create_refresh_token("7", jti=jti), type="refresh").jti == jti
    for short in ("q" * 15, ""):
        with pytest.raises(ConfigurationError, match="jti"):
            tokens.create_refresh_token("7", jti=short)


@pytest.mark.parametrize("act", [None, "2", 2, [], {}, {"sub": None}, {"sub": ""}, {"sub": 2}, {"sub": "\0"}, {"iss": "x"}], ids=ascii)
def test_a_malformed_actor(act: Any) -> None:
    """R50: a token whose actor is malformed is rejected."""
    assert not accepts(service(), Forge().token(act=act))


@pytest.mark.parametrize("act", [{"sub": "2"}, {"sub": "2", "iss": "x", "act": {"sub": "3"}}])
def test_an_actor(act: Any) -> None:
    """R50: the claims show who acts. Earlier actors are ignored (RFC 8693, 4.1), and are no extra claims."""
    claims = service().decode(Forge().token(act=act))

    assert (claims.sub, claims.actor, claims.extra) == ("1", "2", {})
    assert service().decode(Forge().token()).actor is None
    assert accepts(service(), service().create_access_token("1", actor="2"))
