"""botocore's session, where settings or credentials need one; botocore is imported nowhere above a function here."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any, Protocol

from ..exceptions import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AwsSession", "open_session", "shown_profile", "unwrap_session"]


class AwsSession(Protocol):
    """What is used of a ``botocore.session.Session``: public methods only."""

    @property
    def full_config(self) -> Mapping[str, Any]: ...
    def get_scoped_config(self) -> Mapping[str, Any]: ...
    def get_config_variable(self, logical_name: str) -> Any: ...  # noqa: ANN401 - text, bool or a section.
    def set_config_variable(self, logical_name: str, value: object) -> None: ...
    def instance_variables(self) -> Mapping[str, Any]: ...
    def get_default_client_config(self) -> Any: ...  # noqa: ANN401 - botocore ships no types.
    def get_credentials(self) -> Any: ...  # noqa: ANN401 - as above.


def open_session(profile: str | None) -> AwsSession:
    """
    Make a botocore session of our own. Takes some 150 ms the first time and reads files: call it in a worker thread.

    Args:
        profile: A profile's name; ``None`` leaves it to ``AWS_PROFILE`` and the default.
    """
    import botocore.session

    session: AwsSession = botocore.session.Session(profile=profile)
    return session


def unwrap_session(session: object) -> AwsSession:
    """
    Find the botocore session in what the caller passed: itself, or the one inside a ``boto3.Session``.

    Raises:
        TypeError: It is neither. An aiobotocore session is not: its methods are coroutines.
    """
    inner: Any = getattr(session, "_session", session)
    get_credentials = getattr(inner, "get_credentials", None)
    if get_credentials is None or inspect.iscoroutinefunction(get_credentials) or not hasattr(inner, "full_config"):
        raise TypeError(f"session must be a botocore or boto3 Session, not {type(session).__name__}")
    found: AwsSession = inner
    return found


def refuse_both(profile: str | None, session: object | None) -> None:
    """Refuse a profile beside a session, which has its own."""
    if profile is not None and session is not None:
        raise SettingError("Give either profile or session, not both: a session has its own profile.")


def shown_profile(profile: str) -> str:
    """Name a profile in a text for people, without the account id that sign-on tools put into it."""
    return repr(re.sub(r"\d{12}", "…", profile))
