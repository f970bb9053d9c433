"""Holds every attempt of a run to the data that its first one trained on.

Rented runs fetch theirs by hash (`jobs.inputs`). Files of the same machine are read where they are, and another file
under the same name would make one model of two data sets, compared with a base on other rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from jobs.attempt import Attempt
from jobs.data_files import data_sha256
from providers.errors import CorruptDataError, UsageError

KEY = "data.json"


def pin_data(attempt: Attempt, hashes: Mapping[str, str]) -> None:
    """Write down what the data is, or make sure that it is what an earlier attempt wrote down.

    Every process of the training must call this.

    Args:
        attempt: With the job that names the files.
        hashes: sha256 of the data as it was read, by use.

    Raises:
        UsageError: A file has changed since.
        CorruptDataError: What the earlier attempt wrote down is damaged.
        Stopped: The store stayed away.
    """
    guard = attempt.job.evaluate.guard
    own = dict(hashes)
    if guard is not None:
        own["guard"] = data_sha256(attempt.base / guard.data)
    began = attempt.group.share(attempt.insist(lambda: _pinned(attempt, own)) if attempt.group.leads else own)
    data = attempt.job.data
    names = {"train": data.train, "eval": data.eval, "guard": None if guard is None else guard.data}
    for use, digest in own.items():
        if began.get(use, digest) != digest:
            raise UsageError(
                f"the {use} data {names[use]} is not what this run began with",
                hint="put back what it was, or launch a new run on what it is now; committed checkpoints stand",
                code="data_changed",
                path=names[use],
            )


def _pinned(attempt: Attempt, own: dict[str, str]) -> dict[str, str]:
    body = json.dumps(own, indent=1, sort_keys=True).encode()
    if attempt.store.put_if_absent(KEY, body):
        return own
    found = attempt.store.get(KEY)
    try:
        began = json.loads(body if found is None else found[0])
        return {str(use): str(digest) for use, digest in began.items()}
    except (ValueError, AttributeError) as error:
        raise CorruptDataError(f"{KEY} is damaged: {error}", path=KEY) from error
