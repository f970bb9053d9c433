"""SkyPilot in a process of its own: it reads HOME when it is imported, and our tests have another."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from providers.skypilot import SkyPilotLauncher

CALL_TIMEOUT_S = 400.0  # a launch takes minutes where many share the machine


class Elsewhere:
    """Runs module-level functions in another process with another environment; exceptions arrive here."""

    def __init__(self, env: dict[str, str]) -> None:
        self._pool = ProcessPoolExecutor(
            1, mp_context=get_context("spawn"), initializer=_become, initargs=(env,)
        )

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What the function returns there."""
        return self._pool.submit(function, *args, **kwargs).result(timeout=CALL_TIMEOUT_S)

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown(cancel_futures=True)


class BedUser(Elsewhere):
    """Calls the launcher as a user of the bed: `user.launch(request)`."""

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: self.call(_launcher, method, args, kwargs)


def _become(env: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(env)


def _launcher(method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    answer = getattr(SkyPilotLauncher(), method)(*args, **kwargs)
    return list(answer) if method == "logs" else answer
