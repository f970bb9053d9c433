"""Uploads a finished model to the Hugging Face Hub, into a private repository unless told otherwise."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from providers.errors import CredentialsError, MissingExtraError, StorageError, TuneplanError, UsageError
from providers.hub import REPOSITORY_ID, HubAccess

_NOT_ALLOWED = (401, 403)
_WEIGHTS = (".safetensors", ".safetensors.index.json", ".gguf", "adapter_config.json")


def check_repository(name: str) -> str:
    """The name if a repository can have it.

    Raises:
        UsageError: It cannot.
    """
    if REPOSITORY_ID.fullmatch(name) is None or "/" not in name:
        raise UsageError(f"{name!r} is no repository of the Hub", hint="write hf://owner/name")
    return name


def upload_folder(directory: Path, repository: str, access: HubAccess, *, public: bool, message: str) -> str:
    """Put every file of a directory into a repository in one commit; the commit's address.

    Weights that an earlier commit left there under other names are taken out by the same commit: what loads a model
    would take them for a part of it. A repository that does not exist is made, private unless `public`. One that
    everybody can read is never written to unless `public`, even if it was there before.

    Args:
        directory: The model.
        repository: owner/name.
        access: Where the Hub is, and the person's token.
        public: Let everybody read it.
        message: Of the commit.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        CredentialsError: No token, or one that may not write there.
        UsageError: The repository is public, and `public` was not said.
        StorageError: The Hub cannot be reached or refused.
    """
    try:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        raise MissingExtraError("hub", "writing to the Hugging Face Hub") from None
    import httpx

    if access.offline:
        raise UsageError(
            "HF_HUB_OFFLINE forbids to use the network", hint="unset it, or export to a directory"
        )
    if access.token is None:
        raise CredentialsError("no token for the Hugging Face Hub", hint="set HF_TOKEN to one that may write")
    api = HfApi(endpoint=access.endpoint, token=access.token)
    try:
        api.create_repo(repository, private=not public, exist_ok=True)
        there = api.repo_info(repository)
        if not public and not there.private:
            hint = "make it private on the Hub, name another one, or pass --public on purpose"
            raise UsageError(f"everybody can read {repository}", hint=hint, code="public_repository")
        files = {
            path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()
        }
        stale = [one.rfilename for one in there.siblings or () if _is_stale(one.rfilename, files)]
        added = [CommitOperationAdd(name, str(path)) for name, path in sorted(files.items())]
        operations = [*added, *(CommitOperationDelete(name) for name in stale)]
        commit = api.create_commit(repository, operations, commit_message=message)
    except HfHubHTTPError as error:
        raise _told(error, repository) from error
    except (httpx.HTTPError, OSError) as error:
        raise StorageError(f"the Hub at {access.endpoint} cannot be reached: {error}") from error
    return str(commit.commit_url)


def _is_stale(name: str, files: Container[str]) -> bool:
    return name not in files and "/" not in name and name.endswith(_WEIGHTS)


def _told(error: Exception, repository: str) -> TuneplanError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in _NOT_ALLOWED:
        hint = "set HF_TOKEN to one that may write there"
        return CredentialsError(f"the Hub does not let you write to {repository}", hint=hint)
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return StorageError(f"the Hub refused to write to {repository}: {first}")
