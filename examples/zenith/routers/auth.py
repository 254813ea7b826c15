"""Register, log in, refresh, read your own data, list and end logins."""

from fastapi_kit.auth.users import AuthEndpoint, auth_router
from fastapi_kit.handlers import problem_responses

from ..database import db
from ..dependencies import AfterResponse, Session, get_current_user
from ..models import User
from ..schemas import UserRead, UserRegister
from ..services import flow, send_welcome

router = auth_router(
    flow,
    session=db.session,
    current_user=get_current_user,
    read=UserRead,
    endpoints=AuthEndpoint.ALL & ~AuthEndpoint.REGISTER | AuthEndpoint.LOGINS,
)


@router.post("/register", status_code=201, response_model=UserRead, responses=problem_responses(409))
async def register(data: UserRegister, session: Session, tasks: AfterResponse) -> User:
    """Create an account. A welcome mail is sent after the commit and the response."""
    user = await flow.register(session, data, password=data.password)
    tasks.add(send_welcome, user.id)
    return user
