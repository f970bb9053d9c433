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
    if kind is None or offer.gpu == "CPU" or offer.cloud != CLOUD_OF.get(provider):
        return False
    if provider in ("aws_capacity_block", "sagemaker_training_plan"):
        return kind in _BLOCK_TYPES
    if provider in ("gcp_calendar", "gcp_flex_start"):
        return kind.startswith(_GCP_TYPES)
    return True
