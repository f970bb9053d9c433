"""What the documentation says is true: its commands run, its links lead somewhere."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from planner.cli.main import COMMANDS, cli
from planner.specfile import load_spec
from tests.cli.golden_world import agreed, offer_id, world_in

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


def test_the_spec_of_the_readme_is_one_and_says_what_its_example_says(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = next(
        block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if block.startswith("name:")
    )
    (tmp_path / "spec.yaml").write_text(shown, encoding="utf-8")
    load_spec(tmp_path / "spec.yaml")
    yaml = YAML(typ="safe")
    example = yaml.load(ROOT / "examples/llama-3.1-8b-lora.yaml")
    for key, value in yaml.load(shown).items():
        whole = example[key]
        assert value == ({name: whole[name] for name in value} if isinstance(value, dict) else whole), key


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


def asked_for() -> list[str]:
    """Commands of the blocks that nobody can copy as they are: they name a spec, an offer or a date of one's own."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for kind, block in blocks if not kind for line in block.splitlines()]
    return [line.partition("  #")[0].strip() for line in lines if line.startswith("plan ")]


AGREEING = {
    "reserve buy": lambda world: ("--infra", "local", *agreed(world)),
    "reserve schedule": lambda world: ("--confirm-usd", "900", "--name", "later"),
    "schedule add": lambda world: ("--infra", "local", "--yes"),
}


def test_readme_commands_that_name_things_of_ones_own_work(
    tmp_path: Path, plan_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a company's own machines for sale; who is asked agrees."""
    world = world_in(tmp_path, plan_home, monkeypatch)
    ran = set()
    for line in asked_for():
        words = [offer_id(world) if word.startswith("o-") else word for word in shlex.split(line)[1:]]
        name = " ".join(words[:2])
        if name == "scheduler run":
            continue  # goes on for ever: tests/cli/test_golden.py stops it
        if name == "schedule add":  # which asks for a spec whose data is there
            words = ["goat/spec.yaml" if word == "spec.yaml" else word for word in words]
        where = ("--provider", "inhouse") if words[0] == "reserve" else ()
        world.plan(*words, *where, *AGREEING.get(name, lambda world: ())(world))
        ran.add(name)
    assert ran == {"reserve offers", "reserve advise", "reserve buy", "reserve schedule", "schedule add"}


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_with_an_example(name: str) -> None:
    result = CliRunner(mix_stderr=False).invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert f"plan {name}" in result.stdout.partition("Options:")[2] or "Example" in result.stdout


def test_every_command_that_a_message_names_is_there() -> None:
    named: dict[str, Path] = {}
    for package in ("planner", "jobs", "providers"):
        for path in (ROOT / package).rglob("*.py"):
            found = re.findall(r"`plan ([a-z]+)\b", path.read_text(encoding="utf-8"))
            named |= dict.fromkeys(found, path)
    assert len(named) > 20
    assert {name: str(path) for name, path in named.items() if name not in COMMANDS} == {}
