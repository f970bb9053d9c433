"""`plan worker`: an image with everything that a job's workers need, so that no machine installs it while it costs."""

from __future__ import annotations

from pathlib import Path

import click

from planner.cli.context import App, pass_app

_CONTAINERFILE = """\
# An image for the workers of jobs like {name}. Build and push it, then name it in the spec:
#   environment: {{image: registry.example.com/tuneplan-worker}}
FROM python:{python}-slim
RUN apt-get update && apt-get install -y --no-install-recommends \\
    ca-certificates curl git openssh-server patch rsync sudo && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/tuneplan
COPY <<"REQUIREMENTS" requirements.txt
{requirements}
REQUIREMENTS
COPY <<"CONSTRAINTS" constraints.txt
{constraints}
CONSTRAINTS
COPY <<"INSTALL" install.sh
{install}
INSTALL
RUN TUNEPLAN_TORCH={torch} TUNEPLAN_IMAGE_ENV=/none sh install.sh {words} && rm -rf ~/.cache
"""


@click.group(
    "worker",
    epilog="\b\nExample:\n  plan worker containerfile spec.yaml > Containerfile",
    short_help="An image with all that a job's workers need",
)
def command() -> None:
    """An image with all that a job's workers need."""


@command.command(
    "containerfile",
    epilog="\b\nExample:\n  plan worker containerfile spec.yaml | podman build -t tuneplan-worker -f - .",
)
@click.argument("spec_file", metavar="SPEC", type=click.Path(path_type=Path))
@click.option(
    "--torch", default="default", show_default=True, metavar="BUILD",
    help="Build of torch as uv names them (cu130, rocm7.0, cpu); default is the index's own, which is for CUDA.",
)  # fmt: skip
@pass_app
def containerfile(app: App, spec_file: Path, torch: str) -> None:
    """Print a container file; a worker started from its image installs nothing.

    It holds the packages that SPEC needs, in the versions that this release was tested with. A worker whose
    requirements are others installs them as if there were no image.
    """
    import shlex

    from planner.bundle import install_script, pinned_versions, spec_extras, worker_requirements
    from planner.rented import install_words
    from planner.specfile import load_spec

    spec = load_spec(spec_file).spec
    words = install_words(spec)
    click.echo(
        _CONTAINERFILE.format(
            name=spec.name,
            python=words[0],
            requirements="\n".join(worker_requirements(spec_extras(spec))),
            constraints=pinned_versions().rstrip("\n"),
            install=install_script().rstrip("\n"),
            torch=shlex.quote(torch),
            words=shlex.join(words),
        ),
        nl=False,
    )
