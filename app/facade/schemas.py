"""What those clients send and read. Members that mean nothing to a classifier are taken and ignored."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from moe_router.contracts import ClassifyAnswer

MOST_INPUTS = 100
"""of one `/v1/classify`, as of `/api/v1/classify/batch`"""
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=210)]


class Asked(BaseModel):
    """Base of requests: unknown members are ignored, as clients send many."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Said(BaseModel):
    """Base of answers."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())


class Part(Asked):
    """A piece of a message; only text can be classified."""

    type: str
    text: str | None = None


class Message(Asked):
    """A turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Annotated[list[Part], Field(fail_fast=True)] | None = None


class StreamOptions(Asked):
    """How to stream."""

    include_usage: bool = False


class ChatRequest(Asked):
    """The last user message is the text; the system messages say what to find out."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "mole/auto",
                    "messages": [
                        {"role": "system", "content": "Is this good or bad news for investors?"},
                        {"role": "user", "content": "Der Umsatz stieg um zwölf Prozent."},
                    ],
                    "logprobs": True,
                    "top_logprobs": 3,
                }
            ]
        }
    )

    model: ModelName = Field(description="`mole/auto`, or `mole/` and a task key.")
    messages: list[Message] = Field(min_length=1, fail_fast=True)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = Field(None, description="There is one answer.")
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


class ClassifyInputs(Asked):
    """Texts in the form of vLLM's classification API, and of Infinity's, which adds `raw_scores`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"model": "mole/finance/sentiment_analysis", "input": ["Revenue rose.", "Shares fell."]}
            ]
        }
    )

    model: ModelName = Field(description="`mole/auto`, or `mole/` and a task key.")
    input: str | Annotated[list[str], Field(min_length=1, max_length=MOST_INPUTS)]
    description: str | None = Field(None, description="What to find out; neither vLLM's nor Infinity's.")
    raw_scores: Literal[False] | None = Field(
        None,
        description="Sent by Infinity's clients; where it is there, the answer is in Infinity's form. "
        "There are probabilities alone, no raw scores.",
    )


class Usage(Said):
    """MoLE counts no tokens: all are 0."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class TokenLogprob(Said):
    """A label as one token."""

    token: str
    logprob: float
    bytes: list[int]


class ContentLogprob(TokenLogprob):
    """The label that is answered, and the likeliest ones."""

    top_logprobs: list[TokenLogprob]


class Logprobs(Said):
    """Of the answer's only token."""

    content: list[ContentLogprob]
    refusal: None = None


class ReplyMessage(Said):
    """The label, the entities as JSON, or a refusal where MoLE abstains."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: str | None = None


class Choice(Said):
    """The only one."""

    index: int = 0
    message: ReplyMessage
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop"] = "stop"


class ChatAnswer(Said):
    """A chat completion; `mole` is the whole answer of `/api/v1/classify`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage = Usage()
    mole: ClassifyAnswer


class ModelCard(Said):
    """A task as a model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "mole"


class ModelList(Said):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Classified(Said):
    """An input's label; `probs` are in the order of the task's labels, as `/api/v1/tasks` lists them."""

    index: int
    label: str | None
    probs: list[float]
    num_classes: int
    mole: ClassifyAnswer


class ClassifiedList(Said):
    """vLLM's form: one entry an input, in order."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[Classified]
    usage: Usage = Usage()


class InfinityUsage(Said):
    """Zeros, as there."""

    prompt_tokens: int = 0
    total_tokens: int = 0


class InfinityLabel(Said):
    """A label and its probability."""

    score: float
    label: str


class InfinityList(Said):
    """Infinity's form: for each input, in order, its labels from the likeliest on; none of an abstention."""

    object: Literal["classify"] = "classify"
    data: list[list[InfinityLabel]]
    model: str
    usage: InfinityUsage = InfinityUsage()
    id: str
    created: int
    mole: list[ClassifyAnswer]


class ErrorBody(Said):
    """What is wrong, in OpenAI's words."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(Said):
    """Every error of the façade."""

    error: ErrorBody
