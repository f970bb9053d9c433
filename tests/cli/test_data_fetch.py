"""`plan data fetch`, and what estimates and launches make of data that was fetched."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jsonschema
import pyarrow
import pyarrow.parquet
import pytest
from click.testing import Result

from planner.cli.schema import schema_text
from planner.data_cache import DataCache, DataPin, Wanted, changed_sources
from providers import data_files
from providers.data_files import Fetched, Source, fetch, version_of
from providers.errors import StorageError, UsageError
from providers.hub import HubAccess
from providers.hub_data import split_files
from tests.file_host import FileHost, file_host
from tests.hub_host import COMMIT, HostedModel, HubHost, hub_host
from tests.planner.factories import NOW
from tests.seaweed import Seaweed

Run = Callable[..., Result]
Changing = tuple[str, Callable[[bytes], object]]
GOAT = Path(__file__).parents[2] / "examples/tiny-goat"
TRAIN = b"".join(b'{"prompt": "%d + 1 =", "completion": "%d"}\n' % (n, n + 1) for n in range(50))
SHA = hashlib.sha256(TRAIN).hexdigest()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubHost]:
    with hub_host() as host:
        monkeypatch.delenv("HF_HUB_OFFLINE")
        monkeypatch.setenv("HF_ENDPOINT", host.url)
        monkeypatch.setenv("HF_TOKEN", host.token)
        host.models["lab/sums"] = HostedModel(
            {"README.md": b"", "data/train-0.jsonl": TRAIN[:-1], "dev.jsonl": TRAIN}
        )
        yield host


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text("name: x\nmodel: llama-3.2-1b\ndata: {train: lab/sums, eval: lab/sums}\n")
    return path


def test_a_data_set_is_fetched_counted_and_taken_by_its_content(hub: HubHost, run_plan: Run, spec: Path):
    missing = run_plan("estimate", spec)
    assert missing.exit_code == 2 and "amount of training data is unknown" in missing.stderr
    refused = run_plan("launch", spec, "--infra", "local", "--no-cap", "--dry-run")
    assert refused.exit_code == 2
    spec.write_text(spec.read_text().replace("eval: lab", "samples: 50, tokens_per_sample: 9, eval: lab"))
    refused = run_plan("launch", spec, "--infra", "local", "--no-cap", "--dry-run")
    assert "lab/sums is not on this machine" in refused.stderr and "plan data fetch" in refused.stderr
    fetched = run_plan("data", "fetch", spec, "-o", "json")
    assert fetched.exit_code == 0, fetched.stderr
    document = json.loads(fetched.stdout)
    jsonschema.Draft7Validator(json.loads(schema_text("data_fetch"))).validate(document)
    assert [(row["key"], row["version"]) for row in document["files"]] == [
        ("data.train", COMMIT),
        ("data.eval", COMMIT),
    ]
    assert [Path(row["path"]).stem for row in document["files"]] == [
        row["sha256"] for row in document["files"]
    ]
    spec.write_text(spec.read_text().replace("samples: 50, tokens_per_sample: 9, ", ""))
    asked = len(hub.requests)
    answer = json.loads(run_plan("estimate", spec, "-o", "json").stdout)
    examples = {row["name"]: row["value"] for row in answer["assumptions"]}["examples"]
    assert examples == 50 and len(hub.requests) == asked
    assert (
        "is not on this machine"
        not in run_plan("launch", spec, "--infra", "local", "--no-cap", "--dry-run").stderr
    )


def test_the_same_data_is_fetched_by_one_process_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("providers.download._WAITS_S", (0.0,))
    with file_host() as host, ThreadPoolExecutor(1) as other:
        host.files |= {"/a.jsonl": TRAIN, "/b.jsonl": TRAIN}
        source = Source("https", f"{host.url}/a.jsonl")
        first = other.submit(once_asked_stalling, host, source, tmp_path)
        assert host.stalled.wait(60)
        with pytest.raises(UsageError, match="another process is fetching"):
            fetch(source, tmp_path, HubAccess())
        assert fetch(Source("https", f"{host.url}/b.jsonl"), tmp_path, HubAccess()).sha256 == SHA
        host.release.set()
        assert first.result(60).sha256 == SHA
        assert fetch(source, tmp_path, HubAccess()).path.read_bytes() == TRAIN
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".jsonl", ".lock", ".lock"]


def once_asked_stalling(host: FileHost, source: Source, folder: Path) -> Fetched:
    """Fetches from a host whose answer stops in the middle."""
    host.trouble("/a.jsonl").stall_after = 100
    return fetch(source, folder, HubAccess())


def test_a_general_hold_out_may_be_somewhere_else_too(hub: HubHost, run_plan: Run, spec: Path):
    guard = "evaluate: {guard: {data: lab/sums, split: dev, at_most_worse: 0.1}}\n"
    spec.write_text(
        spec.read_text().replace("eval: lab", "samples: 50, tokens_per_sample: 9, eval: lab") + guard
    )
    refused = run_plan("launch", spec, "--infra", "local", "--no-cap", "--dry-run")
    assert "evaluate.guard.data" in refused.stderr and "plan data fetch" in refused.stderr
    fetched = run_plan("data", "fetch", spec, "-o", "json")
    assert fetched.exit_code == 0, fetched.stderr
    document = json.loads(fetched.stdout)
    jsonschema.Draft7Validator(json.loads(schema_text("data_fetch"))).validate(document)
    assert [row["key"] for row in document["files"]] == ["data.train", "data.eval", "evaluate.guard.data"]
    assert f"evaluate.guard.sha256: {SHA}" in run_plan("data", "fetch", spec).stdout
    launched = run_plan("launch", spec, "--infra", "local", "--no-cap", "--dry-run")
    assert "is not on this machine" not in launched.stderr
    pinned = spec.read_text().replace("split: dev,", f"split: dev, sha256: {'0' * 64},")
    spec.write_text(pinned)
    changed = run_plan("data", "fetch", spec)
    assert changed.exit_code == 1 and "has other content than pinned" in changed.stderr


def test_content_is_pinned_by_its_hash(hub: HubHost, run_plan: Run, spec: Path, plan_home: Path):
    spec.write_text(spec.read_text().replace("eval: lab/sums", f"split: dev, sha256: {SHA}"))
    assert f"data.sha256: {SHA}" in run_plan("data", "fetch", spec).stdout
    hub.models["lab/sums"].files["dev.jsonl"] = b"{}\n"
    changed = run_plan("data", "fetch", spec)
    assert changed.exit_code == 1 and "has other content than pinned" in changed.stderr
    assert run_plan("estimate", spec).exit_code == 0  # what was pinned is still here
    (plan_home / "cache" / "data" / f"{SHA}.jsonl").write_bytes(b"")
    assert run_plan("estimate", spec).exit_code == 2  # damaged is as good as gone


def test_a_local_file_is_held_to_its_pin_too(run_plan: Run, tmp_path: Path):
    (tmp_path / "t.jsonl").write_bytes(TRAIN)
    spec = tmp_path / "spec.yaml"
    spec.write_text(f"name: x\nmodel: llama-3.2-1b\ndata: {{train: t.jsonl, sha256: {SHA}}}\n")
    words = ("launch", spec, "--infra", "local", "--no-cap", "--dry-run")
    assert "other content than pinned" not in run_plan(*words).stderr
    (tmp_path / "t.jsonl").write_bytes(TRAIN + TRAIN)
    assert "other content than pinned" in run_plan(*words).stderr
    spec.write_text(spec.read_text().replace(SHA, "abc"))
    assert "64 lower-case hexadecimal digits" in run_plan("estimate", spec).stderr


def test_machines_outside_the_datas_regions_are_left_out(run_plan: Run, tmp_path: Path):
    spec = tmp_path / "spec.yaml"
    data = "{samples: 1000, tokens_per_sample: 100, regions: [eu-west-1, francecentral]}"
    spec.write_text(f"name: x\nmodel: llama-3.2-1b\ndata: {data}\n")
    document = json.loads(run_plan("estimate", spec, "-o", "json").stdout)
    assert {row["offer"]["region"] for row in document["candidates"]} <= {"eu-west-1", "francecentral"}
    assert "not in data.regions" in {row["reason"] for row in document["rejected"]}
    spec.write_text(spec.read_text().replace("eu-west-1, francecentral", "nowhere-1"))
    nothing = run_plan("estimate", spec, "-o", "json")
    assert nothing.exit_code == 3 and json.loads(nothing.stdout)["nearest_fits"] == []  # nothing loosens that


def test_https_is_fetched_whole_and_only_once_if_it_did_not_change(tmp_path: Path):
    with file_host() as host:
        host.files["/sums.jsonl"] = TRAIN
        found = fetch(Source("https", f"{host.url}/sums.jsonl"), tmp_path, HubAccess())
        assert (found.sha256, found.bytes, found.path.read_bytes()) == (SHA, len(TRAIN), TRAIN)
        with pytest.raises(UsageError, match="does not exist"):
            fetch(Source("https", f"{host.url}/gone.jsonl"), tmp_path, HubAccess())


SIGNED = "X-Amz-Signature=of-mine"


@pytest.mark.parametrize("trouble", ["absent", "forbidden", "busy", "too large"])
def test_what_signs_an_address_is_not_shown(trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("providers.download._WAITS_S", (0.0,))
    monkeypatch.setattr("providers.web._WAITS_S", (0.0,))
    with file_host() as host:
        path = f"/d.jsonl?{SIGNED}"
        if trouble != "absent":
            host.files[path] = TRAIN
        if trouble == "too large":
            monkeypatch.setattr(data_files, "MOST_BYTES", 10)
        if trouble in ("forbidden", "busy"):
            host.trouble(path).statuses += [403 if trouble == "forbidden" else 503] * 9
        source = Source("https", host.url + path)
        with pytest.raises(
            (StorageError, UsageError)
        ) as first:  # its version is asked for before its content
            fetch(source, tmp_path, HubAccess())
        with pytest.raises((StorageError, UsageError)) as second:
            data_files._get(source.place, tmp_path, 0, None)
        for error in (first.value, second.value):
            assert "of-mine" not in f"{error}{error.hint}" and "/d.jsonl" in str(error)


def test_a_spec_with_a_signed_address_is_told_without_what_signs_it(run_plan: Run, spec: Path):
    signed = spec.read_text().replace(
        "train: lab/sums", f"train: 'https://me:key-of-mine@127.0.0.1:9/d.jsonl?{SIGNED}'"
    )
    spec.write_text(signed.replace("eval: lab", "samples: 50, tokens_per_sample: 9, eval: lab"))
    refused = run_plan("launch", spec, "--infra", "local", "--no-cap", "--dry-run")
    assert "https://127.0.0.1:9/d.jsonl is not on this machine" in refused.stderr
    fetched = run_plan("data", "fetch", spec)
    for said in (refused, fetched):
        assert "of-mine" not in said.stdout + said.stderr and said.exit_code != 0


@pytest.mark.parametrize("port", ["", ":8080"])
def test_a_login_in_an_address_is_refused_and_not_shown(port: str, tmp_path: Path):
    with pytest.raises(UsageError, match=f"https://host{port}/d.jsonl was given with a login") as refused:
        fetch(Source("https", f"https://me:key-of-mine@host{port}/d.jsonl"), tmp_path, HubAccess())
    assert "of-mine" not in str(refused.value)


def test_too_much_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(data_files, "MOST_BYTES", 100)
    with file_host() as host:
        host.files["/sums.jsonl"] = TRAIN
        with pytest.raises(StorageError, match="larger than 100 bytes"):
            fetch(Source("https", f"{host.url}/sums.jsonl"), tmp_path, HubAccess())


def test_s3_is_fetched_with_the_login_of_the_environment(s3_server: Seaweed, tmp_path: Path):
    import boto3

    client = boto3.session.Session().client("s3")
    client.create_bucket(Bucket="examples")
    client.put_object(Bucket="examples", Key="sums/train.jsonl", Body=TRAIN)
    found = fetch(Source("s3", "s3://examples/sums/train.jsonl"), tmp_path, HubAccess())
    assert (found.sha256, found.version) == (SHA, f'"{hashlib.md5(TRAIN).hexdigest()}"')
    with pytest.raises(StorageError, match="train2"):
        fetch(Source("s3", "s3://examples/sums/train2.jsonl"), tmp_path, HubAccess())
    with pytest.raises(UsageError, match="names no object"):
        fetch(Source("s3", "s3://examples"), tmp_path, HubAccess())


@pytest.fixture
def changing(s3_server: Seaweed, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Changing]:
    """Data at a source that gives its content names: a bucket with versions, one without, and a web server."""
    if request.param == "https":
        with file_host() as host:

            def serve(body: bytes) -> None:
                host.files["/sums.jsonl"] = body

            yield f"{host.url}/sums.jsonl", serve
        return
    import boto3

    client, bucket = (
        boto3.session.Session().client("s3"),
        f"changing-{request.param}-{tmp_path.name[-1]}".lower(),
    )
    client.create_bucket(Bucket=bucket)
    if request.param == "versions":
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    yield (
        f"s3://{bucket}/sums.jsonl",
        lambda body: client.put_object(Bucket=bucket, Key="sums.jsonl", Body=body),
    )


@pytest.mark.parametrize("changing", ["versions", "plain", "https"], indirect=True)
def test_a_plan_is_pinned_to_the_version_that_it_was_made_with(
    changing: Changing, run_plan: Run, tmp_path: Path
):
    place, write = changing
    write(TRAIN)
    spec, plan = tmp_path / "spec.yaml", tmp_path / "plan.json"
    if place.startswith("http:"):
        fetched = DataCache(tmp_path / "cache")  # the command takes https alone
        source = Source("https", place)
        kept = fetched.fetch(Wanted("train", place, source, None), HubAccess(), NOW)
        pins = [DataPin("train", "https", place, kept.version, kept.sha256)]
        assert list(changed_sources(pins, print)) == []
        write(TRAIN * 2)
        (finding,) = changed_sources(pins, print)
        assert finding.code == "data_changed" and kept.version in finding.message
        return
    spec.write_text(f"name: x\nmodel: {GOAT / 'base'}\ndata: {{train: {place}}}\n")
    row = json.loads(run_plan("data", "fetch", spec, "-o", "json").stdout)["files"][0]
    assert row["version"]
    assert run_plan("estimate", spec, "--infra", "local", "--out", plan).exit_code == 0
    assert json.loads(plan.read_text())["data"][0] == {
        "key": "train", "kind": "s3", "place": place, "version": row["version"], "sha256": SHA,
    }  # fmt: skip
    words = ("launch", plan, "--infra", "local", "--dry-run")
    assert run_plan(*words).exit_code == 0
    write(TRAIN * 2)
    for changed in (run_plan(*words), run_plan("launch", spec, "--infra", "local", "--yes")):
        assert changed.exit_code == 2, changed.stderr
        assert "has changed since it was fetched" in changed.stderr
        assert f"data.sha256: {SHA}" in changed.stderr
    spec.write_text(spec.read_text().replace("}", f", sha256: {SHA}}}"))
    assert run_plan("launch", spec, "--infra", "local", "--dry-run").exit_code == 0
    if row["version"].startswith('"'):
        return
    pinned = f", revision: '{row['version']}'}}"
    spec.write_text(spec.read_text().replace(f", sha256: {SHA}}}", pinned))
    old = json.loads(run_plan("data", "fetch", spec, "-o", "json").stdout)["files"][0]
    assert (old["sha256"], old["version"]) == (SHA, row["version"])
    assert run_plan("launch", spec, "--infra", "local", "--dry-run").exit_code == 0


def test_a_source_that_does_not_answer_stops_nothing():
    told: list[str] = []
    assert (
        list(
            changed_sources([DataPin("train", "https", "http://127.0.0.1:9/x?key=y", "1", SHA)], told.append)
        )
        == []
    )
    assert "http://127.0.0.1:9/x has changed" in told[0] and "key=y" not in told[0].partition(":9/")[0]


def test_gs_is_fetched_with_googles_own_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with file_host() as host:
        account = {"gcs_base_url": host.url, "disable_oauth": True, "client_email": "", "private_key": ""}
        (tmp_path / "account.json").write_text(json.dumps({**account, "private_key_id": ""}))
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "account.json"))
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            monkeypatch.delenv(name)
        host.last_modified = "Wed, 25 Nov 2026 10:00:00 GMT"
        host.files["/examples/sums%2Ejsonl"] = TRAIN
        source = Source("gs", "gs://examples/sums.jsonl")
        found = fetch(source, tmp_path, HubAccess())
        assert (found.sha256, found.version) == (SHA, version_of(source)) and found.version
        host.files["/examples/sums%2Ejsonl"] = TRAIN + TRAIN
        assert version_of(source) != found.version
        host.files["/examples/sums%2Ejsonl"] = TRAIN
        with pytest.raises(UsageError, match="does not exist"):
            fetch(Source("gs", "gs://examples/gone.jsonl"), tmp_path, HubAccess())
    with pytest.raises(UsageError, match="names no object"):
        fetch(Source("gs", "gs://examples"), tmp_path, HubAccess())


def test_parts_are_put_together_if_that_has_one_meaning(hub: HubHost, tmp_path: Path):
    def parquet(*numbers: int) -> bytes:
        sink = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table({"text": [str(number) for number in numbers]}), sink)
        return sink.getvalue()

    files = {"data/train-0.parquet": parquet(1, 2), "data/train-1.parquet": parquet(3), "test.jsonl": TRAIN}
    hub.models["lab/parts"] = HostedModel(files)
    access = HubAccess(hub.url)
    whole = fetch(Source("hub", "lab/parts"), tmp_path, access)
    assert pyarrow.parquet.read_table(whole.path).column("text").to_pylist() == ["1", "2", "3"]
    hub.models["lab/parts"] = HostedModel({"train-0.jsonl": b'{"a": 1}', "train-1.jsonl": b'{"a": 2}\n'})
    joined = fetch(Source("hub", "lab/parts"), tmp_path, access).path.read_bytes()
    assert joined == b'{"a": 1}\n{"a": 2}\n'
    hub.models["lab/parts"] = HostedModel({"train-0.csv": b"a\n1\n", "train-1.csv": b"a\n2\n"})
    with pytest.raises(UsageError, match="cannot be put together"):
        fetch(Source("hub", "lab/parts"), tmp_path, access)
    with pytest.raises(UsageError, match="its split 'test'"):
        fetch(Source("hub", "lab/parts", split="test"), tmp_path, access)


@pytest.mark.parametrize(
    ("names", "split", "card", "found"),
    [
        (["only.csv"], "train", None, ["only.csv"]),
        (["only.csv"], "test", None, []),
        (["a/training.jsonl", "a/valid.jsonl"], "validation", None, ["a/valid.jsonl"]),
        (["trainer.py", "constraint.csv", "x.csv"], "train", None, []),
        (
            ["en/a.parquet", "de/a.parquet"],
            "train",
            {"configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "de/*"}]}]},
            ["de/a.parquet"],
        ),
    ],
)
def test_the_files_of_a_split(names: list[str], split: str, card: object, found: list[str]):
    assert split_files(names, split, card) == found
