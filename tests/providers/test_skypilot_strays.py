"""Looking for what SkyPilot has left, on a machine where it has never run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

_LOOK = "from providers.skypilot_strays import SkyPilotSweeper; print(list(SkyPilotSweeper().find()))"


def test_looking_starts_no_server_where_nothing_was_ever_rented(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SKYPILOT_", "SKY_"))}
    environ = {**kept, "HOME": str(tmp_path), "SKYPILOT_API_SERVER_LOCAL_PORT": str(port)}
    environ |= {"SKY_RUNTIME_DIR": str(tmp_path), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    looked = subprocess.run(
        [sys.executable, "-c", _LOOK], capture_output=True, text=True, env=environ, timeout=300, check=False
    )
    assert looked.stdout.strip() == "[]", looked.stderr
    assert not (tmp_path / ".sky" / "state.db").exists()
    with socket.socket() as asked:
        assert asked.connect_ex(("127.0.0.1", port)) != 0
