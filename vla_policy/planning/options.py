"""The configuration of a planner, and the objective that it names."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from vla_policy.interfaces import ACTION, STATE, InputError, Interface, Objective
from vla_policy.planning.objectives import Gentle, KeepOut, LearnedReturn, Random, Reach, Sum

RANKING, STEERING = ("dmpc", "oracle"), ("diffuser", "decision_diffuser")
PLANNERS = ("none", *RANKING, *STEERING, "foresight")
OBJECTIVES = ("progress", "return", "reach", "keep_out", "gentle", "random")
OF_PLANNERS = {  # planners by option
    **dict.fromkeys(("objective", "goal", "returns"), (*RANKING, "diffuser")),
    **{"dynamics": ("dmpc", "foresight"), "samples": (*RANKING, "foresight")},
    **{"guidance": STEERING, "target_return": ("decision_diffuser",)},
}
USED_BY = {"goal": ("progress", "reach"), "disc": ("keep_out",), "returns": ("return",)}  # objectives by option


@dataclass
class PlannerConfig:
    """Which of a policy's proposals is played, or what is planned."""

    name: str = "none"
    """none: the only one | dmpc: the best of several, by what is imagined to follow | oracle: by what does follow in
    the simulator, the ceiling of every planner | foresight: with chunking=rtc, of chunks for several states that are
    imagined at their beginning the one for what is then seen | diffuser: of a training with trajectory=diffuser, a plan
    along the objective's gradient | decision_diffuser: of one with trajectory=decision_diffuser, a plan for
    planner.target_return
    """
    dynamics: str | None = None  # dmpc, foresight: folder of a training with dynamics=dmpc
    samples: int = 32  # dmpc, oracle: proposals for each chunk; foresight: imagined states, see planner=foresight
    objective: str = "progress"
    """one or, joined by +, several: progress (PushT's block to planner.goal) | return (as planner.returns has learnt
    it) | reach (the robot's state to planner.goal) | keep_out (of planner.disc) | gentle (smooth commands) | random
    (the control)
    """
    goal: list[float] | None = None
    """x, y in metres and the angle that the block shall reach, null: the scene's; with reach, a value a channel of the
    robot's state
    """
    disc: list[float] | None = None
    """x, y and radius in metres of where the tool's centre must not be; who enters it is counted"""
    returns: str | None = None  # folder of a training with returns=mlp
    guidance: float | None = None
    """diffuser: plans are exp(guidance * objective) times as likely as they were demonstrated | decision_diffuser: 0
    plans for any return, 1 for target_return, more beyond it; see planner=diffuser, planner=decision_diffuser
    """
    target_return: float | None = None
    """decision_diffuser: of a plan, in (0, 1]; discount^k, k control periods before a demonstration's end"""

    def __post_init__(self) -> None:
        if self.name not in PLANNERS:
            raise InputError(f"planner: expected one of {list(PLANNERS)}, found {self.name!r}")
        changed = [option.name for option in fields(self)[1:] if getattr(self, option.name) != option.default]
        if self.name == "none" and changed:
            raise InputError(f"planner: expected one of {list(PLANNERS[1:])} with planner.{changed[0]}, found none")
        if self.name in OF_PLANNERS["dynamics"] and self.dynamics is None:
            raise InputError("planner.dynamics: expected the folder of dynamics, found none")
        for option in changed:
            if option in OF_PLANNERS and self.name not in OF_PLANNERS[option]:
                raise InputError(
                    f"planner.{option}: expected none with planner={self.name}, found {getattr(self, option)}"
                )
        self._check_steering()
        if self.samples < 1:
            raise InputError(f"planner.samples: expected at least 1, found {self.samples}")
        if unknown := [word for word in self.wishes if word not in OBJECTIVES]:
            raise InputError(f"planner.objective: expected some of {list(OBJECTIVES)}, found {unknown[0]!r}")
        for word, option in (("keep_out", "disc"), ("return", "returns"), ("reach", "goal")):
            if word in self.wishes and getattr(self, option) is None:
                raise InputError(f"planner.{option}: expected one with planner.objective={word}, found none")
        if self.disc is not None and not _numbers("planner.disc", self.disc, 3)[2] > 0:
            raise InputError(f"planner.disc: expected a radius above 0, found {self.disc[2]}")
        if self.goal is not None and "reach" not in self.wishes:
            _numbers("planner.goal", self.goal, 3)

    def _check_steering(self) -> None:
        """`InputError` for guidance that is missing or out of range."""
        ranges = {"guidance": (0, 1e6), "target_return": (1e-6, 1)}
        for option, (least, most) in ranges.items():
            value = getattr(self, option)
            if self.name in OF_PLANNERS[option] and not (value is not None and least <= value <= most):
                raise InputError(f"planner.{option}: expected a number from {least:g} to {most:g}, found {value}")

    @property
    def wishes(self) -> list[str]:
        """The words of `objective`."""
        return self.objective.split("+")


def unused(config: PlannerConfig) -> dict[str, str]:
    """The options that no chosen objective uses, each with what would, as words."""
    given = {option: words for option, words in USED_BY.items() if getattr(config, option) is not None}
    return {option: " or ".join(words) for option, words in given.items() if not {*words} & {*config.wishes}}


def require_used(config: PlannerConfig, besides: Collection[str] = ()) -> None:
    """`InputError` for an option that neither a chosen objective uses nor who asks, for what is `besides`."""
    for option, words in unused(config).items():
        if option not in besides:
            raise InputError(
                f"planner.{option}: expected planner.objective={words}, alone or joined by +, found {config.objective}"
            )


def aimed(config: PlannerConfig, goals: Collection[str], goal_pose: Sequence[float]) -> PlannerConfig:
    """`config`, whose progress is that to the scene's goal where it names none; `InputError` if that has several."""
    if config.name not in OF_PLANNERS["goal"] or "progress" not in config.wishes or config.goal is not None:
        return config
    if goals:
        raise InputError("planner.goal: expected x, y and angle in a scene with several goals, found none")
    return replace(config, goal=list(goal_pose))


def make_objective(config: PlannerConfig, interface: Interface) -> Objective:
    """What `config` wants of futures with the features of `interface`; `InputError` where they lack something."""
    parts = [_part(word, config, interface) for word in config.wishes]
    objective = parts[0] if len(parts) == 1 else Sum(parts)
    seen = {key: feature for key, feature in interface.observations.items() if feature.dtype != "image"}
    still = {key: np.zeros((1, 3, *feature.shape)) for key, feature in {**seen, ACTION: interface.action}.items()}
    try:
        objective(still)
    except KeyError as missing:
        raise InputError(
            f"planner.objective: expected {missing} for {config.objective}, found futures of {sorted(seen)}"
        ) from None
    return objective


def _part(word: str, config: PlannerConfig, interface: Interface) -> Objective:
    state = interface.observations[STATE]
    if word == "gentle":
        return Gentle()
    if word == "random":
        return Random()
    if word == "keep_out":
        if state.names[:2] != ("x", "y"):
            raise InputError(f"planner.disc: expected a state that begins with x and y, found {list(state.names)}")
        x, y, radius = _numbers("planner.disc", config.disc or (), 3)
        return KeepOut((x, y), radius)
    if word == "reach":
        return Reach(_numbers("planner.goal", config.goal or (), state.shape[0]))
    if word == "return":
        from vla_policy.world_model.returns import ReturnModel

        assert config.returns is not None
        model = ReturnModel.from_pretrained(config.returns)
        model.interface.require(interface, f"planner.returns {config.returns}", "what is imagined")
        return LearnedReturn(tuple(model.config.state_keys), model.arrays(), model.config.discount)
    return _progress(config)


def _progress(config: PlannerConfig) -> Objective:
    try:
        from sim.objectives import Progress  # PushT's own, and all that needs the simulator's packages
    except ModuleNotFoundError as error:
        raise InputError(
            f"planner.objective: expected the extra 'sim' for progress, found no {error.name}; a robot has return, "
            "reach, keep_out and gentle"
        ) from None
    return Progress() if config.goal is None else Progress(_numbers("planner.goal", config.goal, 3))


def _numbers(name: str, values: Sequence[float], count: int) -> tuple[float, ...]:
    found = np.asarray(values, float)
    if found.shape != (count,) or not np.isfinite(found).all():
        raise InputError(f"{name}: expected {count} numbers, found {list(values)}")
    return tuple(found.tolist())
