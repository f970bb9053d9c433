from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
from click.testing import Result

import planner
from planner.cli import main as entry
from planner.cli.errors import document_format
from planner.cli.output import emit_json
from planner.errors import Finding, SpecError
from providers.errors import CleanupPendingError, CredentialsError, MissingExtraError, TuneplanError

RunPlan = Callable[..., Result]
PLAN = Path(sys.executable).with_name("plan")
ROBERTA = str(Path(__file__).parents[2] / "examples" / "roberta-sentiment.yaml")

HEAVY = (
    "sky",
    "torch",
    "transformers",
    "peft",
    "boto3",
    "botocore",
    "pandas",
    "apscheduler",
    "matplotlib",
    "datasets",
)
NOT_FOR_HELP = ("pydantic", "ruamel", "rich", "numpy", "platformdirs", "sqlite3")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException | None, bool], None]:
    """Install a command `fail` that raises an error, if asked after it has answered."""

    def install(error: BaseException | None, answered: bool = False) -> None:
        @click.command("fail")
        @click.option("-o", "--output", default="table")
        @click.option("--count", type=int)
        def command(output: str, count: int | None) -> None:
            if answered:
                emit_json("estimate", {"candidates": []})
            if error is not None:
                raise error

        module = type(sys)("planner.cli.fail")
        module.command = command  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "planner.cli.fail", module)
        monkeypatch.setitem(entry.COMMANDS, "fail", ("planner.cli.fail", "Fails"))

    return install


def schema(name: str) -> Any:
    return json.loads(files("planner").joinpath("schemas", f"{name}.json").read_text(encoding="utf-8"))


def loaded_modules(*args: str) -> set[str]:
    """Top-level modules that are loaded after a command ran in a process of its own."""
    script = textwrap.dedent(f"""
        import sys
        from planner.cli.main import cli
        try:
            cli.main({list(args)!r})
        except SystemExit as end:
            assert end.code == 0, end.code
        print("LOADED", *sorted({{name.partition(".")[0] for name in sys.modules}}))
    """)
    # without what measures coverage, which loads modules of its own
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return set(done.stdout.splitlines()[-1].removeprefix("LOADED ").split())


@pytest.mark.parametrize("args", [["--help"], ["-h"], [], ["--version"]])
def test_help_and_version_load_nothing_heavy(args: list[str]) -> None:
    loaded = loaded_modules(*args)
    assert "click" in loaded
    assert loaded.isdisjoint(HEAVY + NOT_FOR_HELP)


@pytest.mark.parametrize("args", [["schema", "spec"], ["init", "--help"], ["schema", "error"]])
def test_light_commands_load_nothing_heavy(args: list[str]) -> None:
    assert loaded_modules(*args).isdisjoint((*HEAVY, "numpy", "pydantic", "ruamel"))


def test_every_listed_command_exists_and_has_help(run_plan: RunPlan) -> None:
    overview = run_plan("--help").stdout
    assert len(entry.COMMANDS) >= 2
    for name, (module, text) in entry.COMMANDS.items():
        assert f"  {name} " in overview
        assert text in overview
        command = import_module(module).command
        assert command.name == name
        assert command.help
        assert run_plan(name, "-h").exit_code == 0


def test_version(run_plan: RunPlan) -> None:
    assert run_plan("--version").stdout == f"tuneplan {planner.__version__}\n"


def test_a_misspelt_command_gets_a_suggestion(run_plan: RunPlan) -> None:
    result = run_plan("shema")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == "error: No such command 'shema', did you mean schema?\nhint: see `plan --help`\n"


@pytest.mark.parametrize(
    ("error", "exit_code", "code"),
    [
        (TuneplanError("x"), 1, "internal"),
        (CredentialsError("no credentials", hint="log in"), 4, "credentials"),
        (CleanupPendingError("money may run", hint="plan reap"), 7, "cleanup_pending"),
        (MissingExtraError("launch", "launching"), 2, "missing_extra"),
        (click.UsageError("bad"), 2, "usage"),
        (click.Abort(), 130, "interrupted"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyError("oops"), 1, "internal"),
        (RecursionError("deep"), 1, "internal"),
    ],
)
def test_every_exception_has_its_exit_code_text_and_json(
    run_plan: RunPlan, failing: Callable[..., None], error: BaseException, exit_code: int, code: str
) -> None:
    failing(error)
    table = run_plan("fail")
    assert (table.exit_code, table.stdout) == (exit_code, "")
    assert table.stderr.startswith("error: ")
    assert "Traceback" not in table.stderr
    answer = run_plan("fail", "-o", "json")
    document = json.loads(answer.stdout)
    jsonschema.validate(document, schema("error"))
    assert (answer.exit_code, document["exit_code"], document["errors"][0]["code"]) == (
        exit_code,
        exit_code,
        code,
    )
    assert answer.stderr == table.stderr


def test_hints_follow_the_message(run_plan: RunPlan, failing: Callable[..., None]) -> None:
    failing(MissingExtraError("launch", "launching"))
    assert run_plan("fail").stderr.splitlines()[1] == "hint: pip install 'tuneplan[launch]'"


def test_findings_of_a_spec_are_all_shown(run_plan: RunPlan, failing: Callable[..., None]) -> None:
    found = Finding(
        "wrong", path="a.b", file="s.yaml", line=2, column=3, code="bad_value", hint="mend it", excerpt="   ^"
    )
    failing(SpecError([found, Finding("also wrong", file="s.yaml")]))
    result = run_plan("fail", "--output=json")
    assert result.stderr.splitlines() == [
        "s.yaml:2:3: a.b: wrong",
        "   ^",
        "hint: mend it",
        "s.yaml: also wrong",
    ]
    first, second = json.loads(result.stdout)["errors"]
    assert first == {
        "code": "bad_value", "message": "wrong", "file": "s.yaml", "line": 2, "column": 3, "path": "a.b",
        "hint": "mend it",
    }  # fmt: skip
    assert (second["line"], second["path"], second["hint"]) == (None, None, None)


def test_an_unexpected_error_is_one_line_and_a_traceback_only_on_demand(
    run_plan: RunPlan, failing: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(ValueError("two\nlines"))
    lines = run_plan("fail").stderr.splitlines()
    assert lines[0] == "error: internal error: ValueError: two lines"
    assert "PLAN_DEBUG=1" in lines[1]
    assert len(lines) == 2
    monkeypatch.setenv("PLAN_DEBUG", "1")
    assert "Traceback (most recent call last)" in run_plan("fail").stderr


def test_an_error_after_the_answer_leaves_stdout_one_object(
    run_plan: RunPlan, failing: Callable[..., None]
) -> None:
    failing(CredentialsError("later"), answered=True)
    result = run_plan("fail", "-o", "json")
    assert result.exit_code == 4
    assert json.loads(result.stdout)["schema"] == "tuneplan/estimate"
    assert result.stderr == "error: later\n"


def test_a_bad_option_value_is_a_usage_error_in_json_too(
    run_plan: RunPlan, failing: Callable[..., None]
) -> None:
    failing(None)
    result = run_plan("fail", "--count", "many", "-o", "json")
    assert result.exit_code == 2
    (error,) = json.loads(result.stdout)["errors"]
    assert "'many' is not a valid integer" in error["message"]
    assert error["hint"] == "see `plan fail --help`"


def test_two_answers_are_a_bug(run_plan: RunPlan, failing: Callable[..., None]) -> None:
    failing(None, answered=True)

    @click.command()
    def twice() -> None:
        emit_json("a", {})
        emit_json("b", {})

    sys.modules["planner.cli.fail"].command = twice  # type: ignore[attr-defined]
    result = run_plan("fail")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["schema"] == "tuneplan/a"


def test_the_head_of_an_answer() -> None:
    from planner.cli.output import document

    made = document("estimate", {"a": None}, now=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC))
    assert list(made) == ["schema", "schema_version", "tuneplan_version", "generated_at", "a"]
    assert made["generated_at"] == "2026-01-02T03:04:05Z"


@pytest.mark.parametrize(
    ("line", "wanted"),
    [("x -o json", "json"), ("x --output json y", "json"), ("x -ojson", "json"), ("x --output=json", "json"),
     ("x -o table", None), ("x json", None), ("x -- -o json", None), ("", None), ("x -o md", None),
     ("x -oyaml", "yaml"), ("x --output yaml", "yaml")],
)  # fmt: skip
def test_a_document_is_asked_for_by_option(line: str, wanted: str | None) -> None:
    assert document_format(line.split()) == wanted


def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    """Enough output to fill the pipe, into a reader that takes one line."""
    script = "from planner.cli import main, schema\n"
    script += "schema.schema_text = lambda name: 'x\\n' * 200000\nmain.main()"
    # Unbuffered, Python itself loses what a closed pipe did not take, without an error.
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    writer = subprocess.Popen(
        [sys.executable, "-c", script, "schema"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=buffered,
    )
    assert writer.stdout is not None
    assert writer.stderr is not None
    assert writer.stdout.readline() == "x\n"
    writer.stdout.close()
    assert writer.wait(timeout=60) == 141
    assert writer.stderr.read() == ""
    writer.stderr.close()


def test_a_small_answer_into_a_closed_pipe_is_quiet_too() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run([PLAN, "--help"], stdout=write_end, stderr=subprocess.PIPE, text=True)
    os.close(write_end)
    assert done.stderr == ""
    assert done.returncode == 141


def test_an_error_into_a_closed_pipe_is_quiet_too() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [PLAN, "estimate", "missing.yaml", "-o", "json"], stdout=write_end, stderr=subprocess.PIPE
    )
    os.close(write_end)
    assert done.returncode == 141
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("estimate", ROBERTA), 1, "error: the answer cannot be written: No space left on device"),
        (("estimate", ROBERTA, "-o", "json"), 1, "error: the answer cannot be written"),
        (("--help",), 1, "error: the answer cannot be written"),
        (("estimate", "missing.yaml", "-o", "json"), 2, "missing.yaml: there is no such file"),
    ],
)
def test_an_answer_into_a_full_file_is_one_clear_error(words: tuple[str, ...], code: int, told: str) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full")
    with full.open("w") as stdout:
        done = subprocess.run([PLAN, *words], stdout=stdout, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.count("cannot be written")) == (code, 1)
    assert told in done.stderr and "this is a bug" not in done.stderr and "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no shell")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_a_closed_standard_stream_changes_no_exit_code(closed: str) -> None:
    for words, code in ((f"estimate {ROBERTA}", 0), ("estimate missing.yaml -o json", 2)):
        done = subprocess.run(
            ["sh", "-c", f"{PLAN} {words} {closed}"], capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr


def test_a_terminal_that_knows_only_ascii_gets_its_answer(tmp_path: Path) -> None:
    spec = tmp_path / "sp\u00e9c.yaml"
    spec.write_text("name: x\nmodel: \u00e9\nm\u00e9thode: lora\n", encoding="utf-8")
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([PLAN, "estimate", spec, "-o", "json"], capture_output=True, env=ascii_only)
    assert done.returncode == 2
    (error,) = json.loads(done.stdout.decode("ascii"))["errors"]
    assert error["path"] == "m\u00e9thode"
    assert subprocess.run([PLAN, "--help"], capture_output=True, env=ascii_only).returncode == 0


def test_control_c_ends_with_130() -> None:
    script = "import os, signal\nfrom planner.cli import main, schema\n"
    script += (
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background ignores it
    )
    script += "schema.schema_text = lambda name: os.kill(os.getpid(), signal.SIGINT)\nmain.main()"
    done = subprocess.run([sys.executable, "-c", script, "schema"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")
    assert signal.SIGINT == 2


def test_shell_completion_knows_the_commands() -> None:
    environment = os.environ | {
        "_PLAN_COMPLETE": "bash_complete",
        "COMP_WORDS": "plan schem",
        "COMP_CWORD": "1",
    }
    done = subprocess.run([PLAN], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "plain,schema\n"
