"""Single files from one commit of a dataset repo on the Hugging Face hub, checked, with errors that say what to do.

All of huggingface_hub that this project touches. Its client raises a dozen kinds of error from three libraries
(which ones depends on its version); here they become one DataError with the address and the fix.
"""

import hashlib
import re
import shutil
from pathlib import Path

from trainer.errors import DataError

_SHA256 = re.compile(r"[0-9a-f]{64}")


class HubFiles:
    """Files of `repo` at one commit: the given one, or the newest when this is made."""

    def __init__(self, repo: str, commit: str | None, endpoint: str | None, incoming: Path) -> None:
        """
        Args:
            repo: `owner/name` of a dataset repo.
            commit: full hash; None = the newest, looked up with the first file.
            endpoint: address of the hub; None = its default.
            incoming: folder for files on their way; files that arrived whole stay there across interruptions.
        """
        self.repo, self.endpoint, self.incoming = repo, endpoint, incoming
        self._commit = commit

    @property
    def commit(self) -> str:
        assert self._commit is not None, "known after the first `bring`"
        return self._commit

    def bring(self, path: str) -> Path:
        """Download a file of the repo, or find it where an earlier call left it.

        Returns:
            Where it lies, below `incoming`. Its length is what the hub says, and its sha256 where the hub states one.
        Raises:
            DataError: no such repo or file, no connection, or broken content.
        """
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url

        place = f"{self.endpoint or constants.ENDPOINT}/datasets/{self.repo}/{path}"
        try:
            url = hf_hub_url(self.repo, path, repo_type="dataset", revision=self._commit, endpoint=self.endpoint)
            # asked for separately because it fails at once without a connection, where the download retries for 30 s
            metadata = get_hf_file_metadata(url, endpoint=self.endpoint)
            self._commit = self._commit or metadata.commit_hash
            arrived = Path(
                hf_hub_download(
                    self.repo,
                    path,
                    repo_type="dataset",
                    revision=self._commit,
                    endpoint=self.endpoint,
                    local_dir=self.incoming,
                )
            )
        except Exception as error:  # three libraries, no common base: see above
            raise _explain(place, error) from error
        if metadata.size is not None and arrived.stat().st_size != metadata.size:
            found = f"{arrived.stat().st_size} bytes arrived of {metadata.size}"
            arrived.unlink()
            raise DataError(place, found, "fetch again")
        if metadata.etag and _SHA256.fullmatch(metadata.etag) and _file_sha256(arrived) != metadata.etag:
            arrived.unlink()  # or every further call would find it again
            raise DataError(
                place, f"content does not have the sha256 {metadata.etag[:12]}... of the hub", "fetch again"
            )
        return arrived

    def discard(self) -> None:
        """Remove what lies in `incoming`."""
        shutil.rmtree(self.incoming, ignore_errors=True)


def _explain(place: str, error: Exception) -> DataError:
    from huggingface_hub import errors

    if isinstance(error, errors.RepositoryNotFoundError):
        return DataError(
            place, "no such dataset repo, or it is private", "check repo; `hf auth login` for a private one"
        )
    if isinstance(error, (errors.EntryNotFoundError, errors.RevisionNotFoundError)) and not isinstance(
        error, errors.LocalEntryNotFoundError
    ):
        return DataError(place, "no such file in the repo", "check repo, variant and endpoint")
    if isinstance(error, errors.HfHubHTTPError):
        status = getattr(error.response, "status_code", "?")
        return DataError(place, f"the hub answered HTTP {status}", "wait and fetch again; what arrived is kept")
    if isinstance(error, OSError) and error.errno:
        return DataError(place, f"cannot be stored ({error.strerror})", "free some disk or give another folder")
    problem = f"the hub cannot be reached or broke off ({type(error).__name__}: {str(error)[:200]})"
    return DataError(place, problem, "check the network and fetch again; what arrived is kept")


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
