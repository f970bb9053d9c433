"""SkyPilot's own home for the bed: configuration, seeded catalogs, and an API server on a port of its own."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.bed import aws
from tests.bed.aws import AwsBed
from tests.bed.slurm import SlurmBed

REGIONS = {"bed-a": {"A100": 1.10, "H100": 2.40}, "bed-b": {"A100": 1.60, "H100": 2.10}}
AWS_COLUMNS = (
    "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region,AvailabilityZone,"
    "Arch,LocalDiskType,NVMeSupported,LocalDiskSize,LocalDiskCount,MaximumEfaInterfaces"
)
OFFLINE = Path(__file__).parent / "offline"


@dataclass(frozen=True, slots=True)
class SkyHome:
    """SkyPilot's state for one test session.

    Attributes:
        root: The bed's directory.
        port: Of the API server.
    """

    root: Path
    port: int

    @property
    def path(self) -> Path:
        """HOME of whoever talks to this SkyPilot."""
        return self.root / "home"

    def env(self) -> dict[str, str]:
        """Environment of a user of the bed; nothing of ours but PATH and the certificates' places comes along."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if name.endswith(("_BUNDLE", "CERT_FILE", "CERT_DIR"))
        }
        return kept | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.path),
            "SKYPILOT_DISABLE_USAGE_COLLECTION": "1",
            "SKYPILOT_API_SERVER_LOCAL_PORT": str(self.port),
            "TMPDIR": str(self.root / "tmp"),
        }

    def write(self, bed: SlurmBed | None = None, cloud: AwsBed | None = None) -> None:
        """Configuration and catalogs; with a bed its two regions, and with AWS the way to it and its instances."""
        for part in (".sky", ".slurm", ".aws"):
            (self.path / part).mkdir(parents=True)
        config = {"jobs": {"controller": {"consolidation_mode": True}}, "allowed_clouds": ["slurm"]}
        if bed is not None:
            clusters = {
                name: {"pricing": {"accelerators": prices}, "tmpdir": str(self.root / "tmp")}
                for name, prices in REGIONS.items()
            }
            config["slurm"] = {"provision_timeout": 60, "cluster_configs": clusters}
            (self.path / ".slurm/config").write_text("".join(_ssh_host(name, bed) for name in REGIONS))
        if cloud is not None:
            config["allowed_clouds"] = ["slurm", "aws"]
            config["aws"] = {"use_internal_ips": True, "ssh_proxy_command": f"{self.root}/bin/to-instance %h"}
            (self.path / ".aws/config").write_text(
                f"[default]\nregion = us-east-1\nendpoint_url = {cloud.endpoint}\n"
            )
            proxy = self.root / "bin/to-instance"
            proxy.write_text(f'#!/bin/bash\nexec nc 127.0.0.1 "$(cat {self.root}/ec2/ports/$1)"\n')
            proxy.chmod(0o755)
        (self.path / ".sky/config.yaml").write_text(json.dumps(config))  # JSON is YAML
        _write_catalogs(self.path / ".sky/catalogs/v8")

    def start_server(self) -> None:
        """Start the API server, with the bed's patches in it and its children."""
        env = self.env() | {"PYTHONPATH": str(OFFLINE)}
        log = self.root / "log/sky-api.out"
        with log.open("ab") as out:
            start = [str(Path(sys.executable).parent / "sky"), "api", "start"]
            subprocess.run(
                start, env=env, check=True, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=180
            )


def _ssh_host(name: str, bed: SlurmBed) -> str:
    return (
        f"Host {name}\n    HostName 127.0.0.1\n    Port {bed.ssh_port}\n    User {bed.user}\n"
        f"    IdentityFile {bed.root}/etc/key\n    IdentitiesOnly yes\n"
        f"    StrictHostKeyChecking accept-new\n    UserKnownHostsFile {bed.root}/etc/known_hosts\n"
    )


def _write_catalogs(folder: Path) -> None:
    """SkyPilot's catalogs, seeded: a file without its .md5 beside it is never refreshed from the internet."""
    _write_aws(folder / "aws")
    clouds = {"A100": "Slurm", "A100-80GB": "AWS", "H100": "Slurm", "L4": "AWS"}
    rows = [("AcceleratorName", "Clouds"), *((gpu, str([cloud])) for gpu, cloud in clouds.items())]
    _write_csv(folder / "common/accelerators.csv", rows)
    memory = {"A100": 40, "A100-80GB": 80, "H100": 80, "L4": 24}
    rows = [("GPU", "MemoryGB", "Manufacturer"), *((gpu, gib, "NVIDIA") for gpu, gib in memory.items())]
    _write_csv(folder / "common/metadata.csv", rows)


def _write_aws(folder: Path) -> None:
    """One GPU machine, and the one without GPUs that SkyPilot wants to know."""
    zones = {zone: region for region, ids in aws.REGIONS.items() for zone in ids}
    gpu = str(
        {
            "Gpus": [
                {
                    "Name": aws.MACHINE[1],
                    "Manufacturer": "NVIDIA",
                    "Count": 1,
                    "MemoryInfo": {"SizeInMiB": 24576},
                }
            ]
        }
    )
    rows: list[tuple[object, ...]] = [tuple(AWS_COLUMNS.split(","))]
    for zone, region in zones.items():
        place = (region, zone, "x86_64", "", "", "", "", "")
        rows.append(("m6i.large", "", "", 2.0, 8.0, "", 0.096, 0.03, *place))
        rows.append(("m6i.2xlarge", "", "", 8.0, 32.0, "", 0.384, 0.12, *place))
        price = (aws.ON_DEMAND_USD_PER_H, aws.SPOT_USD_PER_H[zone])
        rows.append((aws.MACHINE[0], aws.MACHINE[1], 1.0, 4.0, 16.0, gpu, *price, *place))
    _write_csv(folder / "vms.csv", rows)
    tags = ("custom-cpu-ubuntu", "custom-gpu-ubuntu-cuda13", "custom-gpu-ubuntu")
    head = ("Tag", "Region", "OS", "OSVersion", "ImageId", "CreationDate")
    images = [
        (f"skypilot:{tag}", region, "ubuntu", "22.04", aws.IMAGE, "20260101")
        for tag in tags
        for region in aws.REGIONS
    ]
    _write_csv(folder / "images.csv", [head, *images])
    codes = ("InstanceType", "OnDemandInstanceCode", "SpotInstanceCode")
    _write_csv(folder / "instance_quota_mapping.csv", [codes, (aws.MACHINE[0], "L-DB2E81BA", "L-3819A6DF")])
    names = [pair for ids in aws.REGIONS.values() for pair in ids.items()]
    _write_csv(folder / "az_mappings-default.csv", [("AvailabilityZone", "AvailabilityZoneName"), *names])


def _write_csv(path: Path, rows: list[tuple[object, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as out:
        csv.writer(out).writerows(rows)
