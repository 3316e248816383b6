"""The wire schemas: what callers, coordinator and workers say to one another over HTTP.

Every `task` is a whole task key such as `finance/sentiment_analysis`; languages are ISO codes as
lid.176 gives them, `und` where unsure; times are milliseconds unless the name says otherwise;
probabilities lie in [0, 1].
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, model_validator

UNDETERMINED = "und"
"""ISO 639-2 code for a language that could not be told."""

AbstainReason = Literal["unknown_language", "out_of_scope", "low_confidence", "expert_unavailable"]
WorkerState = Literal["healthy", "loading", "draining", "ejected", "down", "refused"]
JobState = Literal["queued", "running", "succeeded", "cancelled", "failed"]
ReadyStatus = Literal["loading", "ready", "draining", "failed"]
Step = Literal["language", "domain", "task", "probe", "hedge", "expert"]

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
TaskKey = Annotated[str, StringConstraints(pattern=r"^[^/\s]+/[^/\s]+$", max_length=200)]
LanguageCode = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")]
RequestId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]

HEADER_REQUEST_ID = "X-Request-ID"
HEADER_TIMEOUT_MS = "X-MoLE-Timeout-Ms"
HEADER_CALLER = "X-MoLE-Caller"
"""From coordinator to worker: an opaque name of the caller, so that the worker's queue is fair too."""
HEADER_OVERHEAD_MS = "X-MoLE-Overhead-Duration-Ms"
HEADER_EXPERT = "X-MoLE-Expert"
HEADER_HEDGED = "X-MoLE-Hedged"
"""`true` where a second worker was asked beside a slow one."""
MAX_HEADER_BYTES = 32 * 2**10
"""Names and values of a request's header fields together, at either service."""


class Wire(BaseModel):
    """Base of requests: unknown members are refused, so that a typo fails loudly."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(BaseModel):
    """Base of answers: unknown members are ignored, so that an older reader takes a newer answer."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


# --- requests of callers ----------------------------------------------------------------------


class ClassifyOptions(Wire):
    """How to serve one request; every member has a default."""

    return_probabilities: bool = Field(False, description="Add the whole label distribution.")
    return_raw_response: bool = Field(False, description="Add what the expert said before it was read.")
    task: TaskKey | None = Field(
        None, description="Fix the task; the router then chooses only among its experts."
    )
    language: LanguageCode | None = Field(
        None, description="Fix the language of the text, by any ISO 639 code; `und` fixes none."
    )
    via: Literal["auto", "expert", "probe"] = Field(
        "auto", description="Answer by an LLM expert, by the probe, or as the router decides."
    )
    on_abstain: Literal["answer", "error"] = Field(
        "answer", description="`error` turns an abstention into a 422."
    )
    timeout_seconds: float | None = Field(None, gt=0, le=3600, description="Bound on the whole request.")


class ClassifyRequest(Wire):
    """A text, and in plain words what to do with it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "text": "Der Umsatz stieg im dritten Quartal um zwölf Prozent.",
                    "description": "Is this good or bad news for investors?",
                    "options": {"return_probabilities": True},
                }
            ]
        }
    )

    text: Annotated[str, StringConstraints(min_length=1)] = Field(description="The text to classify.")
    description: str | None = Field(None, description="What to find out, in any language.")
    fields: dict[Name, str] | None = Field(None, description="Values for the template's further {{names}}.")
    options: ClassifyOptions = Field(default_factory=ClassifyOptions)


class BatchRequest(Wire):
    """Up to 100 requests that run concurrently; each is judged by itself."""

    items: list[JsonValue] = Field(min_length=1, max_length=100, description="1 to 100 classify requests.")


class JobRequest(Wire):
    """Requests to be worked off in the background; each is judged by itself."""

    items: list[JsonValue] = Field(min_length=1, description="Classify requests.")


class FeedbackRequest(Wire):
    """What the right answer would have been, or how good the answer was; at least one of the three."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "request_id": "5f0c1f6b0d2a4b61a3a8d8a2f6c7e901",
                    "correct_task": "finance/sentiment_analysis",
                    "correct_label": "neutral",
                }
            ]
        }
    )

    request_id: RequestId = Field(description="Of the answer that is judged.")
    correct_task: TaskKey | None = Field(None, description="The task that was asked for.")
    correct_label: Name | None = Field(None, description="The label that is right for that task.")
    score: Probability | None = Field(None, description="How good the answer was, where no label says it.")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.correct_task is None and self.correct_label is None and self.score is None:
            raise ValueError("needs one of correct_task, correct_label and score")
        return self


# --- answers to callers -----------------------------------------------------------------------


class Entity(Answer):
    """A span of the text: `text[start:end] == value`, offsets in code points."""

    type: str
    start: int = Field(ge=0)
    end: int = Field(gt=0)
    value: str
    confidence: Probability


class Abstention(Answer):
    """Why no expert was asked."""

    reason: AbstainReason
    detail: str
    nearest_tasks: list[TaskKey] = []


class RouteStep(Answer):
    """One decision on the way to the answer, in the order taken."""

    step: Step
    """`hedge`: another worker, named by `choice`, was asked beside a slow one, which had had `ms` by then"""
    choice: str | None
    probability: Probability | None
    ms: float = Field(ge=0)


class Timings(Answer):
    """Milliseconds spent in each step; a step that was not taken is 0."""

    language: float = 0.0
    encode: float = 0.0
    domain: float = 0.0
    task: float = 0.0
    worker: float = 0.0
    total: float = 0.0


class ClassifyAnswer(Answer):
    """The label or entities found, and the route that the request took."""

    request_id: str
    language: str
    domain: str | None
    task: str | None
    result: str | None
    confidence: Probability
    probabilities: dict[str, Probability] | None = None
    domain_probabilities: dict[str, Probability] | None = None
    entities: list[Entity] | None = None
    abstained: Abstention | None = None
    raw_response: str | None = Field(
        None, description="The expert's own words: `result` is another where a probe was heard with it."
    )
    routing_path: list[RouteStep]
    worker_id: str | None
    model_key: str | None
    processing_time_ms: float
    timings_ms: Timings


class ChosenExpert(Answer):
    """The expert that the router prefers."""

    model_key: str
    adapter_name: str | None


class RouteAnswer(Answer):
    """The gating decision alone; no expert was called."""

    request_id: str
    language: str
    language_probability: Probability
    domain: str | None
    domain_probabilities: dict[str, Probability]
    task: str | None
    task_probabilities: dict[str, Probability]
    confidence: Probability = Field(
        description="Calibrated probability that the best in-scope task is what is asked."
    )
    expert: ChosenExpert | None
    candidates: list[str] = Field(description="Worker ids, best first.")
    abstained: Abstention | None = None
    timings_ms: Timings


class Problem(Answer):
    """RFC 9457 problem details."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str
    title: str
    status: int
    detail: str
    instance: str | None = None
    request_id: str | None = None


class BatchItemError(Answer):
    """An item of a batch that failed, by itself."""

    error: Problem


class BatchAnswer(Answer):
    """One answer or error an item, in the order of the items."""

    results: list[ClassifyAnswer | BatchItemError]


class FeedbackAnswer(Answer):
    """The feedback is stored, durably."""

    request_id: str
    received_at: str
    replaced: bool = Field(description="Whether it took the place of earlier feedback of the same caller.")


class JobAnswer(Answer):
    """A job and how far it is."""

    job_id: str
    state: JobState = Field(
        description="`succeeded`: all items are worked off and not all of them failed; "
        "`failed`: every item failed."
    )
    total: int = Field(ge=1, description="Items of the job.")
    done: int = Field(ge=0, description="Items that have an answer.")
    failed: int = Field(ge=0, description="Items that have an error instead.")
    created_at: str
    finished_at: str | None = None
    eta_seconds: float | None = Field(None, ge=0, description="Seconds left at the pace so far.")
    owner: str | None = Field(
        None, description="Whose it is, as `mole keys list` shows it; only administrators are told."
    )


class JobsAnswer(Answer):
    """The caller's newest jobs, newest first."""

    jobs: list[JobAnswer]


class TaskInfo(Answer):
    """A task that can be asked for."""

    task_key: str
    domain: str
    description: str | None
    kind: Literal["classification", "extraction"] = "classification"
    languages: list[str] | None = Field(description="ISO codes; null where every language is served.")
    labels: list[str] = Field(description="Labels, or the entity types of an extraction.")
    experts: list[str]
    available: bool = Field(description="Whether a worker of the mapping serves it, or a probe.")


class TasksAnswer(Answer):
    """All tasks of the registry."""

    tasks: list[TaskInfo]


class Latency(Answer):
    """Milliseconds over the last requests; null before the first."""

    p50: float | None
    p95: float | None


class WorkerInfo(Answer):
    """A worker of the mapping and how it is."""

    worker_id: str
    url: str
    model_key: str
    state: WorkerState
    reason: str | None = None
    until: str | None = None
    outstanding: int
    queue_depth: int | None
    latency_ms: Latency
    tasks: list[str]
    adapters: list[str] = Field(default=[], description="Those loaded beside its base model.")


class RefusedEdit(Answer):
    """The last edit of a file that was not taken."""

    at: str
    error: str


class MappingInfo(Answer):
    """Which mapping is in force."""

    loaded_at: str
    refused: RefusedEdit | None = None


class WorkersAnswer(Answer):
    """All workers of the mapping."""

    workers: list[WorkerInfo]
    mapping: MappingInfo


# --- between coordinator and worker -----------------------------------------------------------


class ExpertRequest(Wire):
    """What the coordinator asks of a worker."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "task_key": "social/sentiment_analysis",
                    "text": "J'adore ce festival !",
                    "language": "fr",
                    "return_probabilities": True,
                }
            ]
        }
    )

    task_key: TaskKey
    text: Annotated[str, StringConstraints(min_length=1)]
    language: LanguageCode
    description: str | None = None
    fields: dict[Name, str] | None = None
    adapter_name: Name | None = None
    request_id: RequestId | None = None
    return_probabilities: bool = False


class ExpertAnswer(Answer):
    """What a worker answers."""

    request_id: str | None = None
    result: str
    confidence: Probability
    probabilities: dict[str, Probability] | None = None
    entities: list[Entity] | None = None
    raw_response: str | None = None
    worker_id: str
    model_key: str
    adapter_name: str | None
    processing_time_ms: float


class ExpertBatchRequest(Wire):
    """Up to 100 expert requests; each is judged by itself."""

    items: list[JsonValue] = Field(min_length=1, max_length=100)


class ExpertBatchAnswer(Answer):
    """One answer or error an item, in the order of the items."""

    results: list[ExpertAnswer | BatchItemError]


class ServedTask(Answer):
    """A task that a worker serves."""

    task_key: str
    languages: list[str] | None
    labels: list[str]
    adapters: list[str]


class ExpertTasksAnswer(Answer):
    """What a worker serves."""

    worker_id: str
    model_key: str
    tasks: list[ServedTask]


class WorkerHealth(Answer):
    """Body of the worker's health endpoints."""

    status: ReadyStatus
    worker_id: str
    model_key: str
    progress: Probability
    queue_depth: Annotated[int, Field(ge=0, lt=2**31)]
    detail: str | None = None


class CoordinatorHealth(Answer):
    """Body of the coordinator's health endpoints."""

    status: ReadyStatus
    mode: Literal["coordinator", "monolithic"]
    detail: str | None = None
    checks: dict[str, str] = {}
