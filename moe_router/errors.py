"""The tree of MoLE's errors.

MoleError
├── ConfigError              a file that an operator edits is malformed        (never answered: start-up)
├── ModelAssetError          a model or weight file is missing or does not fit (never answered: start-up)
├── RequestError             the caller's mistake                              400
│   ├── UnknownTaskError                                                       400
│   ├── UnknownExpertError                                                     400
│   ├── UnsupportedLanguageError                                               400
│   ├── MissingFieldError                                                      400
│   ├── TextTooLongError                                                       413
│   ├── UnknownRequestError                                                    404
│   ├── UnknownVersionError                                                    404
│   ├── UnknownKeyError                                                        404
│   ├── VersionConflictError                                                   409
│   ├── UnknownJobError                                                        404
│   ├── IdempotencyConflictError                                               409
│   ├── TooManyJobsError                                                       429
│   ├── HeadersTooLongError                                                    431
│   └── AbstainedError       gating abstained and the caller wants an error    422
├── UnauthorizedError        no valid API key                                  401
├── MissingScopeError        the key may not do this                           403
├── TooManyRequestsError     the caller's own limit                            429
│   └── RateLimitError       its requests of a minute                          429
│       └── QuotaExceededError  its texts of a day                             429
├── NoWorkerError            no worker can be reached now                      503
├── OverloadedError          a queue is full                                   503
├── NotReadyError            loading or draining                               503
├── StorageError             the database cannot be used now                   503
├── WorkerAnswerError        a worker answered with rubbish or a 5xx           502
└── DeadlineError            the time is up                                    504

Each class carries its HTTP status and the stable last part of its problem `type`, so that both
services translate by one rule (RFC 9457).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar


class MoleError(Exception):
    """Root of every error that MoLE raises on purpose."""

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    @property
    def retry_after_s(self) -> int | None:
        """Seconds after which a retry makes sense; None where retrying does not help."""
        return 1 if self.status == 429 or self.status >= 500 else None

    @property
    def extensions(self) -> Mapping[str, object]:
        """Further members of the problem document (RFC 9457, section 3.2)."""
        return {}


class ConfigError(MoleError):
    """A configuration file is malformed: which file, where in it, and why."""

    slug = "invalid-configuration"
    title = "Invalid configuration"

    def __init__(self, file: Path | str, json_path: str, reason: str, line: int | None = None) -> None:
        where = f"{file}:{line}" if line is not None else str(file)
        super().__init__(f"{where}: {json_path}: {reason}")
        self.file = str(file)
        self.json_path = json_path
        self.reason = reason
        self.line = line


class ModelAssetError(MoleError):
    """A model or weight file is missing, damaged, or made for something else."""

    slug = "model-asset"
    title = "Model asset unusable"


class RequestError(MoleError):
    """The request cannot be served as it stands; the caller can mend it."""

    status = 400
    slug = "invalid-request"
    title = "Invalid request"


class UnknownTaskError(RequestError):
    """The caller names a task that the registry does not have."""

    slug = "unknown-task"
    title = "Unknown task"

    def __init__(self, task_key: str, known: tuple[str, ...]) -> None:
        super().__init__(f"There is no task {task_key!r}. Known tasks: {', '.join(known)}.")
        self.task_key = task_key
        self.known = known

    @property
    def extensions(self) -> Mapping[str, object]:
        """What the caller needs to mend the request."""
        return {"known_tasks": list(self.known)}


class UnknownExpertError(RequestError):
    """Who asks a worker names an expert that the task does not have there."""

    slug = "unknown-expert"
    title = "Unknown expert"

    def __init__(self, task_key: str, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"{task_key} has no expert {name!r} on this model; it has: {', '.join(known)}.")
        self.task_key = task_key
        self.known = known

    @property
    def extensions(self) -> Mapping[str, object]:
        """What the caller needs to mend the request."""
        return {"task": self.task_key, "known_experts": list(self.known)}


class UnsupportedLanguageError(RequestError):
    """The task states its languages and the text's is none of them."""

    slug = "unsupported-language"
    title = "Unsupported language"

    def __init__(self, task_key: str, language: str, supported: tuple[str, ...]) -> None:
        super().__init__(
            f"{task_key} serves {', '.join(supported)}; the text's language is {language!r}. "
            "Set options.language if it was misread."
        )
        self.task_key = task_key
        self.language = language
        self.supported = supported

    @property
    def extensions(self) -> Mapping[str, object]:
        """What the caller needs to mend the request."""
        return {"task": self.task_key, "language": self.language, "supported_languages": list(self.supported)}


class MissingFieldError(RequestError):
    """The task's template needs a field that the request does not carry."""

    slug = "missing-field"
    title = "Missing field"


class TextTooLongError(RequestError):
    """A text, description or body passes its limit."""

    status = 413
    slug = "content-too-large"
    title = "Content too large"


class UnknownRequestError(RequestError):
    """No request of this id was answered, or its record has expired."""

    status = 404
    slug = "unknown-request"
    title = "Unknown request"


class UnknownVersionError(RequestError):
    """There is no router version of this number."""

    status = 404
    slug = "unknown-version"
    title = "Unknown router version"

    def __init__(self, version_id: int) -> None:
        super().__init__(f"There is no router version {version_id}.")
        self.version_id = version_id


class UnknownKeyError(RequestError):
    """There is no API key of this id."""

    status = 404
    slug = "unknown-key"
    title = "Unknown API key"


class VersionConflictError(RequestError):
    """The live version of the router is not the one that the change was meant for."""

    status = 409
    slug = "version-conflict"
    title = "Router version conflict"


class UnknownJobError(RequestError):
    """There is no job of this id, it is another caller's, or it has expired."""

    status = 404
    slug = "unknown-job"
    title = "Unknown job"


class IdempotencyConflictError(RequestError):
    """The idempotency key has been used with another body."""

    status = 409
    slug = "idempotency-conflict"
    title = "Idempotency key used before"


class TooManyJobsError(RequestError):
    """The caller has as many unfinished jobs as one caller may."""

    status = 429
    slug = "too-many-jobs"
    title = "Too many jobs"

    @property
    def retry_after_s(self) -> int | None:
        """A job takes longer to finish than a queue to empty."""
        return 10


class HeadersTooLongError(RequestError):
    """The request's header fields pass their limit."""

    status = 431
    slug = "request-header-fields-too-large"
    title = "Request header fields too large"


class AbstainedError(RequestError):
    """Gating abstained and `options.on_abstain` is "error"."""

    status = 422
    slug = "abstained"
    title = "No expert fits this request"

    def __init__(self, reason: str, detail: str, nearest_tasks: tuple[str, ...]) -> None:
        super().__init__(detail)
        self.reason = reason
        self.nearest_tasks = nearest_tasks

    @property
    def extensions(self) -> Mapping[str, object]:
        """What the caller needs to mend the request."""
        return {"reason": self.reason, "nearest_tasks": list(self.nearest_tasks)}


class UnauthorizedError(MoleError):
    """The request carries no API key, or none that is valid now."""

    status = 401
    slug = "unauthorized"
    title = "Unauthorized"

    def __init__(self, detail: str, *, key_given: bool) -> None:
        super().__init__(detail)
        self.key_given = key_given


class MissingScopeError(MoleError):
    """The caller's key is valid, and lacks the scope that the request needs."""

    status = 403
    slug = "missing-scope"
    title = "Missing scope"

    def __init__(self, scope: str) -> None:
        super().__init__(f"Your API key lacks the scope {scope!r}.")
        self.scope = scope

    @property
    def extensions(self) -> Mapping[str, object]:
        """What the caller needs to ask for."""
        return {"required_scope": self.scope}


class TooManyRequestsError(MoleError):
    """The caller has reached its own limit; others are served."""

    status = 429
    slug = "too-many-requests"
    title = "Too many requests"


class RateLimitError(TooManyRequestsError):
    """The caller's key has used up its requests of a minute."""

    slug = "rate-limited"
    title = "Rate limit reached"

    def __init__(self, detail: str, retry_after_s: int) -> None:
        super().__init__(detail)
        self._retry_after_s = retry_after_s

    @property
    def retry_after_s(self) -> int | None:
        """Until one more request fits."""
        return self._retry_after_s


class QuotaExceededError(RateLimitError):
    """The caller's key has used up its texts of the day, or the request holds more than are left."""

    slug = "quota-exceeded"
    title = "Quota exceeded"


class NoWorkerError(MoleError):
    """No worker that serves the model can be reached now."""

    status = 503
    slug = "no-worker"
    title = "No worker can be reached"


class OverloadedError(MoleError):
    """A queue is full; nothing was started."""

    status = 503
    slug = "overloaded"
    title = "Overloaded"


class NotReadyError(MoleError):
    """The service is loading or draining."""

    status = 503
    slug = "not-ready"
    title = "Not ready"


class StorageError(MoleError):
    """The coordinator's database cannot be used now: gone, full, or locked for too long."""

    status = 503
    slug = "storage-unavailable"
    title = "Storage unavailable"

    @property
    def retry_after_s(self) -> int | None:
        """A database takes longer to come back than a queue to empty."""
        return 5


class WorkerAnswerError(MoleError):
    """A worker answered with something that is no valid answer."""

    status = 502
    slug = "bad-worker-answer"
    title = "Invalid answer from a worker"


class DeadlineError(MoleError):
    """The request's or the attempt's time is up."""

    status = 504
    slug = "deadline-exceeded"
    title = "Deadline exceeded"
