"""`expert.json`, which training writes beside an adapter: what serving must know besides the weights."""

from __future__ import annotations

from pathlib import Path

from pydantic import ConfigDict, Field, model_validator

from moe_router import jsonfile
from moe_router.errors import ModelAssetError

NAME = "expert.json"


class ExpertFile(jsonfile.CheckedModel):
    """How a trained adapter answers, and how its confidence is calibrated.

    Attributes:
        labels: the label set that it was trained for, in order.
        template: the prompt that it was trained on.
        words: the words that stand for the labels, one each (the *verbalizer*, Schick and Schütze 2021);
            absent where the labels stand for themselves. A word of one token is read in one pass.
        temperature: by which log-probabilities of labels are divided (Guo et al. 2017); of an extraction the
            log-odds of an entity's type.
        span_temperature: by which the log-odds of an entity's span are divided. Where an extraction has none
            its temperature was fitted to something else, and nothing is divided.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    labels: tuple[str, ...] = Field(min_length=1)
    template: str
    words: tuple[str, ...] | None = None
    temperature: float = Field(1.0, gt=0.0, le=100.0)
    span_temperature: float | None = Field(None, gt=0.0, le=100.0)

    @model_validator(mode="after")
    def _one_word_a_label(self) -> ExpertFile:
        if self.words is not None and len(set(self.words)) != len(self.labels):
            raise ValueError("there must be one word for each label, all of them different")
        return self


def load(folder: Path, labels: tuple[str, ...]) -> ExpertFile | None:
    """The file of an adapter's folder; None where there is none, as with an adapter made elsewhere.

    Raises:
        ConfigError: the file is malformed.
        ModelAssetError: the adapter was trained for other labels than the registry's.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    found = jsonfile.load_model(path, ExpertFile)
    if found.labels != labels:
        odd = sorted(set(found.labels) ^ set(labels))
        what = f"differs in {', '.join(odd[:3])}" if odd else "has another order"
        raise ModelAssetError(f"{path}: the adapter was trained for another label_set: it {what}")
    return found
