"""Import of SkyPilot catalogs: every trap that real catalogs hold, on rows as they are published."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.catalog import EMBEDDED, load_default_snapshot
from providers.errors import UsageError
from providers.offers import Offer
from providers.price_table import PriceTable, read_table, snapshot_of
from providers.skypilot_catalog import ImportReport, build_snapshot, import_catalogs

CATALOGS = Path(__file__).parents[3] / "shared" / "data" / "catalogs" / "v8"
NEWER_AWS = CATALOGS.parents[1] / "prices" / "aws_newer_rows.csv"

COLUMNS = "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region"
ZONED = COLUMNS + ",AvailabilityZone"


def info(size_mib: int, total_mib: int, name: str = "X") -> str:
    return (
        f"\"{{'Gpus': [{{'Name': '{name}', 'Manufacturer': null, 'Count': 1, "
        f"'MemoryInfo': {{'SizeInMiB': {size_mib}}}}}], 'TotalGpuMemoryInMiB': {total_mib}}}\""
    )


@pytest.fixture
def catalogs(tmp_path: Path):
    """Writes catalogs below one folder: `catalogs("aws", row, row)`; returns the folder."""

    def write(cloud: str, *rows: str, header: str = ZONED, name: str = "vms.csv") -> Path:
        folder = tmp_path / "v8" / cloud
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
        return folder.parent

    return write


def offers_of(folder: Path) -> dict[tuple[str | None, str], Offer]:
    return {(offer.instance_type, offer.market): offer for offer in build_snapshot(folder).offers}


def test_a_machine_becomes_an_offer_in_each_market(catalogs):
    folder = catalogs(
        "aws", f"p5.48xlarge,H100,8.0,192,2048,{info(81920, 655360)},55.04,30.5,us-east-1,use1-az1"
    )
    on_demand, spot = build_snapshot(folder).offers
    assert (on_demand.market, on_demand.price_usd_per_hour) == ("on_demand", 55.04)
    assert (spot.market, spot.price_usd_per_hour) == ("spot", 30.5)
    assert on_demand.price_usd_per_gpu_hour == pytest.approx(6.88)
    assert (spot.cloud, spot.region, spot.zone) == ("aws", "us-east-1", "use1-az1")
    assert (spot.gpu, spot.gpus_per_node, spot.gpu_mem_gib, spot.vcpus, spot.ram_gib) == (
        "H100",
        8,
        80,
        192,
        2048,
    )
    assert spot.flags == ()


def test_missing_price_stays_an_offer_without_a_price(catalogs):
    folder = catalogs(
        "aws",
        f"p5e.48xlarge,H200,8,192,2048,{info(144384, 1155072)},,40.2,us-east-2,use2-az1",
        f"p5en.48xlarge,H200,8,192,2048,{info(144384, 1155072)},,,us-east-2,use2-az1",
    )
    offers = offers_of(folder)
    assert offers["p5e.48xlarge", "on_demand"].price_usd_per_hour is None
    assert offers["p5e.48xlarge", "on_demand"].flags == ("no_price",)
    assert offers["p5e.48xlarge", "spot"].price_usd_per_hour == 40.2
    assert offers["p5en.48xlarge", "on_demand"].price_usd_per_hour is None
    assert ("p5en.48xlarge", "spot") not in offers


def test_zero_is_no_price_but_none(catalogs):
    folder = catalogs(
        "vast",
        f'1x-L40S-32-65536,L40S,1,32,64,{info(46068, 46068)},0.60,0.00,"Japan, JP, AS"',
        header=COLUMNS,
    )
    (only,) = build_snapshot(folder).offers
    assert (only.market, only.price_usd_per_hour, only.region) == ("on_demand", 0.6, "Japan, JP, AS")


def test_cpu_machines_and_slices_of_a_gpu_are_counted_not_offered(catalogs):
    folder = catalogs(
        "azure",
        "Standard_D16s_v5,,,16,64,,0.96,0.27,westus",
        "Standard_NV12ads_A10_v5,A10,0.333,12,110,A10,1.3,0.24,westus",
        "Standard_NV4as_v4,MI25,1,4,14,MI25,0.23,0.04,westus",
        "Standard_NV32as_v4,MI25,1,32,112,MI25,1.86,0.34,westus",
        header=COLUMNS,
    )
    report = ImportReport()
    table = import_catalogs(folder, report=report)
    assert [row.instance_type for row in table.rows] == ["Standard_NV32as_v4"]
    assert (report.counts["cpu"], report.counts["gpu_slice"], report.counts["gpu"]) == (1, 2, 1)


@pytest.mark.parametrize(
    ("cloud", "instance", "name", "count", "gpu_info", "gpu", "memory"),
    [
        # Verda: memory of all GPUs in the name, times the count again in GpuInfo
        ("verda", "2A100.44V", "A100-80GB-160GB", 2, info(163840, 327680), "A100-80GB", 80),
        ("verda", "8B300.240V", "B300", 8, info(2150400, 17203200), "B300", 268),
        ("verda", "2V100.10V", "Tesla-V100", 2, info(32768, 65536), "V100", 16),
        # Vast: total memory in place of one GPU's, the board only in the machine's name
        ("vast", "2x-A100_SXM4-32-65536", "A100", 2, info(163840, 163840), "A100-80GB", 80),
        ("vast", "2x-A100_SXM4-32-65536", "A100", 2, info(81920, 81920), "A100", 40),
        ("vast", "2x-A100_PCIE-32-65536", "A100", 2, info(81920, 81920), "A100-PCIe", 40),
        ("vast", "1x-H100_NVL-32-65536", "H100", 1, info(95830, 95830), "H100-NVL", 94),
        ("vast", "1x-RTX_3060_Ti-32-65536", "RTX3060", 1, info(8192, 8192), "RTX3060-Ti", 8),
        # Mithril: A100 for the 80 GB board, memory of one GPU
        ("mithril", "a100-80gb.sxm.2x", "A100", 2, info(81920, 163840), "A100-80GB", 80),
        # RunPod: GiB in the MiB field, the board in GpuInfo
        ("runpod", "3x_A100-80GB_SECURE", "A100-80GB", 3, info(80, 240, "A100 PCIe"), "A100-80GB-PCIe", 80),
        ("hyperstack", "n3-H100x8-NVLink", "H100-80G-PCIe-NVLink", 8, info(81920, 655360), "H100-PCIe", 80),
        ("lambda", "gpu_1x_h100_pcie", "H100", 1.0, info(81920, 81920), "H100-PCIe", 80),
        ("lambda", "gpu_8x_a100", "A100", 8, info(40960, 327680), "A100", 40),
        ("lambda", "gpu_4x_a100", "A100", 4, info(40960, 163840), "A100-PCIe", 40),
        ("azure", "Standard_NC96ads_A100_v4", "A100-80GB", 4, "A100-80GB", "A100-80GB-PCIe", 80),
        ("azure", "Standard_NC80adis_H100_v5", "H100", 2, "H100", "H100-NVL", 94),
        ("azure", "Standard_ND96isr_H100_v5", "H100", 8, "H100", "H100", 80),
        (
            "do",
            "gpu-h100x8-640gb",
            "H100",
            8,
            "\"{'gpus': [{'memoryinfo': {'sizeinmib': 81559}}]}\"",
            "H100",
            80,
        ),
        ("aws", "g6.xlarge", "L4", 1, info(22888, 22888), "L4", 24),
    ],
)
def test_gpu_name_and_memory(catalogs, cloud, instance, name, count, gpu_info, gpu, memory):
    folder = catalogs(cloud, f"{instance},{name},{count},8,64,{gpu_info},9,,somewhere", header=COLUMNS)
    (offer,) = build_snapshot(folder).offers
    assert (offer.gpu, offer.gpu_mem_gib) == (gpu, memory)
    assert not {"unknown_gpu", "memory_mismatch"} & set(offer.flags)


def test_unknown_gpu_keeps_its_name_and_is_flagged(catalogs):
    folder = catalogs("aws", f"z9.large,Z900,2,8,64,{info(65536, 131072)},9,,x,y")
    (offer,) = build_snapshot(folder).offers
    assert (offer.gpu, offer.gpu_mem_gib, offer.flags) == ("Z900", 64, ("unknown_gpu",))


def test_memory_that_contradicts_the_name_is_flagged(catalogs):
    folder = catalogs("aws", f"p9,H100,1,8,64,{info(24576, 24576)},9,,x,y")
    (offer,) = build_snapshot(folder).offers
    assert (offer.gpu_mem_gib, offer.flags) == (80, ("memory_mismatch",))


@pytest.mark.parametrize(
    ("cloud", "on_demand", "spot", "flags", "usable"),
    [
        ("aws", "40", "4", ("spot_floor",), True),
        ("aws", "40", "39.9", ("scarce",), True),
        ("aws", "27.43298", "27.433", ("scarce",), True),  # equal but for rounding
        ("aws", "40", "20", (), True),
        ("aws", "40", "48", ("suspect_price",), False),
        ("azure", "40", "7.392", ("spot_floor",), True),
        ("azure", "40", "40", ("scarce",), True),
        ("nebius", "40", "4", (), True),
    ],
)
def test_doubts_about_spot_prices(catalogs, cloud, on_demand, spot, flags, usable):
    folder = catalogs(cloud, f"m,H100,8,8,64,,{on_demand},{spot},x", header=COLUMNS)
    offer = offers_of(folder)["m", "spot"]
    assert offer.flags == flags
    assert offer.price_usd_per_hour == (float(spot) if usable else None)
    assert offer.posted_usd_per_hour == (None if usable else float(spot))


def test_auction_floors_are_shown_but_never_a_price(catalogs):
    folder = catalogs("mithril", "a100-80gb.sxm.8x,A100,8,204,1520,,0.08,0.08,us-central3-a", header=COLUMNS)
    for offer in build_snapshot(folder).offers:
        assert "auction_floor" in offer.flags
        assert (offer.price_usd_per_hour, offer.posted_usd_per_hour) == (None, 0.08)


@pytest.mark.parametrize("cloud", ["lambda", "oci", "runpod"])
def test_a_row_of_a_cross_product_is_not_availability(catalogs, cloud):
    (offer,) = build_snapshot(catalogs(cloud, "m,H100,8,8,64,,20,,x", header=COLUMNS)).offers
    assert offer.flags == ("not_availability",)
    assert offer.price_usd_per_hour == 20


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("m,H100,eight,8,64,,20,,x", "AcceleratorCount 'eight' is not a number"),
        ("m,H100,8,8,64,,-5,,x", "Price '-5' is out of range"),
        ("m,H100,8,8,64,,nan,,x", "Price 'nan' is out of range"),
        ("m,H100,8,8,64,,1e400,,x", "Price '1e400' is out of range"),
        ("m,H100,8,8,64,,20,,", "no Region"),
        ("m,H100,,8,64,,20,,x", "H100 without AcceleratorCount"),
        ("m,H100,8,8,64,{not a literal,20,,x", "GpuInfo is neither JSON nor a literal"),
        ("m,H100,8,8,64,{'a': __import__('os').getcwd()},20,,x", "GpuInfo is neither JSON nor a literal"),
    ],
)
def test_a_malformed_row_is_left_out_with_its_place(catalogs, row, message):
    folder = catalogs("aws", row, "good,H100,8,8,64,,20,,x", header=COLUMNS)
    report = ImportReport()
    table = import_catalogs(folder, report=report)
    assert [kept.instance_type for kept in table.rows] == ["good"]
    assert report.problems == [f"{folder / 'aws' / 'vms.csv'}:2: {message}"]
    assert report.counts["malformed"] == 1


def test_control_characters_do_not_get_into_names(catalogs):
    folder = catalogs("aws", '"m\x1b[31m\r\n9",H100,8,8,64,,20,,"us\teast",')
    (offer,) = build_snapshot(folder).offers
    assert (offer.instance_type, offer.region) == ("m [31m 9", "us east")


def test_a_row_listed_twice_counts_once(catalogs):
    folder = catalogs("aws", "m,H100,8,8,64,,20,,x,z", "m,H100,8,8,64,,21,,x,z", "m,H100,8,8,64,,20,,x,y")
    report = ImportReport()
    assert len(import_catalogs(folder, report=report).rows) == 2
    assert report.counts["duplicate"] == 1


def test_newer_file_of_a_cloud_wins_and_dates_stay_with_their_rows(catalogs):
    catalogs("aws", "m,H100,8,8,64,,90,,x,z", "old,A100,8,8,64,,30,,x,z")
    folder = catalogs("aws", "m,H100,8,8,64,,55,,x,z", name="newer.csv")
    facts = {
        "aws/vms.csv": {"as_of": "2025-08-28", "as_of_inferred": True, "complete": False, "note": "a part"},
        "aws/newer.csv": {"as_of": "2025-11-18", "source": "new", "complete": True},
    }
    (folder / "sources.json").write_text(json.dumps(facts))
    snapshot = build_snapshot(folder)
    offers = {offer.instance_type: offer for offer in snapshot.offers}
    assert offers["m"].price_usd_per_hour == 55
    assert (offers["m"].as_of_at, offers["m"].source) == ("2025-11-18T00:00:00Z", "new")
    assert (offers["old"].as_of_at, offers["old"].flags) == ("2025-08-28T00:00:00Z", ("as_of_inferred",))
    (coverage,) = snapshot.coverage
    assert (coverage.complete, coverage.note, coverage.as_of_at) == (False, "a part", "2025-08-28T00:00:00Z")


def test_what_nobody_calls_complete_is_known_in_part(catalogs):
    folder = catalogs("aws", "m,H100,8,8,64,,20,,x,z")
    assert [entry.complete for entry in build_snapshot(folder).coverage] == [False]
    assert import_catalogs(folder, as_of="2026-01-02").rows[0].as_of == "2026-01-02"


@pytest.mark.parametrize(
    "facts",
    [
        "[]",
        "{",
        '{"aws/vms.csv": {"complet": true}}',
        '{"aws/vms.csv": {"as_of": "May"}}',
        '{"aws/vms.csv": 3}',
    ],
)
def test_a_wrong_sources_file_is_refused(catalogs, facts):
    folder = catalogs("aws", "m,H100,8,8,64,,20,,x,z")
    (folder / "sources.json").write_text(facts)
    with pytest.raises(UsageError, match=r"sources\.json"):
        build_snapshot(folder)


def test_a_folder_without_catalogs_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match=r"no <cloud>/vms\.csv below"):
        build_snapshot(tmp_path)


def test_a_file_that_is_no_catalog_is_refused(catalogs):
    with pytest.raises(UsageError, match="no column AcceleratorCount"):
        build_snapshot(catalogs("aws", "1,2", header="a,b"))


def test_a_binary_file_is_refused(catalogs):
    folder = catalogs("aws")
    (folder / "aws" / "vms.csv").write_bytes(b"\xff\xfe\x00\x81" * 100)
    with pytest.raises(UsageError, match="cannot read the price catalog"):
        build_snapshot(folder)


def test_the_order_of_rows_does_not_change_the_snapshot(catalogs, tmp_path: Path):
    rows = [f"m{i},H100,8,8,64,,{20 + i},,x,z" for i in range(9)]
    first = import_catalogs(catalogs("aws", *rows))
    second = PriceTable(tuple(reversed(first.rows)), first.coverage)
    assert snapshot_of(first).snapshot_id == snapshot_of(second).snapshot_id
    other = PriceTable(first.rows[1:], first.coverage)
    assert snapshot_of(other).snapshot_id != snapshot_of(first).snapshot_id


cells = st.sampled_from(
    [
        "",
        "8",
        "0",
        "-1",
        "0.5",
        "nan",
        "inf",
        "1e9",
        "H100",
        "A100-80GB",
        "x" * 50,
        '"',
        "{",
        "{'Gpus': [3]}",
        "'",
        "[]",
    ]
) | st.text(st.characters(exclude_characters="\x00", codec="utf-8"), max_size=20)


@settings(max_examples=200, deadline=None)
@given(
    cloud=st.sampled_from(["aws", "vast", "verda", "gcp", "mithril"]),
    lines=st.lists(st.lists(cells, max_size=11), max_size=5),
)
def test_any_rows_are_offers_or_problems_never_a_crash(tmp_path_factory, cloud: str, lines: list[list[str]]):
    folder = tmp_path_factory.mktemp("any")
    (folder / cloud).mkdir()
    text = "\n".join((ZONED, *(",".join(line) for line in lines))) + "\n"
    (folder / cloud / "vms.csv").write_text(text, encoding="utf-8")
    report = ImportReport()
    try:
        table = import_catalogs(folder, report=report)
    except UsageError:
        return
    counts = report.counts
    assert len(report.problems) == counts["malformed"]
    if cloud != "gcp":
        assert counts["read"] == counts["gpu"] + counts["cpu"] + counts["gpu_slice"] + counts["malformed"]
    for offer in snapshot_of(table).offers:
        assert offer.gpus_per_node >= 1
        assert offer.price_usd_per_hour is None or 0 < offer.price_usd_per_hour < 1e7


@pytest.mark.skipif(not CATALOGS.exists(), reason="the full catalogs are not on this machine")
def test_the_embedded_snapshot_is_what_its_import_gives(tmp_path: Path):
    folder = tmp_path / "v8"
    shutil.copytree(CATALOGS, folder, copy_function=shutil.copyfile)
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    shutil.copyfile(NEWER_AWS, folder / "aws" / "newer.csv")
    shutil.copyfile(EMBEDDED.parent / "sources.json", folder / "sources.json")
    report = ImportReport()
    table = import_catalogs(folder, report=report)
    assert report.problems == []
    assert snapshot_of(table).snapshot_id == load_default_snapshot().snapshot_id
    assert table.coverage == read_table(EMBEDDED)[1].coverage
    assert report.counts["gpu"] - report.counts["replaced_by_newer"] == len(table.rows) > 2600
