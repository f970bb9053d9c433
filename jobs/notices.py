"""Hears from the cloud's metadata server that this machine will be taken away.

AWS (IMDSv2: spot interruption, rebalance recommendation), Google Cloud (preempted, host maintenance) and Azure
(scheduled events) are asked from a thread of its own; on a machine where none of them answers it ends.
"""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

_LINK_LOCAL = "http://169.254.169.254"
_TIMEOUT_S = 2.0
POLL_S = 5.0
_TOKEN_S = 21600
_SEARCHES = 6  # a metadata server may come up after the worker
_GCP_NOTICE_S = 30.0
_AZURE_LEAST_S = 30.0


@dataclass(frozen=True, slots=True)
class Notice:
    """What the cloud said.

    Attributes:
        source: For a person, as in `AWS spot interruption`.
        leave_s: Seconds left, None if the machine only may be taken away: save, and go on.
    """

    source: str
    leave_s: float | None


class Metadata(Protocol):
    """The metadata server of one cloud."""

    def is_here(self) -> bool:
        """Whether this machine is one of that cloud's."""
        ...

    def notice(self) -> Notice | None:
        """What it says now, None if nothing.

        Raises:
            OSError: It did not answer.
            ValueError: It answered something else than documented.
        """
        ...


class AwsMetadata:
    """https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html"""

    def __init__(self, endpoint: str = _LINK_LOCAL) -> None:
        """Nothing is asked yet."""
        self._root = f"{endpoint.rstrip('/')}/latest/"
        self._token = ""

    def is_here(self) -> bool:
        """Whether IMDSv2 gives a token."""
        return self._renew()

    def notice(self) -> Notice | None:
        """A spot interruption, else a rebalance recommendation."""
        spot = self._get("meta-data/spot/instance-action")
        if spot is not None:
            body, headers = spot
            return Notice("AWS spot interruption", _until(json.loads(body)["time"], _now_s(headers)))
        rebalance = self._get("meta-data/events/recommendations/rebalance")
        return None if rebalance is None else Notice("AWS rebalance recommendation", None)

    def _renew(self) -> bool:
        ttl = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_S)}
        self._token = _ask(self._root + "api/token", ttl, method="PUT")[0].strip()
        return bool(self._token)

    def _get(self, path: str) -> tuple[str, Mapping[str, str]] | None:
        for _ in range(2):
            try:
                return _ask(self._root + path, {"X-aws-ec2-metadata-token": self._token})
            except urllib.error.HTTPError as error:
                error.close()
                if error.code == 404:
                    return None
                if error.code != 401:
                    raise
                self._renew()  # tokens expire
        raise OSError("AWS metadata: no valid token")


class GcpMetadata:
    """https://cloud.google.com/compute/docs/instances/create-use-spot#detecting-preemption"""

    def __init__(self, endpoint: str = _LINK_LOCAL) -> None:
        """Nothing is asked yet."""
        self._root = f"{endpoint.rstrip('/')}/computeMetadata/v1/instance/"

    def is_here(self) -> bool:
        """Whether the answer bears Google's mark."""
        return _ask(self._root + "preempted", _GOOGLE)[1].get("Metadata-Flavor") == "Google"

    def notice(self) -> Notice | None:
        """The preemption; a host maintenance that ends the machine is announced an hour before: save, go on."""
        if _ask(self._root + "preempted", _GOOGLE)[0].strip() == "TRUE":
            return Notice("Google Cloud preemption", _GCP_NOTICE_S)
        maintenance = _ask(self._root + "maintenance-event", _GOOGLE)[0].strip()
        ends = maintenance == "TERMINATE_ON_HOST_MAINTENANCE"
        return Notice("Google Cloud host maintenance", None) if ends else None


class AzureMetadata:
    """https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events"""

    def __init__(self, endpoint: str = _LINK_LOCAL) -> None:
        """Nothing is asked yet."""
        self._url = f"{endpoint.rstrip('/')}/metadata/scheduledevents?api-version=2020-07-01"

    def is_here(self) -> bool:
        """Whether there is a list of events."""
        return isinstance(self._events()[0], list)

    def notice(self) -> Notice | None:
        """The first event that ends the machine; a freeze of seconds is none."""
        events, now_s = self._events()
        ending = [event for event in events if event.get("EventType") in _ENDING]
        if not ending:
            return None
        left_s = [_until(event.get("NotBefore") or "", now_s, least_s=_AZURE_LEAST_S) for event in ending]
        return Notice(f"Azure {ending[0]['EventType']}", min(left_s))

    def _events(self) -> tuple[Any, float]:
        """The events, and when they were told."""
        body, headers = _ask(self._url, {"Metadata": "true"})
        return json.loads(body)["Events"], _now_s(headers)


_GOOGLE = {"Metadata-Flavor": "Google"}
_ENDING = ("Preempt", "Terminate", "Reboot", "Redeploy")


def metadata_servers(environment: Mapping[str, str] = os.environ) -> tuple[Metadata, ...]:
    """Those that may be here, at the addresses that the clouds' own variables name."""
    google = environment.get("GCE_METADATA_HOST")
    azure = AzureMetadata(environment.get("AZURE_METADATA_ENDPOINT") or _LINK_LOCAL)
    clouds: list[Metadata] = [GcpMetadata(f"http://{google}" if google else _LINK_LOCAL), azure]
    if environment.get("AWS_EC2_METADATA_DISABLED", "").lower() != "true":
        clouds.insert(0, AwsMetadata(environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or _LINK_LOCAL))
    return tuple(clouds)


class NoticeWatch:
    """Asks every few seconds, in a thread, and tells of each notice once.

    Args:
        tell: Called in the thread.
        servers: The clouds that may be here.
        poll_s: Time between two questions, default POLL_S.
    """

    def __init__(
        self, tell: Callable[[Notice], None], servers: Sequence[Metadata], *, poll_s: float | None = None
    ) -> None:
        """Start the thread."""
        self._tell = tell
        self._servers = servers
        self._poll_s = POLL_S if poll_s is None else poll_s
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notices", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; an answer under way is waited for."""
        self._end.set()
        self._thread.join(timeout=2 * _TIMEOUT_S)

    def _run(self) -> None:
        here, told = self._find(), set()
        while here is not None and not self._end.wait(self._poll_s):
            try:
                notice = here.notice()
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue  # the next answer may be better; SIGTERM and the last checkpoint remain
            if notice is not None and notice.source not in told:
                told.add(notice.source)
                self._tell(notice)

    def _find(self) -> Metadata | None:
        for search in range(_SEARCHES):
            for server in self._servers:
                try:
                    if server.is_here():
                        return server
                except (OSError, ValueError, KeyError, TypeError):
                    continue
            if self._end.wait(self._poll_s * search):
                break
        return None


def _ask(url: str, headers: Mapping[str, str], *, method: str = "GET") -> tuple[str, Mapping[str, str]]:
    """Body and headers; never through a proxy."""
    request = urllib.request.Request(url, headers=dict(headers), method=method)  # noqa: S310 - http, by us
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=_TIMEOUT_S) as answer:
        return answer.read(1 << 20).decode(), answer.headers


def _now_s(headers: Mapping[str, str]) -> float:
    """The time by the clock of who answered, which its own times are of; this machine's clock may be minutes off."""
    try:
        return parsedate_to_datetime(headers["Date"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return time.time()


def _until(text: str, now_s: float, *, least_s: float = 0.0) -> float:
    """Seconds until a time, in RFC 3339 or as in HTTP headers; `least_s` if there is none (it has begun)."""
    if not text:
        return least_s
    at = parsedate_to_datetime(text) if "," in text else datetime.fromisoformat(text)
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(at.timestamp() - now_s, 0.0)
