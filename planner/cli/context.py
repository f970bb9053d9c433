"""What a command gets from outside: directories, settings, the clock; the only place that builds adapters.

A command asks for it with `@pass_app`; a test passes its own:
`CliRunner().invoke(cli, args, obj=App(now=...))`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

import click

from planner.config import Config, Directories, directories, load_config


def _clock() -> datetime:
    return datetime.now(UTC)


@dataclass
class App:
    """Everything outside the core that commands share; nothing is built before it is used.

    Attributes:
        now: The clock, UTC.
        directories: Where configuration, state and cache live.
    """

    now: Callable[[], datetime] = _clock
    directories: Directories = field(default_factory=directories)

    @cached_property
    def config(self) -> Config:
        """The user's `config.yaml`, defaults if there is none.

        Raises:
            SpecError: If the file is wrong.
        """
        return load_config(self.directories.config_file)


pass_app = click.make_pass_decorator(App, ensure=True)
