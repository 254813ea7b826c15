"""A second factor for logins: codes of an authenticator app, and recovery codes.

The columns for a table of users are in ``fastapi_kit.auth.second_factor.sql``.
"""

from fastapi_kit.auth.second_factor.recovery import RecoveryCodes, new_recovery_codes, use_recovery_code
from fastapi_kit.auth.second_factor.state import Cipher, FactorState, FactorStore
from fastapi_kit.auth.second_factor.steps import Enrolment, SecondFactor
from fastapi_kit.auth.second_factor.totp import TOTP

__all__ = [
    "TOTP",
    "Cipher",
    "Enrolment",
    "FactorState",
    "FactorStore",
    "RecoveryCodes",
    "SecondFactor",
    "new_recovery_codes",
    "use_recovery_code",
]
