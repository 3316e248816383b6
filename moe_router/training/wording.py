"""Fits the n-gram model of what descriptions ask for, and its weight beside the encoder's heads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags
from sklearn.linear_model import SGDClassifier

from moe_router.gating.heads import NONE, Distribution
from moe_router.gating.ngrams import BUCKETS, IDENTITY, buckets
from moe_router.gating.weights import Floats, Weights
from moe_router.gating.wording import Wording
from moe_router.training.phrasings import GENERIC, OUT_OF_SCOPE, Phrasing

EPOCHS = 10
REGULARISATION = 3e-6
SHARES = np.arange(0.0, 1.51, 0.1)
"""Weights to choose from."""
TEMPERATURES = np.arange(0.6, 1.61, 0.05)


def fit_wording(phrasings: Sequence[Phrasing], seed: int) -> Weights:
    """Logistic regressions, one class against the rest, on the n-grams of training requests.

    Args:
        phrasings: of the training part; requests that leave the domain open are left out.
        seed: of the order in which they are seen.

    Returns:
        The weights that `Wording` takes, not yet weighed against the encoder (weight 0).
    """
    asked = [p for p in phrasings if not p.target.startswith(GENERIC)]
    gold = np.array([NONE if p.target.startswith(OUT_OF_SCOPE) else p.target for p in asked])
    grams = _matrix([p.text for p in asked])
    # Rare n-grams count for more; folded into the weights, so that who reads them need not know.
    seen = np.asarray((grams > 0).sum(axis=0)).ravel()
    rarity = np.log((1 + len(asked)) / (1 + seen)) / 5
    model = SGDClassifier(
        loss="log_loss", alpha=REGULARISATION, max_iter=EPOCHS, tol=None, average=True, random_state=seed
    ).fit(grams @ diags(rarity), gold)
    weight = (model.coef_ * rarity).T.astype(np.float32)
    bias = model.intercept_.astype(np.float32)
    if len(model.classes_) == 2:  # scikit-learn gives one row for two classes
        weight, bias = np.concatenate([-weight, weight], axis=1), np.array([-bias[0], bias[0]], np.float32)
    meta = {
        "encoder": IDENTITY, "hidden": BUCKETS, "classes": [str(name) for name in model.classes_],
        "weight": 0.0, "temperature": 1.0, "seed": seed, "requests": len(asked),
        "data": "the project's own requests, training families",
    }  # fmt: skip
    return Weights({"weight": weight, "bias": bias}, meta)


def weigh(
    weights: Weights, descriptions: Sequence[str], tasks: Sequence[Distribution], targets: Sequence[str]
) -> Weights:
    """Chooses the weight and the temperature of least negative log-likelihood.

    Args:
        weights: of `fit_wording`.
        descriptions: of validation requests.
        tasks: what the heads make of each.
        targets: the task that each asks for; what is none of the distribution's names asks for none.
    """
    wording, names = Wording(weights), tasks[0].names
    gold = np.array([names.index(t) if t in names else len(names) for t in targets], np.intp)
    given = np.log(np.maximum(np.array([[*d.probabilities, d.none] for d in tasks]), 1e-9))
    told = np.stack([wording.opinion(text, names) for text in descriptions])
    closed = 1.0 - np.clip([[d.open] for d in tasks], 0.0, 1.0)

    def loss(share: float, temperature: float) -> float:
        return _nll((1 - closed) * given + closed * (given + share * told) / temperature, gold)

    _, share, temperature = min((loss(s, t), s, t) for s in SHARES for t in TEMPERATURES)
    chosen = {"weight": round(float(share), 2), "temperature": round(float(temperature), 2)}
    return Weights(weights.arrays, dict(weights.meta) | chosen)


def _nll(logits: NDArray[np.float64], gold: NDArray[np.intp]) -> float:
    peak = logits.max(axis=1, keepdims=True)
    total = peak[:, 0] + np.log(np.exp(logits - peak).sum(axis=1))
    return float((total - logits[np.arange(len(gold)), gold]).mean())


def _matrix(texts: Sequence[str]) -> csr_matrix:
    """The n-grams of each text, once each, as rows of length 1."""
    found = [np.unique(buckets(text)) for text in texts]
    ends = np.cumsum([0, *(len(own) for own in found)])
    values: Floats = np.concatenate([np.full(len(own), len(own) ** -0.5, np.float32) for own in found])
    return csr_matrix((values, np.concatenate(found), ends), shape=(len(texts), BUCKETS))
