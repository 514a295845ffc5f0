"""`--push`: an export to a repository on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from melcli import console
from melcli.errors import WriteError, first_line


def push(folder: Path, repository: str) -> str:
    """Upload a folder in one commit, whose address it returns. A repository that does not exist is made, private: its owner says who sees it.

    Raises WriteError; the folder stays.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import LocalTokenNotFoundError

    api = HfApi()
    try:
        there = api.repo_exists(repository)
        if not there:
            api.create_repo(repository, private=True)
            console.note(f"{repository}: made, private")
        return api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload by melcli export").commit_url
    except LocalTokenNotFoundError:
        raise WriteError(f"--push {repository}: log in with `hf auth login` first; {folder} is written") from None
    except Exception as error:  # the client below the hub's own raises kinds of its own
        raise WriteError(f"--push {repository}: not uploaded ({first_line(error)}); {folder} is written, and `hf upload` can try again") from None
