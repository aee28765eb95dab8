"""A hub on this machine: the part of huggingface_hub's HTTP that datasets need, with repositories in memory."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LFS = (".mp4", ".parquet")  # uploaded apart from the commit


class FakeHub:
    """`commits` of a repository are {name: content} each; `refusals` says how often a file is refused at first."""

    def __init__(self) -> None:
        self.commits: dict[str, list[dict[str, bytes]]] = {}
        self.private: dict[str, bool] = {}
        self.tags: dict[str, dict[str, int]] = {}
        self.blobs: dict[str, bytes] = {}
        self.downloads: list[str] = []
        self.refusals: dict[str, int] = {}
        self.url = ""

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        return self.commits[repo][self.number(repo, revision)]

    def number(self, repo: str, revision: str) -> int:
        """The number of a commit by its name, of a tag, or of the branch main."""
        last = len(self.commits[repo]) - 1
        known = {commit_name(i): i for i in range(last + 1)} | self.tags[repo] | {"main": last}
        return known[revision]


def commit_name(number: int) -> str:
    return f"{number:040x}"


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        """Answers as the hub does."""

        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def answer(self, content: Any = None, status: int = 200, headers: dict[str, str] | None = None) -> None:
            data = content if isinstance(content, bytes) else json.dumps(content or {}).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def missing(self, kind: str = "RepoNotFound") -> None:
            self.answer(status=404, headers={"X-Error-Code": kind, "X-Error-Message": "not here"})

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def do_PUT(self) -> None:
            content = self.body()
            hub.blobs[hashlib.sha256(content).hexdigest()] = content
            self.answer()

        def do_DELETE(self) -> None:
            self.body()
            repo, _, tag = self.path.removeprefix("/api/datasets/").partition("/tag/")
            if hub.tags[repo].pop(tag, None) is None:
                self.missing("RevisionNotFound")
            else:
                self.answer()

        def do_POST(self) -> None:
            body, path = self.body(), unquote(urlsplit(self.path).path)
            if path == "/api/validate-yaml":
                return self.answer({"errors": [], "warnings": []})
            if path == "/api/repos/create":
                asked = json.loads(body)
                repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
                known = repo in hub.commits
                hub.commits.setdefault(repo, [{".gitattributes": b"*.mp4 filter=lfs\n"}])
                hub.tags.setdefault(repo, {})
                hub.private.setdefault(repo, asked.get("private") or asked.get("visibility") == "private")
                address = {"url": f"{hub.url}/datasets/{repo}"}
                return self.answer(address, 409 if known else 200)
            if path.endswith("/info/lfs/objects/batch"):
                objects = [
                    {**each, "actions": {"upload": {"href": f"{hub.url}/blobs/{each['oid']}"}}}
                    for each in json.loads(body)["objects"]
                ]
                return self.answer({"transfer": "basic", "objects": objects})
            owner, name, action, _ = path.removeprefix("/api/datasets/").split("/", 3)
            repo = f"{owner}/{name}"
            if repo not in hub.commits:
                return self.missing()
            if action == "preupload":
                modes = [
                    {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(LFS) else "regular"}
                    for f in json.loads(body)["files"]
                ]
                return self.answer({"files": [mode | {"shouldIgnore": False} for mode in modes]})
            if action == "tag":
                hub.tags[repo][json.loads(body)["tag"]] = hub.number(repo, path.rpartition("/")[2])
                return self.answer()
            files = dict(hub.files(repo))
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = hub.blobs[value["oid"]]
                elif line["key"] == "deletedFile":
                    del files[value["path"]]
            hub.commits[repo].append(files)
            oid = commit_name(len(hub.commits[repo]) - 1)
            self.answer({"commitOid": oid, "commitUrl": f"{hub.url}/datasets/{repo}/commit/{oid}", "success": True})

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            words = unquote(parts.path).strip("/").split("/")
            if "datasets" not in words[:2]:
                return self.missing()
            words = words[words.index("datasets") + 1 :]
            owner, name, action, revision, *rest = words if len(words) > 2 else [*words, "revision", "main"]
            repo = f"{owner}/{name}"
            if repo not in hub.commits:
                return self.missing()
            try:
                number = hub.number(repo, revision)
            except KeyError:
                return self.missing("RevisionNotFound")
            files, sha = hub.commits[repo][number], commit_name(number)
            if action == "revision":
                found = [{"rfilename": name} for name in files]
                return self.answer(
                    {"id": repo, "sha": sha, "siblings": found, "private": hub.private.get(repo, False), "tags": []}
                )
            if action == "tree":
                assert parse_qs(parts.query).get("recursive") != ["False"]
                tree = [
                    {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for name, data in files.items()
                ]
                return self.answer(tree)
            path = "/".join(rest)
            if self.command == "GET":
                hub.downloads.append(path)
                if hub.refusals.get(path):
                    hub.refusals[path] -= 1
                    return self.answer(status=400)
            digest = hashlib.sha1(files[path]).hexdigest()
            self.answer(files[path], headers={"ETag": f'"{digest}"', "X-Repo-Commit": sha})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
