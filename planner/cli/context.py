"""What a command gets from outside: directories, settings, the clock; the only place that builds adapters.

A command asks for it with `@pass_app`; a test passes its own:
`CliRunner().invoke(cli, args, obj=App(now=...))`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from planner.config import Config, Directories, directories, load_config
from providers.errors import TuneplanError, UsageError

if TYPE_CHECKING:
    from planner.answer import Answer
    from planner.calibration import Calibration
    from planner.data_cache import DataCache
    from planner.intake import Overrides
    from planner.model_facts import ModelSource
    from planner.model_source import HubSource
    from planner.price_age import PriceLimit
    from planner.spec import FineTuneSpec
    from planner.spot_signals import SpotSignals
    from planner.surroundings import Surroundings
    from providers.offers import PriceSnapshot


def _clock() -> datetime:
    return datetime.now(UTC)


@dataclass
class App:
    """Everything outside the core that commands share; nothing is built before it is used.

    Attributes:
        now: The clock, UTC.
        directories: Where configuration, state and cache live.
    """

    now: Callable[[], datetime] = _clock
    directories: Directories = field(default_factory=directories)

    @cached_property
    def config(self) -> Config:
        """The user's `config.yaml`, defaults if there is none.

        Raises:
            SpecError: If the file is wrong.
        """
        return load_config(self.directories.config_file)

    def snapshot(self, infra: str) -> PriceSnapshot:
        """The prices in use, or this machine as the only offer.

        Args:
            infra: "local" for this machine, anything else for rented ones.

        Raises:
            UsageError, CorruptDataError: As `planner.pricebook.open_pricebook`.
        """
        if infra == "local":
            from planner.local_machine import local_snapshot

            return local_snapshot(self.config.local.usd_per_hour)
        from planner.pricebook import open_pricebook

        overrides = self.config.prices.overrides
        return open_pricebook(self.directories.cache, overrides=overrides, now=self.now()).snapshot

    def price_limit(self, *, strict: bool = False) -> PriceLimit:
        """From what age on a price is doubted, or with `strict` no offer at all."""
        from planner.price_age import PriceLimit

        return PriceLimit(self.config.prices.max_age_s, strict)

    def models(self) -> ModelSource:
        """Who knows a model: the registry and this machine; the Hub where they do not."""
        from planner.model_facts import ModelFacts, local_facts

        def facts(model: str, base_dir: Path, revision: str | None) -> ModelFacts:
            try:
                return local_facts(model, base_dir, revision)
            except UsageError as error:
                if error.code != "unknown_model":
                    raise
                return self._hub().facts(model, revision, error)

        return facts

    def _hub(self) -> HubSource:
        """Only loaded where it is needed: the network's modules take longer to import than an estimate."""
        from planner.model_source import HubSource
        from providers.hub import HubAccess

        return HubSource(
            HubAccess.of(os.environ, Path.home()),
            self.directories.cache / "models",
            self.now(),
            told=lambda text: click.echo(text, err=True),
        )

    def surroundings(self) -> Surroundings:
        """What a launch depends on outside its spec."""
        from planner.surroundings import Surroundings

        offline = bool(os.environ.get("PLAN_OFFLINE"))
        return Surroundings(os.environ, Path.home(), self.now(), self.config.prices.max_age_s, offline)

    def data_cache(self) -> DataCache:
        """Data that was fetched from elsewhere."""
        from planner.data_cache import DataCache

        return DataCache(self.directories.cache / "data")

    def calibration(self) -> Calibration:
        """What this machine's finished runs taught; nothing if there is no readable ledger, which is said."""
        from planner.calibration import NOT_CALIBRATED
        from planner.places import Places

        path = Places(self.directories.state).ledger
        if not path.exists():
            return NOT_CALIBRATED
        from planner.calibration_ledger import calibration_of
        from planner.store import Store

        try:
            with Store(path) as store:
                return calibration_of(store.all_runs())
        except TuneplanError as error:
            click.echo(f"warning: not calibrated by your runs: {error}", err=True)
            return NOT_CALIBRATED

    def spot_signals(self) -> SpotSignals:
        """What clouds said of their spot machines when they were last asked."""
        from planner.signal_book import read_signals

        return read_signals(self.directories.cache)

    def estimate(
        self,
        spec: FineTuneSpec,
        base_dir: Path,
        snapshot: PriceSnapshot,
        *,
        overrides: Overrides | None = None,
        limit: int | None = 100,
    ) -> Answer:
        """`planner.answer.estimate_spec` with what this machine knows: models, runs, how old a price may be."""
        from planner.answer import estimate_spec

        return estimate_spec(
            spec,
            base_dir,
            snapshot,
            self.now(),
            overrides=overrides,
            limit=limit,
            calibration=self.calibration(),
            spot_signals=self.spot_signals(),
            price_limit=self.price_limit(),
            models=self.models(),
        )


pass_app = click.make_pass_decorator(App, ensure=True)
