"""The policy: observations and an instruction in, action chunks out; trained by `loss`, stored as a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla_policy.conf.policy_config import PolicyConfig
from vla_policy.data import IMITATED, Normalizer
from vla_policy.interfaces import ACTION, STATE, ActionChunk, Given, InputError, Interface, Observation
from vla_policy.models.batching import batch_of
from vla_policy.models.checkpoint import (
    BACKBONE,
    POLICY,
    distinct,
    load_weights,
    parse_config,
    read_checkpoint,
    restored,
    write_policy,
)
from vla_policy.models.checks import check_relative
from vla_policy.models.chunks import ChunkCodec, Origin
from vla_policy.models.continuation import Known, exactly, known_rows
from vla_policy.models.encoder import Observed
from vla_policy.models.heads import ActionDecoder, AutoregressiveHead, DenoisingHead, make_head
from vla_policy.models.objectives import Predict
from vla_policy.models.seeing import TOLD, SeeingModel
from vla_policy.models.teaching import (
    check_follower,
    check_teacher,
    predictions,
    selected,
    shortcuts,
    without_backbone_output,
)
from vla_policy.models.transformer import ActionTransformer, Prefix
from vla_policy.models.vlm.backbone import Backbone
from vla_policy.models.vlm.instructions import FILE as INSTRUCTIONS
from vla_policy.models.vlm.instructions import KnownInstructions
from vla_policy.speculation import Decoded, Drafter, Task, decode

OUTLIER = 0.05  # in standard deviations: errors of estimates beyond it count linearly (Huber 1964)


class DiffusionPolicy(SeeingModel):
    """An `interfaces.Policy`: what observations are seen with, an action transformer and its head.

    `interface` has exactly the observations of `config.observation_keys`; `auxiliary` the features of
    `config.auxiliary_keys`, which exist in training data only. `card` is the content of the model card. A `backbone` is
    given if and only if `config.backbone` is.
    """

    def __init__(
        self,
        config: PolicyConfig,
        interface: Interface,
        normalizer: Normalizer,
        card: Mapping[str, Any] | None = None,
        backbone: Backbone | None = None,
    ) -> None:
        super().__init__(config, interface, normalizer, backbone)
        if config.action_relative:
            check_relative(self.interface)
        self.n_obs_steps, self.n_action_steps = config.n_obs_steps, config.n_action_steps
        self.card = dict(card or {})
        pretrained = config.backbone is not None and config.backbone.path is not None
        self._left_alone = {  # a deep copy for averaging has no gradients at all, so it is decided here
            name
            for name, value in self.named_parameters(remove_duplicate=False)
            if pretrained and name.startswith("backbone.") and not value.requires_grad
        }
        self.codec = ChunkCodec(config, self.frame)
        self.head = make_head(config, interface.action.shape[0])
        self._teacher: Callable[[], DiffusionPolicy] | None = None
        self._leader: Callable[[], DiffusionPolicy] | None = None  # see `follower`
        self.drafter: Drafter | None = None  # of action tokens, for one observation at a time
        self.transformer = ActionTransformer(self.head.length, config.transformer)
        single = replace(config, ensemble=1)
        others = (DiffusionPolicy(single, interface, normalizer) for _ in range(config.ensemble - 1))
        self.others = nn.ModuleList(others)

    def loss(self, batch: Mapping[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The head's objective plus the weighted errors of the estimates: a scalar, and its parts by name.

        Actions beyond an episode's end repeat its last one and count like any other, as in Diffusion Policy. If the
        batch has `imitated` (B,), only its windows' actions count. If it has `question` and `answer` (sentences for
        its first observations), the backbone learns to answer. A `follower` has the error on its teacher's path alone.
        """
        observed = self.observe(batch, generator if self.training else None)
        if self._leader is not None:
            loss = self._path_loss(observed, self._leader(), generator)
            return loss, {"path": loss.detach()}
        loss = self._action_loss(observed, batch, generator)
        parts = {"action": loss.detach()}
        for key, estimate in observed.estimates.items():
            truth = batch[key][:, -estimate.shape[1] :].to(self.device)
            # Under a squared error the few pictures that hide the object outweigh the last millimetres of the others.
            error = F.smooth_l1_loss(estimate, self.normalizer.normalize(key, truth), beta=OUTLIER)
            parts[f"auxiliary/{key}"] = error.detach()
            loss = loss + self.config.auxiliary_weight * error
        if self.backbone is not None and "question" in batch:
            cameras = len(self.interface.cameras)
            language = self.backbone.language_loss(observed.seen, batch["question"], batch["answer"], cameras)
            parts["language"] = language.detach()
            loss = loss + self.config.language_weight * language
        return loss, parts

    def _action_loss(self, observed: Observed, batch: Mapping[str, Any], generator: torch.Generator) -> Tensor:
        tokens, real, context = observed.tokens, observed.real, observed.context
        actions, weight = self.chunks(batch), 1.0
        if IMITATED in batch:
            imitated = batch[IMITATED]
            if not imitated.any():  # nothing to learn, by the same operations: another process may have something
                imitated, weight = torch.ones_like(imitated), 0.0
            rows = imitated.to(self.device)
            tokens, actions = tokens[rows], actions[rows]
            real, context = (None if part is None else part[rows] for part in (real, context))
            batch = selected(batch, imitated)
        prefix = self.transformer.prefix(tokens, real, context)
        draws = actions[:, None].expand(-1, self.config.noise_samples, -1, -1)
        others: dict[str, Any] = {}
        if self._teacher is not None and self.training:
            others["teach"] = predictions(self._teacher(), without_backbone_output(batch))
        if self.others:
            others["joint"] = predictions(self, batch)
        return weight * self.head.loss(self.transformer, prefix, draws, generator, **others)

    def _path_loss(self, observed: Observed, leader: DiffusionPolicy, generator: torch.Generator) -> Tensor:
        head, encoded = cast(DenoisingHead, self.head), (observed.tokens, observed.real, observed.context)
        noise = head.noise(len(observed.tokens), self.config.noise_samples, generator, self.device)
        pair = shortcuts(leader, leader.transformer.prefix(*encoded), noise, self.config.objective.inference_steps)
        return head.regression(self.transformer, self.transformer.prefix(*encoded), pair)

    def learn_from(self, teacher: DiffusionPolicy) -> None:
        """In training, aim at what the teacher predicts for the same noisy actions instead of at the demonstrations.

        `InputError` if it predicts something else: of another objective, in other rows, under another normalisation.
        """
        check_teacher(self, teacher)
        frozen = teacher.eval().requires_grad_(False)
        self._teacher = lambda: frozen  # not a submodule: it is neither trained nor stored

    @classmethod
    def follower(cls, teacher: DiffusionPolicy, config: PolicyConfig) -> DiffusionPolicy:
        """A policy that begins as a flow teacher and learns to take its path from noise to a chunk in fewer passes,
        `config.objective.inference_steps`, from observations alone: its loss makes no use of recorded actions.

        Only transformer and head are trained: what encodes observations stays the teacher's, and does so once for both.
        `InputError` if `config` differs from the teacher's in more than the passes and how it is trained or played.
        """
        check_follower(config, teacher)
        normalizer = Normalizer.from_dict(teacher.normalizer.to_dict())
        # A backbone is shared, and frozen only then: what can be trained decides what a checkpoint leaves out.
        student = cls(config, teacher.full_interface, normalizer, backbone=teacher.backbone)
        student.load_state_dict(teacher.state_dict())
        student.requires_grad_(False)
        for part in (student.transformer, student.head):
            part.requires_grad_(True)
        frozen = teacher.eval().requires_grad_(False)
        student._leader = lambda: frozen  # not a submodule, like `_teacher`
        return student

    @property
    def passes(self) -> int:
        """Of the transformers for a chunk."""
        return self.head.calls * self.config.ensemble

    def chunks(self, batch: Mapping[str, Any]) -> Tensor:
        """What is predicted of the batch's actions (B, rows, D): `ChunkCodec.encode`, normalised."""
        keys = [key for key in (ACTION, STATE, self.config.object_frame) if key is not None and key in batch]
        on_device = {key: batch[key].to(self.device, non_blocking=True) for key in keys}
        with torch.autocast(self.device.type, enabled=False):  # bfloat16 is coarser than a chunk's high frequencies
            return self.normalizer.normalize(ACTION, self.codec.encode(on_device))

    def set_n_action_steps(self, n_action_steps: int) -> None:
        """Execute `n_action_steps` of every chunk; `InputError` if a chunk has fewer."""
        self.config = replace(self.config, n_action_steps=n_action_steps)
        self.n_action_steps = n_action_steps

    def set_temperature(self, temperature: float) -> None:
        """Begin sampling with noise of another standard deviation; `InputError` for other policies than flow."""
        if self.config.objective.name != "flow":
            raise InputError(f"temperature: expected a flow policy, found {self.config.objective.name}")
        for member in self.members:
            member.config = replace(member.config, objective=replace(member.config.objective, temperature=temperature))
            cast(DenoisingHead, member.head).temperature = temperature

    def prefix(self, batch: Mapping[str, Any]) -> Prefix:
        """Keys and values of raw observations (B, n_obs_steps, ...) by key, computed once per chunk."""
        return self._encoded(batch)[0]

    def _encoded(self, batch: Mapping[str, Any]) -> tuple[Prefix, Origin]:
        """`prefix`, and what the actions predicted with it refer to."""
        observed = self.observe(batch, None)
        prefix = self.transformer.prefix(observed.tokens, observed.real, observed.context)
        return prefix, Origin(self._newest_state(batch), observed.pose)

    def _newest_state(self, batch: Mapping[str, Any]) -> Tensor | None:
        """(B, 1, D), which relative actions refer to; None for absolute ones."""
        return batch[STATE][:, -1:].to(self.device) if self.config.action_relative else None

    def sample(
        self, batch: Mapping[str, Any], generator: torch.Generator, given: Sequence[Given | None] = ()
    ) -> Tensor:
        """Chunks (B, horizon - n_obs_steps + 1, D) in the robot's units for raw observations (B, n_obs_steps, ...) by
        key; row 0 is due at the newest one's time. They continue what is `given` of them.
        """
        count = len(next(iter(batch.values())))
        continued = any(entry is not None for entry in given)
        with torch.no_grad():  # not inference_mode: guidance needs gradients within, compiled code other constants
            if self.drafter is not None and count == 1 and not continued:
                return self._drafted(batch, generator, self.drafter)
            prefix, origin = self._encoded(batch)
            known = known_rows(given, origin, self.codec, self.normalizer, self.device) if continued else None
            parts: dict[str, Any] = {"known": known}
            if self.others:
                parts["others"] = self._other_predictors(batch, known)
            chunks = self.head.sample(self.transformer, prefix, count, generator, **parts)
            return self._decoded(chunks, origin)

    def _drafted(self, batch: Mapping[str, Any], generator: torch.Generator, drafter: Drafter) -> Tensor:
        tokens = self.speculate(batch, generator, drafter).tokens
        chunks = cast(AutoregressiveHead, self.head).actions(tokens).to(self.device)
        origin = Origin(self._newest_state(batch)) if self.frame is None else self._encoded(batch)[1]
        return self._decoded(chunks, origin)

    @torch.inference_mode()
    def speculate(self, batch: Mapping[str, Any], generator: torch.Generator, drafter: Drafter) -> Decoded:
        """The action tokens of one raw observation, (1, n_obs_steps, ...) by key, distributed as those of `sample`."""
        head = cast(AutoregressiveHead, self.head)
        seen = {key: batch[key].cpu().numpy() for key in self.interface.observations}
        seed = int(torch.randint(2**62, (), generator=generator))
        drafter.begin(Task({**seen, "task": batch.get("task")}, head.length, head.temperature, seed))
        return decode(self.action_decoder(batch), head.length, head.temperature, generator, drafter)

    @torch.inference_mode()
    def action_decoder(self, batch: Mapping[str, Any]) -> ActionDecoder:
        """What decodes the action tokens of one raw observation; of an autoregressive policy."""
        tensors = {key: torch.as_tensor(batch[key]) for key in self.interface.observations}
        prefix = self.prefix({**tensors, "task": batch.get("task")})
        return ActionDecoder(cast(AutoregressiveHead, self.head), self.transformer, prefix)

    @torch.inference_mode()
    def propose(self, batch: Mapping[str, Any], generator: torch.Generator, draws: int) -> Tensor:
        """Several chunks (B, draws, horizon - n_obs_steps + 1, D) for each observation, which is encoded once.

        `InputError` for heads that draw one after the other.
        """
        if not isinstance(self.head, DenoisingHead):
            raise InputError(f"proposals: expected flow or ddpm, found {self.config.objective.name}")
        count = len(batch[self.config.observation_keys[0]])
        others = self._other_predictors(batch)
        prefix, origin = self._encoded(batch)
        chunks = self.head.propose(self.transformer, prefix, count, draws, generator, others)
        proposed: Tensor = self._decoded(chunks.flatten(0, 1), origin.repeated(draws)).unflatten(0, (count, draws))
        return proposed

    def _decoded(self, chunks: Tensor, origin: Origin) -> Tensor:
        """Normalised chunks (B, T, D) in the robot's units, from the newest observation on."""
        return self.codec.decode(self.normalizer.unnormalize(ACTION, chunks), origin)

    def _other_predictors(self, batch: Mapping[str, Any], known: Known | None = None) -> list[Predict]:
        return [cast(DenoisingHead, m.head).predictor(m.transformer, m.prefix(batch), known) for m in self.members[1:]]

    @property
    def members(self) -> list[DiffusionPolicy]:
        """This policy and, of an ensemble, the others."""
        return [self, *(cast(DiffusionPolicy, member) for member in self.others)]

    def batch(self, histories: Sequence[Sequence[Observation]]) -> dict[str, Any]:
        """Histories of `n_obs_steps` observations, oldest first, as a batch; `InputError` for observations that do not
        fit the interface.
        """
        batch = batch_of(histories, self.interface, self.n_obs_steps)
        if self.backbone is not None:
            for task in batch["task"]:
                self.backbone.check_text(task, "instruction")
        return batch

    def predict(
        self,
        histories: Sequence[Sequence[Observation]],
        generator: np.random.Generator,
        given: Sequence[Given | None] = (),
    ) -> list[ActionChunk]:
        """One chunk a history of `n_obs_steps` observations, oldest first; row 0 is due at the newest one's time.

        A chunk continues its entry of `given`, whose frozen rows are its first ones (`interfaces.ContinuingPolicy`): if
        they were given in training (`prefix_steps`), or for action tokens, they are given here, else it is guided
        towards all rows.

        Equal generators give equal chunks. Raises `InputError` for observations that do not fit the interface.
        """
        return self._predict(self.batch(histories), histories, generator, given) if histories else []

    def predict_from_states(
        self, histories: Sequence[Sequence[Observation]], generator: np.random.Generator
    ) -> list[ActionChunk]:
        """`predict` for observations with the auxiliary keys in the pictures' place (`states`), as they are when they
        were imagined; of a policy that `acts_on_states`.
        """
        batch = {**batch_of(histories, self.states, self.n_obs_steps), TOLD: True}
        return self._predict(batch, histories, generator)

    def _predict(
        self,
        batch: Mapping[str, Any],
        histories: Sequence[Sequence[Observation]],
        generator: np.random.Generator,
        given: Sequence[Given | None] = (),
    ) -> list[ActionChunk]:
        self.eval()
        noise = torch.Generator().manual_seed(int(generator.integers(2**63 - 1)))
        actions = self.sample(batch, noise, given).double().cpu().numpy()
        if not np.isfinite(actions).all():
            raise InputError("policy: expected finite actions, found others; its weights or its options are damaged")
        dt = 1.0 / self.interface.fps
        begun = given or [None] * len(histories)
        return [
            ActionChunk(exactly(rows, entry, self.config), history[-1].t, dt)
            for rows, entry, history in zip(actions, begun, histories, strict=True)
        ]

    @property
    def reads(self) -> bool:
        """Whether it is conditioned on an instruction."""
        return self.backbone is not None and self.backbone.config.use_instruction

    @property
    def unchecked(self) -> str:
        """A note if instructions are not checked; "" if they are, or it is not conditioned on any."""
        if not self.reads or (self.backbone is not None and self.backbone.known is not None):
            return ""
        return "instructions are not checked: the checkpoint does not know its own (vla-calibrate instructions)"

    def unreadable(self, instruction: str) -> str:
        """Why an episode with this instruction must not begin; "" if the policy understands it, or instructions are
        not checked.
        """
        if self.backbone is None or not self.reads or self.backbone.known is None:
            return ""
        return self.backbone.unreadable(instruction)

    def compiled_parts(self) -> list[nn.Module]:
        """The layers of the action transformer and of the backbone, and those of a policy that this one follows."""
        leading = [] if self._leader is None else [*self._leader().transformer.layers]
        return [*self.transformer.layers, *(self.backbone.layers() if self.backbone is not None else []), *leading]

    def stored_state(self) -> dict[str, Tensor]:
        """The weights of a checkpoint: without frozen ones of a pretrained backbone, and shared ones once."""
        return {
            name: value
            for name, value in distinct(self.state_dict(keep_vars=True)).items()
            if name not in self._left_alone
        }

    def load_stored(self, weights: Mapping[str, Tensor], source: str) -> None:
        """Restore `stored_state`; `InputError` names the first difference of `source`."""
        stored = self.stored_state()
        rest = {name: value for name, value in self.state_dict().items() if name not in stored}
        load_weights(self, {**rest, **weights}, source)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.yaml, model.safetensors, normalizer.json, interface.json, the model card README.md and, if there
        is a backbone, its architecture and tokenizer in backbone/.

        The folder appears whole or not at all; one that exists is replaced.
        """
        weights, save_more = self.stored_state(), None if self.backbone is None else self.backbone.save
        write_policy(Path(folder), self.config, self.full_interface, self.normalizer, weights, self.card, save_more)

    @classmethod
    def from_pretrained(cls, name: str | Path) -> DiffusionPolicy:
        """Read a folder, or a repository of the Hugging Face hub if no such folder exists; ready to predict."""
        parts = read_checkpoint(name, POLICY)
        config = parse_config(PolicyConfig.from_dict, parts)
        wanted, folder = config.backbone, parts.folder / BACKBONE
        backbone = None if wanted is None else Backbone.from_folder(wanted, folder, parts.header)
        policy = restored(lambda: cls(config, parts.interface, parts.normalizer, parts.card, backbone), parts).eval()
        if backbone is not None and (known := KnownInstructions.load(folder)) is not None:
            known.check(backbone.embed, str(folder / INSTRUCTIONS))
            backbone.known = known
        return policy
