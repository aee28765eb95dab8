"""docs/tutorials/browser.md as a new user goes through it: in a real browser, over the real graph.

`VLA_PICTURES=docs/pictures` makes the tutorial's pictures.
"""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from helpers.commands import train
from helpers.ros import ROOT, own_domain
from helpers.small_runs import SHORT_RUN, SMALL_POLICY
from helpers.web import chromium, wait_for
from PIL import Image

from vla_policy.data import LeRobotDataset
from vla_policy.robot.contract import load_contract

pytestmark = [pytest.mark.dds, pytest.mark.slow]
PICTURES = "VLA_PICTURES"
PATIENCE = 180.0  # seconds, for a busy computer
TRIES = 5  # pushes at the block
CHECKPOINT = ROOT / "checkpoints" / "pusht_language"
ANOTHER, UNKNOWN = "push the T to the red goal", "make me a coffee"
SIZE = 96  # pixels of the camera's picture, each way
NOTHING = "\N{EN DASH}"  # what the page says of a state that it does not know
TINY = "policy.backbone.tiny={width:32,heads:2,vision_depth:1,text_depth:2,image_size:32,vocab_size:400}"
PIXELS = """() => {
    const canvas = document.querySelector("canvas");
    return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
}"""
RING = """() => {
    const canvas = document.querySelector("canvas.over");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let red = 0;
    for (let k = 0; k < data.length; k += 4) red += data[k] > 240 && data[k + 1] < 120 && data[k + 3] > 200;
    return red > 20;
}"""


@pytest.fixture
def contract(tmp_path: Path) -> Path:
    """The simulated arm's, as patient as it may be: a busy computer shall not end the lesson."""
    written = yaml.safe_load((ROOT / "config" / "pusht_sim.yaml").read_text())
    written["timeouts"] |= dict.fromkeys(("policy", "monitor", "camera", "state", "chunk", "max_age"), 2.0)
    path = tmp_path / "pusht_sim.yaml"
    path.write_text(yaml.safe_dump(written))
    return path


@contextmanager
def page_of(launch: Callable[[], Any], log: Path, *words: object) -> Iterator[Any]:
    """A tab at the address that a command prints; Ctrl-C ends the command."""
    with log.open("wb") as output:
        program = subprocess.Popen(
            [sys.executable, "-m", *map(str, words)],
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def address() -> re.Match[str] | None:
        assert program.poll() is None, log.read_text()
        return re.search(r"^open (\S+)$", log.read_text(), re.MULTILINE)

    try:
        wait_for(address, "the page", PATIENCE, every=0.1)
        found = address()
        assert found is not None
        browser = launch()
        page = browser.new_page(viewport={"width": 1100, "height": 800}, color_scheme="light")
        page.set_default_timeout(1e3 * PATIENCE)
        page.goto(found[1])
        yield page
        browser.close()
        program.send_signal(signal.SIGINT)
        assert program.wait(PATIENCE) == 130
    finally:
        program.kill()
        program.wait()


class Student:
    """Whoever sits before the live page, and enables the arm again wherever a busy computer stops it."""

    def __init__(self, page: Any, contract: Path) -> None:
        self._page, self._pointing = page, load_contract(str(contract)).pointing
        self._held: tuple[float, float] | None = None  # where the mouse is held down, parts of the picture

    @property
    def place(self) -> np.ndarray:
        """Of the arm (2,) in metres, as the page says; NaN while it says nothing."""
        shown = re.findall(rf"({NOTHING}|-?\d+\.\d+)$", self._page.inner_text("#channels"), re.MULTILINE)
        return np.array([float(text.replace(NOTHING, "nan")) for text in shown[::2]])  # beside each is a command

    @property
    def leads(self) -> bool:
        """Whether the page shows the red ring where the mouse is held."""
        return bool(self._page.evaluate(RING))

    def until(self, done: Callable[[], Any], what: str) -> None:
        def tried() -> bool:
            if done():
                return True
            if self._page.is_enabled("#enable"):
                self._page.mouse.up()
                self._press("#enable")
                self._hold()
            elif self._held is not None and not self.leads:  # the page was not connected when the mouse went down
                self._page.mouse.up()
                self._hold()
            return False

        wait_for(tried, what, PATIENCE, every=0.1)

    def sees_it_work(self) -> None:
        places: list[np.ndarray] = []

        def moved() -> bool:
            places.extend([self.place] if np.isfinite(self.place).all() else [])
            return bool(places) and float(np.ptp(places, axis=0).max()) > 0.02

        self.until(moved, "the arm to work")

    def tell(self, sentence: str) -> None:
        self._page.fill("#task:enabled", sentence)
        self._page.click("#tell")
        self._page.wait_for_selector(f"#now:has-text('{sentence}')")

    def lead(self, u: float, v: float, done: Callable[[], Any] | None = None) -> None:
        """Hold the mouse at this part of the picture until it is done: by default until the arm is there."""
        self._held = u, v
        self._hold()
        self.until(done or (lambda: self._is_at(u, v)), f"what leading to {u:.2f}, {v:.2f} is for")

    def let_go(self) -> None:
        self._held = None
        self._page.mouse.up()

    def push(self) -> None:
        """Push the block with the mouse, past its middle, and from the other side where the arm slipped off it."""
        begin = self._see()[0]

        def pushed() -> bool:
            return bool(np.linalg.norm(self._see()[0] - begin) > 0.05)

        def over(u: float, v: float) -> bool:
            return pushed() or self._is_at(u, v)

        for _ in range(TRIES):
            block, pusher = self._see()
            way = (block - pusher) / np.linalg.norm(block - pusher)
            u, v = np.clip(block + 0.3 * way, 0.15, 0.85).tolist()
            self.lead(u, v, partial(over, u, v))
            if pushed():
                return
        raise AssertionError(f"the block did not move in {TRIES} pushes")

    def record(self, button: str, recording: bool) -> None:
        """Press it until the recorder says that it records, or that it does so no longer."""

        def changed() -> bool:
            if self._page.inner_text("#recorder").startswith("recording") == recording:
                return True
            self._press(button)
            return False

        wait_for(changed, f"the recorder's answer to {button}", PATIENCE, every=0.5)

    def _press(self, button: str) -> None:
        """Does nothing where it is disabled, and does not wait until it is not, unlike a click of Playwright's."""
        self._page.locator(button).evaluate("(button) => button.click()")

    def _is_at(self, u: float, v: float) -> bool:
        assert self._pointing is not None
        goal = self._pointing.place(SIZE * np.array([u, v]))
        return bool(np.abs(self.place - goal).max() < 0.01)

    def _see(self) -> tuple[np.ndarray, np.ndarray]:
        """The middle of the block and of the pusher in the picture, parts of its size (2,) each."""
        pixels = np.array(self._page.evaluate(PIXELS)).reshape(SIZE, SIZE, 4)[..., :3]
        red, green, blue = np.moveaxis(pixels, -1, 0)
        block = (pixels.max(-1) < 160) & (np.ptp(pixels, axis=-1) > 50)  # goals are lighter, the arm is grey
        return _middle(block), _middle((red > 160) & (green < 90) & (blue > 90))

    def _hold(self) -> None:
        if self._held is None:
            return
        box = self._page.locator("canvas.over").bounding_box()
        u, v = self._held
        self._page.mouse.move(box["x"] + u * box["width"], box["y"] + v * box["height"])
        self._page.mouse.down()


def _middle(mask: np.ndarray) -> np.ndarray:
    assert mask.any()
    middle: np.ndarray = (np.argwhere(mask).mean(axis=0)[::-1] + 0.5) / SIZE
    return middle


def take(page: Any, name: str, folder: Path) -> None:
    """A picture of the page without what it says for a moment; 32 shades of each colour take a third of the bytes."""
    folder.mkdir(exist_ok=True)
    page.evaluate("() => { document.querySelector('#message').hidden = true }")
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    shot.point(lambda shade: shade & 0xF8 | shade >> 5).save(folder / f"{name}.png", optimize=True)


def test_the_tutorial(tmp_path: Path, contract: Path) -> None:
    folder = Path(os.environ.get(PICTURES, tmp_path / "pictures"))
    out, run = tmp_path / "sim", tmp_path / "run"
    dataset = out / "recordings" / "dataset"
    words = ["scene=pusht_language", "web=true", "port=0", "seed=3", "domain_id=null"]
    simulation = ["vla_policy.cli.sim", CHECKPOINT, *words, f"contract={contract}", f"out={out}"]
    with chromium() as launch:
        with own_domain(3), page_of(launch, tmp_path / "sim.txt", *simulation) as page:
            student = Student(page, contract)
            see_instruct_and_lead(page, student, folder)
            record_three_episodes(page, student)
        with page_of(launch, tmp_path / "data.txt", "vla_policy.cli.web", "data", dataset, "port=0") as page:
            look_and_delete(page, folder)
    assert LeRobotDataset(dataset).num_episodes == 2
    words = [f"data.root={dataset}", "backbone=tiny", "trainer.steps=4", f"run_dir={run}"]
    done = train(*words, TINY, *SMALL_POLICY, *SHORT_RUN)
    assert done.returncode == 0, done.stderr
    assert (run / "checkpoints" / "last" / "model.safetensors").is_file()


def see_instruct_and_lead(page: Any, student: Student, folder: Path) -> None:
    def running() -> bool:
        return bool(page.inner_text("#gate") == "running")

    page.click("#lead:enabled")
    student.sees_it_work()
    student.until(running, "an arm that works")
    take(page, "browser_live", folder)

    student.tell(UNKNOWN)
    # As the cause of the stop, or of an arm that was stopped before and is not enabled now.
    student.until(lambda: "is not in what it was trained on" in page.inner_text("body"), "the refusal")
    student.tell(ANOTHER)
    student.sees_it_work()

    student.push()
    student.until(lambda: running() and student.leads, "an arm that is led")
    take(page, "browser_lead", folder)
    student.let_go()
    page.wait_for_selector("#gate:has-text('holding')")


def record_three_episodes(page: Any, student: Student) -> None:
    for _ in range(3):
        page.click("#reset:enabled")
        student.record("#start", True)
        for u, v in ((0.3, 0.3), (0.7, 0.7)):
            student.lead(u, v)
        student.let_go()
        student.record("#success", False)
    page.wait_for_selector("#recorder:has-text('3 episodes')")


def look_and_delete(page: Any, folder: Path) -> None:
    page.wait_for_selector("#episodes tr:nth-child(3)")
    page.click("#episodes tr:nth-child(2)")
    page.wait_for_selector("#title:has-text('Episode 1')")
    page.click("#plots canvas >> nth=0")  # its middle
    page.wait_for_selector("body:not([data-frame='0'])")
    page.check("#episodes tr:nth-child(2) input")
    page.click("#delete:enabled")
    page.wait_for_selector("#changes:has-text('1 change not saved')")
    take(page, "browser_data", folder)
    page.click("#save:enabled")
    page.wait_for_selector("#about:has-text('2 episodes')")
