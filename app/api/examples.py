"""Examples of answers for the OpenAPI document."""

from __future__ import annotations

from typing import Any

_ID = "5f0c1f6b0d2a4b61a3a8d8a2f6c7e901"
_TIMINGS = {"language": 0.1, "encode": 11.2, "domain": 0.1, "task": 0.2, "worker": 184.0, "total": 197.3}

CLASSIFY: dict[str, Any] = {
    "request_id": _ID,
    "language": "de",
    "domain": "finance",
    "task": "finance/sentiment_analysis",
    "result": "positive",
    "confidence": 0.91,
    "probabilities": {"negative": 0.03, "neutral": 0.06, "positive": 0.91},
    "domain_probabilities": {"finance": 0.97, "retail": 0.02, "social": 0.01},
    "entities": None,
    "abstained": None,
    "raw_response": None,
    "routing_path": [
        {"step": "language", "choice": "de", "probability": 0.99, "ms": 0.1},
        {"step": "domain", "choice": "finance", "probability": 0.97, "ms": 11.3},
        {"step": "task", "choice": "finance/sentiment_analysis", "probability": 0.94, "ms": 0.2},
        {"step": "expert", "choice": "fin-sentiment", "probability": 0.91, "ms": 184.0},
    ],
    "worker_id": "worker-0",
    "model_key": "llama-2-7b-hf",
    "processing_time_ms": 197.3,
    "timings_ms": _TIMINGS,
}

ROUTE: dict[str, Any] = {
    "request_id": _ID,
    "language": "de",
    "language_probability": 0.99,
    "domain": "finance",
    "domain_probabilities": {"finance": 0.97, "retail": 0.02, "social": 0.01},
    "task": "finance/sentiment_analysis",
    "task_probabilities": {"finance/sentiment_analysis": 0.94, "social/sentiment_analysis": 0.06},
    "confidence": 0.94,
    "expert": {"model_key": "llama-2-7b-hf", "adapter_name": "fin-sentiment"},
    "candidates": ["worker-0"],
    "abstained": None,
    "timings_ms": {**_TIMINGS, "worker": 0.0, "total": 12.1},
}

BATCH: dict[str, Any] = {
    "results": [
        CLASSIFY,
        {
            "error": {
                "type": "/problems/invalid-request",
                "title": "Invalid request",
                "status": 400,
                "detail": "text: Field required",
                "request_id": f"{_ID}.1",
            }
        },
    ]
}

FEEDBACK: dict[str, Any] = {
    "request_id": _ID,
    "received_at": "2026-01-31T12:00:00.000+00:00",
    "replaced": False,
}

JOB: dict[str, Any] = {
    "job_id": _ID,
    "state": "running",
    "total": 2000,
    "done": 500,
    "failed": 2,
    "created_at": "2026-01-31T12:00:00.000+00:00",
    "finished_at": None,
    "eta_seconds": 149.8,
    "owner": None,
}

JOBS: dict[str, Any] = {"jobs": [JOB]}

JOB_RESULTS = '{"index":0,"task":"finance/sentiment_analysis","result":"positive","confidence":0.91,…}\n'

TASKS: dict[str, Any] = {
    "tasks": [
        {
            "task_key": "finance/sentiment_analysis",
            "domain": "finance",
            "description": "Says whether a news text is good or bad for investors.",
            "kind": "classification",
            "languages": ["de", "en", "es", "fr"],
            "labels": ["negative", "neutral", "positive"],
            "experts": ["fin-sentiment"],
            "available": True,
        }
    ]
}

WORKERS: dict[str, Any] = {
    "workers": [
        {
            "worker_id": "worker-0",
            "url": "http://expert-worker-0:8001",
            "model_key": "llama-2-7b-hf",
            "state": "healthy",
            "reason": None,
            "until": None,
            "outstanding": 1,
            "queue_depth": 1,
            "latency_ms": {"p50": 180.2, "p95": 240.9},
            "tasks": ["finance/sentiment_analysis"],
            "adapters": ["fin-sentiment"],
        }
    ],
    "mapping": {"loaded_at": "2026-01-31T12:00:00.000+00:00", "refused": None},
}

HEALTH: dict[str, Any] = {
    "status": "ready",
    "mode": "coordinator",
    "detail": None,
    "checks": {
        "gating": "ok",
        "configuration": "ok",
        "database": "ok",
        "router": "version 3",
        "workers": "1 of 1 healthy",
    },
}

TRAFFIC: dict[str, Any] = {
    "process": "3f9a01bc",
    "started_at": "2026-01-31T11:00:00+00:00",
    "bucket_seconds": 10,
    "until": "2026-01-31T12:00:10+00:00",
    "buckets": [
        {
            "at": "2026-01-31T12:00:00+00:00",
            "requests": 42,
            "refused": 1,
            "failed": 0,
            "p50_ms": 186.265,
            "p95_ms": 291.038,
            "answers": 41,
            "abstained": 3,
            "languages": {"de": 30, "en": 11},
            "tasks": {"finance/sentiment_analysis": 38},
        }
    ],
}

ROUTER_VERSIONS: dict[str, Any] = {
    "in_force": 3,
    "refused": None,
    "versions": [
        {
            "version": 3,
            "state": "live",
            "created_at": "2026-01-31T11:00:00.000+00:00",
            "promoted_at": "2026-01-31T11:00:01.000+00:00",
            "parent": None,
            "metrics": {
                "taught": {"rows": 600, "callers": 12, "tasks_told": 420, "answers_judged": 380},
                "reasons": [],
            },
        }
    ],
}

ROUTER_FEEDBACK: dict[str, Any] = {
    "rows": 800,
    "read": 800,
    "by_version": [
        {
            "version": 3,
            "rows": 800,
            "tasks_told": 420,
            "task_accuracy": 0.971,
            "answers_judged": 380,
            "answer_accuracy": 0.884,
            "mean_cost": 0.62,
        }
    ],
    "task_reliability": [{"confidence": 0.96, "accuracy": 0.97, "rows": 400}],
    "answer_reliability": [{"confidence": 0.88, "accuracy": 0.9, "rows": 300}],
}
