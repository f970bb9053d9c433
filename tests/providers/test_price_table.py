"""The snapshot file: round trip, hash, damage, and what holds for every offer in it."""

from __future__ import annotations

import math
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.catalog import EMBEDDED, load_default_snapshot, load_snapshot
from providers.errors import CorruptDataError, StorageError, UsageError
from providers.gpus import CANONICAL_GPUS
from providers.offers import FLAGS, UNTRUSTED_FLAGS, Coverage
from providers.price_table import PriceRow, PriceTable, read_header, read_table, snapshot_of, write_table

ROW = PriceRow(
    "aws",
    "us-east-1",
    "use1-az1",
    "p5.48xlarge",
    "H100",
    8,
    80.0,
    192.0,
    2048.0,
    55.04,
    30.5,
    "a test",
    "2026-01-02",
)
COVERAGE = (Coverage("aws", 2, True, "2026-01-02T00:00:00Z", "a note"),)

texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=12)
prices = st.none() | st.floats(0.0001, 1e5).map(lambda price: round(price, 6))
flag_sets = st.sets(st.sampled_from(sorted(FLAGS)), max_size=3).map(lambda names: "|".join(sorted(names)))
rows = st.builds(
    PriceRow,
    cloud=texts, region=texts, zone=st.none() | texts, instance_type=st.none() | texts, gpu=texts,
    gpus=st.integers(1, 16), gpu_mem_gib=st.none() | st.floats(1, 300).map(lambda value: round(value, 3)),
    vcpus=st.none() | st.integers(1, 999).map(float), ram_gib=st.none() | st.integers(1, 9999).map(float),
    on_demand_usd_per_hour=prices, spot_usd_per_hour=prices,
    source=texts, as_of=st.none() | st.dates().map(str), on_demand_flags=flag_sets, spot_flags=flag_sets,
)  # fmt: skip


def table(*members: PriceRow) -> PriceTable:
    return PriceTable(members, COVERAGE)


def test_what_is_written_is_read(tmp_path: Path):
    path = tmp_path / "new" / "prices.csv"
    written = write_table(path, table(ROW))
    snapshot = load_snapshot(path)
    assert snapshot.snapshot_id == written == snapshot_of(table(ROW)).snapshot_id
    assert snapshot.coverage == COVERAGE
    assert snapshot.offers[1].price_usd_per_hour == 30.5
    assert snapshot.offers[0].as_of_at == "2026-01-02T00:00:00Z"
    assert read_header(path).newest_as_of_at == "2026-01-02T00:00:00Z"


# Each example waits for the disk, which is slow on a busy machine.
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(rows, max_size=5), st.randoms())
def test_any_rows_survive_the_file_in_any_order(tmp_path_factory, members, random):
    path = tmp_path_factory.mktemp("table") / "prices.csv"
    snapshot_id = write_table(path, table(*members))
    shuffled = random.sample(members, len(members))
    assert snapshot_of(table(*shuffled)).snapshot_id == snapshot_id
    read_id, read = read_table(path)
    assert read_id == snapshot_id
    assert sorted(map(repr, read.rows)) == sorted(map(repr, members))


@settings(deadline=None)
@given(rows)
def test_money_is_positive_finite_and_never_from_an_untrusted_row(row):
    for offer in snapshot_of(table(row)).offers:
        price = offer.price_usd_per_hour
        if UNTRUSTED_FLAGS & set(offer.flags):
            assert price is None
        elif price is not None:
            assert math.isfinite(price) and price > 0
            assert offer.price_usd_per_gpu_hour == price / offer.gpus_per_node
        assert offer.posted_usd_per_hour is None or price is None


@pytest.mark.parametrize("price", [math.nan, math.inf, -1.0])
def test_an_impossible_price_is_not_written(tmp_path: Path, price: float):
    with pytest.raises(ValueError, match="is not an amount"):
        write_table(tmp_path / "prices.csv", table(ROW._replace(spot_usd_per_hour=price)))
    assert list(tmp_path.iterdir()) == []


def test_a_changed_price_is_found(tmp_path: Path):
    path = tmp_path / "prices.csv"
    write_table(path, table(ROW))
    path.write_text(path.read_text().replace("55.04", "5.04"))
    with pytest.raises(CorruptDataError, match="does not match its snapshot id"):
        load_snapshot(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"cloud,region\n",
        b"#tuneplan-prices {\n",
        b"#tuneplan-prices []\n",
        b"\xff\xfe",
        b'#tuneplan-prices {"format": 2}\n',
    ],
)
def test_a_file_that_is_no_snapshot_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "prices.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError):
        load_snapshot(path)
    with pytest.raises(UsageError):
        read_header(path)


def test_a_missing_file_is_a_usage_error(tmp_path: Path):
    with pytest.raises(UsageError, match="cannot read the price snapshot"):
        load_snapshot(tmp_path / "none.csv")


def test_the_old_file_stays_if_the_new_one_cannot_be_written(tmp_path: Path):
    path = tmp_path / "prices.csv"
    first = write_table(path, table(ROW))
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        write_table(tmp_path / "file" / "prices.csv", table(ROW))
    assert load_snapshot(path).snapshot_id == first
    assert stat.S_IMODE(path.stat().st_mode) & 0o444


def test_the_embedded_snapshot_holds_together():
    snapshot = load_default_snapshot()
    assert len(snapshot.offers) > 4000
    assert not snapshot.live
    assert {offer.cloud for offer in snapshot.offers} == {entry.cloud for entry in snapshot.coverage}
    for entry in snapshot.coverage:
        mine = [offer for offer in snapshot.offers if offer.cloud == entry.cloud]
        assert entry.rows == len(mine)
        assert entry.as_of_at == min((o.as_of_at for o in mine if o.as_of_at), default=None)
    partial = {entry.cloud for entry in snapshot.coverage if not entry.complete}
    assert {"aws", "oci", "runpod", "vast", "do", "paperspace"} == partial


def test_every_embedded_offer_is_sound():
    on_demand = {}
    for offer in load_default_snapshot().offers:
        assert offer.gpu in CANONICAL_GPUS
        assert offer.gpu_mem_gib == CANONICAL_GPUS[offer.gpu]
        assert offer.gpus_per_node >= 1
        assert set(offer.flags) <= set(FLAGS)
        assert offer.price_usd_per_hour is None or 0.01 < offer.price_usd_per_gpu_hour < 30
        if offer.price_usd_per_hour is None:
            assert {"no_price", "suspect_price", "auction_floor"} & set(offer.flags)
        key = (offer.cloud, offer.region, offer.zone, offer.instance_type, offer.gpu, offer.gpus_per_node)
        if offer.market == "on_demand":
            on_demand[key] = offer.price_usd_per_hour
        elif offer.price_usd_per_hour is not None and on_demand[key] is not None:
            assert offer.price_usd_per_hour <= on_demand[key] or "scarce" in offer.flags


def test_the_embedded_file_is_canonical(tmp_path: Path):
    snapshot_id, embedded = read_table(EMBEDDED)
    assert write_table(tmp_path / "again.csv", embedded._replace()) == snapshot_id
    assert (tmp_path / "again.csv").read_bytes() == EMBEDDED.read_bytes()
