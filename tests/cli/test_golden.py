"""Every command has a golden file: its help, its text and, where it has them, its JSON; answers keep to their schemas.

After a change that is meant: `make golden`, and look at the difference.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import Result
from ruamel.yaml import YAML

from planner.cli.output import rendered
from planner.cli.schema import schema_names, schema_text
from providers import live_sources
from providers.skypilot_monitor import Host
from tests.cli import golden_world as world_of
from tests.cli.commands import Words, leaves
from tests.cli.golden_world import INHOUSE, SCHEDULE, Prepare, World, world_in
from tests.cli.test_prices_refresh import BUNDLE, FEED
from tests.file_host import file_host
from tests.hub_host import HostedModel, hub_host
from tests.workers import order_exit

Golden = Callable[[str, str], None]
TIMES = (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?", "<time>")
#: What the formulas say has tests of its own; a better formula should not change a hundred lines here.
ESTIMATED = (
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?Z?)?", "<time>"),
    (r"(?<![\w.-])-?\d[\d,]*\.\d+(e[+-]?\d+)?\b", "#.#"),
    (r"(?<=-)\d[\d,]*\.\d+(e[+-]?\d+)?(?=\))", "#.#"),
    (r"\b\d{1,3}(,\d{3})+\b", "#"),
    (r"\b\d+%", "#%"),
    (r" +#", " #"),
    (r"\b([co])-[0-9a-f]{10,12}\b", r"\1-<id>"),
)
CANCELLING = (r"! goat-1: ■ cancelling[^\n]*\n", "")  # told only if it takes a moment
STARTING = (
    r"! [\w-]+: ▶ running: starting\n",
    "",
)  # told only if a look falls between a worker's start and its end
SECONDS = (r"\b\d+ s\b", "<seconds>")
PINS = (r"([A-Za-z0-9._-]+(\[[a-z0-9,-]+\])?==[^\n]+\n)+", "<pins>\n")
PAID = (r'("cost_(?:at_most_)?usd": )"[0-9.]+"', r'\1"<cost>"')


@dataclass(frozen=True)
class Scene:
    """How a command is shown.

    Attributes:
        words: Arguments after the command's own words.
        prepare: What happens before.
        code: Exit code.
        masks: Patterns of what is different every time, and what stands there instead.
        again: Words of the second time, for JSON, where the same may not be done twice.
    """

    words: Words = ()
    prepare: Prepare = lambda world: None
    code: int = 0
    masks: tuple[tuple[str, str], ...] = ()
    again: Words | None = None


def _bill(world: World) -> None:
    world_of.one_run_of_each_kind(world)
    (world.folder / "bill.csv").write_text(
        'BilledCost,ChargePeriodStart,Tags\n3,2026-11-01,"{""tuneplan-run"": ""gone""}"\n'
    )


def _measured_runs(world: World) -> None:
    (world.folder / "measured.csv").write_text("id,model,gpu\nx,meta-llama/Llama-3.1-8B,NoSuchGPU\n")


def _over(world: World) -> None:
    order_exit(world.orders, 0)
    world_of.a_running_one(world)
    world.plan("wait", "goat-1")


def _over_at_once(world: World) -> None:
    order_exit(world.orders, 0)


def _beat(world: World) -> None:
    world.plan("monitor", "run", "--once")


def _hired(world: World) -> None:
    world.plan("monitor", "machine", "up", "--yes")


class FarHost:
    """SkyPilot's part of the monitor's machine."""

    def __init__(self, folder: Path) -> None:
        self._here = folder / "far-host"

    def begin(self, *_: object) -> None:
        """It is there at once."""
        self._here.touch()

    def end(self) -> None:
        """It is gone at once."""
        self._here.unlink(missing_ok=True)

    def look(self) -> Host:
        return Host("up", "aws/us-east-1") if self._here.exists() else Host("absent", "")

    def lines(self, *_: object) -> Iterator[str]:
        return iter(["no monitor of its own", "tuneplan-stdout", "no runs", "tuneplan-exit 0"])


def _budget(world: World) -> None:
    world_of.one_run_of_each_kind(world)
    world.plan("budget", "set", "default", "10usd")


def _stop_soon(world: World) -> None:
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()


LOCAL = ("goat/spec.yaml", "--infra", "local", "--run-id", "goat-1", "--yes")
RUNS = world_of.one_run_of_each_kind
STORE = ("{store}",)
SCENES: dict[str, Scene] = {
    "init": Scene(("new.yaml", "--yes")),
    "estimate": Scene(("spec.yaml", "--limit", "1"), masks=ESTIMATED),
    "compare": Scene(("spec.yaml", "goat/spec.yaml"), masks=ESTIMATED),
    "diff": Scene(("spec.yaml", "longer.yaml"), world_of.a_longer_spec, masks=ESTIMATED),
    "config show": Scene(("--origin",), masks=((r" {2,}(?=\S)", "  "), (r"localhost:\d+", "localhost:<port>"))),
    "simulate": Scene(("spec.yaml", "--jobs", "20"), masks=ESTIMATED),
    "launch": Scene((*LOCAL, "--cap", "3usd"), masks=(*ESTIMATED, TIMES,)),
    "resume": Scene(
        ("goat-1", "--yes"), world_of.two_preempted_ones, masks=(TIMES, SECONDS, PAID), again=("goat-2", "--yes")
    ),
    "find": Scene(("spec.yaml", "--limit", "2", "--offline"), masks=ESTIMATED),
    "runs": Scene((), RUNS),
    "runs adopt": Scene(
        ("{lost-1}", "--yes"), world_of.a_lost_ledger, masks=(TIMES, PAID), again=("{lost-2}", "--yes")
    ),
    "deadline": Scene(("spec.yaml", "--within", "3d", "--jobs", "20"), masks=ESTIMATED),
    "why": Scene(("run-1",), world_of.a_moving_run, masks=ESTIMATED),
    "evaluate": Scene(("goat/spec.yaml", "--base")),
    "status": Scene(("over-1",), RUNS),
    "logs": Scene(("goat-1",), _over),
    "watch": Scene(("over-1",), RUNS),
    "monitor container": Scene(),
    "monitor machine down": Scene(("--yes",), _hired, masks=(TIMES,)),
    "monitor machine run": Scene(("--", "status"), _hired),
    "monitor machine show": Scene((), _hired, masks=(TIMES,)),
    "monitor machine up": Scene(("--yes",), masks=(TIMES,)),
    "monitor run": Scene(("--once",)),
    "monitor show": Scene((), _beat, masks=((r"monitor \d+", "monitor <pid>"), (r'"pid": \d+', '"pid": <pid>'),
                                           (r"host/\d+", "host/<pid>"))),
    "monitor unit": Scene(),
    "notify list": Scene((), world_of.a_message_that_nobody_took),
    "notify send": Scene((), world_of.a_message_that_nobody_took),
    "notify test": Scene(("CHAT_URL",), code=4, masks=(TIMES,)),
    "wait": Scene(("broken-1",), RUNS, code=10),
    "cancel": Scene(("goat-1",), world_of.a_running_one, masks=(TIMES, SECONDS, PAID, CANCELLING)),
    "report": Scene(("goat-1",), world_of.a_finished_run, masks=ESTIMATED),
    "data fetch": Scene(("data.yaml",)),
    "data inspect": Scene(("rows.jsonl",)),
    "probe": Scene(
        ("goat/spec.yaml", "--cap", "1usd", "--yes"),
        _over_at_once,
        masks=(*ESTIMATED, STARTING, (r"tiny-goat-probe-\w+", "<run>")),
    ),
    "accuracy": Scene((), world_of.a_finished_run, masks=ESTIMATED),
    "calibrate": Scene((), world_of.a_finished_run, masks=ESTIMATED),
    "checkpoints gc": Scene((*STORE, "--yes"), world_of.checkpoints, masks=(TIMES,)),
    "checkpoints ls": Scene(STORE, world_of.checkpoints, masks=(TIMES,)),
    "checkpoints show": Scene((*STORE, "--step", "10"), world_of.checkpoints, masks=(TIMES,)),
    "checkpoints verify": Scene(STORE, world_of.checkpoints, masks=(TIMES,)),
    "pull": Scene((*STORE, "--to", "model"), world_of.checkpoints, masks=(TIMES,), again=(*STORE, "--to", "again")),
    "reserve advise": Scene((*INHOUSE, "--late-cost", "500usd"), masks=ESTIMATED),
    "reserve buy": Scene((*INHOUSE, "--name", "mine", "--no-launch"), masks=ESTIMATED),
    "reserve cancel": Scene(
        ("later", "--yes"), world_of.two_standing_orders, again=("later-2", "--yes"), masks=ESTIMATED
    ),
    "reserve list": Scene((), world_of.a_standing_order, masks=ESTIMATED),
    "reserve offers": Scene(INHOUSE, masks=ESTIMATED),
    "reserve schedule": Scene(
        (*INHOUSE, "--cap", "900", "--confirm-usd", "900", "--name", "later"),
        again=(*INHOUSE, "--cap", "900", "--confirm-usd", "900", "--name", "later-2"), masks=ESTIMATED),
    "reserve settle": Scene(
        ("later", "--not-bought"), world_of.two_unclear_purchases, again=("later-2", "--not-bought"), masks=ESTIMATED),
    "reserve show": Scene(("mine",), world_of.a_reservation, masks=ESTIMATED),
    "schedule add": Scene(
        (*SCHEDULE[2:], "--name", "monthly", "--yes"), again=(*SCHEDULE[2:], "--name", "again", "--yes")
    ),
    "schedule history": Scene(("monthly",), world_of.a_schedule),
    "schedule list": Scene((), world_of.a_schedule),
    "schedule pause": Scene(("monthly",), world_of.a_schedule),
    "schedule resume": Scene(("monthly",), world_of.a_schedule),
    "schedule rm": Scene(("monthly", "--yes"), world_of.two_schedules, again=("again", "--yes")),
    "schedule run-now": Scene(("monthly", "--yes"), world_of.two_schedules, again=("again", "--yes")),
    "scheduler containerfile": Scene(),
    "scheduler run": Scene((), _stop_soon),
    "scheduler status": Scene((), world_of.a_schedule, code=9),
    "scheduler tick": Scene((), world_of.a_schedule),
    "scheduler unit": Scene(),
    "worker containerfile": Scene(("spec.yaml",), masks=(PINS,)),
    "costs": Scene((), RUNS),
    "costs reconcile": Scene(("bill.csv",), _bill, code=1),
    "budget set": Scene(("default", "10usd")),
    "budget show": Scene((), _budget),
    "offers": Scene(("--limit", "3")),
    "prices import": Scene(("v8", "--as-of", "2026-11-20")),
    "prices refresh": Scene((), code=1),
    "prices show": Scene(),
    "prices update": Scene(),
    "backtest": Scene(("measured.csv",), _measured_runs),
    "export": Scene(("spec.yaml", "--to", "axolotl")),
    "doctor": Scene((), code=4),
    "purge": Scene(("--yes",), world_of.files_of_a_run),
    "reap": Scene(("--source", "local", "--dry-run", "--older-than", "1s"), world_of.a_lost_ledger, masks=(TIMES,)),
    "completion": Scene(("bash",)),
    "schema": Scene(("error",)),
}  # fmt: skip
COMMANDS = {" ".join(words): command for words, command in leaves()}


@pytest.fixture
def world(tmp_path: Path, plan_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = world_in(tmp_path, plan_home, monkeypatch)
    yield made
    order_exit(made.orders, 0)
    made.end_real_workers()


@pytest.fixture
def sellers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Prices and data to fetch, from this machine."""
    monkeypatch.setattr("providers.web._WAITS_S", ())
    monkeypatch.setattr("providers.download._WAITS_S", ())
    with ExitStack() as hosts:
        files, hub = hosts.enter_context(file_host()), hosts.enter_context(hub_host())
        here = tuple(replace(source, url=f"{files.url}/{source.name}") for source in live_sources.SOURCES)
        monkeypatch.setattr(live_sources, "SOURCES", here)
        files.files |= {"/aws-spot": FEED.encode(), "/aws/vms.csv": world_of.CATALOG.encode()}
        files.posts["/vast"] = json.dumps({"offers": [BUNDLE]}).encode()
        hub.models["lab/sums"] = HostedModel({"data/train-0.jsonl": b'{"text": "one and one is two"}\n'})
        monkeypatch.setenv("PRICES", files.url)
        monkeypatch.delenv("HF_HUB_OFFLINE")
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        Path("data.yaml").write_text("name: x\nmodel: llama-3.2-1b\ndata: {train: lab/sums}\n")
        yield


def closed(schema: Any) -> Any:
    """The schema, refusing every key that it does not describe: readers must take new keys, our answers have none."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not isinstance(
        schema.get("additionalProperties"), dict
    ):
        found["additionalProperties"] = False
    return found


def test_every_command_has_a_scene() -> None:
    assert set(SCENES) == set(COMMANDS)


def test_every_schema_is_of_an_answer_that_is_shown_here() -> None:
    folder = Path(__file__).parents[1] / "golden"
    shown = "".join(path.read_text(encoding="utf-8") for path in folder.glob("plan-*.txt"))
    # recorded markets, a trained model, a chat: tests/cli/test_simulate.py, test_export.py, test_notify.py
    replayed = {"simulate_replay", "export", "notify_test"}
    missing = {name for name in schema_names() if f'"schema": "tuneplan/{name}"' not in shown}
    assert missing <= {"spec", "error"} | replayed, "a schema without an answer in tests/golden"


@pytest.mark.parametrize("name", COMMANDS)
def test_golden(
    name: str,
    world: World,
    golden: Golden,
    sellers: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = SCENES[name]
    monkeypatch.setattr("planner.cli.doctor.examine", lambda *_: list(world_of.CHECKS))
    monkeypatch.setattr("planner.cli.monitor_machine._host", lambda: FarHost(world.folder))
    monkeypatch.setattr("planner.cli.monitor_machine._server", lambda: None)
    monkeypatch.setattr("planner.appraisal.appraise", lambda *_: world_of.MEASURED)
    parts = [block(world, name, ("--help",), world.plan(*name.split(), "--help"))]
    scene.prepare(world)
    words = (*name.split(), *_placed(scene.words, world), *_late_words(name, world))
    # a finished model, of which export has a document, takes a training: tests/cli/test_export.py
    has_document = name != "export" and any(option.name == "output" for option in COMMANDS[name].params)
    parts.append(block(world, name, words, world.plan(*words, code=scene.code), scene.masks))
    if has_document:
        if scene.again is not None:
            words = (*name.split(), *_placed(scene.again, world))
        answer = world.plan(*words, "-o", "json", code=scene.code)
        document = json.loads(answer.stdout)
        validate(document)
        assert YAML(typ="safe", pure=True).load(rendered(document, "yaml")) == document
        assert "\n| " in rendered(document, "md")
        parts.append(block(world, name, (*words, "-o", "json"), answer, scene.masks))
    golden(f"plan-{name.replace(' ', '-')}", "\n".join(parts))


def _placed(words: Words, world: World) -> Words:
    lost = world.home / "state" / "checkpoints"
    places = {
        "{store}": (world.folder / "store").as_uri(),
        "{lost-1}": (lost / "goat-1").as_uri(),
        "{lost-2}": (lost / "goat-2").as_uri(),
    }
    return tuple(places.get(word, word) for word in words)


def _late_words(name: str, world: World) -> Words:
    """Words that are known only now."""
    if name == "reserve buy":
        return ("--offer", world_of.offer_id(world), *world_of.agreed(world))
    return ("--url", os.environ["PRICES"]) if name == "prices update" else ()


def validate(document: dict[str, Any]) -> None:
    """The document is what its schema says, with not a key more."""
    schema = closed(deepcopy(json.loads(schema_text(document["schema"].removeprefix("tuneplan/")))))
    validator = jsonschema.Draft7Validator(schema, format_checker=jsonschema.FormatChecker())
    wrong = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]
    assert not wrong, "\n".join(wrong)


def block(
    world: World, name: str, words: Words, result: Result, masks: tuple[tuple[str, str], ...] = ()
) -> str:
    """One call as a terminal shows it: the answer, then what went to stderr."""
    said = "".join(f"! {line}\n" for line in result.stderr.splitlines())
    line = f"plan {name} --help" if words == ("--help",) else " ".join(("plan", *words))
    text = f"$ {line}\n{result.stdout}{said}exit {result.exit_code}\n"
    return "\n".join(row.rstrip() for row in world.shown(text, masks).split("\n"))


def test_closed_schemas_refuse_what_they_do_not_describe() -> None:
    schema = {
        "properties": {"a": {"properties": {"b": {}}}, "c": {"additionalProperties": {"type": "string"}}}
    }
    jsonschema.validate({"a": {"b": 1}, "c": {"x": "y"}}, closed(schema))
    for wrong in ({"d": 1}, {"a": {"d": 1}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, closed(schema))
