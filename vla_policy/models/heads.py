"""Action heads: denoising of continuous tokens, or autoregressive or masked prediction of discrete ones.

All share the transformer, the training loop and two methods: `loss` of actions (B, S, T, D), a scalar, and `sample`,
a chunk (B, T, D) for each observation of a prefix, which continues what is `known` of it. A chunk has `length` tokens;
sampling takes `calls` passes.

Shapes: B observations, S draws an observation, T action steps, D action dimensions, W width. Actions are normalised.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_policy.conf.policy_config import PolicyConfig
from vla_policy.interfaces import InputError
from vla_policy.models.continuation import Known, drawn_prefix, guided, held
from vla_policy.models.objectives import Predict, TrainingPair, choose, make_objective
from vla_policy.models.transformer import ActionTransformer, Prefix

GIVEN = "given_in"  # the layer that a policy with `prefix_steps` has and another one has not
# Noisy actions (B, S, T, D) at times (B, S), and which rows (B, S, T) are given, if any, to a teacher's prediction.
Teach = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class DenoisingHead(nn.Module):
    """Flow matching or DDPM; `patch` consecutive actions form one token, like pixels in DiT.

    Where training gave `prefix_steps` rows, the known ones are given in sampling too; else it is guided towards them.
    """

    def __init__(self, config: PolicyConfig, action_dim: int) -> None:
        super().__init__()
        self.patch, self.shape = config.transformer.patch, (config.rows, action_dim)
        self.length = config.rows // self.patch
        self.calls = config.objective.inference_steps
        self.temperature = config.objective.temperature
        self.objective = make_objective(config.objective)
        self.action_in = nn.Linear(self.patch * action_dim, config.transformer.width)
        self.action_out = nn.Linear(config.transformer.width, self.patch * action_dim)
        nn.init.zeros_(self.action_out.weight)
        nn.init.zeros_(self.action_out.bias)
        self.past, self.prefix_steps = config.past_rows, config.prefix_steps
        if self.prefix_steps:  # a flag for each row: a token may hold several
            self.given_in = nn.Linear(self.patch, config.transformer.width, bias=False)
            nn.init.zeros_(self.given_in.weight)

    def denoise(
        self,
        transformer: ActionTransformer,
        noisy: Tensor,
        modulations: list[Tensor],
        prefix: Prefix,
        given: Tensor | None = None,
    ) -> Tensor:
        """The prediction (B, S, T, D) for noisy actions, of which rows (B, S or 1, T) are given, in float32."""
        patches = noisy.unflatten(2, (-1, self.patch)).flatten(3)  # (B, S, T / patch, patch * D)
        tokens = self.action_in(patches)
        if given is not None:
            tokens = tokens + self.given_in(given.unflatten(2, (-1, self.patch)).to(tokens.dtype))
        out = self.action_out(transformer(tokens, modulations, prefix)).float()
        rows: Tensor = out.unflatten(3, (self.patch, -1))
        return rows.flatten(2, 3)

    def loss(
        self,
        transformer: ActionTransformer,
        prefix: Prefix,
        actions: Tensor,
        generator: torch.Generator,
        teach: Teach | None = None,
        joint: Teach | None = None,
    ) -> Tensor:
        """Mean squared error of the prediction, of what `teach` predicts for the same noisy actions if there is one.
        With `prefix_steps`, some first rows are given without noise, and only the others count.

        `joint` is the prediction of an ensemble, which is measured and not trained.
        """
        noise = torch.randn(actions.shape, generator=generator, device=generator.device).to(actions.device)
        pair, given = self.objective.corrupt(actions, noise, generator), None
        noisy = pair.noisy
        if self.prefix_steps:
            given = drawn_prefix(actions.shape[:3], self.past, self.prefix_steps, generator).to(actions.device)
            noisy = torch.where(given[..., None], actions, noisy)
        if joint is not None:
            found = joint(noisy, pair.time, given)
        else:
            found = self.denoise(transformer, noisy, transformer.modulations(pair.time, prefix.context), prefix, given)
        target = pair.target if teach is None else teach(noisy, pair.time, given)
        if given is None:
            return F.mse_loss(found, target)
        counted = (~given)[..., None].expand_as(found)
        return F.mse_loss(found * counted, target * counted, reduction="sum") / counted.sum()

    def regression(self, transformer: ActionTransformer, prefix: Prefix, pair: TrainingPair) -> Tensor:
        """Mean squared error of the prediction for a given pair."""
        modulations = transformer.modulations(pair.time, prefix.context)
        return F.mse_loss(self.denoise(transformer, pair.noisy, modulations, prefix), pair.target)

    def noise(self, batch: int, draws: int, generator: torch.Generator, device: torch.device) -> Tensor:
        """What sampling begins with: (B, S, T, D), of the temperature's standard deviation."""
        noise = torch.randn((batch, draws, *self.shape), generator=generator, device=generator.device)
        return self.temperature * noise.to(device)

    def predictor(self, transformer: ActionTransformer, prefix: Prefix, known: Known | None = None) -> Predict:
        """The prediction for noisy actions (B, S, T, D) at the k-th of the sampler's times."""
        given = known.frozen[:, None] if known is not None and self.prefix_steps else None
        times = torch.tensor([self.objective.times()], device=transformer.position.device)
        steps = [parts.split(1, dim=1) for parts in transformer.modulations(times, prefix.context)]

        def predict(x: Tensor, k: int) -> Tensor:
            return self.denoise(transformer, x, [parts[k] for parts in steps], prefix, given)

        return predict

    def sample(
        self,
        transformer: ActionTransformer,
        prefix: Prefix,
        batch: int,
        generator: torch.Generator,
        others: Sequence[Predict] = (),
        known: Known | None = None,
    ) -> Tensor:
        return self.propose(transformer, prefix, batch, 1, generator, others, known)[:, 0]

    def propose(
        self,
        transformer: ActionTransformer,
        prefix: Prefix,
        batch: int,
        draws: int,
        generator: torch.Generator,
        others: Sequence[Predict] = (),
        known: Known | None = None,
    ) -> Tensor:
        """Several chunks (B, S, T, D) an observation, which share its keys and values.

        With the predictions of `others`, of an ensemble, averaged with this one's at each step.
        """
        noise = self.noise(batch, draws, generator, transformer.position.device)
        members = [self.predictor(transformer, prefix, known), *others]

        def predict(x: Tensor, k: int) -> Tensor:
            return members[0](x, k) if not others else torch.stack([member(x, k) for member in members]).mean(0)

        if known is None:
            return self.objective.sample(predict, noise, generator)
        if not self.prefix_steps:
            return self.objective.sample(guided(predict, self.objective.levels(), known), noise, generator)
        rows, frozen = known.held
        return torch.where(frozen[..., None], rows, self.objective.sample(held(predict, known), noise, generator))


def encode_bins(actions: Tensor, bins: int) -> Tensor:
    """Actions (..., T, D), clipped to [-1, 1], as indices (..., T * D) of `bins` equal bins
    (RT-2, Brohan et al. 2023, arXiv 2307.15818).
    """
    return ((actions.flatten(-2) + 1) * (bins / 2)).long().clamp(0, bins - 1)


def decode_bins(tokens: Tensor, bins: int, action_dim: int) -> Tensor:
    """The middles (..., T, D) of the bins of tokens (..., T * D)."""
    actions: Tensor = ((tokens + 0.5) * (2 / bins) - 1).unflatten(-1, (-1, action_dim))
    return actions


class TokenHead(nn.Module):
    """Discrete action tokens, a step's dimensions in sequence; one extra token is the start or mask token."""

    def __init__(self, config: PolicyConfig, action_dim: int) -> None:
        super().__init__()
        objective = config.objective
        choose("policy.objective.sampler", objective.sampler, ["greedy", "categorical"])
        if objective.bins < 2:
            raise InputError(f"policy.objective.bins: expected at least 2, found {objective.bins}")
        if objective.inference_steps < 1:
            raise InputError(
                f"policy.objective.inference_steps: expected at least 1, found {objective.inference_steps}"
            )
        choose("policy.objective.unmask", objective.unmask, [None, "confidence", "random"])
        self.objective = objective
        self.bins, self.action_dim, self.length = config.objective.bins, action_dim, config.rows * action_dim
        self.greedy = objective.sampler == "greedy"
        self.embedding = nn.Embedding(self.bins + 1, config.transformer.width)
        self.logits = nn.Linear(config.transformer.width, self.bins)
        nn.init.normal_(self.embedding.weight, std=0.5)
        nn.init.zeros_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)

    @property
    def nothing(self) -> int:
        """The start or mask token."""
        return self.bins

    def given(self, known: Known | None, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The tokens (B, 1, n) of what is known, and which of them (B, 1, n) are given: those of the frozen rows."""
        if known is None:
            nothing = torch.full((batch, 1, self.length), self.nothing, device=device)
            return nothing, torch.zeros_like(nothing, dtype=torch.bool)
        rows, frozen = known.held
        return encode_bins(rows, self.bins), frozen.repeat_interleave(self.action_dim, dim=-1)

    def actions(self, tokens: Sequence[int]) -> Tensor:
        """The chunk (1, T, D) of its tokens."""
        return decode_bins(torch.tensor([tokens]), self.bins, self.action_dim)

    def choose(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Tokens (...) of logits (..., bins): the argmax, or sampled from the predicted distribution."""
        if self.greedy:
            return logits.argmax(-1)
        chances = (logits.float() / self.objective.temperature).softmax(-1).to(generator.device)
        drawn = torch.multinomial(chances.flatten(0, -2), 1, generator=generator)
        return drawn.view(logits.shape[:-1]).to(logits.device)

    def surprise(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """-log p(token) of tokens (...) under logits (..., bins), in nats; in training, of smoothed labels."""
        if not self.training or self.objective.label_smoothing == 0:
            return F.cross_entropy(logits.movedim(-1, 1), tokens, reduction="none")
        labels = smoothed_labels(tokens, self.bins, self.objective.label_smoothing)
        return -(labels * logits.log_softmax(-1)).sum(-1)


class AutoregressiveHead(TokenHead):
    """Predicts each token from its predecessors, with a key-value cache."""

    def __init__(self, config: PolicyConfig, action_dim: int) -> None:
        super().__init__(config, action_dim)
        self.calls = self.length

    def predict(self, transformer: ActionTransformer, prefix: Prefix, tokens: Tensor) -> Tensor:
        """Logits (B, S, n, bins) of each of tokens (B, S, n), given its predecessors, as far as they are not hidden."""
        before = F.pad(tokens, (1, 0), value=self.nothing)[..., :-1]
        still = transformer.modulations(torch.zeros(1, 1, device=tokens.device), prefix.context)
        logits: Tensor = self.logits(transformer(self.embedding(before), still, prefix, causal=True))
        return logits.float()

    def loss(
        self, transformer: ActionTransformer, prefix: Prefix, actions: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The negative log-likelihood per token. Deterministic without `input_masking`: one draw then suffices."""
        hidden = self.objective.input_masking if self.training else 0.0
        tokens = encode_bins(actions if hidden else actions[:, :1], self.bins)
        seen = tokens
        if hidden:
            draw = torch.rand(tokens.shape, generator=generator, device=generator.device).to(tokens.device)
            seen = tokens.masked_fill(draw < hidden, self.nothing)
        return self.surprise(self.predict(transformer, prefix, seen), tokens).mean()

    def sample(
        self,
        transformer: ActionTransformer,
        prefix: Prefix,
        batch: int,
        generator: torch.Generator,
        known: Known | None = None,
    ) -> Tensor:
        device = transformer.position.device
        given, firm = self.given(known, batch, device)
        still = transformer.modulations(torch.zeros(1, 1, device=device), prefix.context)
        cache = transformer.new_cache()
        token = torch.full((batch, 1, 1), self.nothing, device=device)
        tokens = []
        for k in range(self.length):
            features = transformer(self.embedding(token), still, prefix, cache=cache)
            chosen = self.choose(self.logits(features), generator)
            token = torch.where(firm[..., k : k + 1], given[..., k : k + 1], chosen)
            tokens.append(token)
        return decode_bins(torch.cat(tokens, dim=2)[:, 0], self.bins, self.action_dim)

    @property
    def temperature(self) -> float | None:
        """Of the distribution that tokens are drawn from; None: they are the likeliest ones."""
        return None if self.greedy else self.objective.temperature


class ActionDecoder:
    """A `speculation.Decoder`: sequences are the draws of one observation."""

    def __init__(self, head: AutoregressiveHead, transformer: ActionTransformer, prefix: Prefix) -> None:
        self.start = head.nothing
        self._head, self._transformer, self._prefix = head, transformer, prefix
        self._device = transformer.position.device
        self._still = transformer.modulations(torch.zeros(1, 1, device=self._device), prefix.context)
        self._cache = transformer.new_cache()

    def extend(self, tokens: Tensor) -> Tensor:
        embedded = self._head.embedding(tokens.to(self._device))[None]
        logits: Tensor = self._head.logits(self._transformer(embedded, self._still, self._prefix, cache=self._cache))
        return logits[0]

    def rewind(self, length: int) -> None:
        self._cache.rewind(length)

    def fork(self, lengths: Sequence[int]) -> ActionDecoder:
        fork = copy.copy(self)
        fork._cache = self._cache.fork(torch.tensor(lengths, device=self._device))
        return fork


class MaskedHead(TokenHead):
    """Masked diffusion over the tokens (MDLM, Sahoo et al. 2024, arXiv 2406.07524; LLaDA, Nie et al. 2025,
    arXiv 2502.09992): at time t each token is masked with probability t.
    """

    def __init__(self, config: PolicyConfig, action_dim: int) -> None:
        super().__init__(config, action_dim)
        self.calls = min(config.objective.inference_steps, self.length)
        self.by_confidence = (config.objective.unmask or ("confidence" if self.greedy else "random")) == "confidence"

    def predict(self, transformer: ActionTransformer, prefix: Prefix, tokens: Tensor, time: Tensor) -> Tensor:
        """Logits (B, S, n, bins) for tokens (B, S, n) of which a share `time` (B, S) is masked."""
        modulations = transformer.modulations(time, prefix.context)
        logits: Tensor = self.logits(transformer(self.embedding(tokens), modulations, prefix))
        return logits.float()

    def loss(
        self, transformer: ActionTransformer, prefix: Prefix, actions: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The bound on the negative log-likelihood per token, `masked_diffusion_loss`."""
        tokens = encode_bins(actions, self.bins)
        draw = torch.rand((*tokens.shape[:2], self.length + 1), generator=generator, device=generator.device)
        draw = draw.to(tokens.device)
        time = 1 - draw[..., -1] * (1 - 1e-3)  # in (0, 1]
        masked = draw[..., :-1] < time[..., None]
        seen = torch.where(masked, self.nothing, tokens)
        surprise = self.surprise(self.predict(transformer, prefix, seen, time), tokens)
        return masked_diffusion_loss(surprise, masked, time)

    def sample(
        self,
        transformer: ActionTransformer,
        prefix: Prefix,
        batch: int,
        generator: torch.Generator,
        known: Known | None = None,
    ) -> Tensor:
        """Each pass unmasks the same number of tokens: those with the most confident guesses (MaskGIT, Chang et al.
        2022, arXiv 2202.04200), or random ones (MDLM). Passes for as many tokens as all chunks are given are left out.
        """
        device = transformer.position.device
        given, firm = self.given(known, batch, device)
        tokens = given.masked_fill(~firm, self.nothing)
        for k in range(self.calls * int(firm.sum(-1).min()) // self.length, self.calls):
            masked = tokens == self.nothing
            time = torch.full((1, 1), 1 - k / self.calls, device=device)
            logits = self.predict(transformer, prefix, tokens, time)
            guess = self.choose(logits, generator)
            if self.by_confidence:
                first = logits.softmax(-1).gather(-1, guess[..., None])[..., 0]
            else:
                first = torch.rand(tokens.shape, generator=generator, device=generator.device).to(device)
            fixed = round(self.length * (k + 1) / self.calls)
            # Tokens that are unmasked already rank first and stay.
            firsts = first.masked_fill(~masked, 2.0).topk(fixed, dim=-1).indices
            now = torch.zeros_like(masked).scatter_(-1, firsts, True) & masked
            tokens = torch.where(now, guess, tokens)
        return decode_bins(tokens[:, 0], self.bins, self.action_dim)


def masked_diffusion_loss(surprise: Tensor, masked: Tensor, time: Tensor) -> Tensor:
    """Mean over draws of (1 / t) * sum over masked tokens of -log p(token) / n (LLaDA's equation 3).

    `surprise`, -log p(token), and `masked` (B, S, n); times (B, S) in (0, 1].
    """
    return (surprise * masked / time[..., None]).mean()


def smoothed_labels(tokens: Tensor, bins: int, spread: float) -> Tensor:
    """Distributions (..., bins) for tokens (...): a Gaussian over the bins around each, of `spread` bins."""
    distance = torch.arange(bins, device=tokens.device) - tokens[..., None]
    return (-0.5 * (distance / spread).square()).softmax(-1)


AnyHead = DenoisingHead | AutoregressiveHead | MaskedHead
HEADS: dict[str, type[AnyHead]] = {
    "flow": DenoisingHead,
    "ddpm": DenoisingHead,
    "autoregressive": AutoregressiveHead,
    "masked": MaskedHead,
}


def make_head(config: PolicyConfig, action_dim: int) -> AnyHead:
    """The head of `config.objective.name`; `InputError` for an unknown name or setting."""
    choose("policy.objective.name", config.objective.name, list(HEADS))
    return HEADS[config.objective.name](config, action_dim)
