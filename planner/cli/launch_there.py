"""`plan launch --monitor remote`: what was agreed to here is launched on the monitor's machine."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from planner.cli.output import echo_err
from planner.monitor_machine import PRICES
from planner.plan import save_plan
from planner.pricebook import cached_prices
from providers.errors import StorageError

if TYPE_CHECKING:
    from planner.cli.context import App
    from planner.plan import Plan
    from planner.proposal import Order

_PLAN_FILE = "plan.json"


def launch_there(app: App, order: Order, tolerance: str, store_uri: str | None, output: str) -> int:
    """Launch an order on the monitor's machine; the exit code of the launch there.

    Raises:
        UsageError: The machine is not there.
        StorageError: The files that go along cannot be copied.
    """
    from planner.cli.monitor_machine import answer_of

    with tempfile.TemporaryDirectory(prefix="plan-launch-") as name:
        staged = Path(name)
        stage(order.plan, staged, cached_prices(app.directories.cache))
        code = answer_of(app, words(order, tolerance, store_uri, output), staged, order.run_id)
    if code == 0:
        echo_err(f"it is watched there: `plan monitor machine run -- status {order.run_id}`")
    return code


def words(order: Order, tolerance: str, store_uri: str | None, output: str) -> tuple[str, ...]:
    """The launch in words of the command line, without anything left to be asked."""
    choices = order.choices
    cap = order.cap_micro_usd
    capped = ("--no-cap",) if cap is None else ("--cap", f"{cap / 1e6:.6f}")
    limit = () if choices.max_duration_s is None else ("--max-duration", f"{choices.max_duration_s:g}s")
    return (
        *("launch", _PLAN_FILE, "--infra", order.infra, "--candidate", order.candidate.candidate_id),
        *("--run-id", order.run_id, *capped, *limit, "--price-tolerance", tolerance, "--monitor", "service"),
        *(("--move",) if choices.move else ()),
        *(() if store_uri is None else ("--store", store_uri)),
        *("--yes", "-o", output),
    )


def stage(plan: Plan, directory: Path, prices: Path) -> None:
    """Write the plan, and the local files that lie beside its spec; others must be on the machine too.

    Args:
        plan: What is launched.
        directory: Of what goes along.
        prices: The file of the prices in use, if there is one.

    Raises:
        StorageError: One cannot be copied.
    """
    base = plan.base_dir.absolute()
    try:
        for path in _files(plan):
            if path.is_relative_to(base):
                target = directory / path.relative_to(base)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        if prices.is_file():
            shutil.copy2(prices, directory / PRICES)
    except OSError as error:
        raise StorageError(f"cannot copy {error.filename}: {error.strerror}") from error
    save_plan(plan._replace(base_dir=Path()), directory / _PLAN_FILE)


def _files(plan: Plan) -> Iterator[Path]:
    from planner.inputs import local_files
    from planner.job_document import document_without_machine

    yield from local_files(document_without_machine(plan.spec, plan.base_dir))
