"""Messages over HTTP to a server on loopback, through apprise, from a monitor that watches a real worker."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from planner.cli.schema import schema_text
from tests.e2e.test_kill_plan import SPEC, Bench
from tests.workers import eventually, order_exit, starts

SECRET = "canary-of-an-address"
ONCE = ("monitor", "run", "--once", "--every", "0.1s", "--retry-delay", "0.1s")


class Chat:
    """A server that takes what apprise posts to it."""

    def __init__(self) -> None:
        self.titles: list[str] = []
        self.status = 200
        chat = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if chat.status == 200:
                    chat.titles.append(body["title"])
                self.send_response(chat.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"json://127.0.0.1:{self.server.server_port}/{SECRET}"


@pytest.fixture
def chat() -> Iterator[Chat]:
    one = Chat()
    thread = threading.Thread(target=one.server.serve_forever, daemon=True)
    thread.start()
    yield one
    one.server.shutdown()
    one.server.server_close()
    thread.join()


class Told(Bench):
    """A bench whose runs tell somebody how they go."""

    def __init__(self, home: Path, address: str) -> None:
        super().__init__(home)
        self.environment |= {"CHAT_URL": address}
        text = SPEC.read_text() + "notify: CHAT_URL\n"
        for name in ("./base", "train.jsonl", "eval.jsonl"):
            text = text.replace(f": {name}", f": {SPEC.parent / name}")
        self.spec = home / "spec.yaml"
        self.spec.write_text(text)

    def look(self) -> None:
        done = self.plan(*ONCE)
        assert done.returncode == 0, done.stderr

    def launch(self, *words: str) -> Any:
        base = ("launch", str(self.spec), "--infra", "local", "--run-id", "goat-1", "--no-cap", "--yes")
        return self.plan(*base, *words)

    def messages(self) -> list[dict[str, Any]]:
        answer = json.loads(self.plan("notify", "list", "-o", "json").stdout)
        jsonschema.validate(answer, json.loads(schema_text("notify")))
        return list(answer["messages"])


def test_a_monitor_tells_each_event_once_whatever_is_restarted(tmp_path: Path, chat: Chat) -> None:
    bench = Told(tmp_path / "home", chat.address)
    assert bench.launch().returncode == 0
    eventually((bench.orders / "ready").exists)
    chat.status = 500
    bench.look()
    assert chat.titles == []
    undelivered = bench.run()["undelivered"]
    assert [(row["kind"], row["tries"]) for row in undelivered] == [("started", 1)]
    assert "not delivered after 1 tries" in bench.plan("status", "goat-1").stderr
    assert "1 messages were not delivered" in bench.plan("status").stderr
    chat.status = 200
    _hurry(bench)
    for pid in starts(bench.orders):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: bench.run()["state"] == "preempted")
    bench.look()
    bench.look()
    assert bench.plan("resume", "goat-1", "--yes").returncode == 0
    eventually(lambda: len(starts(bench.orders)) == 2)
    bench.look()
    order_exit(bench.orders, 0)
    eventually(lambda: bench.run()["state"] == "succeeded")
    for _ in range(2):
        bench.look()
    told = [title.removeprefix("run goat-1 ") for title in chat.titles]
    assert told == ["has started", "was taken away", "goes on after it was taken away", "has finished"]
    assert {row["given_up"] for row in bench.messages()} == {False}
    kept = [path for path in bench.home.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert kept == []


def _hurry(bench: Bench) -> None:
    """Let what waits for its next try be due now."""
    from planner.database import Database

    with Database(bench.home / "state" / "plan.db") as db, db.writing():
        db.execute("UPDATE deliveries SET next_try_at = at WHERE sent_at IS NULL")


def test_a_test_message_says_whether_it_was_taken_and_never_where_it_went(tmp_path: Path, chat: Chat) -> None:
    bench = Told(tmp_path / "home", chat.address)
    taken = bench.plan("notify", "test", "CHAT_URL")
    assert (taken.returncode, taken.stdout, chat.titles) == (0, "CHAT_URL: taken\n", ["tuneplan: a test"])
    as_json = json.loads(bench.plan("notify", "test", "CHAT_URL", "-o", "json").stdout)
    jsonschema.validate(as_json, json.loads(schema_text("notify_test")))
    assert as_json["taken_by"] == ["CHAT_URL"]
    chat.status = 500
    refused = bench.plan("notify", "test", "CHAT_URL")
    assert refused.returncode == 6 and "did not take" in refused.stderr
    bench.environment["CHAT_URL"] = f"nothing://{SECRET}"
    unknown = bench.plan("notify", "test", "CHAT_URL")
    assert unknown.returncode == 2 and "no address" in unknown.stderr
    unset = bench.plan("notify", "test", "NOWHERE")
    assert unset.returncode == 4 and "NOWHERE is not set" in unset.stderr
    assert SECRET not in refused.stderr + unknown.stderr + refused.stdout + unknown.stdout
    assert bench.plan("notify", "test").returncode == 2


def test_an_address_in_a_spec_is_refused_and_not_repeated(tmp_path: Path, chat: Chat) -> None:
    bench = Told(tmp_path / "home", chat.address)
    bench.spec.write_text(bench.spec.read_text().replace("notify: CHAT_URL", f"notify: {chat.address}"))
    refused = bench.launch()
    assert refused.returncode == 2 and "environment variable" in refused.stderr
    bench.spec.write_text(bench.spec.read_text().replace(chat.address, "NOWHERE"))
    missing = bench.launch()
    assert missing.returncode == 2 and "NOWHERE is not set" in missing.stderr
