"""Detection of instructions that a policy does not understand.

The score of an instruction is the distance of the backbone's hidden state (`Backbone.embed`) from those of the training
sentences. A small backbone's states hardly change when a known object is replaced by an unknown one, or by a negation;
two word rules catch those, with an infinite score. The threshold is conformal: a new paraphrase of a training sentence
is refused with probability at most `alpha`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vla_policy.interfaces import InputError
from vla_policy.monitoring.conformal import grouped_threshold
from vla_policy.utils.files import write_whole

FILE = "instructions.safetensors"
ARTICLES = {"the", "a", "an"}
# Words that negate or change an instruction, unless they are in the training sentences.
TURNS = {"not", "no", "never", "without", "except", "but", "away", "off", "or", "nor", "neither", "instead", "unless"}
TURNS |= {"cannot", "dont", "?"}
SAME = 0.01  # tolerance of a sentence's distance from itself on another machine; other models are far beyond

AGAIN = "delete it, and calibrate anew (vla-calibrate instructions)"

Embed = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True)
class KnownInstructions:
    """The N training sentences of a policy, their embeddings (N, V), and the threshold of the distance from them.

    `threshold` was calibrated on `paraphrases` paraphrases at level `alpha`.
    """

    sentences: tuple[str, ...]
    embeddings: Tensor
    threshold: float
    alpha: float
    paraphrases: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "embeddings", self.embeddings.detach().float().cpu().contiguous())

    @classmethod
    def calibrate(
        cls, embed: Embed, sentences: Sequence[str], paraphrases: Sequence[Sequence[str]], alpha: float
    ) -> KnownInstructions:
        """Calibrate on held-out paraphrases, grouped by template.

        `InputError` for a single sentence, for too few groups, or if the word rules refuse more than `alpha` of them.
        """
        if len(set(sentences)) < 2:
            raise InputError(f"training sentences: expected at least two, found {len(set(sentences))}")
        known = cls(tuple(sentences), embed(sentences), np.inf, alpha, len(paraphrases))
        groups = [known.scores(group, embed(group)) for group in paraphrases]
        threshold = grouped_threshold(groups, alpha)
        if not np.isfinite(threshold):
            odd = next(text for group in paraphrases for text in group if known.odd_word(text))
            raise InputError(
                f"paraphrases: expected at most {100 * alpha:g} % with words that turn them around or name unknown "
                f"things, found more, such as {odd!r}"
            )
        return cls(known.sentences, known.embeddings, threshold, alpha, len(paraphrases))

    def refusal(self, text: str, embedding: Tensor) -> str:
        """Why an instruction with this embedding (1, V) is refused; "" if it is not."""
        nearest = f"the nearest sentence it knows is {self.nearest(embedding)!r}"
        if word := self.odd_word(text):
            return f"cannot read the instruction {text!r}: {word!r} is not in what it was trained on; {nearest}"
        distance = float(self.distances(embedding).min())
        if distance <= self.threshold:
            return ""
        return (
            f"cannot read the instruction {text!r}: expected a distance of at most {self.threshold:.2f} from what it "
            f"was trained on, found {distance:.2f}; {nearest}"
        )

    def scores(self, texts: Sequence[str], embeddings: Tensor) -> np.ndarray:
        """Distances (M,) of M texts from the nearest sentence, infinite where a word rule applies."""
        nearest = self.distances(embeddings).min(dim=1).values.double().numpy()
        return np.where([bool(self.odd_word(text)) for text in texts], np.inf, nearest)

    def distances(self, embeddings: Tensor) -> Tensor:
        """Cosine distances (M, N) of embeddings (M, V), centred on the sentences' mean."""
        mean = self.embeddings.mean(dim=0)
        known = torch.nn.functional.normalize(self.embeddings - mean, dim=1)
        return 1 - torch.nn.functional.normalize(embeddings.float().cpu() - mean, dim=1) @ known.T

    def nearest(self, embedding: Tensor) -> str:
        """The sentence nearest to an embedding (1, V)."""
        return self.sentences[int(self.distances(embedding).argmin())]

    def odd_word(self, text: str) -> str:
        """The first word that negates or changes the text, or the first noun (a word after an article) that is in no
        sentence; "" if there is none.
        """
        found = words(text)
        for before, word in zip(["", *found], found, strict=False):
            turns = word in TURNS or word.endswith("n't")
            if word not in self.vocabulary and (turns or before in ARTICLES):
                return word
        return ""

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """All words of the sentences."""
        return frozenset(word for sentence in self.sentences for word in words(sentence))

    def check(self, embed: Embed, source: str) -> None:
        """`InputError` unless `embed` reproduces the stored embeddings of the first sentences."""
        read = embed(self.sentences[:4])
        fits = read.shape[1:] == self.embeddings.shape[1:]
        if not fits or not bool((self.distances(read).diagonal() < SAME).all()):
            raise InputError(
                f"{source}: expected the embeddings of this checkpoint's backbone, found another's; {AGAIN}"
            )

    def save(self, folder: Path) -> None:
        """Write instructions.safetensors, whole or not at all."""
        metadata = {"known": self._facts(), "digest": self._digest()}
        write_whole(folder / FILE, lambda path: save_file({"embeddings": self.embeddings}, path, metadata))
        (folder / FILE).chmod(0o644)

    @classmethod
    def load(cls, folder: Path) -> KnownInstructions | None:
        """Load from a folder, None if there is nothing; `InputError` names a corrupt file."""
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                stored, embeddings = file.metadata() or {}, file.get_tensor("embeddings")
            facts = json.loads(stored["known"])
            known = cls(tuple(facts.pop("sentences")), embeddings, **facts)
            intact = stored["digest"] == known._digest()
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path}: expected known instructions, found a broken or another file ({error}); {AGAIN}"
            ) from None
        whole = embeddings.shape[:-1] == (len(known.sentences),) and embeddings.numel() and embeddings.isfinite().all()
        if not intact or not whole:
            raise InputError(f"{path}: expected what vla-calibrate instructions wrote, found a changed file; {AGAIN}")
        return known

    def _facts(self) -> str:
        return json.dumps(
            {
                "sentences": self.sentences,
                "threshold": self.threshold,
                "alpha": self.alpha,
                "paraphrases": self.paraphrases,
            }
        )

    def _digest(self) -> str:
        return hashlib.sha256(self._facts().encode() + self.embeddings.numpy().tobytes()).hexdigest()


def words(text: str) -> list[str]:
    """The words of a text and its question marks, in lower case."""
    return re.findall(r"[\w']+|\?", text.lower().replace("\u2019", "'"))
