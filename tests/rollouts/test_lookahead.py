"""What is tried in the simulator before it is played: exactly what happens then, and nothing happens by trying."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
from helpers.point_env import DT, PointEnv, Scripted

from sim import Disturbance, PushTEnv, make_disturbed_env
from sim.interface import pusht_interface
from vla_policy.interfaces import ACTION, ENVIRONMENT_STATE, IMAGES, STATE, ActionChunk, Failure, Future
from vla_policy.rollouts.episode import EpisodeRunner
from vla_policy.rollouts.lookahead import Proposals, foresee
from vla_policy.rollouts.results import EpisodeSpec, Start
from vla_policy.rollouts.rollout import rollout

TOP = IMAGES + "top"
ROWS = 12


def last_x(future: Future) -> np.ndarray:
    """The sooner a point goes to the left."""
    return -future[STATE][:, -1, 0]


def fail(future: Future) -> np.ndarray:
    return np.full(len(future[ACTION]), np.nan)


def pushing(runner: EpisodeRunner, count: int = 3) -> Proposals:
    """Ways into the block and along it."""
    window, rng = runner.ask(), np.random.default_rng(4)
    assert window is not None
    rows = runner.seen[ENVIRONMENT_STATE][:2] + np.cumsum(rng.uniform(-0.02, 0.02, (count, ROWS, 2)), axis=1)
    return Proposals(rows[0], window[-1].t, DT, candidates=rows, objective=last_x)


@pytest.fixture(params=["pushed", "slipping", "biased", "seen by a camera"])
def runner(request: pytest.FixtureRequest) -> Iterator[EpisodeRunner]:
    """In the middle of an episode in which the block is being pushed."""
    event = {"slipping": Disturbance("slippery_block", 3.0, 2), "biased": Disturbance("biased_actions", None, 2)}
    camera = request.param == "seen by a camera"
    env = make_disturbed_env("pybullet", ["top"] if camera else [], None, event.get(request.param))
    keys = [STATE, TOP] if camera else [STATE, ENVIRONMENT_STATE]
    episode = EpisodeRunner(env, EpisodeSpec(pusht_interface({"top": 96}).select(keys), 1, 8))
    episode.start(Start(7))
    for _ in range(2):
        chunk = pushing(episode)
        episode.answer(ActionChunk(chunk.actions, chunk.t_obs, chunk.dt))
        for _ in range(8):
            assert episode.step() is None
    yield episode
    env.close()


def test_what_is_foreseen_happens_to_the_bit(runner: EpisodeRunner) -> None:
    proposals = pushing(runner)
    future = foresee(runner, proposals)
    assert np.ptp(future[ENVIRONMENT_STATE], axis=0).max() > 1e-3  # in every one the block goes elsewhere
    chosen = int(np.argmax(last_x(future)))
    before = runner.seen[STATE]
    runner.answer(proposals)
    np.testing.assert_array_equal(runner.seen[STATE], before)  # nothing has happened yet
    for row in range(ROWS):
        picture = runner.seen.get(TOP)
        runner.step()
        for key, values in future.items():
            np.testing.assert_array_equal(runner.seen[key], values[chosen, row].astype(np.float32))
    assert picture is None or (picture != runner.seen[TOP]).any()  # eyes were closed in the futures alone


class Undecided(Scripted):
    """Proposes to drive to the origin, and to places that are no use."""

    def predict(self, histories, generator):  # type: ignore[no-untyped-def]
        found = super().predict(histories, generator)
        return [
            Proposals(c.actions, c.t_obs, c.dt, candidates=np.stack([0 * c.actions + 0.9, c.actions]), objective=near)
            for c in found
        ]


def near(future: Future) -> np.ndarray:
    """The nearer to the origin the better."""
    return -np.linalg.norm(future[STATE], axis=-1).mean(1)


def test_the_best_proposal_is_played_in_every_process() -> None:
    seeds = list(range(50000, 50004))
    plain = rollout(Scripted(), PointEnv, seeds, num_workers=0)
    tried = rollout(Undecided(), PointEnv, seeds, num_workers=0)
    spread = rollout(Undecided(), PointEnv, seeds, num_envs=2, num_workers=2)
    for one, other, third in zip(plain, tried, spread, strict=True):
        np.testing.assert_array_equal(one.actions, other.actions)
        np.testing.assert_array_equal(one.actions, third.actions)
        assert [step for step, _ in other.plans] == list(range(0, other.steps, 4))
        first = other.plans[0][1][STATE]
        np.testing.assert_array_equal(first[0], np.float32(other.pusher))
        np.testing.assert_array_equal(first[1:5], other.path[:4].astype(np.float32))  # then another one is played


def test_a_future_that_cannot_be_simulated_or_judged_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    class Breaking(PointEnv):
        def step(self, action):  # type: ignore[no-untyped-def]
            raise RuntimeError("the table caught fire")

    with pytest.raises(Failure, match="expected a simulated future of each proposal, found exit status"):
        rollout(Undecided(), Breaking, [50000], num_workers=0)
    assert "the table caught fire" in capfd.readouterr().err
    policy = Undecided()
    predict = policy.predict
    policy.predict = lambda h, g: [  # type: ignore[method-assign]
        Proposals(c.actions, c.t_obs, c.dt, candidates=c.candidates, objective=fail) for c in predict(h, g)
    ]
    with pytest.raises(Failure, match="expected finite scores of what was simulated"):
        rollout(policy, PointEnv, [50000], num_workers=0)


def test_a_process_that_cannot_be_started_is_reported_and_leaves_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    def fork() -> int:
        if len(started) == 1:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        started.append(real())
        return started[-1]

    real = os.fork
    monkeypatch.setattr(os, "fork", fork)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    files = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Failure, match=r"planner: expected to start a process for each proposal, found .* unavailable"):
        rollout(Undecided(), PointEnv, [50000], num_workers=0)
    assert len(os.listdir("/proc/self/fd")) == files
    with pytest.raises(ChildProcessError):
        os.waitpid(started[0], os.WNOHANG)


def test_frozen_cameras_look_again_in_the_next_episode() -> None:
    env = PushTEnv()
    first, _ = env.reset(seed=1)
    env.freeze_cameras(first)
    frozen, *_ = env.step(np.array([0.5, 0.1]))
    np.testing.assert_array_equal(frozen[TOP], first[TOP])
    assert (env.reset(seed=2)[0][TOP] != first[TOP]).any()
    env.close()
