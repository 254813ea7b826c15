"""UserMixin and UserAccounts."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel, ConfigDict, create_model
from sqlalchemy import MetaData, inspect, text
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, declarative_base, mapped_column, registry
from sqlmodel import Field, SQLModel
from tests.auth.accounts import PASSWORD, Registration, UserChange, Users, store_user
from tests.tables.accounts import User

from fastapi_kit.auth.users import NoChanges, UserAccounts, UserMixin, UserProfile, UserRegister
from fastapi_kit.db import Base, Database
from fastapi_kit.errors import ConfigurationError, ConflictError, UserInputError


async def test_every_write_stores_the_normal_form(users: Database) -> None:
    """R51: an address is stored in its normal form when a user is created, registered or changed."""
    async with users.begin() as session:
        service = Users(session)
        registered = await service.register(Registration.model_construct(email="ANN@example.com", password=PASSWORD), hashed_password="h")
        changed = await service.update(registered.id, UserChange(email=" Bob@EXAMPLE.com "))
        assert (registered.email, changed.email) == ("bob@example.com", "bob@example.com")
        with pytest.raises(UserInputError):
            await service.update(registered.id, UserChange(email="no address"))


async def test_a_mapping_is_no_way_around(users: Database) -> None:
    """R51: a mapping, single values and many rows at once are stored in the normal form, too."""
    async with users.begin() as session:
        service = Users(session)
        first = await service.create({"email": "ANN@example.com", "hashed_password": "h"})
        (second,) = await service.create_many([{"email": "Bob@Example.com"}])
        changed = await service.update(first.id, {"email": " Ann2@EXAMPLE.com"})
    assert (second.email, changed.email) == ("bob@example.com", "ann2@example.com")


async def test_a_new_address_is_not_verified(users: Database) -> None:
    """R48: a new address is not verified; another change keeps ``is_verified``."""
    user = await store_user(users, is_verified=True)

    async with users.begin() as session:
        unchanged = await Users(session).update(user.id, UserChange())
        assert unchanged.is_verified
        assert not (await Users(session).update(user.id, UserChange(email="bob@example.com"))).is_verified


@pytest.mark.parametrize("name", ["is_superuser", "hashed_password", "roles"])
def test_updates_with_privileges_are_rejected(name: str) -> None:
    """R52: an update schema with a privilege raises ConfigurationError when the class is made."""
    schema: type[Any] = create_model("Change", **{name: (str, "")})

    with pytest.raises(ConfigurationError, match=f"could set \\['{name}'\\]"):
        type("Changing", (UserAccounts,), {"model": User, "update_schema": schema})


def test_updates_with_any_field_are_rejected() -> None:
    """R52: an update schema that allows unknown fields could set every column: it raises ConfigurationError when the class is made."""
    schema: type[Any] = create_model("Change", __config__=ConfigDict(extra="allow"), full_name=(str, ""))

    with pytest.raises(ConfigurationError, match="every column"):
        type("Changing", (UserAccounts,), {"model": User, "update_schema": schema})


async def test_every_form_finds_the_user(users: Database) -> None:
    """R51: a user is found by any form of the address."""
    user = await store_user(users)

    async with users.begin() as session:
        found = await Users(session).get_account_by_email(" ANN@Example.com")
        assert found is not None
        assert found.id == user.id
        assert await Users(session).get_account_by_email("bob@example.com") is None


async def test_an_address_is_taken_once(users: Database) -> None:
    """R51: the database itself keeps addresses unique."""
    await store_user(users)

    with pytest.raises(ConflictError) as caught:
        await store_user(users)
    assert caught.value.fields == ("email",)


async def test_an_account(users: Database) -> None:
    """R14: the subject of an account is its id; its repr has no hash."""
    user = await store_user(users, is_verified=True)

    async with users.begin() as session:
        account = Users(session).describe(user)
    assert (account.subject, account.email, account.is_active, account.is_verified) == (str(user.id), user.email, True, True)
    assert account.hashed_password
    assert account.hashed_password not in repr(account)


@pytest.mark.parametrize(
    "subject", ["1", "01", " 1", "1 ", "+1", "1.0", "1_0", "\u0661", "", "x", "-1", "0", str(2**31), str(2**63), "9" * 400]
)
async def test_a_subject_that_is_no_key(users: Database, subject: str) -> None:
    """R22: a subject finds a user only in the one spelling of the key."""
    await store_user(users)

    async with users.begin() as session:
        found = await Users(session).get_account(subject)
    assert (found is not None) == (subject == "1")


class Open(UserRegister):
    model_config = ConfigDict(extra="allow")


class OpenUsers(UserAccounts[User, Open]): ...


async def test_what_is_not_declared_is_not_stored(users: Database) -> None:
    """R52: a registration stores the declared fields only, also if the schema allows others."""
    data = Open.model_validate(
        {"email": "ann@example.com", "password": PASSWORD, "is_superuser": True, "is_verified": True, "id": 7, "full_name": "x"}
    )

    async with users.begin() as session:
        user = await OpenUsers(session).register(data, hashed_password="h")
    assert (user.id, user.is_superuser, user.is_verified, user.is_active, user.full_name) == (1, False, False, True, "")


async def test_a_new_hash(users: Database) -> None:
    """R34: set_password replaces the hash and changes nothing else."""
    user = await store_user(users)

    async with users.begin() as session:
        await Users(session).set_password(user, hashed_password="new")
    async with users.begin() as session:
        stored = await Users(session).get_one(user.id)
    assert (stored.hashed_password, stored.email, stored.is_active) == ("new", user.email, True)


async def test_of_two_who_replace_one_hash_one_comes_first(users: Database) -> None:
    """R34: of two callers who replace the same hash, the second gets False."""
    user = await store_user(users, hashed_password="old")

    async def replace(new: str) -> bool:
        async with users.begin() as session:
            return await Users(session).set_password(await Users(session).get_one(user.id), hashed_password=new, replacing="old")

    done = await asyncio.gather(*(replace(f"new {number}") for number in range(5)))
    async with users.begin() as session:
        stored = await Users(session).get_one(user.id)
        await Users(session).delete(user.id)
        assert not await Users(session).set_password(stored, hashed_password="x")

    assert sorted(done) == [False] * 4 + [True]
    assert stored.hashed_password == f"new {done.index(True)}"


async def test_the_database_has_the_defaults_too(users: Database) -> None:
    """R52: a row inserted by plain SQL is active and has no privileges."""
    async with users.begin() as session:
        await session.execute(text("INSERT INTO users (email, full_name) VALUES ('ann@example.com', '')"))
        user = await Users(session).get_one(1)
    assert (user.hashed_password, user.is_active, user.is_verified, user.is_superuser) == (None, True, False, False)


def test_the_profile_shows_no_hash() -> None:
    """R28: the ready profile has neither hash nor flags of privilege."""
    user = User(email="ann@example.com", hashed_password="h", is_verified=False)

    assert UserProfile.model_validate(user).model_dump() == {"email": "ann@example.com", "is_verified": False}


# --- Keys and bases ---


def user_on(base: type[Any], table: str = "users", key: type[Any] = int, **options: Any) -> Any:
    """Return a model with this base and a key of this type."""

    class OwnUser(UserMixin, base):
        __tablename__ = table
        id: Mapped[key] = mapped_column(primary_key=True, **options)  # type: ignore[valid-type]

    return OwnUser


def accounts_of(model: type[Any]) -> Any:
    return type("Accounts", (UserAccounts,), {"model": model})


async def test_keys_of_other_types(database: Database) -> None:
    """R14: a UUID or a str key can be a subject; a key of another type raises ConfigurationError."""
    users_by_uuid = accounts_of(user_on(declarative_base(), "users_by_uuid", UUID, default=uuid4))
    users_by_name = accounts_of(user_on(declarative_base(), "users_by_name", str))
    odd_users = accounts_of(user_on(declarative_base(), "odd_users", float))
    for users in (users_by_uuid, users_by_name, odd_users):
        await database.create_tables(users.model.metadata)
    async with database.begin() as session:
        by_uuid = await users_by_uuid(session).create({"email": "ann@example.com"})
        by_name = await users_by_name(session).create({"email": "ann@example.com", "id": "ann"})
        subject = users_by_uuid(session).describe(by_uuid).subject
        assert await users_by_uuid(session).get_account(subject) is by_uuid
        assert await users_by_uuid(session).get_account(subject.upper().replace("-", "")) is None
        assert await users_by_name(session).get_account("ann") is by_name
        with pytest.raises(ConfigurationError, match="float"):
            await odd_users(session).get_account("1.5")


class OfTheKit(Base):
    __abstract__ = True
    metadata = MetaData()


class DataclassBase(MappedAsDataclass, DeclarativeBase): ...


class SQLModelBase(SQLModel, registry=registry()):
    metadata = MetaData()


class SQLModelUser(UserMixin, SQLModelBase, table=True):
    __tablename__ = "users"
    id: int | None = Field(default=None, primary_key=True)


MODELS = {
    "the library's": user_on(OfTheKit),
    "declarative_base()": user_on(declarative_base()),
    "dataclass": user_on(DataclassBase, init=False),
    "SQLModel": SQLModelUser,
    "decorated": registry().mapped(user_on(object)),
}


@pytest.mark.parametrize("base", MODELS)
async def test_the_columns_on_every_base(database: Database, base: str) -> None:
    """The columns are the same on five kinds of base, and a user can be registered and found."""
    model = MODELS[base]
    await database.create_tables(model.__table__.metadata)
    service_class = accounts_of(model)

    async with database.begin() as session:
        user = await service_class(session).register(
            UserRegister.model_validate({"email": "Ann@example.com", "password": PASSWORD}), hashed_password="h"
        )
        found = await service_class(session).get_account(str(user.id))

    columns = {column.name: (str(column.type), column.nullable) for column in inspect(model).columns}
    assert columns == {
        "id": ("INTEGER", False),
        "email": ("VARCHAR(254)", False),
        "hashed_password": ("VARCHAR(255)", True),
        "is_active": ("BOOLEAN", False),
        "is_verified": ("BOOLEAN", False),
        "is_superuser": ("BOOLEAN", False),
    }
    assert (found.email, found.is_active, found.is_superuser) == ("ann@example.com", True, False)


def test_an_update_schema_is_not_needed() -> None:
    """Two type arguments are enough; a third is the schema of updates."""

    class Change(BaseModel): ...

    class Changing(UserAccounts[User, Registration, Change]): ...

    assert (OpenUsers.model, OpenUsers.create_schema) == (User, Open)
    assert OpenUsers.update_schema is NoChanges
    assert Changing.update_schema is Change
