"""Another import path for names of ``fastapi_kit.auth.second_factor``."""

from fastapi_kit.auth.second_factor import TOTP, RecoveryCodes, new_recovery_codes, use_recovery_code

__all__ = ["TOTP", "RecoveryCodes", "new_recovery_codes", "use_recovery_code"]
