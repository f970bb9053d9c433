"""Where each cloud's tools keep credentials: names of files and variables only, never what is in them."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class CloudLogin:
    """One cloud.

    Attributes:
        name: As in offers.
        files: Below the home directory; any of them will do.
        variables: Environment variables; any of them will do.
        login: How to get them.
    """

    name: str
    files: tuple[str, ...]
    variables: tuple[str, ...]
    login: str


CLOUDS: tuple[CloudLogin, ...] = (
    CloudLogin(
        "aws", (".aws/credentials", ".aws/config"), ("AWS_ACCESS_KEY_ID", "AWS_PROFILE"), "aws configure"
    ),
    CloudLogin(
        "gcp",
        (".config/gcloud/application_default_credentials.json",),
        ("GOOGLE_APPLICATION_CREDENTIALS",),
        "gcloud auth application-default login",
    ),
    CloudLogin("azure", (".azure/msal_token_cache.json",), ("AZURE_CLIENT_ID",), "az login"),
    CloudLogin("oci", (".oci/config",), (), "oci setup config"),
    CloudLogin(
        "lambda",
        (".lambda_cloud/lambda_keys",),
        ("LAMBDA_API_KEY",),
        "put the API key in ~/.lambda_cloud/lambda_keys",
    ),
    CloudLogin("runpod", (".runpod/config.toml",), ("RUNPOD_API_KEY",), "runpod config"),
    CloudLogin("vast", (".config/vastai/vast_api_key",), ("VAST_API_KEY",), "vastai set api-key"),
    CloudLogin(
        "nebius",
        (".nebius/credentials.json", ".nebius/NEBIUS_IAM_TOKEN.txt"),
        (),
        "put a service account's key in ~/.nebius",
    ),
    CloudLogin("verda", (".verda/config.json",), (), "put the client id and secret in ~/.verda/config.json"),
    CloudLogin(
        "paperspace", (".paperspace/config.json",), (), "put the API key in ~/.paperspace/config.json"
    ),
    CloudLogin("kubernetes", (".kube/config",), ("KUBECONFIG",), "get a kubeconfig of the cluster"),
    CloudLogin(
        "slurm", (".slurm/config",), (), "name the login nodes in ~/.slurm/config, as in ~/.ssh/config"
    ),
    CloudLogin("hugging face", (".cache/huggingface/token",), ("HF_TOKEN",), "hf auth login"),
)


#: These hold settings, which others may read.
_NO_SECRET = frozenset({".aws/config", ".slurm/config"})


def found_credentials(cloud: CloudLogin, environ: Mapping[str, str], home: Path) -> tuple[str, ...]:
    """Names of the variables and files that are there."""
    variables = [name for name in cloud.variables if environ.get(name)]
    files = [f"~/{name}" for name in cloud.files if (home / name).is_file()]
    return (*variables, *files)


def readable_by_others(cloud: CloudLogin, home: Path) -> tuple[str, ...]:
    """Files with credentials that the group or others may read; empty where there are no such rights."""
    if os.name != "posix":
        return ()
    return tuple(f"~/{name}" for name in cloud.files if name not in _NO_SECRET and _is_open(home / name))


def _is_open(path: Path) -> bool:
    return path.is_file() and bool(stat.S_IMODE(path.stat().st_mode) & 0o077)
