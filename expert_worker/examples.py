"""Examples of answers for the OpenAPI document."""

from __future__ import annotations

from typing import Any

_ID = "5f0c1f6b0d2a4b61a3a8d8a2f6c7e901"

CLASSIFY: dict[str, Any] = {
    "request_id": _ID,
    "result": "positive",
    "confidence": 0.93,
    "probabilities": {"negative": 0.02, "neutral": 0.05, "positive": 0.93},
    "entities": None,
    "raw_response": "positive",
    "worker_id": "worker-0",
    "model_key": "llama-2-7b-hf",
    "adapter_name": "soc-sentiment",
    "processing_time_ms": 41.7,
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

TASKS: dict[str, Any] = {
    "worker_id": "worker-0",
    "model_key": "llama-2-7b-hf",
    "tasks": [
        {
            "task_key": "social/sentiment_analysis",
            "languages": None,
            "labels": ["negative", "neutral", "positive"],
            "adapters": ["soc-sentiment"],
        }
    ],
}

HEALTH: dict[str, Any] = {
    "status": "ready",
    "worker_id": "worker-0",
    "model_key": "llama-2-7b-hf",
    "progress": 1.0,
    "queue_depth": 0,
    "detail": None,
}
