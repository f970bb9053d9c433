import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from planner.cli.completion import VARIABLE
from planner.cli.main import COMMANDS, cli
from planner.config import directories
from planner.places import Places
from planner.store import Store
from tests.planner.run_factories import attempt_of, terms_of

RunPlan = Callable[..., Result]


def completed(*words: str) -> list[str]:
    """What bash is offered for the last word."""
    env = {VARIABLE: "bash_complete", "COMP_WORDS": " ".join(("plan", *words)), "COMP_CWORD": str(len(words))}
    result = CliRunner(mix_stderr=False).invoke(cli, [], env=env, prog_name="plan")
    assert (result.exit_code, result.stderr) == (0, "")
    return [line.removeprefix("plain,") for line in result.stdout.splitlines() if line]


def test_commands_are_completed_without_importing_them() -> None:
    assert completed("es") == ["estimate"]
    assert set(COMMANDS) <= set(completed(""))
    assert completed("xyz") == []


def test_options_and_choices_are_completed() -> None:
    assert {"--gpu", "--plot", "--explain", "--why"} <= set(completed("estimate", "--"))
    assert completed("estimate", "--market", "s") == ["spot"]
    assert completed("completion", "z") == ["zsh"]


@pytest.mark.parametrize("words", [("estimate", "x.yaml", "--gpu", "h1"), ("offers", "--gpu", "H1")])
def test_gpus_are_completed_in_any_case(words: tuple[str, ...]) -> None:
    found = completed(*words)
    assert "H100" in found and all(name.startswith("H1") for name in found)


@pytest.mark.parametrize("command", ["status", "logs", "wait", "cancel", "resume", "report"])
def test_runs_are_completed(command: str) -> None:
    with Store(Places(directories().state).ledger) as store:
        store.create("goat-1", terms_of(), attempt_of())
        store.create("llama-1", terms_of(), attempt_of())
    assert completed(command, "go") == ["goat-1"]
    assert set(completed(command, "")) == {"goat-1", "llama-1"}


def test_completing_creates_and_repairs_nothing() -> None:
    state = directories().state
    assert completed("status", "") == []
    assert not state.exists()
    state.mkdir(parents=True)
    Places(state).ledger.write_bytes(b"damaged" * 200)
    assert completed("status", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_name_the_program_and_its_variable(run_plan: RunPlan, shell: str) -> None:
    result = run_plan("completion", shell)
    assert result.exit_code == 0
    assert VARIABLE in result.stdout and f"{shell}_complete" in result.stdout and "plan" in result.stdout


def test_bash_takes_the_script(run_plan: RunPlan, tmp_path: Path) -> None:
    script = tmp_path / "plan.bash"
    script.write_text(run_plan("completion", "bash").stdout)
    done = subprocess.run(
        ["bash", "--norc", "-c", f"source {script} && complete -p plan"],
        capture_output=True, text=True, env={"PATH": os.environ["PATH"]}, check=True,
    )  # fmt: skip
    assert "_plan_completion" in done.stdout


def test_another_shell_is_a_usage_error(run_plan: RunPlan) -> None:
    assert run_plan("completion", "csh").exit_code == 2
