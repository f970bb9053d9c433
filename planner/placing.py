"""Gives errors about a spec's contents their line in the spec's file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from planner.errors import Finding, SpecError
from planner.specfile import LoadedSpec
from providers.errors import UsageError


@contextmanager
def placed_in(loaded: LoadedSpec) -> Iterator[None]:
    """Within it, errors that name a key of the spec are raised as findings with file, line and column.

    Raises:
        SpecError: Instead of a UsageError whose path is a key of the spec, or of findings without a place.
    """
    sections = tuple(type(loaded.spec).model_fields)
    try:
        yield
    except SpecError as error:
        if all(finding.file is None for finding in error.findings):
            loaded.refuse(error.findings)
        raise
    except UsageError as error:
        if error.path is not None and error.path.partition(".")[0] in sections:
            loaded.refuse([Finding(error.message, path=error.path, code=error.code, hint=error.hint)])
        raise
