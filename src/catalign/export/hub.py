"""Pushing an exported folder to the Hugging Face hub."""

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

from catalign.errors import UserError
from catalign.export.card import CARD

# OSError and the error of the HTTP client, which is another one from version to version.
NETWORK: tuple[type[Exception], ...] = HfHubHTTPError.__bases__
REFUSALS = {401: "the hub knows no such token", 403: "this token may not write there", 404: "no such place"}


def push_folder(folder: Path, repository: str, *, private: bool = False) -> str:
    """Upload an exported folder; the repository is made if it is not there.

    Args:
        folder: what `export_run` wrote.
        repository: `name` or `owner/name`.
        private: of a repository that is made now.

    Returns:
        The address of the repository.

    Raises:
        UserError: not an exported folder, no token, no network, or the hub refuses.
    """
    folder = Path(folder)
    if not (folder / CARD).is_file() or not (folder / "config.json").is_file():
        raise UserError(
            "is not an exported model", where=folder, mend="make one: catalign model export RUN --output DIR"
        )
    hub = HfApi()
    try:
        place = hub.create_repo(repository, private=private, exist_ok=True)
        hub.upload_folder(repo_id=place.repo_id, folder_path=folder, commit_message="catalign model push")
    except HFValidationError as error:
        raise UserError("is not the name of a repository", where=repository, mend="give OWNER/NAME") from error
    except LocalTokenNotFoundError as error:
        raise UserError("there is no token", where=repository, mend="hf auth login, or set HF_TOKEN") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        reason = REFUSALS.get(status, f"the hub answered {status}")
        raise UserError(reason, where=repository, mend="hf auth login, or set HF_TOKEN") from error
    except NETWORK as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"the hub cannot be reached ({reason})", where=hub.endpoint, mend="check the network"
        ) from error
    return str(place)
