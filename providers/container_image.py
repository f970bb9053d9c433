"""Whether a container image can be pulled by a machine that has no login: asked of its registry, nothing is pulled.

The OCI distribution protocol: https://github.com/opencontainers/distribution-spec/blob/main/spec.md, with Docker's
token service where the registry names one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from providers.errors import StorageError, UsageError
from providers.web import WebAnswer, WebRequest, ask

_DOCKER_HUB, _DOCKER_HUB_SERVER = "docker.io", "registry-1.docker.io"
_ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_REPOSITORY = re.compile(r"[a-z0-9]+(?:[._/-]+[a-z0-9]+)*")
_TAG = re.compile(r"\w[\w.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
_LOCAL = ("localhost", "127.0.0.1")


@dataclass(frozen=True, slots=True)
class Image:
    """A container image by name.

    Attributes:
        server: Host and port of the registry.
        reference: Tag or digest.
    """

    server: str
    repository: str
    reference: str

    @classmethod
    def of(cls, text: str) -> Image:
        """As Docker reads it.

        Raises:
            UsageError: It is no name of an image.

        >>> Image.of("pytorch/pytorch:2.8").repository, Image.of("ghcr.io/a/b").reference, Image.of("ubuntu").repository
        ('pytorch/pytorch', 'latest', 'library/ubuntu')
        """
        name, _, digest = text.removeprefix("docker:").partition("@")
        first, slash, rest = name.partition("/")
        has_host = bool(slash) and ("." in first or ":" in first or first == "localhost")
        server, path = (first, rest) if has_host else (_DOCKER_HUB, name)
        path, _, tag = path.partition(":")
        if server == _DOCKER_HUB:
            server, path = _DOCKER_HUB_SERVER, path if "/" in path else f"library/{path}"
        reference = digest or tag or "latest"
        known = _DIGEST if digest else _TAG
        if _REPOSITORY.fullmatch(path) is None or known.fullmatch(reference) is None:
            raise UsageError(
                f"{text!r} is no name of a container image", hint="as in pytorch/pytorch:2.8.0-cuda12.8"
            )
        return cls(server, path, reference)


def why_not_pulled(text: str) -> str | None:
    """Why a machine without a login could not pull the image, None if it could.

    Raises:
        UsageError: It is no name of an image.
        StorageError: The registry cannot be asked.
    """
    image = Image.of(text)
    scheme = "http" if image.server.partition(":")[0] in _LOCAL else "https"
    url = f"{scheme}://{image.server}/v2/{image.repository}/manifests/{quote(image.reference, safe=':')}"
    answer = _manifest(url, None)
    if answer.status == 401:
        token = _token(answer)
        answer = answer if token is None else _manifest(url, token)
    if answer.status == 200:
        return None
    if answer.status in (401, 403):
        return f"{text} is private, or there is no such image at {image.server}"
    if answer.status == 404:
        return f"there is no image {text} at {image.server}"
    raise StorageError(f"{image.server} answered with status {answer.status}", code="bad_answer")


def _manifest(url: str, token: str | None) -> WebAnswer:
    secret = None if token is None else f"Bearer {token}"
    return ask(WebRequest(url, {"Accept": _ACCEPT}, secret, most_bytes=1 << 22, cut=True))


def _token(refused: WebAnswer) -> str | None:
    """What the token service that the registry names gives to anybody."""
    challenge = refused.headers.get("www-authenticate", "")
    named = dict(_PARAMETER.findall(challenge))
    if not challenge.lower().startswith("bearer") or "realm" not in named:
        return None
    url = f"{named['realm']}?{urlencode({key: named[key] for key in ('service', 'scope') if key in named})}"
    answer = ask(WebRequest(url))
    if answer.status != 200:
        return None
    told = answer.json(url)
    found = (told.get("token") or told.get("access_token")) if isinstance(told, dict) else None
    return found if isinstance(found, str) else None
