"""A small always-on machine for the monitor: what it costs, and its SkyPilot task.

A monitor starts machines, so it needs a login that may, and SkyPilot's own records of what it started. Both are where
the launch is made from; so a remote monitor is a machine that one launches from, and nothing is handed over.
"""

from __future__ import annotations

from typing import NamedTuple

from providers.errors import UsageError

HOURS_A_MONTH = 730


class MonitorMachine(NamedTuple):
    """A machine without GPUs that is large enough for SkyPilot's server and the monitor: 2 processors, 8 GiB.

    Attributes:
        usd_per_hour: List price on demand.
        as_of: Date of the price.
        source: Who says so.
    """

    cloud: str
    region: str
    instance_type: str
    usd_per_hour: float
    as_of: str
    source: str

    def text(self) -> str:
        """For the person who will pay for it."""
        month = self.usd_per_hour * HOURS_A_MONTH
        where = f"{self.instance_type} in {self.cloud}/{self.region}"
        return f"{where}: ${self.usd_per_hour:g}/h, ${month:,.0f} a month (list price of {self.as_of}, {self.source})"


_V8, _ANYCLOUD = "SkyPilot catalog v8", "anycloud-sh catalog"
MACHINES = {
    row.cloud: row
    for row in (
        MonitorMachine("aws", "us-east-1", "r6a.large", 0.1134, "2025-08-28", _V8),
        MonitorMachine("azure", "eastus", "Standard_D2s_v5", 0.096, "2026-05-20", _ANYCLOUD),
        MonitorMachine("gcp", "us-central1", "n2-standard-2", 0.09712, "2026-05-20", _ANYCLOUD),
    )
}
_YAML = """\
# A machine for `plan monitor run`: {text}
# It is there, and paid for, until `sky down plan-monitor`.
#
#   sky launch -c plan-monitor monitor.yaml
#   ssh plan-monitor
#   ~/tuneplan/bin/plan launch spec.yaml --monitor service --cap USD
#
# SkyPilot gives it your own cloud logins or a role that may rent machines, as `remote_identity` in ~/.sky/config.yaml
# says: whoever may log in there may spend. What secrets the spec names must be exported there.
name: plan-monitor
resources:
  infra: {cloud}/{region}
  instance_type: {instance_type}
setup: |
  python3 -m venv ~/tuneplan
  ~/tuneplan/bin/pip install --quiet 'tuneplan[launch,s3,notify]'
run: |
  exec ~/tuneplan/bin/plan monitor run
"""


def monitor_machine(cloud: str) -> MonitorMachine:
    """The machine for a cloud.

    Raises:
        UsageError: None is known.
    """
    if cloud not in MACHINES:
        others = "any machine will do: `plan monitor unit`, `plan monitor container`"
        hint = f"known are {', '.join(sorted(MACHINES))}; {others}"
        raise UsageError(f"no small machine of {cloud} is known here", hint=hint)
    return MACHINES[cloud]


def task_yaml(machine: MonitorMachine) -> str:
    """Its SkyPilot task."""
    return _YAML.format(text=machine.text(), **machine._asdict())
