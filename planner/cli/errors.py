"""The one place where an exception becomes an exit code, text on stderr and, with `-o json`, an answer."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeGuard

import click

from planner.cli.output import document, echo_err, rendered
from planner.errors import Finding, SpecError
from providers.errors import TuneplanError

INTERRUPTED = 130
BROKEN_PIPE = 141  # what a shell shows for a process that SIGPIPE ended
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DOCUMENTS = ("json", "yaml")  # formats in which an error is an answer, too


def document_format(args: Sequence[str]) -> str | None:
    """`json` or `yaml` if the command line asks for that.

    Reads the raw words, because an error may come before parsing.

    >>> document_format(["estimate", "-o", "json"]), document_format(["estimate", "--output=table"])
    ('json', None)
    """
    words = list(args[: args.index("--")] if "--" in args else args)
    asked = [after for before, after in pairwise(words) if before in ("-o", "--output")]
    asked += [
        word.removeprefix(start) for word in words for start in ("--output=", "-o") if word.startswith(start)
    ]
    return next((form for form in _DOCUMENTS if form in asked), None)


def report(error: BaseException, args: Sequence[str], *, payload_written: bool) -> int:
    """Tell the person what went wrong and return the exit code.

    Args:
        error: What was raised.
        args: The command line without the program's name.
        payload_written: Stdout already holds its JSON object; then the error goes to stderr only.
    """
    exit_code, findings = _classify(error)
    _show(error, findings)
    form = document_format(args)
    if form is not None and not payload_written and not _is_unwritten(error):
        try:
            click.echo(rendered(error_document(exit_code, findings), form))
        except OSError as unwritten:
            if not _is_unwritten(unwritten):
                raise
            _show(unwritten, [_unwritten_finding(unwritten)])
    return exit_code


def error_document(exit_code: int, findings: Sequence[Finding]) -> dict[str, Any]:
    """The `tuneplan/error` document."""
    return document(
        "error", {"exit_code": exit_code, "errors": [_finding_json(finding) for finding in findings]}
    )


def _finding_json(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "message": finding.message,
        "file": finding.file,
        "line": finding.line,
        "column": finding.column,
        "path": finding.path or None,
        "hint": finding.hint,
    }


def _classify(error: BaseException) -> tuple[int, list[Finding]]:
    """Exit code and findings of any exception."""
    if isinstance(error, SpecError):
        return error.exit_code, error.findings
    if isinstance(error, TuneplanError):
        finding = Finding(error.message, path=error.path or "", code=error.code, hint=error.hint)
        return error.exit_code, [finding]
    if isinstance(error, click.ClickException):
        return 2, [_click_finding(error)]
    if isinstance(error, (click.Abort, KeyboardInterrupt, EOFError)):
        return INTERRUPTED, [Finding("interrupted", code="interrupted")]
    if _is_unwritten(error):
        return 1, [_unwritten_finding(error)]
    return 1, [_internal_finding(error)]


def _is_unwritten(error: BaseException) -> TypeGuard[OSError]:
    """Whether there is no room for what was being written, an answer on stdout most of all."""
    return isinstance(error, OSError) and error.errno in _NO_ROOM


def _unwritten_finding(error: OSError) -> Finding:
    what = "the answer" if error.filename is None else error.filename
    hint = "free some space, or write it elsewhere"
    return Finding(f"{what} cannot be written: {error.strerror}", code="disk_full", hint=hint)


def _click_finding(error: click.ClickException) -> Finding:
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f"see `{context.command_path} --help`" if context is not None else None
    return Finding(error.format_message().rstrip("."), code="usage", hint=hint)


def _internal_finding(error: BaseException) -> Finding:
    message = " ".join(f"{type(error).__name__}: {error}".split())
    hint = "this is a bug: please report it with the output of the same command under `PLAN_DEBUG=1`"
    return Finding(f"internal error: {message}", code="internal", hint=hint)


def _show(error: BaseException, findings: Sequence[Finding]) -> None:
    """Text on stderr, readable without colour."""
    if os.environ.get("PLAN_DEBUG") == "1" and not isinstance(error, (click.Abort, click.ClickException)):
        echo_err("".join(traceback.format_exception(error)).rstrip())
    for finding in findings:
        echo_err(str(finding) if finding.file is not None else f"error: {finding.message}")
        if finding.excerpt is not None:
            echo_err(finding.excerpt)
        if finding.hint is not None:
            echo_err(f"hint: {finding.hint}")


def silence_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush cannot fail once the reader has gone."""
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):
        return
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, descriptor)
    os.close(sink)
