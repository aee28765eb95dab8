"""Tokens per second of one model alone, with a draft, and with a draft that drafts ahead in another process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor, nn

from vla_policy.data import LeRobotDataset
from vla_policy.evaluation.options import ComputeOptions
from vla_policy.evaluation.success.open_loop import held_out_episodes, windows
from vla_policy.interfaces import Failure, InputError, Observation
from vla_policy.models import DiffusionPolicy
from vla_policy.models.drafts import check_action_draft, check_text_draft
from vla_policy.models.heads import AutoregressiveHead
from vla_policy.models.loading import load_policy
from vla_policy.models.vlm.backbone import LONGEST_ANSWER
from vla_policy.speculation import (
    Decoded,
    Decoder,
    Drafter,
    DrafterConfig,
    DraftProcess,
    LocalDrafter,
    OpenDecoder,
    Task,
    decode,
)
from vla_policy.utils.percentiles import percentiles

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WARMUP = 2  # prompts
PATIENCE = 60.0  # seconds for a draft: of a busy computer the numbers are poor, but they are numbers


@dataclass
class SpeculationConfig(ComputeOptions, DrafterConfig):
    """Speed of speculative decoding."""

    precision: str = "float32"
    """float32 | bfloat16, of both models: a processor that multiplies bfloat16 in hardware checks several tokens in the
    time of one
    """
    n_frames: int = 30  # of held-out episodes, each decoded in every way
    episodes: list[int] | None = None  # e.g. [0,3,7]; null: the held-out ones that the target's checkpoint states
    seed: int = 0  # of the draws
    out: str = "outputs/bench/speculation.json"  # file of the numbers

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision not in PRECISIONS:
            raise InputError(f"precision: expected one of {list(PRECISIONS)}, found {self.precision!r}")
        if self.n_frames < 1:
            raise InputError(f"n_frames: expected at least 1, found {self.n_frames}")


@dataclass(frozen=True)
class Tokens:
    """What is decoded: prompts for a target and a draft. `parameters` are those that a token needs, of both."""

    target: OpenDecoder
    draft: OpenDecoder
    load: Callable[[], OpenDecoder]  # the draft, in another process
    prompts: Sequence[Any]
    limit: int
    temperature: float | None
    end: int | None
    parameters: tuple[int, int]


@dataclass
class Way:
    """A way to decode, and how it went."""

    name: str
    drafter: Drafter | None
    threads: int
    decoded: list[Decoded] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # a prompt, without reading it
    whole: list[float] = field(default_factory=list)  # with reading it

    def add(self, found: Decoded, seconds: float, whole: float) -> None:
        self.decoded.append(found)
        self.seconds.append(seconds)
        self.whole.append(whole)

    def total(self, name: str) -> int:
        return sum(getattr(each, name) for each in self.decoded)

    def summary(self) -> dict[str, Any]:
        """Rates are None where nothing was drafted."""
        tokens, asked, drafted = (
            sum(len(each.tokens) for each in self.decoded),
            self.total("asked"),
            self.total("drafted"),
        )
        return {
            "tokens_per_s": tokens / sum(self.seconds),
            "prompt_ms": percentiles(1e3 * np.array(self.whole)),
            "threads": self.threads,
            "tokens": tokens,
            "tokens_per_pass": tokens / self.total("passes"),
            "acceptance": self.total("kept") / drafted if drafted else None,
            "hit_rate": self.total("hits") / asked if asked else None,
            "late_rate": self.total("late") / asked if asked else None,
        }


def kinds_of_tokens(target: str, draft: str, root: LeRobotDataset, config: SpeculationConfig) -> dict[str, Tokens]:
    """The action tokens, if both policies are autoregressive, and the text, if both have a backbone.

    Texts are the answers to the frames' instructions. `InputError` if there is neither.
    """
    policy = load_policy(target, config.device, config.threads)
    other = load_policy(draft, config.device, config.threads)
    histories = _frames(policy, root, config)
    load = partial(_open, draft, config.device, config.precision)
    found = {}
    if isinstance(policy.head, AutoregressiveHead):
        check_action_draft(policy, draft)
        found["actions"] = Tokens(
            _actions(policy, config.precision),
            _actions(other, config.precision),
            partial(load, "actions"),
            [_arrays(policy.batch([history])) for history in histories],
            policy.head.length,
            policy.head.temperature,
            None,
            (_size(policy.transformer, policy.head), _size(other.transformer, other.head)),
        )
    if policy.backbone is not None and other.backbone is not None:
        check_text_draft(policy.backbone, draft)
        cameras = policy.interface.cameras
        found["text"] = Tokens(
            _text(policy, config.precision),
            _text(other, config.precision),
            partial(load, "text"),
            [([history[-1].values[key][None] for key in cameras], history[-1].task) for history in histories],
            LONGEST_ANSWER,
            None,
            policy.backbone.tokenizer.eos_token_id,
            (_size(*policy.backbone.language()), _size(*other.backbone.language())),
        )
    if not found:
        raise InputError(f"{target}: expected policy=autoregressive, or backbones in it and in {draft}, found neither")
    return found


def measure(tokens: Tokens, config: SpeculationConfig, on_prompt: Callable[[], None]) -> dict[str, Any]:
    """Decode every prompt in every way, one after the other, so that a busy computer is so for all of them."""
    drafting = DrafterConfig(config.length, config.branches, config.exponent)
    local, process = LocalDrafter(tokens.draft, drafting), DraftProcess(tokens.load, drafting, PATIENCE)
    threads = config.threads or torch.get_num_threads()
    ways = [
        Way("autoregressive", None, threads),
        Way("speculative", local, threads),
        Way("SSD", process, threads),
        Way("autoregressive, a thread more", None, threads + 1),  # what the draft's core could do instead
        Way("speculative, a thread more", local, threads + 1),
    ]
    warm = tokens.prompts[:WARMUP]
    for k, prompt in enumerate([*warm, *tokens.prompts]):
        for way in ways:
            with _threads(way.threads):
                timed = _timed(tokens, prompt, way.drafter, config.seed + k)
            if k >= len(warm):
                way.add(*timed)
        on_prompt()
    survived = process.alive
    process.close()
    if not survived:
        raise Failure("draft: its process was given up during the measurement, see above")
    alone = ways[0]
    found = {way.name: way.summary() for way in ways}
    for way, summary in zip(ways, found.values(), strict=True):
        summary["speedup"] = summary["tokens_per_s"] / found[alone.name]["tokens_per_s"]
        if tokens.temperature is None:  # passes of several tokens round differently, which decides close calls
            pairs = zip(way.decoded, alone.decoded, strict=True)
            summary["equal"] = sum(one.tokens == other.tokens for one, other in pairs)
    return {
        "ways": found,
        "n": len(tokens.prompts),
        "greedy": tokens.temperature is None,
        "parameters": dict(zip(("target", "draft"), tokens.parameters, strict=True)),
        "pass_ms": pass_times(tokens, config),
    }


@torch.inference_mode()
def pass_times(tokens: Tokens, config: SpeculationConfig, repeats: int = 30) -> dict[str, float]:
    """Median milliseconds of a pass of either model: one token, the tokens of a check, one token of each branch."""
    several = torch.zeros(1, config.length + 1, dtype=torch.long)
    target, draft = tokens.target(tokens.prompts[0]), tokens.draft(tokens.prompts[0])

    def once(decoder: Decoder, what: Tensor) -> None:
        decoder.rewind(0)
        decoder.extend(what)

    def branches() -> None:
        draft.fork([0] * config.branches).extend(torch.zeros(config.branches, 1, dtype=torch.long))

    passes: dict[str, Callable[[], None]] = {
        "target, 1 token": lambda: once(target, several[:, :1]),
        f"target, {config.length + 1} tokens": lambda: once(target, several),
        "draft, 1 token": lambda: once(draft, several[:, :1]),
        f"draft, 1 token of {config.branches} branches": branches,
    }
    return {name: _median_ms(step, repeats) for name, step in passes.items()}


def speculation_table(name: str, found: Mapping[str, Any], precision: str) -> Table:
    """The ways to decode, and the cost of passes below."""
    sizes = " and ".join(f"{count / 1e6:.1f} M" for count in found["parameters"].values())
    passes = ", ".join(f"{key} {value:.1f} ms" for key, value in found["pass_ms"].items())
    title = f"{name}, {'greedy' if found['greedy'] else 'sampled'}, {sizes} parameters in {precision}, n = {found['n']}"
    table = Table(title=title, title_justify="left", caption=f"a pass: {passes}", caption_justify="left")
    for column in ("", "tokens / s", "speed-up", "p50 ms, whole", "tokens / pass", "accepted", "hits", "late", "equal"):
        table.add_column(column, justify="right" if column else "left")
    for way, row in found["ways"].items():
        table.add_row(
            way,
            f"{row['tokens_per_s']:.1f}",
            f"{row['speedup']:.2f}",
            f"{row['prompt_ms']['p50']:.0f}",
            f"{row['tokens_per_pass']:.2f}",
            *("" if row[key] is None else f"{100 * row[key]:.0f} %" for key in ("acceptance", "hit_rate", "late_rate")),
            f"{row['equal']} / {found['n']}" if "equal" in row else "",
        )
    return table


def _timed(tokens: Tokens, prompt: Any, drafter: Drafter | None, seed: int) -> tuple[Decoded, float, float]:
    """Decoded tokens, and the seconds that they took without and with reading the prompt."""
    generator = torch.Generator().manual_seed(seed)
    own = int(torch.randint(2**62, (), generator=generator))  # independent of the target's numbers
    begin = time.perf_counter()
    if drafter is not None:
        drafter.begin(Task(prompt, tokens.limit, tokens.temperature, own))
    target = tokens.target(prompt)
    read = time.perf_counter()
    found = decode(target, tokens.limit, tokens.temperature, generator, drafter, tokens.end)
    end = time.perf_counter()
    return found, end - read, end - begin


def _frames(policy: DiffusionPolicy, dataset: LeRobotDataset, config: SpeculationConfig) -> list[list[Observation]]:
    """As many inputs of the policy, spread over the episodes."""
    policy.interface.require(dataset.interface, "the policy", str(dataset.root))
    episodes = held_out_episodes(config.episodes, policy.card, dataset)
    each = -(-config.n_frames // len(episodes))
    found: list[list[Observation]] = []
    for index in episodes:
        every = max(dataset.episode(index).length // (each * policy.n_action_steps), 1)
        found += [history for _, history in islice(windows(policy, dataset, index), 0, each * every, every)]
    if len(found) < config.n_frames:
        raise InputError(f"n_frames: expected at most {len(found)} of these episodes, found {config.n_frames}")
    return found[: config.n_frames]


def _open(checkpoint: str, device: str, precision: str, what: str) -> OpenDecoder:
    policy = load_policy(checkpoint, device)
    return (_actions if what == "actions" else _text)(policy, precision)


def _actions(policy: DiffusionPolicy, precision: str) -> OpenDecoder:
    for part in (policy.transformer, policy.head):
        part.to(PRECISIONS[precision])
    return policy.action_decoder


def _text(policy: DiffusionPolicy, precision: str) -> OpenDecoder:
    backbone = policy.backbone
    assert backbone is not None
    backbone.to(PRECISIONS[precision])

    def decoder(prompt: tuple[list[np.ndarray], str]) -> Decoder:
        frames, question = prompt
        return backbone.decoder([torch.from_numpy(frame).to(policy.device) for frame in frames], question)

    return decoder


def _arrays(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value.numpy() if isinstance(value, Tensor) else value for key, value in batch.items()}


def _size(*parts: nn.Module) -> int:
    return sum(value.numel() for value in {value for part in parts for value in part.parameters()})


def _median_ms(step: Callable[[], None], repeats: int) -> float:
    times = []
    for _ in range(WARMUP + repeats):
        begin = time.perf_counter()
        step()
        times.append(time.perf_counter() - begin)
    return 1e3 * float(np.median(times[WARMUP:]))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
