"""Register, log in, refresh, read your own data, list and end logins, and what needs a link in a mail."""

from fastapi_kit.auth.users import AuthEndpoint, auth_router

from ..database import db
from ..dependencies import get_current_user
from ..schemas import UserRead, UserRegister
from ..services import flow, mail

router = auth_router(
    flow,
    session=db.session,
    current_user=get_current_user,
    read=UserRead,
    register=UserRegister,
    endpoints=AuthEndpoint.ALL | AuthEndpoint.LOGINS | AuthEndpoint.ACCOUNT | AuthEndpoint.MAIL,
    mail=mail,
)
