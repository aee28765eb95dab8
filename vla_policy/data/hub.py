"""Datasets in repositories of the Hugging Face hub."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RevisionNotFoundError

from vla_policy.data.dataset import LeRobotDataset
from vla_policy.data.format.index import read_info
from vla_policy.data.writing.journal import FOLDERS, LOCK, lock
from vla_policy.interfaces import Failure, InputError
from vla_policy.utils.files import TEMPORARY, read_json, sync, write_json
from vla_policy.utils.locks import lock_file
from vla_policy.utils.recordings import RECORDINGS

# Of the HTTP library, which differs between versions of huggingface_hub.
HTTP_ERROR = cast(type[Exception], HfHubHTTPError.__bases__[0])
DATASET = "dataset"  # the kind of repository
CARD = "README.md"
OURS = (  # the names of a dataset's files, of LeRobot's versions and of this package
    r"data/chunk-\d+/(file-|episode_)\d+\.parquet|videos/[^/]+/[^/]+/(file-|episode_)\d+\.mp4"
    r"|meta/episodes/chunk-\d+/file-\d+\.parquet|meta/(info|stats|interface|edits|collection)\.json"
    rf"|meta/tasks\.parquet|meta/(episodes|episodes_stats|tasks)\.jsonl|{re.escape(RECORDINGS)}"
)
SOURCE = ".vla_policy.source.json"  # what is downloaded, within the same folder
DOWNLOADS = Path(".cache/huggingface")  # what huggingface_hub notes of a download, within its folder


def push(root: str | Path, repo: str, private: bool = True) -> str:
    """Upload the dataset at `root` to the repository "owner/name" and return the commit's address.

    One commit makes the repository what the dataset is: files of an earlier version, known by names as LeRobot and this
    package give them, are removed if they are no longer there; others are left alone. It gets the tag by which LeRobot
    finds datasets of this version. A new repository is private unless `private` is false. `InputError` for a dataset
    that is not whole, and what the hub refuses.
    """
    root = Path(root).resolve()
    read_info(root)
    with lock(root):
        dataset = LeRobotDataset(root)
        dataset.require_whole()
        version = dataset.info["codebase_version"]
        with _answering(repo):
            api = HfApi()
            api.create_repo(repo, repo_type=DATASET, private=private, exist_ok=True)
            there = set(api.list_repo_files(repo, repo_type=DATASET))
            ours = {path.relative_to(root).as_posix(): path for path in _files(root)}
            changes: list[CommitOperationAdd | CommitOperationDelete] = [
                CommitOperationAdd(name, path) for name, path in ours.items()
            ]
            if CARD not in there | ours.keys():
                changes.append(CommitOperationAdd(CARD, _card(dataset).encode()))
            changes += [CommitOperationDelete(name) for name in sorted(there - ours.keys()) if _is_ours(name)]
            message = f"{dataset.num_episodes} episodes, {dataset.num_frames} frames"
            commit = api.create_commit(repo, changes, commit_message=message, repo_type=DATASET)
            with suppress(RevisionNotFoundError):
                api.delete_tag(repo, tag=version, repo_type=DATASET)
            api.create_tag(repo, tag=version, revision=commit.oid, repo_type=DATASET)
    return str(commit.commit_url)


def pull(repo: str, out: str | Path, revision: str | None = None) -> LeRobotDataset:
    """Download the repository "owner/name", of this branch, tag or commit, as the new dataset `out`.

    It is downloaded into a hidden folder beside, where an interrupted download of the same commit goes on, and renamed
    once it is there and whole. `InputError` if `out` exists, for a repository without a dataset, and what the hub
    refuses.
    """
    out = Path(out).resolve()
    if out.exists():
        raise InputError(f"{out}: expected no such folder, found one")
    with _answering(repo):
        commit = HfApi().dataset_info(repo, revision=revision).sha
    partial = out.with_name(f".{out.name}.download")
    with lock_file(partial / LOCK, "download"):
        _begin(partial, {"repository": repo, "commit": commit})
        with _answering(repo):
            snapshot_download(repo, repo_type=DATASET, revision=commit, local_dir=partial)
        LeRobotDataset(partial).require_whole()
        shutil.rmtree(partial / DOWNLOADS)
        for folder, _, files in os.walk(partial):
            for name in (*files, "."):
                sync(Path(folder, name))
        partial.rename(out)
        (out / SOURCE).unlink()
        sync(out.parent)
    return LeRobotDataset(out)


def _begin(partial: Path, source: Mapping[str, str | None]) -> None:
    """Empty the folder of a download unless it is of the same source; `InputError` if it is none."""
    note = partial / SOURCE
    rest = [path for path in partial.iterdir() if path.name not in (LOCK, SOURCE)]
    if note.exists() and read_json(note) == source:
        return
    if foreign := [path.name for path in rest if not note.exists() and not path.name.endswith(TEMPORARY)]:
        raise InputError(f"{partial}: expected the download of an earlier pull, found {foreign[0]!r}; move it away")
    for path in rest:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    write_json(note, source)


def _files(root: Path) -> Iterator[Path]:
    """The dataset's files, without hidden ones, its card if it has one, and what is known of its recordings."""
    for path in (root / RECORDINGS, root / CARD, *(p for name in FOLDERS for p in sorted((root / name).rglob("*")))):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts):
            yield path


def _is_ours(name: str) -> bool:
    """Whether a file of a repository is a dataset's, by its name, and thus outdated if the new one has none such."""
    return re.fullmatch(OURS, name) is not None


def _card(dataset: LeRobotDataset) -> str:
    """A dataset card that names the files for the hub's viewer."""
    tasks = "".join(f"- {task}\n" for task in dataset.tasks)
    robot = dataset.info.get("robot_type")
    return (
        "---\ntask_categories: [robotics]\ntags: [LeRobot, vla_policy]\n"
        "configs:\n- config_name: default\n  data_files: data/*/*.parquet\n---\n\n"
        f"A LeRobotDataset {dataset.info['codebase_version']} of {dataset.num_episodes} episodes, {dataset.num_frames} "
        f"frames at {dataset.fps:g} Hz{f', of the robot {robot}' if robot else ''}. Instructions:\n\n{tasks}"
    )


@contextmanager
def _answering(repo: str) -> Iterator[None]:
    """Convert what the hub refuses to an `InputError` naming the repository, what fails on the way to a `Failure`."""
    try:
        yield
    except (HfHubHTTPError, HFValidationError) as error:
        raise InputError(f"repository {repo!r}: expected the hub to grant this, found: {_reason(error)}") from None
    except (HTTP_ERROR, LocalEntryNotFoundError, ConnectionError, RuntimeError) as error:
        raise Failure(f"repository {repo!r}: expected the hub to answer, found: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
