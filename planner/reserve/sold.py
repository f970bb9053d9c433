"""Which machines each way of reserving sells, by the provider's own names. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from providers.offers import Offer
from providers.reservations import ProviderName

#: EC2 Capacity Blocks, as AWS's documentation lists them (2026-11); what is not sold in a region is just not offered.
_BLOCK_TYPES = frozenset(
    {
        *("p4d.24xlarge", "p4de.24xlarge", "p5.48xlarge", "p5.4xlarge", "p5e.48xlarge", "p5en.48xlarge"),
        *("p6-b200.48xlarge", "p6-b300.48xlarge"),
    }
)
_GCP_TYPES = ("a2-", "a3-", "a4-", "a4x-", "g2-", "g4-")

CLOUD_OF: Mapping[ProviderName, str] = {
    "aws_capacity_block": "aws",
    "aws_odcr": "aws",
    "sagemaker_training_plan": "aws",
    "gcp_calendar": "gcp",
    "gcp_flex_start": "gcp",
    "azure_crg": "azure",
    "inhouse": "inhouse",
}
"""Where the price snapshot lists the machines; those of `inhouse` are in `config.yaml`."""


def sells(provider: ProviderName, offer: Offer) -> bool:
    """Whether a machine of the price snapshot can be reserved there."""
    kind = offer.instance_type
    if provider == "inhouse":
        return kind is not None and offer.cloud in ("inhouse", "slurm")
    if kind is None or offer.gpu == "CPU" or offer.cloud != CLOUD_OF.get(provider):
        return False
    if provider in ("aws_capacity_block", "sagemaker_training_plan"):
        return kind in _BLOCK_TYPES
    if provider in ("gcp_calendar", "gcp_flex_start"):
        return kind.startswith(_GCP_TYPES)
    return True


#: Who takes the whole amount at the purchase; the others bill the time as it goes by.
PAID_UP_FRONT: frozenset[ProviderName] = frozenset({"aws_capacity_block", "sagemaker_training_plan"})
#: Why tuneplan starts no run in capacity of these; buying it takes `--no-launch`.
_NO_RUNS: Mapping[ProviderName, str] = {
    "sagemaker_training_plan": "only SageMaker's own jobs run in a training plan, and tuneplan starts none",
    "azure_crg": "SkyPilot cannot start machines in a capacity reservation group of Azure's",
}
#: What a person has to know before buying there.
_NOTES: Mapping[ProviderName, str] = {
    "aws_odcr": "one for a date ahead may last a day longer if nobody gives it back: keep `plan scheduler` at work",
    "azure_crg": "Azure bills it until it is given back: keep `plan scheduler` at work, or cancel it yourself",
    "gcp_flex_start": "a place in a queue: no machines are promised, and nothing is paid before they start",
    "gcp_calendar": "the amount is the on-demand list price; Google's own is not published and said to be lower",
    "sagemaker_training_plan": _NO_RUNS["sagemaker_training_plan"],
}


def no_runs(provider: ProviderName) -> str | None:
    """Why no run can be started in a provider's capacity, None if one can."""
    return _NO_RUNS.get(provider)


def note(provider: ProviderName) -> str | None:
    """What is peculiar to a provider and costs money if it is not known."""
    return _NOTES.get(provider)
