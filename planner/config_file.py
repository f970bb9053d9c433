"""Reads `config.yaml` as strictly as a spec: an unknown key is an error with its place."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from planner.price_overrides import PriceOverride
from planner.spec_types import Names, Seconds, Section, Usd
from planner.units import parse_deadline, parse_discount, parse_gpu_filter, parse_usd
from planner.validation import validate
from planner.yaml_source import read_yaml
from providers.errors import UsageError
from providers.reservation_inhouse import Pool
from providers.reservations import Machine, SlurmPlace
from providers.web import check_address


def _price(value: Any) -> float:
    """An hourly price; 0 is free."""
    return 0.0 if value in (0, "0") and not isinstance(value, bool) else parse_usd(value)


def _gpu(value: str) -> str:
    return parse_gpu_filter(value.partition(":")[0]).name


def _https(value: str) -> str:
    try:
        check_address(value)
    except UsageError as error:
        raise ValueError(error.message) from None
    return value


Price = Annotated[float, BeforeValidator(_price)]
GpuName = Annotated[str, AfterValidator(_gpu)]
Address = Annotated[str, AfterValidator(_https)]
Expiry = Annotated[datetime, BeforeValidator(parse_deadline)]
Share = Annotated[float, BeforeValidator(parse_discount)]
#: A name that becomes a word of a command.
SlurmName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class OverrideSection(Section):
    """Which offers, and what they cost you: a discount or a rate of your own."""

    cloud: str | None = None
    region: str | None = None
    instance_type: str | None = None
    gpu: GpuName | None = None
    market: Literal["spot", "on_demand"] | None = None
    discount: Share | None = Field(default=None, description="Taken off the posted price, as in 15% or 0.15")
    usd_per_hour: Price | None = Field(default=None, description="Your price of the whole machine")
    usd_per_gpu_hour: Price | None = Field(default=None, description="Your price of each of its GPUs")
    credit: Usd | None = Field(
        default=None, description="What is left of a credit with the cloud, as in 500usd"
    )
    expires: Expiry | None = Field(default=None, description="When the credit ends, as in 2027-01-31")

    @model_validator(mode="after")
    def _one_price(self) -> OverrideSection:
        ways = (self.discount, self.usd_per_hour, self.usd_per_gpu_hour, self.credit)
        if sum(value is not None for value in ways) != 1:
            raise ValueError("needs exactly one of discount, usd_per_hour, usd_per_gpu_hour and credit")
        if self.expires is not None and self.credit is None:
            raise ValueError("expires is for a credit")
        if self.credit is not None and (
            self.cloud is None or any((self.region, self.instance_type, self.gpu, self.market))
        ):
            raise ValueError(
                "a credit is with a cloud: it needs cloud, and no region, instance_type, gpu or market"
            )
        return self

    def override(self) -> PriceOverride:
        """As the price code takes it."""
        fields = self.model_dump(exclude={"credit", "expires"})
        ends = None if self.expires is None else self.expires.strftime("%Y-%m-%dT%H:%M:%SZ")
        own = {
            "cloud": self.cloud.lower() if self.cloud else None,
            "credit_usd": self.credit,
            "expires_at": ends,
        }
        return PriceOverride(**fields | own)


class PricesSection(Section):
    """Section `prices`."""

    max_age: Seconds | None = Field(default=None, description="Older prices are warned about, as in 7d")
    url: Address | None = Field(default=None, description="Where `plan prices update` finds <cloud>/vms.csv")
    overrides: tuple[OverrideSection, ...] = Field(default=(), description="Your own prices and discounts")


class LocalSection(Section):
    """Section `local`."""

    usd_per_hour: Price | None = Field(
        default=None, description="What an hour on this machine costs; 0 is free"
    )


class SlurmSection(Section):
    """The Slurm cluster that keeps a pool's calendar; the pool has its name, as in `~/.slurm/config`."""

    partition: SlurmName
    user: SlurmName = Field(description="Whom reservations are for; making them takes Slurm's operator level")
    here: bool = Field(default=False, description="Slurm's commands run on this machine, not over ssh")


class PoolSection(Section):
    """One kind of machine that the company owns; see `planner.reserve`."""

    name: str
    gpu: GpuName
    gpus: int = Field(default=8, ge=1, description="In one machine")
    gpu_memory_gib: float | None = Field(default=None, gt=0)
    machines: int = Field(ge=1)
    capex: Usd = Field(description="What one machine cost")
    years: float = Field(default=4.0, gt=0, description="Over which that is written off")
    watts: float = Field(gt=0, description="Of one machine under load, cooling included")
    usd_per_kwh: float = Field(ge=0, description="Price of power")
    utilisation: Share = Field(description="Share of the hours in which a machine is used, as in 70%")
    slurm: SlurmSection | None = Field(default=None, description="Its calendar is this cluster's, not a file")

    @model_validator(mode="after")
    def _cluster_name(self) -> PoolSection:
        if self.slurm is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ValueError("name is that of the Slurm cluster: letters, digits, dots, dashes, underscores")
        return self

    def pool(self) -> Pool:
        """As the adapter takes it."""
        machine = Machine(f"{self.gpu}:{self.gpus}", self.gpu, self.gpus, self.gpu_memory_gib)
        rest = (self.capex, self.years, self.watts, self.usd_per_kwh, self.utilisation)
        slurm = self.slurm
        place = None if slurm is None else SlurmPlace(self.name, slurm.partition, slurm.user, slurm.here)
        return Pool(self.name, machine, self.machines, *rest, place)


class ConfigFile(Section):
    """Everything that `config.yaml` may hold."""

    prices: PricesSection = Field(default_factory=PricesSection)
    local: LocalSection = Field(default_factory=LocalSection)
    store: str | None = Field(default=None, description="Register that a team shares, as in s3://team/plan")
    notify: Names = Field(
        default=(), description="Whom to tell of runs whose spec names nobody, and of the rest"
    )
    inhouse: tuple[PoolSection, ...] = Field(default=(), description="The company's own machines")


def read_config_file(path: Path) -> ConfigFile:
    """Read and check the file.

    Raises:
        SpecError: With every finding.
    """
    return validate(read_yaml(path), ConfigFile)
