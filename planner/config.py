"""Where tuneplan keeps its files, and the optional `config.yaml`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from planner.price_age import DEFAULT_MAX_AGE_S
from planner.price_overrides import PriceOverride

if TYPE_CHECKING:
    from providers.reservation_inhouse import Pool

APP_NAME = "tuneplan"
DEFAULT_PRICES_URL = "https://raw.githubusercontent.com/skypilot-org/skypilot-catalog/master/catalogs/v8"


class Directories(NamedTuple):
    """Where files live; nothing is created by asking.

    Attributes:
        config: Holds `config.yaml`.
        state: Holds the run database and local checkpoints; losing it loses history.
        cache: May be deleted at any time.
    """

    config: Path
    state: Path
    cache: Path

    @property
    def config_file(self) -> Path:
        """The user's settings, which may be absent."""
        return self.config / "config.yaml"


def directories() -> Directories:
    """`$PLAN_HOME` holds all three if it is set, otherwise the platform's usual places (XDG on Linux)."""
    home = os.environ.get("PLAN_HOME")
    if home:
        root = Path(home).expanduser().absolute()
        return Directories(config=root, state=root / "state", cache=root / "cache")
    from platformdirs import PlatformDirs

    places = PlatformDirs(APP_NAME, appauthor=False)
    return Directories(places.user_config_path, places.user_state_path, places.user_cache_path)


class PricesConfig(NamedTuple):
    """Section `prices`.

    Attributes:
        max_age_s: Older prices are warned about.
        url: Where `plan prices update` finds `<cloud>/vms.csv`.
        overrides: Your own prices and discounts, the first that matches an offer counts.
    """

    max_age_s: float = DEFAULT_MAX_AGE_S
    url: str = DEFAULT_PRICES_URL
    overrides: tuple[PriceOverride, ...] = ()


class LocalConfig(NamedTuple):
    """Section `local`: what this machine is worth.

    Attributes:
        usd_per_hour: Price of an hour on this machine, for estimate, cap and report; 0 is free.
    """

    usd_per_hour: float = 0.0


class Config(NamedTuple):
    """The user's settings.

    Attributes:
        store: URI of the register that a team shares.
        notify: Names of environment variables with addresses of those who are told of everything.
    """

    prices: PricesConfig = PricesConfig()
    local: LocalConfig = LocalConfig()
    store: str | None = None
    pools: tuple[Pool, ...] = ()
    notify: tuple[str, ...] = ()


def load_config(path: Path) -> Config:
    """Settings of a file, defaults if it does not exist.

    Raises:
        SpecError: With every finding, if the file is wrong.
    """
    if not path.exists():
        return Config()
    from planner.config_file import read_config_file  # pydantic and YAML only where there is a file

    read = read_config_file(path)
    config = Config()
    prices = read.prices
    if prices.max_age is not None:
        config = config._replace(prices=config.prices._replace(max_age_s=prices.max_age))
    if prices.url is not None:
        config = config._replace(prices=config.prices._replace(url=prices.url))
    overrides = tuple(entry.override() for entry in prices.overrides)
    config = config._replace(prices=config.prices._replace(overrides=overrides))
    config = config._replace(pools=tuple(section.pool() for section in read.inhouse))
    if read.local.usd_per_hour is not None:
        config = config._replace(local=LocalConfig(usd_per_hour=read.local.usd_per_hour))
    return config._replace(store=read.store, notify=read.notify)
