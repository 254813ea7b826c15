"""How users change their own data: the policy, the current password, and one write."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, SecretStr, model_validator
from tests.auth.accounts import PASSWORD, Registration, Site, Users, store_user
from tests.tables.accounts import User

from fastapi_kit.auth.users import AuthFlow, UserAccounts
from fastapi_kit.db import Database
from fastapi_kit.errors import ConfigurationError, ConflictError, NotFoundError, UserInputError
from fastapi_kit.schemas import Email, Password, partial_model

NEW = "another horse battery"


class Change(BaseModel):
    """What users may change, in the tutorial's form: every field has a default."""

    email: Email | None = None
    full_name: str | None = None
    password: Password | None = None
    current_password: SecretStr | None = None


class Whole(BaseModel):
    email: Email
    full_name: str
    password: Password
    current_password: SecretStr

    @model_validator(mode="after")
    def differs(self) -> "Whole":
        if self.full_name == self.email:
            raise ValueError("the name is the address")
        return self


Partial: Any = partial_model(Whole)


async def change(site: Site, ident: int, data: BaseModel, *, confirm: bool = True) -> User:
    async with site.database.sessions() as session:
        user = await Users(session).get_one(ident)
        return await site.flow.change(session, user, data, confirm=confirm)


async def row(site: Site, ident: int) -> User:
    async with site.database.sessions() as session:
        return await Users(session).get_one(ident)


def codes(error: UserInputError) -> list[tuple[object, str]]:
    return [(each.loc[-1], each.code) for each in error.errors]


@pytest.mark.parametrize("form", [Change, Partial])
async def test_a_new_password(site: Site, form: type[BaseModel]) -> None:
    """R36: with the current password a user sets a new one, and other fields, in one write."""
    user = await store_user(site.database)

    data = form.model_validate({"password": NEW, "current_password": PASSWORD, "full_name": "Ann"})
    changed = await change(site, user.id, data)

    assert changed.full_name == "Ann"
    stored = await row(site, user.id)
    assert await site.flow.passwords.verify(NEW, stored.hashed_password)


@pytest.mark.parametrize("given", [{}, {"current_password": "wrong"}, {"current_password": ""}, {"current_password": NEW}])
@pytest.mark.parametrize("field", [{"password": NEW}, {"email": "eve@example.com"}])
async def test_without_the_current_password(site: Site, field: dict[str, str], given: dict[str, str]) -> None:
    """R36: a new password or address without the current password is rejected, and stores nothing."""
    user = await store_user(site.database)

    with pytest.raises(UserInputError) as caught:
        await change(site, user.id, Change.model_validate({**field, **given, "full_name": "Mallory"}))

    assert codes(caught.value) == [("current_password", "wrong_password")]
    stored = await row(site, user.id)
    assert (stored.full_name, stored.email, stored.hashed_password) == ("", user.email, user.hashed_password)


@pytest.mark.parametrize("data", [{}, {"email": "ANN@example.com"}, {"password": None}], ids=str)
async def test_what_needs_no_password(site: Site, data: dict[str, object]) -> None:
    """Other fields, the stored address sent again and an empty password need no current password."""
    user = await store_user(site.database, is_verified=True)

    changed = await change(site, user.id, Change.model_validate({**data, "full_name": "Ann"}))

    assert (changed.full_name, changed.email, changed.is_verified) == ("Ann", user.email, True)
    assert changed.hashed_password == user.hashed_password


async def test_a_user_without_a_password(site: Site) -> None:
    """R36: a user without a password cannot confirm a change."""
    user = await store_user(site.database, hashed_password=None)

    with pytest.raises(UserInputError):
        await change(site, user.id, Change(email="eve@example.com", current_password=SecretStr("")))


async def test_a_change_by_another_user(site: Site) -> None:
    """``confirm=False`` needs no current password, but the policy still decides."""
    user = await store_user(site.database)

    await change(site, user.id, Change(password=SecretStr(NEW)), confirm=False)
    assert await site.flow.passwords.verify(NEW, (await row(site, user.id)).hashed_password)
    with pytest.raises(UserInputError) as caught:
        await change(site, user.id, Change(password=SecretStr("password123")), confirm=False)
    assert codes(caught.value) == [("password", "too_common")]


@pytest.mark.parametrize("password", ["ann@example.com", "Grace Hopper", "Lady Lovelace"])
async def test_a_password_like_the_data(site: Site, password: str) -> None:
    """R30: the policy compares a new password with the old and the new data of the user."""
    user = await store_user(site.database, full_name="Grace Hopper")

    with pytest.raises(UserInputError) as caught:
        await change(
            site, user.id, Change.model_validate({"password": password, "current_password": PASSWORD, "full_name": "Lady Lovelace"})
        )
    assert codes(caught.value) == [("password", "too_similar")]


async def test_a_taken_address(site: Site) -> None:
    """R51: a taken address is a ConflictError, and the password of the same change is not stored."""
    await store_user(site.database, "bob@example.com")
    user = await store_user(site.database)

    data = Change.model_validate({"email": "BOB@example.com", "password": NEW, "current_password": PASSWORD})
    with pytest.raises(ConflictError):
        await change(site, user.id, data)
    assert (await row(site, user.id)).hashed_password == user.hashed_password


async def test_one_of_two(site: Site) -> None:
    """R36: of several changes that confirm with the same password, one is stored, and the others are rejected."""
    user = await store_user(site.database)
    forms = [Change.model_validate({"password": f"{NEW} {number}", "current_password": PASSWORD}) for number in range(4)]

    done = await asyncio.gather(*(change(site, user.id, form) for form in forms), return_exceptions=True)

    assert sorted(isinstance(each, UserInputError) for each in done) == [False, True, True, True]


@pytest.mark.parametrize("form", [Change, Partial])
async def test_an_address_that_changed_meanwhile(site: Site, form: type[BaseModel]) -> None:
    """R36: who sends the old address again, without the password, does not take a new address back that another request stores."""
    user = await store_user(site.database)
    async with site.database.sessions() as session:
        loaded = await Users(session).get_one(user.id)
        async with site.database.begin() as other:
            await Users(other).update(user.id, {"email": "new@example.com"})

        await site.flow.change(session, loaded, form.model_validate({"email": "ann@example.com", "full_name": "Ann"}))

    stored = await row(site, user.id)
    assert (stored.email, stored.full_name) == ("new@example.com", "Ann")


async def test_rules_across_fields(site: Site) -> None:
    """The rules of a partial form are applied to the stored row with the change; a rejected change stores no password."""
    user = await store_user(site.database)

    data = Partial(full_name="ann@example.com", password=NEW, current_password=PASSWORD)
    with pytest.raises(UserInputError):
        await change(site, user.id, data)
    assert (await row(site, user.id)).hashed_password == user.hashed_password


async def test_a_deleted_user(site: Site) -> None:
    """A change of a user who was deleted meanwhile is a NotFoundError."""
    user = await store_user(site.database)
    async with site.database.begin() as session:
        await Users(session).delete(user.id)

    async with site.database.sessions() as session:
        with pytest.raises(NotFoundError):
            await site.flow.change(session, user, Change(full_name="Ann"))


async def test_other_fields_that_need_the_password(site: Site) -> None:
    """``guarded=`` decides which fields need the current password."""
    user = await store_user(site.database)
    site.flow = replace(site.flow, guarded=["full_name"])

    with pytest.raises(UserInputError):
        await change(site, user.id, Change(full_name="Eve"))
    assert (await change(site, user.id, Change(email="eve@example.com"))).email == "eve@example.com"


# --- Whether an address is verified ---


class AnyUsers(UserAccounts[User, Registration, Change]): ...


@pytest.mark.parametrize(
    ("email", "is_verified"), [("ann@example.com", True), (" ANN@Example.COM ", True), ("eve@example.com", False), (None, True)]
)
@pytest.mark.parametrize("way", ["schema", "mapping", "flow", "transaction", "loaded"])
async def test_the_address_keeps_its_flag(users: Database, site: Site, way: str, email: str | None, is_verified: bool) -> None:
    """R48: the same address in any form stays verified, and another one does not, whichever way it is written."""
    user = await store_user(users, is_verified=True)
    values = {"full_name": "Ann", **({} if email is None else {"email": email})}
    schema = Change.model_validate({**values, "current_password": PASSWORD})

    async with users.sessions() as session:
        service = AnyUsers(session)
        if way == "schema":
            changed = await service.update(user.id, Change.model_validate(values))
        elif way == "mapping":
            changed = await service.update(user.id, values)
        elif way == "flow":
            changed = await AuthFlow(accounts=AnyUsers, passwords=site.flow.passwords).change(session, user, schema)
        elif way == "loaded":
            loaded = await service.get_one(user.id)
            changed = await service.update(user.id, values)
            assert loaded is changed
        else:
            async with session.begin():
                changed = await service.update(user.id, values)
    assert changed.is_verified is is_verified
    assert (await row(site, user.id)).is_verified is is_verified


async def test_a_flag_that_is_given(users: Database) -> None:
    """R48: trusted code may set the flag together with the address."""
    user = await store_user(users)

    async with users.sessions() as session:
        assert (await Users(session).update(user.id, {"email": "eve@example.com", "is_verified": True})).is_verified


class Flags(BaseModel):
    is_superuser: bool | None = None
    hashed_password: str | None = None


class Anything(BaseModel):
    model_config = ConfigDict(extra="allow")
    full_name: str = ""


@pytest.mark.parametrize("schema", [Flags, Anything])
async def test_privileges(site: Site, schema: type[BaseModel]) -> None:
    """R52: a schema of your own with a privilege, or with any field, changes nothing of who sends it. A superuser may use it for others."""
    user = await store_user(site.database)
    data = schema.model_validate({"is_superuser": True})

    for each in (data, schema()):
        with pytest.raises(ConfigurationError, match="users who change their own data could set"):
            await change(site, user.id, each)
    assert not (await row(site, user.id)).is_superuser
    assert (await change(site, user.id, data, confirm=False)).is_superuser
