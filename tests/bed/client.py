"""A user of the bed: the launcher in a process of its own, because SkyPilot reads HOME when it is imported."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from providers.skypilot import SkyPilotLauncher

CALL_TIMEOUT_S = 180.0


class BedUser:
    """Calls `SkyPilotLauncher` with the environment of the bed; its exceptions arrive here."""

    def __init__(self, env: dict[str, str]) -> None:
        self._pool = ProcessPoolExecutor(
            1, mp_context=get_context("spawn"), initializer=_become, initargs=(env,)
        )

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            return self._pool.submit(_call, method, args, kwargs).result(timeout=CALL_TIMEOUT_S)

        return call

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown(cancel_futures=True)


def _become(env: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(env)


def _call(method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    answer = getattr(SkyPilotLauncher(), method)(*args, **kwargs)
    return list(answer) if method == "logs" else answer
