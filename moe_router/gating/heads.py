"""A calibrated head over classes: the description decides, the text where the description leaves it open.

Reading description and text into one vector lets the surface of the text overrule what is asked.
Here the description alone gives a distribution over the classes, "none of these", and *open*
classes such as "sentiment, of whatever this is"; the mass of an open class, and that alone, is
shared out by what the text is:

    p(k | d, t) = p(k | d) + sum over open o of p(o | d) p(k | t, o)

Without a description the text decides alone. Since t enters only through open classes, it need not
be encoded where the description leaves little open.

A class that the weights have never seen competes through its prototype, the mean vector of the
phrasings that describe it, by cosine similarity; known classes are blended with theirs too. A
description that repeats one of those phrasings, nearly word for word, is for that class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from moe_router.errors import ModelAssetError
from moe_router.gating.weights import Floats, Weights

NONE = "none"
"""The class of what fits no other."""

EQUAL = 0.001
"""Phrasings whose cosine similarities to a description differ by no more are as good as the same."""
SAME, DISTINCT = 0.9, 0.8
"""Cosine similarity from which on a description says the same as a phrasing, and up to which it does not.

Of 12,473 pairs of a held-out request and another demo task's phrasings 0.03 % are above the one and 0.1 %
above the other; of the requests 86 % and 93 % are that near to one of their own task's.
"""


@dataclass(frozen=True)
class Distribution:
    """Probabilities over the classes in use; with `none` they sum to 1."""

    names: tuple[str, ...]
    probabilities: Floats
    none: float
    open: float
    """The mass that the text has shared out, or would."""

    def of(self, name: str) -> float:
        """The probability of one class; 0 where it is not in use."""
        if name not in self.names:
            return 0.0
        return float(self.probabilities[self.names.index(name)])

    def as_dict(self) -> dict[str, float]:
        """By name, without `none`; not to be changed."""
        return self._by_name

    @cached_property
    def _by_name(self) -> dict[str, float]:
        return dict(zip(self.names, self.probabilities.tolist(), strict=True))


class MixtureHead:
    """Classifies from unit vectors of a description, a text, or both. Pure and thread-safe."""

    def __init__(self, weights: Weights, names: Sequence[str], prototypes: Mapping[str, Floats]) -> None:
        """Binds trained weights to the classes in use.

        Args:
            weights: arrays `describe.weight` (known + 1 + opens, hidden), `describe.bias`,
                `read.weight` (known, hidden), `read.bias`, `centre` (hidden,) and the meta data
                `classes`, `opens` {name: {text class: class}}, `temperature`, `read_temperature`,
                `match` {scale, bias, blend}.
            names: the classes in use; of the trained classes the others are masked, which means
                that what asks for them fits none.
            prototypes: (n, hidden) unit vectors of phrasings for each class in use; may be empty.
        """
        meta = weights.meta
        try:
            self._known: tuple[str, ...] = tuple(meta["classes"])
            self._opens: dict[str, dict[str, str]] = dict(meta["opens"])
            self._temperature = float(meta["temperature"])
            self._read_temperature = float(meta["read_temperature"])
            match = meta["match"]
            self._scale, self._bias, self._blend = (float(match[k]) for k in ("scale", "bias", "blend"))
            self._describe = weights.arrays["describe.weight"], weights.arrays["describe.bias"]
            self._read = weights.arrays["read.weight"], weights.arrays["read.bias"]
            self._centre = weights.arrays["centre"]
        except (KeyError, TypeError, ValueError) as error:
            raise ModelAssetError(f"the weights of a head lack {error}") from error
        self._check_shapes()
        self.names = tuple(names)
        self._column = {name: index for index, name in enumerate(self._known)}
        self._unseen = [name for name in self.names if name not in self._column]
        self._prototypes = self._stack(prototypes)
        self._phrases = self._unseen_phrases(prototypes)

    def __call__(self, description: Floats | None, text: Floats | None) -> Distribution:
        """Classifies.

        Args:
            description: (hidden,) unit vector, or None where there is none.
            text: (hidden,) unit vector, or None where there is none or it was not encoded.

        Returns:
            The distribution; all mass on none where there is neither.
        """
        if description is None:
            return self._from_text(text)
        own, none, opens = self._from_description(description)
        read = self._reading(text) if text is not None else None
        for targets, mass in zip(self._opens.values(), opens, strict=True):
            for target, share in self._shares(targets, read).items():
                own[target] = own.get(target, 0.0) + mass * share
        probabilities = np.array([own.get(name, 0.0) for name in self.names], np.float32)
        none += sum(p for name, p in own.items() if name not in self.names)
        return Distribution(self.names, probabilities, none, sum(opens))

    @property
    def columns(self) -> tuple[str, ...]:
        """The trained classes, none, the open classes, and the classes in use that were never seen."""
        return (*self._known, NONE, *self._opens, *self._unseen)

    def prior_logits(self, descriptions: Floats) -> Floats:
        """What prototypes alone give each column, before the temperature.

        Args:
            descriptions: (n, hidden) unit vectors.

        Returns:
            (n, columns + unseen classes): for a trained column what its prototype adds to it, for the
            classes in use that the weights have never seen their whole logit.
        """
        columns = len(self._describe[1])
        found = np.zeros((len(descriptions), columns + len(self._unseen)), np.float32)
        found[:, columns:] = self._bias - self._scale
        names, matrix = self._prototypes
        if names:
            similarity = unit(descriptions - self._centre) @ matrix.T
            for name, own in zip(names, similarity.T, strict=True):
                if name in self._column:
                    found[:, self._column[name]] = self._blend * own
                else:
                    found[:, columns + self._unseen.index(name)] = self._scale * own + self._bias
        return found

    def shares(self, text: Floats | None, target: str) -> Floats:
        """How much of each column's mass goes to a class, given the text: (columns + unseen,) in [0, 1]."""
        found = np.zeros(len(self.columns), np.float32)
        trained = len(self._known)
        if target in self._column:
            found[self._column[target]] = 1.0
        elif target == NONE:
            found[trained] = 1.0
        elif target in self._unseen:
            found[len(self._describe[1]) + self._unseen.index(target)] = 1.0
        read = self._reading(text) if text is not None else None
        for place, targets in enumerate(self._opens.values(), trained + 1):
            found[place] = self._shares(targets, read).get(target, 0.0)
        return found

    def _from_text(self, text: Floats | None) -> Distribution:
        read = self._reading(text) if text is not None else {}
        probabilities = np.array([read.get(name, 0.0) for name in self.names], np.float32)
        return Distribution(self.names, probabilities, float(max(0.0, 1.0 - probabilities.sum())), 1.0)

    def _from_description(self, description: Floats) -> tuple[dict[str, float], float, list[float]]:
        """The mass of each class by name, of none, and of each open class."""
        weight, bias = self._describe
        logits = weight @ description + bias
        similarity = self._similarities(description)
        for name, column in self._column.items():
            if name in similarity:
                logits[column] += self._blend * similarity[name]
        unseen = np.array(
            [self._scale * similarity.get(n, -1.0) + self._bias for n in self._unseen], np.float32
        )
        joined = np.concatenate([logits, unseen]).astype(np.float32)
        p = softmax(joined / np.float32(self._temperature)).tolist()
        # By place, not by name: a registry may call a task what the weights call an open class.
        known, first_unseen = len(self._known), len(logits)
        own = dict(zip(self._known, p[:known], strict=True))
        own |= zip(self._unseen, p[first_unseen:], strict=True)
        names, share = self._repeated(description)
        if share > 0.0:
            own = {other: (1.0 - share) * mass for other, mass in own.items()}
            for name in names:
                own[name] += share / len(names)
            p = [(1.0 - share) * mass for mass in p]
        return own, p[known], p[known + 1 : first_unseen]

    def _repeated(self, description: Floats) -> tuple[frozenset[str], float]:
        """The unseen classes one of whose phrasings the description repeats, and how surely, in [0, 1].

        There are several where they are worded alike: a task for each language, say.

        A mean of few phrasings is often nearer to what asks for nothing on offer than to one of its own.
        """
        owners, phrases = self._phrases
        if not owners:
            return frozenset(), 0.0
        similarity = phrases @ unit(description - self._centre)
        best = float(similarity.max())
        alike = frozenset(owners[at] for at in np.flatnonzero(similarity >= best - EQUAL).tolist())
        return alike, min(1.0, max(0.0, (best - DISTINCT) / (SAME - DISTINCT)))

    def _similarities(self, description: Floats) -> dict[str, float]:
        names, matrix = self._prototypes
        if not names:
            return {}
        return dict(zip(names, (matrix @ unit(description - self._centre)).tolist(), strict=True))

    def _reading(self, text: Floats) -> dict[str, float]:
        weight, bias = self._read
        p = softmax((weight @ text + bias) / np.float32(self._read_temperature))
        return dict(zip(self._known, p.tolist(), strict=True))

    def _shares(self, targets: Mapping[str, str], read: Mapping[str, float] | None) -> dict[str, float]:
        """How an open class is shared out: by the text, or evenly where that says nothing."""
        distinct = list(dict.fromkeys(targets.values()))
        even = 1.0 / len(distinct)
        if read is None:
            return dict.fromkeys(distinct, even)
        shares = dict.fromkeys(distinct, 0.0)
        for source, target in targets.items():
            shares[target] += read.get(source, 0.0)
        rest = 1.0 - sum(shares.values())
        return {target: share + rest * even for target, share in shares.items()}

    def _check_shapes(self) -> None:
        hidden, known = len(self._centre), len(self._known)
        columns = known + 1 + len(self._opens)
        shapes = [array.shape for array in (*self._describe, *self._read)]
        if shapes != [(columns, hidden), (columns,), (known, hidden), (known,)]:
            raise ModelAssetError("the weights of a head have other dimensions than their description says")

    def _unseen_phrases(self, prototypes: Mapping[str, Floats]) -> tuple[list[str], Floats]:
        owned = [(name, prototypes[name]) for name in self._unseen if name in prototypes]
        owners = [name for name, phrases in owned for _ in phrases]
        if not owners:
            return [], np.zeros((0, len(self._centre)), np.float32)
        return owners, unit(np.concatenate([phrases for _, phrases in owned]) - self._centre)

    def _stack(self, prototypes: Mapping[str, Floats]) -> tuple[list[str], Floats]:
        names = [name for name in self.names if name in prototypes and len(prototypes[name])]
        rows = [unit(unit(prototypes[name] - self._centre).mean(axis=0)) for name in names]
        return names, np.stack(rows) if rows else np.zeros((0, len(self._centre)), np.float32)


def softmax(logits: Floats) -> Floats:
    """Softmax over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), np.float32)


def unit(vectors: Floats) -> Floats:
    """Rows scaled to length 1; zero rows stay zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-9), np.float32)
