"""AWS for the bed: moto, whose instances are real machines to whoever logs in.

python -m tests.bed.aws_server ROOT PORT METADATA_PORT

An instance is a set of namespaces of this kernel with an sshd in it: terminating it kills every process at once, as a
preemption does. Zones named in ROOT/ec2/stock_out (one a line, `all` for every zone) have no capacity. An instance
finds keys of its role where botocore looks for them, at an address that its environment names.
"""

import json
import re
import shutil
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import boto3
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instances import InstanceBackend
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

from tests.bed.aws import REGIONS, USER
from tests.bed.processes import free_ports

PUBLIC_KEY = re.compile(r"ssh-(?:rsa|ed25519) [A-Za-z0-9+/=]+")
MACHINE = """\
set -e
mount --bind {home}/etc /etc
exec /usr/sbin/sshd -D -f {home}/sshd_config -E {home}/sshd.log
"""
SSHD_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {root}/etc/host_key
PidFile {home}/sshd.pid
AuthorizedKeysFile {home}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
AllowUsers {user}
MaxStartups 200
MaxSessions 200
SetEnv {env}
Subsystem sftp /usr/lib/openssh/sftp-server
"""


CLIENTS = [boto3.client("ec2", region_name=region) for region in REGIONS]
IAM, STS = boto3.client("iam"), boto3.client("sts")


class Machines:
    """The instances that run, by id."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def refuse(self, zone: str) -> bool:
        """Whether a zone has no capacity."""
        path = self._root / "ec2/stock_out"
        zones = path.read_text().split() if path.exists() else []
        return zone in zones or "all" in zones

    def start(self, instance_id: str, address: str, user_data: str) -> None:
        """Power on; it can be logged in to as soon as its sshd listens."""
        home = self._root / "ec2" / instance_id
        (home / "home").mkdir(parents=True)
        (port,) = free_ports(1)
        key = PUBLIC_KEY.search(user_data)
        assert key is not None, "no key in the user data"
        (home / "authorized_keys").write_text(key[0] + "\n")
        # the whole directory: a mount over /etc/passwd itself is gone as soon as somebody adds a user
        subprocess.run(["cp", "-a", "/etc", home / "etc"], check=True)
        with (home / "etc/passwd").open("a") as passwd:
            passwd.write(f"{USER}:*:0:0::{home}/home:/bin/bash\n")
        for profile in (".bash_profile", ".bashrc"):
            shutil.copy(self._root / "node" / profile, home / "home" / profile)
        env = (self._root / "ec2/environment").read_text()
        text = SSHD_CONFIG.format(root=self._root, home=home, port=port, user=USER, env=env)
        (home / "sshd_config").write_text(text)
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self._running[instance_id] = subprocess.Popen(
            [*namespaces, "bash", "-c", MACHINE.format(home=home)], stdin=subprocess.DEVNULL
        )
        (self._root / "ec2/ports" / address).write_text(str(port))

    def stop(self, instance_id: str) -> None:
        """Power off: nothing in it lives on, and its disk is gone."""
        machine = self._running.pop(instance_id, None)
        if machine is not None:
            machine.kill()
            machine.wait()
            shutil.rmtree(self._root / "ec2" / instance_id, ignore_errors=True)


def hook(machines: Machines) -> None:
    """Make moto's instances start and stop machines."""
    run, terminate = InstanceBackend.run_instances, InstanceBackend.terminate_instances

    def run_instances(self, image_id, count, user_data, groups, **kwargs):  # type: ignore[no-untyped-def]
        subnet = kwargs["subnet_id"] or kwargs["nics"][0]["SubnetId"]
        zone = self.get_subnet(subnet).availability_zone
        if machines.refuse(zone):
            message = f"We currently do not have sufficient capacity in {zone}."
            raise EC2ClientError("InsufficientInstanceCapacity", message)
        reservation = run(self, image_id, count, user_data, groups, **kwargs)
        for instance in reservation.instances:
            machines.start(instance.id, instance.private_ip, user_data.decode())
        return reservation

    def terminate_instances(self, instance_ids):  # type: ignore[no-untyped-def]
        for instance_id in instance_ids:
            machines.stop(instance_id)
        return terminate(self, instance_ids)

    InstanceBackend.run_instances = run_instances
    InstanceBackend.terminate_instances = terminate_instances


class Metadata(BaseHTTPRequestHandler):
    """What is asked on an instance: a token, its id and region, the name of its role, keys of that role."""

    def do_PUT(self) -> None:
        """A token; nobody checks it."""
        self._answer("token")

    def do_GET(self) -> None:
        """Of the one instance that runs."""
        if self.path in ("/latest/meta-data/instance-id", "/latest/meta-data/placement/region"):
            self._answer(self._instance()[self.path.rpartition("/")[2]])
            return
        role = self._role()
        if role is None:
            self.send_error(404)
        elif self.path.rstrip("/").endswith("security-credentials"):
            self._answer(role)
        else:
            self._answer(json.dumps(self._keys(role)))

    def _instance(self) -> dict[str, str]:
        for ec2 in CLIENTS:
            filters = [{"Name": "instance-state-name", "Values": ["running"]}]
            for reservation in ec2.describe_instances(Filters=filters)["Reservations"]:
                found = reservation["Instances"][0]
                return {
                    "instance-id": found["InstanceId"],
                    "region": found["Placement"]["AvailabilityZone"][:-1],
                }
        return {"instance-id": "", "region": ""}

    def _role(self) -> str | None:
        for ec2 in CLIENTS:
            filters = [{"Name": "instance-state-name", "Values": ["running"]}]
            for reservation in ec2.describe_instances(Filters=filters)["Reservations"]:
                profile = reservation["Instances"][0].get("IamInstanceProfile", {}).get("Arn")
                if profile:
                    name = profile.rpartition("/")[2]
                    found = IAM.get_instance_profile(InstanceProfileName=name)
                    return str(found["InstanceProfile"]["Roles"][0]["RoleName"])
        return None

    def _keys(self, role: str) -> dict[str, str]:
        arn = f"arn:aws:iam::123456789012:role/{role}"
        keys = STS.assume_role(RoleArn=arn, RoleSessionName="machine")["Credentials"]
        return {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": keys["AccessKeyId"],
            "SecretAccessKey": keys["SecretAccessKey"],
            "Token": keys["SessionToken"],
            "Expiration": keys["Expiration"].strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    def _answer(self, text: str) -> None:
        self.send_response(200)
        self.send_header("X-aws-ec2-metadata-token-ttl-seconds", "21600")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def make_subnets_private() -> None:
    """SkyPilot is told to use internal addresses, so it looks for subnets without public ones."""
    for region in REGIONS:
        ec2 = boto3.client("ec2", region_name=region)
        for subnet in ec2.describe_subnets()["Subnets"]:
            ec2.modify_subnet_attribute(SubnetId=subnet["SubnetId"], MapPublicIpOnLaunch={"Value": False})


def main(root: Path, port: int, metadata_port: int) -> None:
    """Serve until killed."""
    hook(Machines(root))
    ThreadedMotoServer("127.0.0.1", port, verbose=False).start()
    make_subnets_private()
    metadata = ThreadingHTTPServer(("127.0.0.1", metadata_port), Metadata)
    Thread(target=metadata.serve_forever, daemon=True).start()
    (root / "ec2/ready").touch()
    signal.pause()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
