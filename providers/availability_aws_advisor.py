"""AWS's Spot Instance Advisor: what share of a machine type's spot machines was interrupted in a region last month.

A public file, no login. The share comes as one of five bands, of all zones of the region and all who rented there; it
is neither a rate nor a chance for one machine. https://aws.amazon.com/ec2/spot/instance-advisor/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from providers.availability import Inquiry, Signal, Signals, Wanted, gathered
from providers.errors import StorageError
from providers.web import WebRequest, ask

URL = "https://spot-bid-advisor.s3.amazonaws.com/spot-advisor-data.json"
SOURCE = "AWS Spot Instance Advisor"
UNIT = "share of machines interrupted in the month before, a band"


def interruption_bands(inquiry: Inquiry) -> Signals:
    """The band of each spot machine's type in its region; a type that the Advisor does not list has none.

    Raises:
        StorageError: The file cannot be read, or is something else.
    """
    spot = [row for row in inquiry.wanted if row.offer.market == "spot" and row.offer.instance_type]
    if not spot:
        return {}
    url = inquiry.url or URL
    answer = ask(WebRequest(url))
    if answer.status != 200:
        raise StorageError(f"{SOURCE} answered {answer.status}", code="bad_answer")
    document = answer.json(url)
    try:
        labels = {int(row["index"]): str(row["label"]) for row in document["ranges"]}
        regions: Mapping[str, Any] = dict(document["spot_advisor"])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise StorageError(f"{SOURCE} answered something else", code="bad_answer") from None
    return gathered(_signals(inquiry, spot, labels, regions))


def _signals(
    inquiry: Inquiry, spot: list[Wanted], labels: Mapping[int, str], regions: Mapping[str, Any]
) -> Iterator[tuple[Wanted, Signal]]:
    for wanted in spot:
        types = regions.get(wanted.offer.region, {}).get("Linux", {})
        label = labels.get(types.get(wanted.offer.instance_type, {}).get("r"))
        if label is not None:
            text = f"{label} of such machines interrupted in the month before, in all zones of the region"
            yield wanted, Signal("interruption_band", label, UNIT, text, SOURCE, inquiry.now_text)
