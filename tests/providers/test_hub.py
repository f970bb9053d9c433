"""The Hub as a server on this machine answers for it."""

from __future__ import annotations

import datetime
import ipaddress
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from providers.errors import CredentialsError, StorageError, UsageError
from providers.hub import HubAccess, fetch_model
from providers.web import UnreachableError
from tests.hub_host import COMMIT, OLDER, HostedModel, HubHost, hub_host, safetensors_head

CONFIG = {
    "model_type": "llama",
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 32,
}
SMALL = {"model.embed_tokens.weight": ("BF16", [32, 8]), "lm_head.weight": ("F32", [32, 8])}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub() -> Iterator[HubHost]:
    with hub_host() as host:
        host.models["lab/tiny"] = hosted()
        yield host


def hosted(**fields: Any) -> HostedModel:
    files = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": safetensors_head(SMALL)}
    return HostedModel(**{"files": files, "info": {"cardData": {"license": "apache-2.0"}}, **fields})


def test_a_model_is_known_by_its_commit_licence_and_the_heads_of_its_files(hub: HubHost):
    model = fetch_model(HubAccess(hub.url), "lab/tiny")
    assert (model.commit, model.license, model.gate, model.needs_remote_code) == (
        COMMIT,
        "apache-2.0",
        None,
        False,
    )
    assert model.config == CONFIG
    assert model.weights is not None
    assert model.weights.parameters == {"BF16": 256, "F32": 256}
    assert (model.weights.total, model.weights.bytes, model.weights.files) == (512, 512 + 1024, 1)
    assert all("authorization" not in headers for _, headers in hub.requests)


def test_shards_are_found_by_their_index_and_a_long_header_is_read_in_two_parts(hub: HubHost):
    many = {f"model.layers.{n}.mlp.experts.{n}.down_proj.weight": ("BF16", [2, 3]) for n in range(2000)}
    shards = {"model-00001-of-00002.safetensors": many, "model-00002-of-00002.safetensors": SMALL}
    files = {name: safetensors_head(tensors) for name, tensors in shards.items()}
    index = {"weight_map": {name: shard for shard, tensors in shards.items() for name in tensors}}
    files |= {"config.json": b"{}", "model.safetensors.index.json": json.dumps(index).encode()}
    hub.models["lab/tiny"] = hosted(files=files)
    weights = fetch_model(HubAccess(hub.url), "lab/tiny").weights
    assert weights is not None
    assert weights.parameters == {"BF16": 256 + 12_000, "F32": 256} and weights.files == 2
    asked = [
        headers["range"] for path, headers in hub.requests if path.endswith("00001-of-00002.safetensors")
    ]
    size = len(files["model-00001-of-00002.safetensors"])
    assert size > 2**16 and asked == ["bytes=0-65535", f"bytes=65536-{size - 1}"]


def test_packed_weights_are_not_counted_as_parameters(hub: HubHost):
    config = {**CONFIG, "quantization_config": {"quant_method": "gptq"}}
    files = {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": safetensors_head({"q.qweight": ("I32", [4, 4])}),
    }
    hub.models["lab/tiny"] = hosted(files=files)
    model = fetch_model(HubAccess(hub.url), "lab/tiny")
    assert model.weights is not None and model.weights.total is None and model.quantization == "gptq"


def test_a_model_without_safetensors_has_unknown_weights(hub: HubHost):
    hub.models["lab/tiny"] = hosted(files={"config.json": b"{}", "pytorch_model.bin": b"x"})
    assert fetch_model(HubAccess(hub.url), "lab/tiny").weights is None


def test_a_revision_is_resolved_to_its_commit(hub: HubHost):
    assert fetch_model(HubAccess(hub.url), "lab/tiny", "v1").commit == OLDER
    assert fetch_model(HubAccess(hub.url), "lab/tiny", OLDER).commit == OLDER
    assert f"/lab/tiny/resolve/{OLDER}/config.json" in hub.paths()


def test_the_token_opens_a_gate_and_goes_to_the_hub_alone(hub: HubHost):
    hub.models["lab/tiny"] = hosted(gate="manual")
    with hub_host() as elsewhere:
        elsewhere.models = {"lab/tiny": hosted()}
        hub.files_elsewhere = elsewhere.url.replace("localhost", "127.0.0.1")
        model = fetch_model(HubAccess(hub.url, token=hub.token), "lab/tiny")
        assert model.gate == "manual" and model.weights is not None
        assert elsewhere.requests and all("authorization" not in headers for _, headers in elsewhere.requests)
    assert {headers["authorization"] for _, headers in hub.requests} == {"Bearer hf_secret"}


def test_the_token_follows_a_renamed_model_within_the_hub(hub: HubHost):
    hub.models["lab/tiny"] = hosted(private=True)
    hub.renamed["old/tiny"] = "lab/tiny"
    assert fetch_model(HubAccess(hub.url, token=hub.token), "old/tiny").id == "lab/tiny"


@pytest.mark.parametrize(
    ("model", "token", "revision", "error", "text"),
    [
        ("lab/gone", None, None, UsageError, "is not on the Hub, or it is private: set HF_TOKEN"),
        ("lab/gone", "hf_secret", None, UsageError, "is not on the Hub"),
        ("lab/closed", None, None, UsageError, "or it is private"),
        ("lab/gated", None, None, CredentialsError, "its terms must be accepted first"),
        ("lab/tiny", None, "v9", UsageError, "has no revision 'v9'"),
        ("lab/empty", None, None, UsageError, "has no config.json"),
        ("lab/tiny/../x", None, None, UsageError, "is not a Hugging Face model id"),
        ("lab/gone", "hf_wrong", None, CredentialsError, "does not accept the token"),
        ("lab/odd", None, None, StorageError, "is not a safetensors file"),
        ("lab/list", None, None, StorageError, "config.json does not hold a JSON object"),
        ("lab/path", None, None, StorageError, "names files that cannot be"),
    ],
)
def test_each_refusal_says_what_to_do(
    hub: HubHost, model: str, token: str | None, revision: str | None, error: type[Exception], text: str
):
    index = json.dumps({"weight_map": {"a": "../../x.safetensors"}}).encode()
    hub.models |= {
        "lab/closed": hosted(private=True),
        "lab/gated": hosted(gate="auto"),
        "lab/empty": hosted(files={"README.md": b""}),
        "lab/odd": hosted(files={"config.json": b"{}", "model.safetensors": b"<html>"}),
        "lab/list": hosted(files={"config.json": b"[]"}),
        "lab/path": hosted(files={"config.json": b"{}", "model.safetensors.index.json": index}),
    }
    with pytest.raises(error, match=text.replace("(", "\\(")):
        fetch_model(HubAccess(hub.url, token=token), model, revision)


def test_a_busy_hub_is_asked_again(hub: HubHost, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("providers.web._WAITS_S", (0.0, 0.0))
    hub.statuses = [503, 429]
    assert fetch_model(HubAccess(hub.url), "lab/tiny").commit == COMMIT
    hub.statuses = [500] * 3
    with pytest.raises(StorageError, match="answered 500"):
        fetch_model(HubAccess(hub.url), "lab/tiny")


def test_nobody_there_is_another_error_than_nothing_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("providers.web._WAITS_S", ())
    with pytest.raises(UnreachableError, match="cannot reach localhost:9"):
        fetch_model(HubAccess("http://localhost:9"), "lab/tiny")


def test_plain_http_is_refused_off_this_machine():
    with pytest.raises(UsageError, match="not an https address"):
        fetch_model(HubAccess("http://hub.example"), "lab/tiny")


def test_the_proxy_of_the_environment_is_used(hub: HubHost, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", hub.url)
    assert fetch_model(HubAccess("http://localhost:9"), "lab/tiny").commit == COMMIT
    assert {headers["host"] for _, headers in hub.requests} == {"localhost:9"}
    monkeypatch.setenv("no_proxy", "localhost")
    monkeypatch.setattr("providers.web._WAITS_S", ())
    with pytest.raises(UnreachableError):
        fetch_model(HubAccess("http://localhost:9"), "lab/tiny")


def test_a_company_ca_is_trusted_where_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    certificate, key = self_signed(tmp_path)
    with hub_host((certificate, key)) as hub:
        hub.models["lab/tiny"] = hosted()
        with pytest.raises(UnreachableError, match="certificate"):
            fetch_model(HubAccess(hub.url), "lab/tiny")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert fetch_model(HubAccess(hub.url), "lab/tiny").commit == COMMIT
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "gone.pem"))
    with pytest.raises(UsageError, match=r"cannot read certificates from .*gone\.pem"):
        fetch_model(HubAccess(hub.url), "lab/tiny")


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate of localhost that signs itself, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    paths = folder / "ca.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return paths


@pytest.mark.parametrize(
    ("environ", "token", "offline"),
    [
        ({}, "hf_of_file", False),
        ({"HF_TOKEN": " hf_a\n"}, "hf_a", False),
        ({"HUGGING_FACE_HUB_TOKEN": "hf_b"}, "hf_b", False),
        ({"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}, None, False),
        ({"HF_HOME": "/nowhere"}, None, False),
        ({"HF_HUB_OFFLINE": "TRUE"}, "hf_of_file", True),
        ({"HF_HUB_OFFLINE": "0"}, "hf_of_file", False),
    ],
)
def test_the_environment_is_read_as_hugging_face_does(
    tmp_path: Path, environ: dict[str, str], token: str | None, offline: bool
):
    (tmp_path / ".cache" / "huggingface").mkdir(parents=True)
    (tmp_path / ".cache" / "huggingface" / "token").write_text("hf_of_file\n")
    access = HubAccess.of(environ, tmp_path)
    assert (access.token, access.offline, access.endpoint) == (token, offline, "https://huggingface.co")
    assert "hf_" not in repr(access)
    assert (
        HubAccess.of({"HF_ENDPOINT": "https://mirror.example/"}, tmp_path).endpoint
        == "https://mirror.example"
    )
