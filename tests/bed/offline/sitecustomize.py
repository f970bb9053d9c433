"""Loaded at start-up by the bed's SkyPilot API server and its children, by nobody else.

SkyPilot's jobs controller polls nothing until a public address answers, which never happens on a machine without
internet; and it polls every 15 s, which would make each recovery half a minute longer; each poll costs a second of
CPU. After a stock-out everywhere it waits a minute. Each question after its jobs is answered by a Python of its own,
which imports SkyPilot first; here the server reads the same table itself.
"""

import importlib.abc
import importlib.machinery
import sys

POLL_S = 4.0
RETRY_S = 10


async def _reachable():
    return None


def _no_network_probe(module):
    module.async_check_network_connection = _reachable
    module.check_network_connection = lambda: None


def _short_gaps(module):
    module.JOB_STATUS_CHECK_GAP_SECONDS = module.JOB_STARTED_STATUS_CHECK_GAP_SECONDS = POLL_S


def _one_controller(module):
    module.MAX_CONTROLLERS = 1


def _try_again_soon(module):
    module.StrategyExecutor.RETRY_INIT_GAP_SECONDS = RETRY_S


def _no_python_for_a_question(module):
    def fetch(self, *, handle, backend, **query):
        table = module.managed_job_utils.dump_managed_job_queue(**query)
        return module.managed_job_utils.load_managed_job_queue(table)

    module._DefaultManagedJobRunner.fetch_managed_job_table = fetch


PATCHES = {
    "sky.backends.backend_utils": _no_network_probe,
    "sky.jobs.recovery_strategy": _try_again_soon,
    "sky.jobs.server.core": _no_python_for_a_question,
    "sky.jobs.utils": _short_gaps,
    "sky.utils.controller_utils": _one_controller,
}


class _PatchAfterImport(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name not in PATCHES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        run = spec.loader.exec_module

        def run_and_patch(module):
            run(module)
            PATCHES[name](module)

        spec.loader.exec_module = run_and_patch
        return spec


sys.meta_path.insert(0, _PatchAfterImport())
