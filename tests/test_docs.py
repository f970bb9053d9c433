"""What the documentation says is true: its commands run, its links lead somewhere."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from planner.cli.main import COMMANDS, cli

ROOT = Path(__file__).parents[1]
DOCS = sorted(ROOT.glob("*.md"))
LINK = re.compile(r"\[[^\]]*\]\(([^)#]+)\)")
NEEDS_A_RUN = {"launch", "status", "wait", "report", "runs", "resume"}


def commands() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ plan ")]


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere(doc: Path) -> None:
    targets = [t for t in LINK.findall(doc.read_text(encoding="utf-8")) if "://" not in t]
    missing = [target for target in targets if not (doc.parent / target).exists()]
    assert not missing


def test_readme_commands_were_found() -> None:
    assert len(commands()) >= 12


def test_readme_commands_that_need_no_run_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for line in commands():
        words = shlex.split(line)[1:]
        if words[0] in NEEDS_A_RUN:
            continue
        result = CliRunner(mix_stderr=False).invoke(cli, words)
        assert result.exit_code == 0, (line, result.stderr)


@pytest.mark.train
def test_readme_commands_of_a_run_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same words on a shorter training; the whole one has a test of its own, with what it must reach."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    spec = tmp_path / "examples/tiny-goat/spec.yaml"
    whole = spec.read_text(encoding="utf-8")
    assert "steps: 600" in whole
    spec.write_text(whole.replace("steps: 600", "steps: 20"), encoding="utf-8")
    for line in commands():
        words = shlex.split(line)[1:]
        if words[0] in NEEDS_A_RUN:
            result = CliRunner(mix_stderr=False).invoke(cli, words)
            assert result.exit_code == 0, (line, result.stderr)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_with_an_example(name: str) -> None:
    result = CliRunner(mix_stderr=False).invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert f"plan {name}" in result.stdout.partition("Options:")[2] or "Example" in result.stdout
