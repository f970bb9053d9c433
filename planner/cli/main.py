"""The entry point: a group that knows its commands by name and imports only the one that runs."""

from __future__ import annotations

import difflib
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

import planner
from planner.cli import errors
from planner.cli.output import PAYLOAD_WRITTEN
from providers.errors import UsageError

# name -> (module whose `command` is run, short help), in the order of use. Help reads this table alone.
COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("planner.cli.init", "Write a commented spec.yaml"),
    "estimate": ("planner.cli.estimate", "Memory, time and cost of a spec on every offer, ranked"),
    "compare": ("planner.cli.compare", "Several specs or plans side by side"),
    "diff": ("planner.cli.diff", "What a change of a spec does to cost, time and memory"),
    "deadline": (
        "planner.cli.deadline",
        "From a release date backwards: latest start, cost, what to cut",
    ),
    "simulate": ("planner.cli.simulate", "Cost and finish of a spec, or of jobs on records, many times over"),
    "find": ("planner.cli.find", "Which machines of a plan can be had now"),
    "launch": ("planner.cli.launch", "Launch a plan or a spec"),
    "resume": ("planner.cli.resume", "Go on with a run from its last committed checkpoint"),
    "runs": ("planner.cli.runs", "List runs"),
    "status": ("planner.cli.status", "Show how a run is"),
    "why": ("planner.cli.why", "Why a run is where it is: the moving policy's decisions"),
    "logs": ("planner.cli.logs", "Print what a run's worker wrote"),
    "watch": ("planner.cli.watch", "Watch a run while it goes on"),
    "monitor": ("planner.cli.monitor", "Watch all runs in one process and restart them"),
    "notify": ("planner.cli.notify", "Send and look at messages on how runs go"),
    "wait": ("planner.cli.wait", "Wait until a run is over"),
    "cancel": ("planner.cli.cancel", "Checkpoint a run and end it"),
    "report": ("planner.cli.report", "Estimate against actual, base against tuned"),
    "evaluate": ("planner.cli.evaluate", "Measure a base model, or a finished one on new data"),
    "data": ("planner.cli.data", "Look at training data: tokens, duplicates, leaks, broken lines"),
    "probe": ("planner.cli.probe", "Run some real steps, measure, and estimate again"),
    "accuracy": ("planner.cli.accuracy", "Error and coverage of the estimates on your own runs"),
    "calibrate": ("planner.cli.calibrate", "What your finished runs change about estimates"),
    "checkpoints": ("planner.cli.checkpoints", "Look at, verify and tidy up what a run has committed"),
    "pull": ("planner.cli.pull", "Download a finished model or a checkpoint, verified"),
    "reserve": ("planner.cli.reserve", "Find, buy and watch capacity for a time to come"),
    "schedule": ("planner.cli.schedule", "Runs that start by themselves, once or again and again"),
    "scheduler": ("planner.cli.scheduler", "Buy and start what is due: as a service, or one turn"),
    "costs": ("planner.cli.costs", "What runs have cost, by run, project, owner or month"),
    "budget": ("planner.cli.budget", "What a project may spend, over everybody's runs"),
    "worker": ("planner.cli.worker", "An image with all that a job's workers need"),
    "offers": ("planner.cli.offers", "List machines with GPUs and their prices"),
    "prices": ("planner.cli.prices", "Show the prices in use, fetch newer ones, import your own"),
    "backtest": ("planner.cli.backtest", "Predict published runs, to see how good the estimates are"),
    "export": (
        "planner.cli.export",
        "Hand a finished model over, with its card",
    ),
    "config": ("planner.cli.config", "Which settings are in force, and where each comes from"),
    "doctor": ("planner.cli.doctor", "Check this installation: what is missing and how to get it"),
    "reap": ("planner.cli.reap", "Find and end machines and leftovers that no run needs"),
    "purge": ("planner.cli.purge", "Give back disk space of runs that are over"),
    "completion": ("planner.cli.completion", "Print the script that makes a shell complete `plan`"),
    "schema": ("planner.cli.schema", "Print the JSON Schema of the spec or of an answer"),
}


#: Modules that runs are started and watched with; Windows has none of them.
_POSIX_ONLY = frozenset({"fcntl", "pwd", "resource", "termios"})


class LazyGroup(click.Group):
    """Commands of the table, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command, None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        try:
            command: click.Command = import_module(COMMANDS[cmd_name][0]).command
        except ModuleNotFoundError as error:
            if error.name not in _POSIX_ONLY:
                raise
            raise UsageError(
                f"plan {cmd_name} needs Linux, macOS or WSL",
                hint="estimate, offers, prices and schema run here",
                code="platform",
            ) from error
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but a misspelt name gets a suggestion."""
        name = args[0]
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        if name not in COMMANDS and close and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"No such command '{name}', did you mean {close[0]}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table, without importing a command."""
        if COMMANDS:
            with formatter.section("Commands"):
                formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names from the table, without importing a command."""
        names = [
            CompletionItem(name, help=text)
            for name, (_, text) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> Any:
        """Run and end the process with the documented exit code; never shows a traceback unasked."""
        if "_PLAN_COMPLETE" in os.environ:
            return super().main(args, prog_name=prog_name, **extra)
        words = list(sys.argv[1:] if args is None else args)
        extra.pop("standalone_mode", None)
        exit_code = 0
        try:
            exit_code = self._run(words, prog_name or "plan", extra)
            sys.stdout.flush()
        except BrokenPipeError:
            errors.silence_stdout()
            exit_code = errors.BROKEN_PIPE
        except (
            OSError
        ) as error:  # what was left of the answer; a failure that was told already is not told again
            errors.silence_stdout()
            exit_code = exit_code or errors.report(error, (), payload_written=True)
        sys.exit(exit_code)

    def _run(self, words: list[str], prog_name: str, extra: dict[str, Any]) -> int:
        """Run the command line and give its exit code; lets only a broken pipe through."""
        meta: dict[str, Any] = {}
        try:
            with self.make_context(prog_name, list(words), **extra) as context:
                meta = context.meta
                self.invoke(context)
        except click.exceptions.Exit as end:
            return end.exit_code
        except BrokenPipeError:
            raise
        except (Exception, KeyboardInterrupt) as error:
            return errors.report(error, words, payload_written=bool(meta.get(PAYLOAD_WRITTEN)))
        return 0


@click.group(
    "plan",
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Answers go to stdout, everything else to stderr. Exit codes: 0 ok, 2 usage or spec, "
    "3 nothing fits, 4 credentials, 5 over budget, 6 launch failed, 7 clean-up pending, 8 cap reached, "
    "9 policy, 10 run failed, 11 cancelled, 12 quality, 130 interrupted, 1 anything else.",
)
@click.version_option(planner.__version__, prog_name="tuneplan", message="%(prog)s %(version)s")
def cli() -> None:
    """Plan, price and run LLM fine-tuning on rented GPUs, from one spec.yaml."""


def _open_standard_streams() -> None:
    """Of a process that was started without some of them (`>&-`), which Python then has as None."""
    nothing = Path(os.devnull)
    sys.stdin = sys.stdin or nothing.open(encoding="utf-8")
    sys.stdout = sys.stdout or nothing.open("w", encoding="utf-8")
    sys.stderr = sys.stderr or nothing.open("w", encoding="utf-8")


def main() -> None:
    """Run the command line of this process."""
    # Else pydantic reads the metadata of every installed distribution, to hand our models to its plugins.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    _open_standard_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="replace"
        )  # a terminal that knows fewer characters still gets its answer
    cli.main()
