"""The page of a dataset: what it shows, what a browser does with it, and how changes reach the dataset."""

from __future__ import annotations

import io
import json
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.small_dataset import TOP, WRIST, make_small_dataset
from helpers.web import TOKEN, chromium, wait_for
from PIL import Image

from vla_policy.data import editing
from vla_policy.data.editing import apply
from vla_policy.data.writing.journal import lock
from vla_policy.interfaces import ACTION, InputError
from vla_policy.web import edits
from vla_policy.web.data import DataPage
from vla_policy.web.episodes import Episodes
from vla_policy.web.server import Server


class Recorded:
    """An `Editing` that keeps what it is asked for."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def revise(self, root: Path, tasks: Mapping[int, str], deleted: Any, require: Callable[[], None]) -> None:
        require()
        self.calls.append(("revise", root.name, dict(tasks), list(deleted)))

    def split(self, root: Path, out: Path, parts: Mapping[str, Sequence[int]]) -> None:
        self.calls.append(("split", root.name, out.name, dict(parts)))

    def merge(self, roots: Sequence[Path], out: Path) -> None:
        if out.exists():
            raise InputError(f"{out}: expected no such folder, found one")
        self.calls.append(("merge", [root.name for root in roots], out.name))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of two cameras with a neighbour, beside which lies a secret."""
    folder = tmp_path_factory.mktemp("datasets")
    (folder / "secret.txt").write_text("nobody may read this")
    make_small_dataset(folder / "other", episodes=1, length=3)
    make_small_dataset(folder / "pushes", (TOP, WRIST), ("push", "pull"), episodes=5, length=12, size=64)
    recordings = [
        {"episode": k, "bag": f"episode_{k}.mcap", "result": result} for k, result in enumerate(["success", "failure"])
    ]
    (folder / "pushes" / "recordings.json").write_text(json.dumps(recordings))
    return folder / "pushes"


@contextmanager
def served(root: Path, editing: Any) -> Iterator[Server]:
    with Server(DataPage(root, TOKEN, editing, lambda _: None).app, "127.0.0.1", 0) as server:
        yield server


def ask(server: Server, path: str, body: Any = None, token: str = TOKEN) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    method = "GET" if body is None else "POST"
    headers = {"Origin": server.url.rstrip("/"), "Authorization": f"Bearer {token}"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_episodes_as_the_page_reads_them(root: Path) -> None:
    episodes = Episodes(root)
    shown = episodes.summary()
    assert shown["cameras"] == ["top", "wrist"]
    assert [episode["result"] for episode in shown["episodes"]] == ["success", "failure", "", "", ""]
    assert episodes.tasks() == {0: "push", 1: "pull", 2: "push", 3: "pull", 4: "push"}
    (state, action) = episodes.series(1)["features"]
    assert (action["name"], action["channels"], action["units"]) == (ACTION, ["x", "y"], ["m", "m"])
    np.testing.assert_allclose(np.array(state["values"])[:, 1:], np.array(action["values"])[:, :-1], atol=2e-5)
    wait_for(lambda: episodes.warnings is not None, "the inspection")
    with pytest.raises(InputError, match="expected an episode from 0 to 4, found 9"):
        episodes.frames(9, 0)


def test_the_pictures_of_a_camera_come_as_one_stream(root: Path) -> None:
    with served(root, None) as server:
        status, data = ask(server, "/api/episodes/2/frames/1")
        assert status == 200
        pictures = []
        while data:
            (length,) = struct.unpack("<I", data[:4])
            pictures.append(np.asarray(Image.open(io.BytesIO(data[4 : 4 + length]))))
            data = data[4 + length :]
        assert [picture.shape for picture in pictures] == [(64, 64, 3)] * 12
        expected = list(Episodes(root)._dataset.iter_frames(2, WRIST))
        assert np.abs(pictures[7].astype(int) - expected[7]).mean() < 12
        for path in ("9/frames/0", "0/frames/2", "9", "9/thumbnail"):
            assert ask(server, f"/api/episodes/{path}")[0] == 404


def revision(server: Server) -> str:
    found: str = json.loads(ask(server, "/api/dataset")[1])["revision"]
    return found


def test_changes_need_the_token_and_are_checked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vla_policy.web.data.CHANGES", (0.001, 4))
    editing = Recorded()
    with served(root, editing) as server:
        shown = {"revision": revision(server)}
        save = {**shown, "deleted": [1, 3], "tasks": {"0": "push left", "2": "push left", "3": "lost"}}
        assert ask(server, "/api/save", save, "wrong")[0] == 401
        assert ask(server, "/api/save", save)[0] == 200
        assert editing.calls == [("revise", "pushes", {0: "push left", 2: "push left"}, [1, 3])]
        editing.calls.clear()
        assert ask(server, "/api/split", {**shown, "name": "left", "episodes": [0, 2]})[0] == 200
        assert ask(server, "/api/merge", {"other": "other", "name": "both"})[0] == 200
        assert editing.calls == [
            ("split", "pushes", root.parent.name, {"left": [0, 2]}),
            ("merge", ["pushes", "other"], "both"),
        ]
        status, answer = ask(server, "/api/merge", {"other": "other", "name": "other"})
        assert status == 400
        assert b"expected no such folder" in answer
        assert ask(server, "/api/split", {"name": "x", "episodes": []})[0] == 429  # too many at once


@pytest.mark.parametrize("name", ["../evil", "/etc/x", "..", ".hidden", "", "a\nb", "a/b", 5, None, "x" * 200])
def test_new_datasets_lie_beside_this_one(name: object) -> None:
    with pytest.raises(InputError):
        edits.folder(name)


def test_merging_stays_among_the_neighbours(root: Path) -> None:
    assert edits.neighbours(root) == ["other"]
    for other in ("pushes", "../pushes", "secret.txt", "/etc"):
        with pytest.raises(InputError, match="merge: expected one of"):
            edits.merge(Recorded(), root, other, "new")


WRONG_EDITS = [
    *(None, [], {"deleted": []}, {"deleted": [], "tasks": []}),
    *({"deleted": wrong, "tasks": {}} for wrong in ([True], [0.5], ["0"], 5)),
    *({"deleted": [], "tasks": wrong} for wrong in ({"x": "a"}, {"-1": "a"}, {"0": ""}, {"0": "a\nb"}, {"0": 5})),
]


@pytest.mark.parametrize("data", WRONG_EDITS)
def test_edits_that_are_none(data: object) -> None:
    with pytest.raises(InputError):
        edits.Edits.from_json(data)


def test_no_path_leads_out_of_the_dataset(root: Path) -> None:
    with served(root, Recorded()) as server:
        up = ["../secret.txt", "%2e%2e/secret.txt", "..%2f..%2fsecret.txt", "../../../../etc/passwd"]
        odd = ["-1", "0/frames/-1", "99999999999999999999", "0/frames/99999999999999999999", "0/thumbnail/x"]
        for path in [*up, *(f"episodes/0/frames/{each}" for each in up), *(f"episodes/{each}" for each in odd)]:
            for start in ("/api/", "/static/", "/"):
                status, answer = ask(server, start + path)
                assert status in (400, 404, 405), path
                assert b"nobody may read this" not in answer
        assert ask(server, "/")[0] == 200


def test_a_dataset_in_the_browser(root: Path) -> None:
    editing = Recorded()
    with chromium() as launch, served(root, editing) as server:
        page = launch().new_page(viewport={"width": 1300, "height": 900})
        errors: list[Any] = []
        page.on("pageerror", lambda error: errors.append(error))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(f"{server.url}#token={TOKEN}")
        row = page.locator("#episodes tr")
        page.wait_for_selector("#episodes tr >> nth=4")
        page.wait_for_selector("#episodes tr:nth-child(2) >> text=pull")
        assert row.nth(0).inner_text().split()[:4] == ["0", "12", "1.2", "success"]
        row.nth(3).click()
        page.wait_for_selector("#title:has-text('Episode 3')")
        page.wait_for_selector("body[data-frame='0']")
        page.click("#play")
        page.wait_for_selector("body[data-frame='11']")
        sizes = page.evaluate("() => [...document.querySelectorAll('#cameras canvas')].map((c) => c.width)")
        assert sizes == [64, 64]  # both cameras
        page.keyboard.press("Tab")

        marks = page.locator("#episodes input")
        marks.nth(1).check()
        marks.nth(4).check()
        page.click("#delete")
        assert page.locator("tr.deleted").count() == 2
        marks.nth(4).uncheck()
        marks.nth(1).uncheck()
        marks.nth(0).check()
        page.click("#retask")
        page.fill("#answer", "push to the left")
        page.press("#answer", "Enter")
        page.wait_for_selector("#episodes tr:nth-child(1) >> text=push to the left")
        assert page.inner_text("#changes") == "3 changes not saved"
        assert editing.calls == []
        page.click("#undo")
        assert page.inner_text("#changes") == "2 changes not saved"
        for _ in range(3):  # the marks
            page.click("#undo")
        page.click("#undo")
        assert page.locator("tr.deleted").count() == 0
        marks.nth(4).uncheck()
        page.click("#delete")
        page.click("#save")
        page.wait_for_selector("#message:has-text('saved: 0 with another sentence, 1 deleted')")
        assert editing.calls == [("revise", "pushes", {}, [1])]
        assert not errors


def test_real_editing_through_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vla_policy.web.data.CHANGES", (1000.0, 1000.0))  # a test clicks faster than a person
    make_small_dataset(tmp_path / "mine", tasks=("push", "pull"), episodes=4, length=5)
    with served(tmp_path / "mine", editing) as server:
        save = {"revision": revision(server), "deleted": [1], "tasks": {"0": "shove"}}
        assert ask(server, "/api/save", save)[0] == 200
        status, answer = ask(server, "/api/save", save)  # of a second click, or of another tab
        assert status == 409
        assert b"was changed meanwhile" in answer
        assert json.loads(ask(server, "/api/tasks")[1]) == {"0": "shove", "1": "push", "2": "pull"}
        assert ask(server, "/api/split", {"revision": revision(server), "name": "part", "episodes": [0, 2]})[0] == 200
        assert Episodes(tmp_path / "part").tasks() == {0: "shove", 1: "pull"}
        assert ask(server, "/api/merge", {"other": "part", "name": "both"})[0] == 200
        assert len(Episodes(tmp_path / "both").tasks()) == 5
        editing.delete(tmp_path / "mine", [0])  # by another program
        assert ask(server, "/api/save", {"revision": revision(server), "deleted": [0], "tasks": {}})[0] == 409
        status, answer = ask(server, "/api/save", {"revision": revision(server), "deleted": [9], "tasks": {}})
        assert status == 400
        assert b"found 9" in answer


def test_who_was_faster_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_small_dataset(tmp_path / "mine", tasks=("push",), episodes=3, length=5)

    def beaten(root: Path) -> Any:
        monkeypatch.setattr(apply, "lock", lock)
        editing.delete(root, [0])  # by another program, in the last moment
        return lock(root)

    with served(tmp_path / "mine", editing) as server:
        shown = revision(server)
        monkeypatch.setattr(apply, "lock", beaten)
        assert ask(server, "/api/save", {"revision": shown, "deleted": [0], "tasks": {}})[0] == 409
    assert len(Episodes(tmp_path / "mine").tasks()) == 2


def test_a_failing_inspection_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> Any:
        raise ZeroDivisionError("a defect")

    make_small_dataset(tmp_path / "mine", episodes=1, length=3)
    monkeypatch.setattr("vla_policy.web.episodes.inspect", fail)
    episodes = Episodes(tmp_path / "mine")
    wait_for(lambda: episodes.warnings is not None, "the end of the inspection")
    assert [warning["text"] for warning in episodes.warnings or []] == ["a defect"]


def test_inspections_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running: list[int] = []
    go = threading.Event()

    def slow(_: Any) -> Any:
        running.append(len(running))
        go.wait(60)
        return {"warnings": [{"text": str(len(running))}]}

    make_small_dataset(tmp_path / "mine", episodes=1, length=3)
    monkeypatch.setattr("vla_policy.web.episodes.inspect", slow)
    episodes = Episodes(tmp_path / "mine")
    wait_for(lambda: running, "the first inspection")
    for _ in range(4):
        episodes.reload()
    go.set()
    wait_for(lambda: episodes.warnings is not None, "the last inspection")
    assert len(running) == 2  # the first and the last


def test_a_save_is_made_once_and_escape_cancels(root: Path) -> None:
    go = threading.Event()

    class Slow(Recorded):
        def revise(self, *arguments: Any) -> None:
            super().revise(*arguments)
            go.wait(60)

    slow = Slow()
    with chromium() as launch, served(root, slow) as server:
        page = launch().new_page()
        page.goto(f"{server.url}#token={TOKEN}")
        page.wait_for_selector("#episodes tr >> nth=4")
        page.locator("#episodes input").nth(1).check()
        for key in ("Enter", "Escape"):
            page.click("#retask")
            page.fill("#answer", f"closed by {key}")
            page.press("#answer", key)
        page.wait_for_selector("#episodes tr:nth-child(2) >> text=closed by Enter")
        page.click("#undo")
        page.click("#delete")
        page.click("#save")
        wait_for(lambda: slow.calls, "the change")
        page.locator("#episodes input").nth(2).check()  # shows all anew
        for button in ("save", "delete", "undo", "split", "merge", "retask"):
            assert page.is_disabled(f"#{button}")
        go.set()
        page.wait_for_selector("#message:has-text('saved: 0 with another sentence, 1 deleted')")
        assert page.inner_text("#changes") == ""
    assert slow.calls == [("revise", "pushes", {}, [1])]
