"""The live page in a real browser, with a pretended robot behind it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers.web import TOKEN, PretendedRobot, Relay, browsers, chromium, kill, live_page, wait_for

SIX = ("pan", "lift", "elbow", "flex", "roll", "grip")


@pytest.fixture(scope="module")
def launch() -> Iterator[Callable[[], Any]]:
    with chromium() as launch:
        yield launch


@pytest.fixture(scope="module")
def browser(launch: Callable[[], Any]) -> Iterator[Any]:
    browser = launch()
    yield browser
    browser.close()


@pytest.fixture
def robot() -> PretendedRobot:
    return PretendedRobot()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A tab in which no script fails."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    errors: list[Any] = []
    page.on("pageerror", lambda error: errors.append(error))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    yield page
    assert not errors
    context.close()


def lead(page: Any, robot: PretendedRobot, url: str) -> None:
    page.goto(f"{url}#token={TOKEN}")
    page.click("#lead:enabled")
    page.wait_for_selector("#hand:visible")
    assert TOKEN not in page.url  # nor in the history


def middle(page: Any, selector: str) -> tuple[float, float]:
    box = page.locator(selector).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def pixels(page: Any, selector: str, side: int) -> list[int]:
    """Of a canvas, from its upper left corner."""
    script = "([s, n]) => [...document.querySelector(s).getContext('2d').getImageData(0, 0, n, n).data]"
    found: list[int] = page.evaluate(script, [selector, side])
    return found


def test_who_has_no_token_sees_everything_and_may_stop(page: Any, robot: PretendedRobot) -> None:
    robot.frames = 20.0
    with live_page(robot) as server:
        page.goto(server.url)
        page.wait_for_selector("#gate:has-text('running')")
        assert page.inner_text("#now") == "push the block"
        assert "0.2000" in page.inner_text("#channels")
        assert "0.300, alarm above 0.500" in page.inner_text("#score")
        assert page.inner_text("#latencies").split() == ["policy:", "inference", "1.0", "2.0", "3.0"]
        wait_for(lambda: len(robot.delays) > 10, "pictures")
        assert pixels(page, "canvas", 1)[:3] == pytest.approx([230, 226, 215], abs=6)
        assert any(pixels(page, "canvas.over", 999))  # the chunk

        assert page.is_disabled("#enable")
        page.on("dialog", lambda dialog: dialog.accept("not the token"))
        page.click("#lead")
        page.wait_for_selector("#message:has-text('another token')")
        assert not page.is_visible("#hand")
        page.click("#stop")
        wait_for(lambda: robot.stopped, "the stop")
        page.wait_for_selector("#stop:has-text('STOPPED')")
    assert robot.calls == []


def test_whoever_leads_operates(page: Any, robot: PretendedRobot) -> None:
    with live_page(robot) as server:
        lead(page, robot, server.url)
        page.fill("#task", "slide the T to the left")
        page.press("#task", "Enter")
        robot.shown = {"recorder": "recording episode_000000.mcap", "gate": "idle"}
        page.click("#success:enabled")
        page.click("#enable:enabled")
        robot.shown = {}
        robot.answer = "observation.state is silent"
        page.click("#start:enabled")
        page.wait_for_selector("#message:has-text('observation.state is silent')")
        page.keyboard.press("Space")
        wait_for(lambda: robot.stopped, "the stop by key")
        page.click("#clear:enabled")
        wait_for(lambda: not robot.stopped, "the stop to be cleared")
    requests = [("instruct", "slide the T to the left"), ("end", True), ("enable", True), ("start", None)]
    assert robot.calls == [*requests, ("clear", None)]
    assert "asked for start: refused, observation.state is silent" in "\n".join(robot.log_lines)


def test_the_mouse_on_the_picture_leads_until_it_is_let_go(page: Any, robot: PretendedRobot) -> None:
    with live_page(robot) as server:
        lead(page, robot, server.url)
        page.mouse.move(*middle(page, "canvas.over"))
        time.sleep(0.1)
        assert not robot.calls  # only while the button is down
        page.mouse.down()
        wait_for(lambda: len(robot.of("point")) > 5, "points")
        assert robot.of("point")[-1] == pytest.approx((0.5, 0.5), abs=0.01)
        assert robot.held
        page.mouse.up()
        wait_for(lambda: not robot.held, "the hand to let go")
        for away in ("blur", "pagehide"):
            page.mouse.down()
            wait_for(lambda: robot.held, "the hand")
            page.evaluate(f"() => dispatchEvent(new Event('{away}'))")
            wait_for(lambda: robot.log_lines[-1].endswith("lets go"), f"the hand to let go on {away}")
            before = len(robot.calls)
            time.sleep(0.1)
            assert len(robot.calls) == before
            page.mouse.up()


def test_sticks_and_keys_lead_another_arm(page: Any) -> None:
    robot = PretendedRobot(SIX, pointed=())
    with live_page(robot) as server:
        lead(page, robot, server.url)
        assert page.locator(".pad").count() == 3
        x, y = middle(page, ".pad >> nth=1")
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x, y - 60)  # up
        wait_for(lambda: robot.of("push") and robot.of("push")[-1][2] > 0.8, "a push")
        page.mouse.up()
        wait_for(lambda: not robot.held, "the stick to be let go")
        assert robot.of("push")[-1] == pytest.approx([0, 0, robot.of("push")[-1][2], 0, 0, 0], abs=0.1)
        page.keyboard.down("w")
        page.keyboard.down("d")
        wait_for(lambda: robot.of("push")[-1] == [1, -1, 0, 0, 0, 0], "both keys")
        page.keyboard.up("w")
        wait_for(lambda: robot.of("push")[-1] == [0, -1, 0, 0, 0, 0], "one key")
        page.keyboard.up("d")
        wait_for(lambda: not robot.held, "the keys to be let go")


def test_a_modifier_lets_go_of_the_keys(page: Any, robot: PretendedRobot) -> None:
    def lets_go() -> bool:
        return robot.log_lines[-1].endswith("lets go")

    with live_page(robot) as server:
        lead(page, robot, server.url)
        for modifier in ("Control", "Alt", "Meta"):
            page.keyboard.down("w")
            wait_for(lambda: not lets_go() and robot.held, "the hand")
            page.keyboard.down(modifier)
            wait_for(lets_go, f"the hand to let go with {modifier}")
            page.keyboard.up("w")
            page.keyboard.up(modifier)
        page.keyboard.down("w")
        wait_for(lambda: not lets_go() and robot.held, "the hand")
        page.keyboard.down("Shift")  # makes it another letter
        page.keyboard.up("W")
        wait_for(lets_go, "the hand to let go of the other letter")
        page.keyboard.up("Shift")


def test_a_connection_that_dies_without_a_word_is_noticed_and_loses_no_stop(page: Any, robot: PretendedRobot) -> None:
    with live_page(robot) as server, Relay(server.port) as relay:
        lead(page, robot, relay.url)
        relay.cut()
        page.keyboard.press("Space")
        page.wait_for_selector("#gate:has-text('not connected')")
        page.wait_for_selector("#cause:has-text('no connection')")
        assert not page.is_visible("#hand")
        wait_for(lambda: robot.stopped, "the stop through another connection")
        page.wait_for_selector("#stop:has-text('STOPPED')")
        page.click("#clear:enabled")
        wait_for(lambda: not robot.stopped, "the stop to be cleared")
        page.wait_for_selector("#stop:has-text('STOP')")
        page.wait_for_timeout(500)  # it is not sent again
        assert not robot.stopped


def test_a_page_that_only_shows_clears_its_stop(page: Any, robot: PretendedRobot) -> None:
    with live_page(robot, control=False) as server:
        page.goto(f"{server.url}#token={TOKEN}")
        page.wait_for_selector("#gate:has-text('running')")
        page.click("#stop")
        wait_for(lambda: robot.stopped, "the stop")
        page.click("#clear:enabled")
        wait_for(lambda: not robot.stopped, "the stop to be cleared")


def test_a_phone_sees_a_page_that_fits(browser: Any, robot: PretendedRobot) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    page = context.new_page()
    with live_page(robot) as server:
        lead(page, robot, server.url)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
        box = page.locator("#stop").bounding_box()
        assert box["width"] > 300
        assert box["y"] + box["height"] <= 800
        page.tap("#stop")
        wait_for(lambda: robot.stopped, "the stop")
    context.close()


def test_a_killed_browser_lets_go(launch: Callable[[], Any], robot: PretendedRobot) -> None:
    with live_page(robot) as server:
        others = browsers()
        page = launch().new_page()
        lead(page, robot, server.url)
        page.mouse.move(*middle(page, "canvas.over"))
        page.mouse.down()
        wait_for(lambda: len(robot.of("point")) > 10, "points")
        killed = kill(browsers() - others)
        wait_for(lambda: not robot.held, "the hand to let go")
        print(f"killed: {1e3 * (robot.held_until - killed):.0f} ms from the kill to the end of the lead")
        wait_for(lambda: robot.log_lines[-1].endswith("no longer leads"), "the next to be able to lead")
