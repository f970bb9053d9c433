"""What the Hugging Face Hub says of a model: commit, licence, gate, config.json, and what its weights are made of.

Weights are never fetched: a safetensors file begins with the shapes of its tensors, and only that is read. Answers are
kept below the cache, so that the same question needs no network again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from providers.errors import CredentialsError, StorageError, UsageError
from providers.web import WebAnswer, WebRequest, ask
from providers.weights import Weights, weights_of

DEFAULT_ENDPOINT = "https://huggingface.co"
_HEADER_GUESS_BYTES = 2**16
_MOST_HEADER_BYTES = 32 * 2**20
_MOST_CONFIG_BYTES = 4 * 2**20
_MOST_TOKENIZER_BYTES = 16 * 2**20
_MOST_SHARDS = 512
_AT_ONCE = 8
REPOSITORY_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHARD = re.compile(r"[\w.-]+\.safetensors", re.ASCII)
_YES = frozenset({"1", "true", "yes", "on"})


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model at one commit.

    Attributes:
        id: As the Hub spells it.
        commit: 40 hexadecimal digits.
        config: The parsed config.json.
        license: As the model card says, None if it does not.
        gate: None if open; "auto" or "manual" if its terms must be accepted first.
        weights: None if there are no safetensors files to look at.
    """

    id: str
    commit: str
    config: dict[str, Any]
    license: str | None
    gate: str | None
    weights: Weights | None

    @property
    def needs_remote_code(self) -> bool:
        """Whether the repository brings Python code that defines the model."""
        return bool(self.config.get("auto_map"))

    @property
    def quantization(self) -> str | None:
        """How the stored weights are quantised, None if they are not."""
        settings = self.config.get("quantization_config")
        if not isinstance(settings, dict):
            return None
        return str(settings.get("quant_method") or "unknown")


@dataclass(frozen=True, slots=True)
class HubAccess:
    """Where the Hub is and who asks.

    Attributes:
        endpoint: Its address, without a slash at the end.
        token: Of the person, None for anonymous questions.
        offline: Never use the network.
    """

    endpoint: str = DEFAULT_ENDPOINT
    token: str | None = field(default=None, repr=False)
    offline: bool = False

    @classmethod
    def of(cls, environ: Mapping[str, str], home: Path) -> HubAccess:
        """As Hugging Face's own tools understand the environment: HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE ...

        Args:
            environ: Environment variables.
            home: The person's home directory.
        """
        return cls(
            endpoint=(environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/"),
            token=_token(environ, home),
            offline=any(
                environ.get(name, "").lower() in _YES for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
            ),
        )


def _token(environ: Mapping[str, str], home: Path) -> str | None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if environ.get(name, "").strip():
            return environ[name].strip()
    if environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").lower() in _YES:
        return None
    root = Path(
        environ.get("HF_HOME") or Path(environ.get("XDG_CACHE_HOME") or home / ".cache", "huggingface")
    )
    try:
        text = Path(environ.get("HF_TOKEN_PATH") or root / "token").expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return text.strip() or None


def is_commit(revision: str | None) -> bool:
    """Whether a revision names its content for good."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def fetch_model(access: HubAccess, model_id: str, revision: str | None = None) -> HubModel:
    """Ask the Hub about a model.

    Args:
        access: Where and who.
        model_id: As in `org/name`.
        revision: Commit, tag or branch; the default branch if None.

    Raises:
        UsageError: The Hub has no such model or revision, or the model has no config.json.
        CredentialsError: The model is gated or private and the token does not open it.
        StorageError: No answer, or one that makes no sense; `UnreachableError` if there was none at all.
    """
    if not REPOSITORY_ID.fullmatch(model_id):
        raise UsageError(
            f"{model_id!r} is not a Hugging Face model id", code="unknown_model", path="model.id"
        )
    return HubRepository(access, model_id, revision or "main").model()


@dataclass(frozen=True, slots=True)
class HubRepository:
    """One repository at one revision; `kind` is model or dataset."""

    access: HubAccess
    model_id: str
    revision: str
    kind: str = "model"

    def model(self) -> HubModel:
        """What the Hub says of the model."""
        info = self.info()
        commit = str(info.get("sha"))
        if not is_commit(commit):
            raise self._nonsense("no commit")
        config = self.config(commit)
        gate = info.get("gated")
        return HubModel(
            id=str(info.get("id") or self.model_id),
            commit=commit,
            config=config,
            license=license_of(info),
            gate=gate if isinstance(gate, str) else None,
            weights=self._weights(commit, file_names(info)),
        )

    def info(self) -> dict[str, Any]:
        """What the API says of the repository."""
        url = f"{self.access.endpoint}/api/{self.kind}s/{self.model_id}/revision/{quote(self.revision, safe='')}"
        info = self._checked(self._ask(url), url).json(url)
        if not isinstance(info, dict):
            raise self._nonsense("not an object")
        return info

    def config(self, commit: str) -> dict[str, Any]:
        """The model's config.json, which opens to whoever may load the model.

        Raises:
            CredentialsError: The token does not open it.
            UsageError: There is none.
            StorageError: No answer, or one that makes no sense.
        """
        return self._json(commit, "config.json", _MOST_CONFIG_BYTES)

    def tokenizer_config(self, commit: str) -> dict[str, Any]:
        """The model's tokenizer_config.json; raises as `config`."""
        return self._json(commit, "tokenizer_config.json", _MOST_TOKENIZER_BYTES)

    def text(self, commit: str, name: str) -> str:
        """A small file of text; raises as `config`."""
        url = self.file_url(commit, name)
        return self._checked(self._ask(url, most_bytes=_MOST_CONFIG_BYTES), url).body.decode(errors="replace")

    def _weights(self, commit: str, names: set[str]) -> Weights | None:
        if "model.safetensors.index.json" in names:
            index = self._json(commit, "model.safetensors.index.json", _MOST_HEADER_BYTES)
            placed = index.get("weight_map")
            shards = sorted({str(name) for name in placed.values()}) if isinstance(placed, dict) else []
        else:
            shards = ["model.safetensors"] if "model.safetensors" in names else []
        if not shards:
            return None
        if len(shards) > _MOST_SHARDS or not all(_SHARD.fullmatch(shard) for shard in shards):
            raise self._nonsense("its index of weights names files that cannot be")
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            headers = list(pool.map(lambda name: self._header(commit, name), shards))
        return weights_of(headers)

    def _header(self, commit: str, name: str) -> dict[str, Any]:
        """The JSON that a safetensors file begins with, after its length in eight bytes."""
        head = self._bytes(commit, name, 0, _HEADER_GUESS_BYTES)
        size = int.from_bytes(head[:8], "little")
        if len(head) < 8 or not 2 <= size <= _MOST_HEADER_BYTES:
            raise self._nonsense(f"{name} is not a safetensors file")
        if len(head) < 8 + size:
            head += self._bytes(commit, name, len(head), 8 + size - len(head))
        try:
            header = json.loads(head[8 : 8 + size])
        except (ValueError, RecursionError):
            header = None
        if not isinstance(header, dict):
            raise self._nonsense(f"{name} is not a safetensors file")
        return header

    def _bytes(self, commit: str, name: str, start: int, length: int) -> bytes:
        url = self.file_url(commit, name)
        headers = {"Range": f"bytes={start}-{start + length - 1}"}
        answer = self._checked(self._ask(url, headers=headers, most_bytes=length, cut=True), url)
        if start and answer.status != 206:
            raise StorageError(f"{url}: the server sends no parts of files", code="bad_answer")
        return answer.body

    def _json(self, commit: str, name: str, most_bytes: int) -> dict[str, Any]:
        url = self.file_url(commit, name)
        content = self._checked(self._ask(url, most_bytes=most_bytes), url).json(url)
        if not isinstance(content, dict):
            raise self._nonsense(f"{name} does not hold a JSON object")
        return content

    def file_url(self, commit: str, name: str) -> str:
        """Where a file of that commit is."""
        return f"{self.access.endpoint}/{self._place}{self.model_id}/resolve/{commit}/{quote(name)}"

    @property
    def _section(self) -> str:
        return "model" if self.kind == "model" else "data"

    @property
    def _place(self) -> str:
        return "" if self.kind == "model" else f"{self.kind}s/"

    def _ask(self, url: str, **options: Any) -> WebAnswer:
        secret = None if self.access.token is None else f"Bearer {self.access.token}"
        return ask(WebRequest(url, secret=secret, **options))

    def _checked(self, answer: WebAnswer, url: str) -> WebAnswer:
        """The answer if it is one.

        The Hub says in a header why it refuses; without a token it answers 401 also for what does not exist.
        """
        if answer.status in (200, 206):
            return answer
        code = answer.headers.get("x-error-code", "")
        if code == "GatedRepo":
            raise self._gated()
        if answer.status == 401 and self.access.token is not None:
            raise CredentialsError(
                f"the Hub does not accept the token ({answer.status})",
                hint="make a new one at https://huggingface.co/settings/tokens and set HF_TOKEN",
            )
        if code == "EntryNotFound" and url.endswith("/config.json"):
            raise self._absent("has no config.json", "give a directory with the model's config.json")
        if code == "RevisionNotFound":
            raise self._absent(f"has no revision {self.revision!r}", f"correct {self._section}.revision")
        if answer.status in (401, 403, 404):
            private = "" if self.access.token else ", or it is private: set HF_TOKEN"
            raise self._absent("is not on the Hub" + private, "correct the id")
        raise StorageError(f"{url} answered {answer.status}", code="bad_answer", hint="try again later")

    def _absent(self, what: str, hint: str) -> UsageError:
        key = "model.id" if self.kind == "model" else "data.train"
        path = f"{self._section}.revision" if "revision" in what else key
        return UsageError(f"{self.model_id} {what}", code="model_not_found", hint=hint, path=path)

    def _gated(self) -> CredentialsError:
        page = f"{self.access.endpoint}/{self._place}{self.model_id}"
        token = "" if self.access.token else ", then set HF_TOKEN"
        return CredentialsError(
            f"{self.model_id} is gated: its terms must be accepted first",
            code="gated_model",
            hint=f"accept them at {page}{token}",
            path="model.id" if self.kind == "model" else "data.train",
        )

    def _nonsense(self, what: str) -> StorageError:
        return StorageError(
            f"the Hub's answer about {self.model_id} makes no sense: {what}", code="bad_answer"
        )


def license_of(info: Mapping[str, Any]) -> str | None:
    """The card names it; tags repeat it where there is no card."""
    card = info.get("cardData")
    named = card.get("license") if isinstance(card, dict) else None
    if isinstance(card, dict) and named == "other" and card.get("license_name"):
        named = card["license_name"]
    if isinstance(named, list):
        named = ", ".join(str(part) for part in named)
    tags = info.get("tags")
    found = [str(tag) for tag in tags if str(tag).startswith("license:")] if isinstance(tags, list) else []
    return str(named) if named else (found[0].removeprefix("license:") if found else None)


def file_names(info: Mapping[str, Any]) -> set[str]:
    """Of a repository, by the API's answer."""
    siblings = info.get("siblings")
    if not isinstance(siblings, list):
        return set()
    return {str(one.get("rfilename")) for one in siblings if isinstance(one, dict)}
