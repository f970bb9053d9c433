"""GCP's host and GPU rows: joined prices, and on-demand prices that are none."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from providers.catalog import load_default_snapshot
from providers.gcp_prices import host_types, join_hosts, lowest_list_price_usd
from providers.skypilot_rows import GpuMachine, parse_machine

SUSPECTS = Path(__file__).parents[3] / "shared" / "data" / "prices" / "gcp_suspect_rows.csv"


def gpu_row(gpu: str, count: int, price: str, spot: str, zone: str = "us-central1-a") -> GpuMachine:
    return row("", gpu, str(count), price, spot, zone)


def host_row(machine: str, price: str, spot: str, zone: str = "us-central1-a") -> GpuMachine:
    return row(machine, "", "", price, spot, zone)


def row(machine: str, gpu: str, count: str, price: str, spot: str, zone: str) -> GpuMachine:
    record = {
        "InstanceType": machine, "AcceleratorName": gpu, "AcceleratorCount": count, "vCPUs": "12",
        "MemoryGiB": "85", "Price": price, "SpotPrice": spot, "Region": zone[:-2], "AvailabilityZone": zone,
    }  # fmt: skip
    return parse_machine("gcp", dict(record))


def joined(*machines: GpuMachine) -> list[GpuMachine]:
    return [machine for machine in join_hosts(list(machines), Counter()) if machine.gpus]


def test_host_and_gpus_make_one_price():
    (whole,) = joined(host_row("a2-highgpu-2g", "1.5", "0.5"), gpu_row("A100", 2, "5.9", "2.4"))
    assert whole.instance_type == "a2-highgpu-2g"
    assert whole.on_demand_usd_per_hour == pytest.approx(7.4)
    assert whole.spot_usd_per_hour == pytest.approx(2.9)
    assert (whole.vcpus, whole.ram_gib, whole.flags) == (12, 85, ())


def test_half_a_price_is_no_price():
    (whole,) = joined(host_row("a2-highgpu-2g", "1.5", ""), gpu_row("A100", 2, "5.9", "2.4"))
    assert whole.on_demand_usd_per_hour == pytest.approx(7.4)
    assert whole.spot_usd_per_hour is None


def test_one_l4_fits_five_hosts():
    hosts = [host_row(f"g2-standard-{vcpus}", str(vcpus / 10), "0.1") for vcpus in (4, 8, 12, 16, 32, 48)]
    wholes = joined(*hosts, gpu_row("L4", 1, "0.56", "0.2"))
    assert [whole.instance_type for whole in wholes] == [f"g2-standard-{n}" for n in (4, 8, 12, 16, 32)]


def test_host_price_of_the_region_where_the_zone_has_none():
    wholes = joined(host_row("a2-highgpu-1g", "1", "0.5"), gpu_row("A100", 1, "3", "1", zone="us-central1-f"))
    assert wholes[0].on_demand_usd_per_hour == 4
    assert wholes[0].flags == ("host_from_region",)


def test_no_host_price_no_price():
    (alone,) = joined(gpu_row("A100", 1, "3", "1"))
    assert (alone.instance_type, alone.on_demand_usd_per_hour, alone.spot_usd_per_hour) == (
        "a2-highgpu-1g",
        None,
        None,
    )
    assert alone.flags == ("host_price_missing",)


def test_a_free_host_is_flagged():
    (whole,) = joined(host_row("a4-highgpu-8g", "0.0", "0.0"), gpu_row("B200", 8, "90.2", "34.2"))
    assert (whole.on_demand_usd_per_hour, whole.spot_usd_per_hour) == (90.2, 34.2)
    assert whole.flags == ("host_price_zero",)


def test_attached_gpus_say_that_the_host_was_chosen():
    (whole,) = joined(host_row("n1-highmem-8", "0.5", "0.1"), gpu_row("T4", 2, "0.7", "0.3"))
    assert whole.flags == ("host_chosen",)


@pytest.mark.parametrize(
    ("gpu", "price", "spot", "suspect"),
    [
        ("H100", "4.2008", "4.0", True),  # Dynamic Workload Scheduler; the list price is 9.80
        ("H100", "4.2008", "0.9", True),
        ("H100", "9.7966", "2.0", False),
        ("A100", "1.7059", "1.4", True),
        ("A100", "2.9339", "1.2", False),
        ("H200", "4.5753", "", True),
        ("B200", "8.055", "3.9", True),
        ("P100", "1.46", "1.2", True),  # spot is never so dear at GCP
        ("P100", "1.46", "0.6", False),
    ],
)
def test_on_demand_prices_that_are_none(gpu: str, price: str, spot: str, suspect: bool):
    (whole,) = joined(gpu_row(gpu, 1, price, spot))
    hosts = [host_row(host, "1", "0.1") for host in host_types(gpu, 1)]
    whole = joined(*hosts, gpu_row(gpu, 1, price, spot))[0]
    assert ("suspect_price" in whole.on_demand_flags) is suspect


def test_list_prices_come_with_a_source_and_are_the_lowest_of_all_regions():
    assert lowest_list_price_usd("H100") == pytest.approx(9.796550569)
    assert lowest_list_price_usd("nothing") is None


@pytest.mark.skipif(not SUSPECTS.exists(), reason="the list of suspect rows is not on this machine")
def test_every_known_suspect_row_has_no_usable_on_demand_price():
    offers = {
        (offer.zone, offer.instance_type): offer
        for offer in load_default_snapshot().offers
        if offer.cloud == "gcp" and offer.market == "on_demand"
    }
    checked = 0
    with SUSPECTS.open(newline="") as file:
        for suspect in csv.DictReader(file):
            for host in host_types(suspect["AcceleratorName"], int(suspect["AcceleratorCount"])):
                offer = offers[suspect["AvailabilityZone"], host]
                assert offer.price_usd_per_hour is None
                assert {"suspect_price", "host_price_missing"} & set(offer.flags)
                checked += 1
    assert checked == 126
