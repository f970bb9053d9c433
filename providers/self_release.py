"""How a rented machine gives itself back, with nothing but what it has on it: `python -m providers.self_release CLOUD`.

| cloud | how | what may be left |
|---|---|---|
| AWS | its role may terminate machines of its own run; else it powers itself off | powered off: its disk |
| Google Cloud | it powers itself off | its disk |
| RunPod, Vast | with the key that the seller puts on it for itself alone | nothing |
| elsewhere | it cannot: powered off is billed all the same, or it is a part of a cluster that others use | all of it |

Only a machine whose own firmware says that it is of the cloud is ever powered off, and none that was told of another
metadata server than its cloud's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_VENDOR = Path("/sys/class/dmi/id/sys_vendor")
_VENDORS = {"aws": "Amazon EC2", "gcp": "Google"}
_FIRST_PROCESS = Path("/proc/1/environ")
_TIMEOUT_S = 30.0
_VAST = "https://console.vast.ai"
_METADATA, _OTHER_METADATA = "http://169.254.169.254", "AWS_EC2_METADATA_SERVICE_ENDPOINT"
#: What the worker was given and the machine itself must not use: it ends itself with its own rights.
_GIVEN = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_CONFIG_FILE")

#: What is left of a machine that has given itself back, by cloud; the empty text is nothing.
LEFT: dict[str, str] = {
    "aws": "",
    "gcp": "its disk stays and is billed until somebody deletes the instance",
    "runpod": "",
    "vast": "",
}


def can_release(cloud: str) -> bool:
    """Whether a machine of this cloud can end what it costs from within."""
    return cloud in LEFT


def bare_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what was given to the worker."""
    return {name: value for name, value in environ.items() if name not in _GIVEN}


def release(cloud: str, environ: Mapping[str, str], power_off: Callable[[str], None]) -> None:
    """Give this machine back.

    Args:
        cloud: It is of.
        environ: Its environment.
        power_off: Turns the machine off that is of a cloud.

    Raises:
        OSError: It did not work.
        ValueError: It cannot be done on this machine.
    """
    if cloud == "aws":
        try:
            _terminate(environ)
        except Exception as error:  # no boto3 yet, no role, no such right: what else is there
            sys.stderr.write(f"cannot terminate itself: {error}\n")
            if environ.get(_OTHER_METADATA):
                raise ValueError("its metadata server is not AWS's: it is not powered off") from error
            power_off(cloud)
    elif cloud == "gcp":
        power_off(cloud)
    elif cloud == "runpod":
        own = _own(environ, "RUNPOD_POD_ID", "RUNPOD_API_KEY")
        program = shutil.which("runpodctl") or "runpodctl"
        _run([program, "remove", "pod", own["RUNPOD_POD_ID"]], {**environ, **own})
    elif cloud == "vast":
        _delete_on_vast(environ)
    else:
        raise ValueError(f"a machine of {cloud or 'nowhere'} cannot give itself back")


def power_off(cloud: str) -> None:
    """Turn this machine off.

    Raises:
        OSError: It did not work.
        ValueError: Its firmware does not say that it is a machine of this cloud.
    """
    vendor = _VENDOR.read_text().strip()
    if vendor != _VENDORS[cloud]:
        raise ValueError(f"this is a machine of {vendor!r}, it is not powered off")
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
    _run([*prefix, "shutdown", "-h", "now"], os.environ)


def _terminate(environ: Mapping[str, str]) -> None:
    import boto3

    endpoint = environ.get(_OTHER_METADATA) or _METADATA
    ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    token = {"X-aws-ec2-metadata-token": _ask(f"{endpoint}/latest/api/token", ttl, "PUT")}
    instance, region = (
        _ask(f"{endpoint}/latest/meta-data/{what}", token) for what in ("instance-id", "placement/region")
    )
    ec2: Any = boto3.session.Session().client("ec2", region_name=region)
    ec2.terminate_instances(InstanceIds=[instance])


def _delete_on_vast(environ: Mapping[str, str]) -> None:
    own = _own(environ, "CONTAINER_ID", "CONTAINER_API_KEY")
    server = environ.get("VAST_URL") or _VAST
    number = own["CONTAINER_ID"].removeprefix("C.")
    headers = {"Authorization": f"Bearer {own['CONTAINER_API_KEY']}"}
    _ask(f"{server}/api/v0/instances/{number}/", headers, "DELETE", direct=False)


def _own(environ: Mapping[str, str], *names: str) -> dict[str, str]:
    """What the seller put into the first process of the machine, which a login does not always get.

    It goes before the environment, where a worker may have been given another key of the same name.
    """
    found = {name: environ[name] for name in names if environ.get(name)}
    with contextlib.suppress(OSError):
        pairs = (pair.partition("=") for pair in _FIRST_PROCESS.read_text(errors="replace").split("\0"))
        found |= {name: value for name, _, value in pairs if name in names and value}
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"there is no {', '.join(missing)} on this machine")
    return found


def _ask(url: str, headers: Mapping[str, str], method: str = "GET", *, direct: bool = True) -> str:
    """The body; urllib's errors are OSErrors. A metadata server is never asked through a proxy."""
    request = urllib.request.Request(url, headers=dict(headers), method=method)  # noqa: S310 - http(s), by us
    opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if direct else []))
    with opener.open(request, timeout=_TIMEOUT_S) as answer:
        return str(answer.read(1 << 16).decode())


def _run(command: list[str], environ: Mapping[str, str]) -> None:
    done = subprocess.run(command, env=dict(environ), timeout=_TIMEOUT_S, check=False)  # noqa: S603 - ours, no shell
    if done.returncode:
        raise OSError(f"{command[0]} ended with exit code {done.returncode}")


def main(cloud: str) -> int:
    """Give this machine back; 1 if that did not work."""
    try:
        release(cloud, os.environ, power_off)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        sys.stderr.write(f"this machine cannot give itself back: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
