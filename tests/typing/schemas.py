"""What the type checkers know of the field types and of partial_model: checked strictly by mypy and pyright, never run."""

from datetime import datetime
from typing import Annotated, Generic, TypeVar, assert_type

from pydantic import BaseModel, Field, SecretStr, TypeAdapter
from sqlalchemy.ext.asyncio import AsyncSession
from tests.typing.models import User

from fastapi_kit.crud import CRUDService
from fastapi_kit.schemas import Email, Int32, Int64, NonBlank, Password, Phone, SafeText, Slug, Username, UTCDatetime, partial_model

ItemT = TypeVar("ItemT")


class MemberCreate(BaseModel):
    email: Email
    username: Username
    password: Password
    joined: UTCDatetime
    title: Annotated[NonBlank, Field(max_length=200)] = "none"
    slug: Slug | None = None
    phones: list[Phone] = []
    notes: dict[SafeText, SafeText] = Field(default_factory=dict)
    points: Int32 = 0
    total: Annotated[Int64, Field(ge=0)] = 0


class Box(BaseModel, Generic[ItemT]):
    item: ItemT


@partial_model
class MemberUpdate(MemberCreate): ...


class MemberService(CRUDService[User, MemberCreate, MemberUpdate]): ...


class ShortMemberService(CRUDService[User, MemberCreate, MemberCreate]):
    update_schema = partial_model(MemberCreate, name="ShortMemberUpdate")


def fields_have_plain_types(member: MemberCreate) -> None:
    assert_type(member.email, str)
    assert_type(member.username, str)
    assert_type(member.password, SecretStr)
    assert_type(member.joined, datetime)
    assert_type(member.title, str)
    assert_type(member.slug, str | None)
    assert_type(member.phones, list[str])
    assert_type(member.notes, dict[str, str])
    assert_type(member.points, int)
    assert_type(member.total, int)
    assert_type(TypeAdapter[str](Email).validate_python("ada@example.com"), str)


def a_partial_form_has_the_type_of_its_schema() -> None:
    assert_type(partial_model(MemberCreate), type[MemberCreate])
    assert_type(partial_model(MemberCreate, name="MemberPatch").model_validate({}), MemberCreate)
    assert_type(partial_model(Box[int]), type[Box[int]])
    assert_type(MemberUpdate.model_validate({}), MemberUpdate)
    assert_type(MemberUpdate.model_validate({}).email, str)


async def a_service_takes_it(session: AsyncSession, changes: MemberUpdate) -> None:
    assert_type(await MemberService(session).update(1, changes), User)
    assert_type(ShortMemberService(session).update_schema, type[MemberCreate])
