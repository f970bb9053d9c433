"""The sellers that can be asked for today's prices, and a price table with their answers."""

from __future__ import annotations

from dataclasses import replace

from providers import aws_bulk, aws_spot_feed, aws_spot_zones, azure_retail, oci_estimator, vast_bundles
from providers.live_prices import Asked, LiveSource, Reading, halves, joined
from providers.offers import Coverage
from providers.price_table import PriceTable
from providers.skypilot_catalog import covered_again

SOURCES = (
    LiveSource("aws-spot", "aws", "spot price of each region", aws_spot_feed.URL, aws_spot_feed.read),
    LiveSource("azure", "azure", "on-demand and spot of each region", azure_retail.URL, azure_retail.read),
    LiveSource("oci", "oci", "list prices", oci_estimator.URL, oci_estimator.read),
    LiveSource("vast", "vast", "machines that can be rented now", vast_bundles.URL, vast_bundles.read),
    LiveSource(
        "aws",
        "aws",
        "on-demand, hundreds of megabytes a region: name some",
        aws_bulk.URL,
        aws_bulk.read,
        usual=False,
    ),
    LiveSource(
        "aws-zones",
        "aws",
        "spot price of each zone, with your credentials",
        "",
        aws_spot_zones.read,
        usual=False,
    ),
)


def refreshed(table: PriceTable, source: LiveSource, asked: Asked) -> tuple[PriceTable, Reading]:
    """The table with one source's answer, and the answer.

    Args:
        table: As it was.
        source: Whom to ask.
        asked: How; its rows are filled in here.

    Raises:
        StorageError, CredentialsError, MissingExtraError: As the source; then nothing has changed.
    """
    mine = tuple(halves(row for row in table.rows if row.cloud == source.cloud))
    reading = source.read(replace(asked, rows=mine, url=asked.url or source.url))
    rows = tuple(joined(reading.rows))
    others = tuple(row for row in table.rows if row.cloud != source.cloud)
    coverage = table.coverage
    if all(entry.cloud != source.cloud for entry in coverage):
        coverage = (*coverage, Coverage(source.cloud, 0, False, None))
    return PriceTable((*others, *rows), covered_again(coverage, source.cloud, rows)), reading
