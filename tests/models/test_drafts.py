"""Action tokens and answers with a draft: the decoders that speculation drives, and the switch."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.small_diffusion import batch_of, histories_of, objective, small_policy
from helpers.small_vlm import TINY, frames_of, save_paligemma, small_backbone
from helpers.toy_decoder import AheadDrafter

from vla_policy.interfaces import InputError
from vla_policy.models import Backbone, BackboneConfig, DiffusionPolicy, TransformerConfig
from vla_policy.models.drafts import action_drafter, check_action_draft, check_text_draft, open_actions, text_drafter
from vla_policy.models.vlm.backbone import LONGEST_ANSWER
from vla_policy.speculation import Decoder, DrafterConfig, LocalDrafter

TOKENS = objective("autoregressive")
FRAMES = frames_of(1)


@pytest.fixture(scope="module")
def policy() -> DiffusionPolicy:
    return small_policy(**TOKENS).eval()


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """A draft gets no process of its own, which takes seconds to start."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})


def paligemma(folder: Path) -> Backbone:
    return Backbone.create(BackboneConfig(path=str(save_paligemma(folder))), ()).eval()


def sharpened(backbone: Backbone) -> Backbone:
    """Random weights that are large enough for different answers to different questions."""
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3.0)
    return backbone.eval()


def decoder_of(kind: str, tmp_path: Path) -> Decoder:
    if kind == "actions":
        return small_policy(**TOKENS).eval().action_decoder(batch_of(1))
    backbone = small_backbone() if kind == "smolvlm" else paligemma(tmp_path)
    return sharpened(backbone).decoder(FRAMES, "where is the T?")


@pytest.mark.parametrize("kind", ["actions", "smolvlm", "paligemma"])
@torch.inference_mode()
def test_several_tokens_at_once_rewound_and_forked_are_as_one_after_the_other(kind: str, tmp_path: Path) -> None:
    decoder = decoder_of(kind, tmp_path)
    tokens = [decoder.start, 7, 3, 200, 11, 5]

    def alone(sequence: list[int]) -> torch.Tensor:
        decoder.rewind(0)
        return torch.cat([decoder.extend(torch.tensor([[token]]))[:, 0] for token in sequence])

    expected = alone(tokens)
    assert len(expected.argmax(-1).unique()) > 2
    decoder.rewind(0)
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(decoder.extend(torch.tensor([tokens]))[0], expected, **close)
    decoder.rewind(2)
    torch.testing.assert_close(decoder.extend(torch.tensor([tokens[2:]]))[0], expected[2:], **close)

    ends = [[9, 30], [7, 8], [1, 2]]
    fork = decoder.fork([1, 6, 3])
    forked = torch.stack([fork.extend(torch.tensor([[end[k]] for end in ends]))[:, 0] for k in range(2)], 1)
    for row, length in enumerate([1, 6, 3]):
        torch.testing.assert_close(forked[row], alone([*tokens[:length], *ends[row]])[length:], **close)


@pytest.mark.parametrize("family", ["smolvlm", "paligemma"])
def test_answers_are_those_of_transformers_with_a_draft_and_without(family: str, tmp_path: Path) -> None:
    backbone = sharpened(small_backbone() if family == "smolvlm" else paligemma(tmp_path))
    other = sharpened(small_backbone(seed=1) if family == "smolvlm" else paligemma(tmp_path / "other"))
    question = "where is the T?"
    ids, real = backbone._batch([backbone._ids(question, 1)])
    expected = backbone.model.generate(
        input_ids=ids,
        attention_mask=real.long(),
        pixel_values=backbone.family.pixels(backbone.images(FRAMES)),
        max_new_tokens=LONGEST_ANSWER,
        do_sample=False,
        pad_token_id=backbone.tokenizer.pad_token_id,
        eos_token_id=backbone.tokenizer.eos_token_id,
        **backbone.family.more_inputs(real.long(), None),
    )[0, ids.shape[1] :].tolist()
    assert backbone.reply(FRAMES, question, None).tokens == expected
    for draft, ahead in itertools.product((backbone, other), (False, True)):

        def open_draft(prompt: Any, draft: Backbone = draft) -> Decoder:
            return draft.decoder([torch.from_numpy(frame) for frame in prompt[0]], prompt[1])

        drafter = (AheadDrafter if ahead else LocalDrafter)(open_draft, DrafterConfig())
        found = backbone.reply(FRAMES, question, drafter)
        assert found.tokens == expected
        if draft is backbone:
            assert found.kept == found.drafted
            assert found.passes == -(-len(expected) // 5)
            assert found.hits == (found.asked if ahead else 0)


@pytest.mark.usefixtures("one_core")
@pytest.mark.parametrize("sampler", ["greedy", "categorical"])
def test_a_policy_predicts_with_a_draft_as_without(sampler: str, tmp_path: Path) -> None:
    settings = objective("autoregressive", sampler=sampler) | {"action_normalization": "quantile"}
    policy = small_policy(**settings).eval()
    policy.save_pretrained(tmp_path / "same")
    small_policy(transformer=TransformerConfig(width=16, depth=1, heads=2, time_width=8), **settings).save_pretrained(
        tmp_path / "small"
    )
    histories = histories_of(policy, 2)
    plain = policy.predict(histories[:1], np.random.default_rng(0))[0].actions
    for name in ("same", "small"):
        policy.drafter = action_drafter(policy, str(tmp_path / name), "cpu")
        drafted, again = (policy.predict(histories[:1], np.random.default_rng(0))[0].actions for _ in range(2))
        assert np.array_equal(drafted, again)
        assert drafted.shape == plain.shape
        if sampler == "greedy":
            assert np.array_equal(drafted, plain)
    assert len(policy.predict(histories, np.random.default_rng(0))) == 2  # a batch is decoded together


def test_a_draft_whose_tokens_mean_something_else_is_refused(policy: DiffusionPolicy, tmp_path: Path) -> None:
    mistakes = {
        "bins": (objective("autoregressive", bins=64), "expected bins 256 as the policy has, found 64"),
        "rows": (TOKENS | {"predict_past": False}, "expected rows 16 as the policy has, found 15"),
        "flow": ({}, "expected policy=autoregressive, found flow"),
        "sees": (TOKENS | {"image": True}, "observation.images.top"),
    }
    for name, (changes, message) in mistakes.items():
        small_policy(**changes).save_pretrained(tmp_path / name)
        with pytest.raises(InputError, match=message):
            check_action_draft(policy, str(tmp_path / name))
    with pytest.raises(InputError, match=r"draft: expected a policy of action tokens .*, found flow"):
        check_action_draft(small_policy(), str(tmp_path / "bins"))
    assert open_actions(str(tmp_path / "bins"), "cpu")(batch_of(1)).start == 64


@pytest.mark.usefixtures("one_core")
def test_a_draft_of_text_is_a_policy_or_a_model_with_the_same_tokenizer(tmp_path: Path) -> None:
    backbone = sharpened(small_backbone())
    small_policy(
        image=True, backbone=small_backbone(seed=1), backbone_config=BackboneConfig(tiny=TINY)
    ).save_pretrained(tmp_path / "policy")
    backbone.model.save_pretrained(tmp_path / "model")
    backbone.tokenizer.save_pretrained(tmp_path / "model")
    expected = backbone.reply(FRAMES, "where is the T?", None)
    for name in ("policy", "model"):
        found = backbone.reply(FRAMES, "where is the T?", text_drafter(backbone, str(tmp_path / name), "cpu"))
        assert found.tokens == expected.tokens
        assert found.drafted > 0
    with pytest.raises(InputError, match="expected the tokenizer of the model that it drafts for, found another"):
        check_text_draft(backbone, str(save_paligemma(tmp_path / "paligemma")))
