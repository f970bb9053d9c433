"""Every path below the state directory, computed in one place."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

FILE_NAME = "plan.db"


class Places(NamedTuple):
    """Where runs keep what is theirs.

    Attributes:
        state: The state directory (`planner.config.directories().state`).
    """

    state: Path

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return self.state / FILE_NAME

    @property
    def local(self) -> Path:
        """Directories of the local launcher."""
        return self.state / "local"

    @property
    def register(self) -> str:
        """URI of the register of run ids and budgets where no team shares one."""
        return (self.state / "register").as_uri()

    @property
    def monitor_machine(self) -> Path:
        """What is written down of a machine for the monitor."""
        return self.state / "monitor-machine.json"

    @property
    def monitor_code(self) -> Path:
        """What such a machine installs."""
        return self.state / "monitor-machine"

    def bundle(self, run_id: str, attempt: int) -> Path:
        """What one attempt's worker runs: code and job document."""
        return self.state / "bundles" / run_id / str(attempt)

    def launch_lock(self, run_id: str) -> Path:
        """Locked while somebody asks the run's backend for machines."""
        return self.state / "bundles" / run_id / "launch.lock"

    def checkpoints(self, run_id: str) -> str:
        """URI of the run's own checkpoints where the spec names none."""
        return (self.state / "checkpoints" / run_id).as_uri()
