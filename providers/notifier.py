"""Sends a message to an address of apprise: chat, mail, telephone, or any web hook. The only module that imports it.

An address holds passwords and tokens: it is read from the environment when a message is sent, and is in no error.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from importlib.util import find_spec

from providers.errors import CredentialsError, LaunchError, MissingExtraError, UsageError

_TIMEOUT_S = 20.0


def can_send() -> bool:
    """Whether apprise is installed; nothing is imported to find out."""
    return find_spec("apprise") is not None


def send(name: str, title: str, text: str, *, bad: bool = False) -> None:
    """Send one message and wait for the answer of the service.

    Args:
        name: Environment variable that holds the address.
        title: One line.
        text: Plain text.
        bad: It is about something that went wrong.

    Raises:
        MissingExtraError: apprise is not installed.
        CredentialsError: The variable is not set here.
        UsageError: What it holds is no address that apprise knows.
        LaunchError: The service did not take the message.
    """
    try:
        import apprise
    except ModuleNotFoundError as error:
        raise MissingExtraError("notify", "sending notifications") from error
    address = os.environ.get(name, "")
    if not address:
        raise CredentialsError(f"the environment variable {name} is not set", hint=f"export {name}=...")
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)  # it logs addresses
    with contextlib.redirect_stdout(io.StringIO()):
        services = apprise.Apprise()
        if not services.add(address):
            hint = "apprise's documentation lists them, as in json://host/path or mailto://user:password@host"
            raise UsageError(f"{name} holds no address that can be notified", hint=hint, code="bad_address")
        kind = apprise.NotifyType.WARNING if bad else apprise.NotifyType.INFO
        try:
            taken = services.notify(body=text, title=title, notify_type=kind, timeout=_TIMEOUT_S)
        except Exception:  # a plugin's own error may hold the address
            taken = None
    if not taken:
        raise LaunchError(f"the service behind {name} did not take the message", code="not_delivered")
