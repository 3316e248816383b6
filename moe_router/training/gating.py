"""Fits gating's heads on the encoder's embedding and writes their weights.

Each head is a multinomial logistic regression (the description part and the text part apart, see
`moe_router.gating.heads`); temperatures, the weight of the prototypes and the thresholds for
abstaining are chosen on the validation families, which no weight was fitted on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from moe_router.gating.heads import softmax, unit
from moe_router.gating.weights import Floats, Weights
from moe_router.training.phrasings import GENERIC, OUT_OF_SCOPE, Phrasing
from moe_router.training.requests import GENERIC_TARGETS, Text

Strings = NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class Part:
    """Embedded requests and texts of one split."""

    phrasings: Sequence[Phrasing]
    phrasing_vectors: Floats
    texts: Sequence[Text]
    text_vectors: Floats


def fit_head(
    train: Part,
    validation: Part,
    class_of: Callable[[str], str],
    meta: Mapping[str, Any],
    *,
    regularisation: float = 0.3,
) -> Weights:
    """Fits one head.

    Args:
        train: what the weights are fitted on.
        validation: what the temperatures are chosen on.
        class_of: the head's class of a task key: the key itself, or its domain.
        meta: goes into the weights' description (encoder, hidden, data).
        regularisation: the inverse C of the logistic regression, on vectors of unit variance.

    Returns:
        The weights that `moe_router.gating.heads.MixtureHead` takes.
    """
    tasks = {p.target for p in train.phrasings if not p.target.startswith((OUT_OF_SCOPE, GENERIC))}
    classes = sorted({class_of(task) for task in tasks})
    opens = _opens(classes, class_of)
    columns = [*classes, "none", *opens]
    centre = train.phrasing_vectors.mean(axis=0)

    gold = np.array([_column(p.target, class_of, opens) for p in train.phrasings])
    weight, bias = fit_linear(train.phrasing_vectors, gold, columns, regularisation)
    read_gold = np.array([class_of(t.task) for t in train.texts])
    read_weight, read_bias = fit_linear(train.text_vectors, read_gold, classes, regularisation)

    held = np.array([_column(p.target, class_of, opens) for p in validation.phrasings])
    kept = np.isin(held, columns)
    logits = validation.phrasing_vectors @ weight.T + bias
    none_bias, temperature = fit_none(logits[kept], index_of(held[kept], columns), columns.index("none"))
    bias[columns.index("none")] += none_bias
    read_held = np.array([class_of(t.task) for t in validation.texts])
    read_logits = validation.text_vectors @ read_weight.T + read_bias
    read_temperature = fit_temperature(read_logits, index_of(read_held, classes))

    scale, match_bias = _fit_match(train, centre, weight, bias, columns)
    arrays = {
        "describe.weight": weight, "describe.bias": bias, "read.weight": read_weight,
        "read.bias": read_bias, "centre": centre,
    }  # fmt: skip
    described = dict(meta) | {
        "classes": classes,
        "opens": opens,
        "temperature": round(temperature, 4),
        "read_temperature": round(read_temperature, 4),
        "match": {"scale": round(scale, 4), "bias": round(match_bias, 4), "blend": 1.0},
    }
    return Weights(arrays, described)


def fit_linear(
    vectors: Floats, gold: Strings, columns: Sequence[str], regularisation: float
) -> tuple[Floats, Floats]:
    """Multinomial logistic regression on standardised vectors, folded back onto the raw ones.

    Args:
        vectors: (n, hidden).
        gold: (n,) class names.
        columns: the classes in the order of the rows of the result.
        regularisation: the inverse of scikit-learn's C, times n / 1000.

    Returns:
        Weight (len(columns), hidden) and bias (len(columns),); a class without data gets bias -30.
    """
    mean, deviation = vectors.mean(axis=0), vectors.std(axis=0) + 1e-6
    c = 1.0 / (regularisation * len(vectors) / 1000 * 10)
    model = LogisticRegression(C=c, max_iter=300).fit((vectors - mean) / deviation, gold)
    weight = np.zeros((len(columns), vectors.shape[1]), np.float32)
    bias = np.full(len(columns), -30.0, np.float32)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn gives one row for two classes
        coefficients, intercepts = (
            np.stack([-coefficients[0], coefficients[0]]) / 2,
            np.array([-1, 1]) * intercepts[0] / 2,
        )
    for row, name in enumerate(model.classes_):
        column = list(columns).index(name)
        weight[column] = coefficients[row] / deviation
        bias[column] = intercepts[row] - weight[column] @ mean
    return weight, bias


def fit_temperature(logits: Floats, gold: NDArray[np.intp]) -> float:
    """The temperature of least negative log-likelihood (Guo et al., 2017), by golden-section search."""
    rows = np.arange(len(gold))

    def loss(log_temperature: float) -> float:
        p = softmax(logits / np.float32(np.exp(log_temperature)))
        return float(-np.log(np.maximum(p[rows, gold], 1e-12)).mean())

    low, high = -2.5, 2.5
    ratio = (5**0.5 - 1) / 2
    for _ in range(40):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        if loss(a) < loss(b):
            high = b
        else:
            low = a
    return float(np.exp((low + high) / 2))


def fit_none(logits: Floats, gold: NDArray[np.intp], none: int) -> tuple[float, float]:
    """The bias of "none of these" and the temperature that together have the least negative log-likelihood.

    The kinds of requests that no task serves are endless, and those of the training only a few: the
    fitted bias is too small for kinds that it has not seen.
    """
    best = (np.inf, 0.0, 1.0)
    for bias in np.arange(0.0, 4.01, 0.25):
        shifted = logits.copy()
        shifted[:, none] += np.float32(bias)
        temperature = fit_temperature(shifted, gold)
        p = softmax(shifted / np.float32(temperature))
        loss = float(-np.log(np.maximum(p[np.arange(len(gold)), gold], 1e-12)).mean())
        best = min(best, (loss, float(bias), temperature))
    return best[1], best[2]


def index_of(names: Strings, columns: Sequence[str]) -> NDArray[np.intp]:
    """The column of each name."""
    lookup = {name: index for index, name in enumerate(columns)}
    return np.array([lookup[str(name)] for name in names], np.intp)


def coverage_risk(confidence: Floats, correct: NDArray[np.bool_]) -> list[dict[str, float]]:
    """How many requests are answered, and how many of these wrongly, by threshold on the confidence."""
    rows = []
    for threshold in np.round(np.arange(0.1, 1.0, 0.02), 2):
        answered = confidence >= threshold
        if answered.any():
            risk = float(1 - correct[answered].mean())
            rows.append(
                {
                    "threshold": float(threshold),
                    "coverage": round(float(answered.mean()), 4),
                    "risk": round(risk, 4),
                }
            )
    return rows


def _opens(classes: Sequence[str], class_of: Callable[[str], str]) -> dict[str, dict[str, str]]:
    found = {}
    for name, targets in GENERIC_TARGETS.items():
        mapped = {class_of(source): class_of(target) for source, target in targets.items()}
        kept = {
            source: target for source, target in mapped.items() if source in classes and target in classes
        }
        if kept:
            found[name] = kept
    return found


def _column(target: str, class_of: Callable[[str], str], opens: Mapping[str, Any]) -> str:
    if target.startswith(OUT_OF_SCOPE):
        return "none"
    return target if target in opens else class_of(target)


def _fit_match(
    train: Part, centre: Floats, weight: Floats, bias: Floats, columns: Sequence[str]
) -> tuple[float, float]:
    """Scale and bias that let a prototype's cosine compete with the trained logits.

    Every out-of-scope topic plays a task that is new: its English phrasings make the prototype, and
    the scale and bias are those under which its other phrasings prefer it to the trained columns,
    and the requests for trained tasks do not.
    """
    centred = unit(train.phrasing_vectors - centre)
    logits = train.phrasing_vectors @ weight.T + bias
    targets = np.array([p.target for p in train.phrasings])
    english = np.array([p.language == "en" for p in train.phrasings])
    rivals, similarities, own = [], [], []
    for topic in sorted({t for t in targets if t.startswith(OUT_OF_SCOPE)}):
        if not (targets[english] == topic).any() or (targets[~english] == topic).sum() < 10:
            continue  # nothing to make a prototype of, or to judge it by
        prototype = unit(centred[(targets == topic) & english].mean(axis=0))
        chosen = ~english
        rival = logits[chosen].copy()
        is_own = targets[chosen] == topic
        # The trained "none" has seen these requests; it would not have seen a new task's.
        rival[np.ix_(is_own, [columns.index("none")])] -= 4.0
        rivals.append(log_sum_exp(rival))
        similarities.append(centred[chosen] @ prototype)
        own.append(is_own)
    rival_all, similarity, is_new = (np.concatenate(x) for x in (rivals, similarities, own))
    sample = np.where(is_new, len(is_new) / (2 * is_new.sum()), len(is_new) / (2 * (~is_new).sum()))
    design = np.stack([similarity, rival_all], axis=1)
    model = LogisticRegression(C=10.0).fit(design, is_new, sample_weight=sample)
    rival_weight = max(0.1, float(-model.coef_[0, 1]))
    return float(model.coef_[0, 0]) / rival_weight, float(model.intercept_[0]) / rival_weight


def log_sum_exp(logits: Floats) -> Floats:
    """The log of the sum of exponentials of each row: the strength of all rivals together."""
    peak = logits.max(axis=1)
    return np.asarray(peak + np.log(np.exp(logits - peak[:, None]).sum(axis=1)), np.float32)
