"""Which settings are in force, and where each of them comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

from planner.config import Config, Directories
from planner.price_overrides import PriceOverride
from providers.hub import DEFAULT_ENDPOINT, HubAccess

_HUB_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


class Setting(NamedTuple):
    """One setting.

    Attributes:
        key: Dotted, as in `config.yaml`.
        value: As a person reads it, None if it is not set; a secret is never shown.
        origin: default, file or environment.
        source: File and line, or the variable; None for a default.
    """

    key: str
    value: str | None
    origin: str
    source: str | None


class _Origins:
    """Lines of `config.yaml`, and variables of the environment."""

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self._path, self._environ = path, environ
        self._lines: dict[str, int] = {}
        if path.exists():
            from planner.yaml_source import read_yaml

            places = read_yaml(path).places
            self._lines = {
                ".".join(str(part) for part in where): place.key_line for where, place in places.items()
            }

    def of(self, key: str, value: str | None) -> Setting:
        """A key of the file."""
        line = self._lines.get(key)
        if line is None:
            return Setting(key, value, "default", None)
        return Setting(key, value, "file", f"{self._path}:{line}")

    def variable(self, key: str, value: str | None, *names: str) -> Setting | None:
        """A setting of the environment, None if none of the variables is set."""
        name = next((name for name in names if self._environ.get(name, "").strip()), None)
        return None if name is None else Setting(key, value, "environment", f"${name}")


def settings(
    places: Directories, config: Config, environ: Mapping[str, str], home: Path
) -> tuple[Setting, ...]:
    """Every setting in force: flags of a command go before them, the environment before `config.yaml`.

    Args:
        places: Where files live.
        config: As `load_config` read it.
        environ: Environment variables.
        home: The person's home directory.

    Raises:
        SpecError: The file cannot be read.
    """
    origins = _Origins(places.config_file, environ)
    return (
        *_directories(places, origins),
        *_of_file(config, origins, environ),
        *_hub(environ, home, origins),
    )


def _directories(places: Directories, origins: _Origins) -> Iterator[Setting]:
    for key, path in places._asdict().items():
        name = f"directories.{key}"
        yield origins.variable(name, str(path), "PLAN_HOME") or Setting(name, str(path), "default", None)


def _of_file(config: Config, origins: _Origins, environ: Mapping[str, str]) -> Iterator[Setting]:
    prices = config.prices
    yield origins.of("prices.max_age", f"{prices.max_age_s / 86_400:g}d")
    yield origins.of("prices.url", without_password(prices.url))
    for number, override in enumerate(prices.overrides):
        yield origins.of(f"prices.overrides.{number}", _override(override))
    yield origins.of("local.usd_per_hour", f"{config.local.usd_per_hour:g}")
    register = environ.get("PLAN_STORE") or config.store
    shown = None if register is None else without_password(register)
    yield origins.variable("store", shown, "PLAN_STORE") or origins.of("store", shown)
    yield origins.of("notify", " ".join(config.notify) or None)
    for number, pool in enumerate(config.pools):
        yield origins.of(f"inhouse.{number}", f"{pool.name}: {pool.machines} x {pool.machine.instance_type}")
    offline = origins.variable("offline", "yes", "PLAN_OFFLINE")
    yield offline or Setting("offline", "no", "default", None)


def _hub(environ: Mapping[str, str], home: Path, origins: _Origins) -> Iterator[Setting]:
    access = HubAccess.of(environ, home)
    endpoint = without_password(access.endpoint)
    yield origins.variable("hub.endpoint", endpoint, "HF_ENDPOINT") or Setting(
        "hub.endpoint", DEFAULT_ENDPOINT, "default", None
    )
    offline = "yes" if access.offline else "no"
    yield origins.variable("hub.offline", offline, *_HUB_VARIABLES) or Setting(
        "hub.offline", offline, "default", None
    )
    token = None if access.token is None else "set, not shown"
    yield origins.variable("hub.token", token, *_TOKEN_VARIABLES) or Setting(
        "hub.token", token, "default" if token is None else "file", None if token is None else "hf auth login"
    )


def _override(override: PriceOverride) -> str:
    told = {key: value for key, value in override._asdict().items() if value is not None}
    return ", ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in told.items()
    )


def without_password(address: str) -> str:
    """An address without the user and password that may stand in it.

    >>> without_password("https://me:secret@host:80/x"), without_password("s3://team/plan")
    ('https://***@host:80/x', 's3://team/plan')
    """
    parts = urlsplit(address)
    _, at, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"***@{host}")) if at else address
