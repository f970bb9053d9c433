"""The JSON of the price commands and its schemas, held together."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

from planner.cli.main import cli
from planner.cli.schema import schema_text
from tests.file_host import file_host

ROWS = (
    "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region\n"
    "p5,H100,8,192,2048,,55,30,us-east-1\np6,B200,x,1,1,,1,1,us-east-1\n"
)


def answer(*words: str) -> dict:
    result = CliRunner(mix_stderr=False).invoke(cli, [*words, "-o", "json"])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def check(document: dict, name: str) -> None:
    schema = json.loads(schema_text(name))
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.Draft7Validator(schema).validate(document)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(schema).validate({**document, "schema": "tuneplan/other"})


@pytest.mark.parametrize(
    "words",
    [
        ("--limit", "0"),
        ("--group-by", "cloud"),
        ("--cloud", "mithril"),
        ("--cloud", "mithril", "--group-by", "gpu"),
        ("--gpu", "H100:8", "--cloud", "gcp"),
    ],
)
def test_offers(words: tuple[str, ...]):
    check(answer("offers", *words), "offers")


def test_show_import_and_update(tmp_path: Path):
    folder = tmp_path / "v8" / "aws"
    folder.mkdir(parents=True)
    (folder / "vms.csv").write_text(ROWS)
    check(answer("prices", "show"), "prices")
    check(answer("prices", "import", str(folder.parent), "--out", str(tmp_path / "out.csv")), "prices_import")
    with file_host() as host:
        host.files["/aws/vms.csv"] = ROWS.encode()
        check(answer("prices", "update", "--url", host.url), "prices_update")
        check(answer("prices", "update", "--url", host.url), "prices_update")
