"""Download single files of a dataset repo on the Hugging Face hub, and check them.

The client raises a dozen kinds of error from three libraries, depending on its version. All of them become one DataError
with the address and the fix. `snapshot_download` would fetch all files in one call, but it checks no sha256, reports no
single file, and returns a partial folder without an error when the network is down.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import DataError

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass
class HubFiles:
    """Files of one commit of `repo`.

    Args:
        repo: `owner/name` of a dataset repo.
        commit: full hash; None = the newest, which the first download sets.
        endpoint: address of the hub; None = its default.
        incoming: folder for downloads; complete files stay there if a fetch is interrupted.
    """

    repo: str
    commit: str | None
    endpoint: str | None
    incoming: Path

    def download(self, path: str) -> Path:
        """Download one file of the repo unless `incoming` already holds it.

        Returns:
            Its path below `incoming`. It has the length and, if the hub lists one, the sha256 that the hub lists.
        Raises:
            DataError: no such repo or file, no connection, or damaged content.
        """
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url

        address = f"{self.endpoint or constants.ENDPOINT}/datasets/{self.repo}/{path}"
        try:
            url = hf_hub_url(self.repo, path, repo_type="dataset", revision=self.commit, endpoint=self.endpoint)
            # fails at once without a connection, where the download retries for 30 s
            listed = get_hf_file_metadata(url, endpoint=self.endpoint)
            self.commit = self.commit or listed.commit_hash
            where = {"revision": self.commit, "endpoint": self.endpoint, "local_dir": self.incoming}
            found = Path(hf_hub_download(self.repo, path, repo_type="dataset", **where))
        except Exception as error:  # three libraries without a common base class
            raise _explain(address, error) from error
        with found.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        num_bytes, problem = found.stat().st_size, ""
        if listed.size not in (None, num_bytes):
            problem = f"{num_bytes} bytes arrived of {listed.size}"
        elif _SHA256.fullmatch(listed.etag or "") and sha256 != listed.etag:
            problem = f"content does not have the sha256 {listed.etag[:12]}... of the hub"
        if problem:
            found.unlink()  # otherwise the next download would take it from `incoming`
            raise DataError(address, problem, "fetch again")
        return found


def _explain(address: str, error: Exception) -> DataError:
    from huggingface_hub import errors

    retry = "fetch again; complete files are kept"
    if isinstance(error, errors.RepositoryNotFoundError):
        problem, fix = "no such dataset repo, or it is private", "check repo; `hf auth login` for a private one"
    elif isinstance(error, (errors.EntryNotFoundError, errors.RevisionNotFoundError)) and not isinstance(
        error, errors.LocalEntryNotFoundError
    ):
        problem, fix = "no such file in the repo", "check repo, variant and endpoint"
    elif isinstance(error, errors.HfHubHTTPError):
        problem, fix = f"the hub answered HTTP {getattr(error.response, 'status_code', '?')}", f"wait and {retry}"
    elif isinstance(error, OSError) and error.errno:
        problem, fix = f"cannot be stored ({error.strerror})", "free disk space or give another folder"
    else:
        problem = f"the hub cannot be reached or broke off ({type(error).__name__}: {str(error)[:200]})"
        fix = f"check the network and {retry}"
    return DataError(address, problem, fix)
