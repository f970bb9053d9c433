"""Where the bed's AWS lives; the server itself is `tests.bed.aws_server`."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Login that SkyPilot's images have.
USER = "ubuntu"
#: Zones of each region with their ids, as moto has them.
REGIONS = {
    "us-east-1": {"use1-az6": "us-east-1a", "use1-az1": "us-east-1b"},
    "us-west-2": {"usw2-az2": "us-west-2a", "usw2-az1": "us-west-2b"},
}
#: An image that moto knows.
IMAGE = "ami-1e749f67"
MACHINE = ("g6.xlarge", "L4")
ON_DEMAND_USD_PER_H = 0.8048
#: Spot price by zone id: the first two in us-west-2, then us-east-1.
SPOT_USD_PER_H = {"usw2-az2": 0.28, "usw2-az1": 0.29, "use1-az6": 0.30, "use1-az1": 0.33}
ACCESS_KEY = "AKIABED"


@dataclass(frozen=True, slots=True)
class AwsBed:
    """One AWS.

    Attributes:
        root: The bed's directory.
        port: Of the API.
        metadata_port: Where instances ask for keys of their role.
    """

    root: Path
    port: int
    metadata_port: int

    @property
    def endpoint(self) -> str:
        """URL of every service."""
        return f"http://127.0.0.1:{self.port}"

    def worker_env(self) -> dict[str, str]:
        """What tells botocore on an instance where this AWS is; no keys."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://127.0.0.1:{self.metadata_port}",
        }

    def keys(self) -> dict[str, str]:
        """Credentials with rights on everything, as environment variables."""
        return {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": "testing"}

    def client(self, service: str, region: str = "us-east-1") -> Any:
        """A client with rights on everything."""
        import boto3

        keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": "testing"}
        return boto3.client(service, region_name=region, endpoint_url=self.endpoint, **keys)

    def run_out_of(self, *zones: str) -> None:
        """These zones have no capacity from now on; `all` is every zone."""
        (self.root / "ec2/stock_out").write_text("\n".join(zones))

    def instances(self, state: str = "running") -> list[dict[str, Any]]:
        """Instances of both regions that are in a state."""
        filters = [{"Name": "instance-state-name", "Values": [state]}]
        return [
            instance
            for region in REGIONS
            for reservation in self.client("ec2", region).describe_instances(Filters=filters)["Reservations"]
            for instance in reservation["Instances"]
        ]

    def terminate(self, instance: dict[str, Any]) -> None:
        """Take an instance away, as a preemption does."""
        region = instance["Placement"]["AvailabilityZone"][:-1]
        self.client("ec2", region).terminate_instances(InstanceIds=[instance["InstanceId"]])

    def start(self) -> None:
        """Start the server, in the background."""
        (self.root / "ec2/ports").mkdir(parents=True)
        names = {name: value for name, value in os.environ.items() if name.endswith(("_BUNDLE", "CERT_FILE"))}
        (self.root / "ec2/environment").write_text(
            " ".join(f"{name}={value}" for name, value in names.items()) or "BED=1"
        )
        env = os.environ | {
            **self.keys(),
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        command = [sys.executable, "-m", "tests.bed.aws_server", str(self.root), str(self.port)]
        with (self.root / "log/aws.out").open("wb") as log:
            subprocess.Popen(
                [*command, str(self.metadata_port)], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def await_ready(self, timeout_s: float = 150.0) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + timeout_s
        while not (self.root / "ec2/ready").exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"no AWS: {(self.root / 'log/aws.out').read_text()}")
            time.sleep(0.1)
