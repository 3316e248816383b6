"""Asks the façade by a client that is no part of the environment: in a process of its own, by PYTHONPATH.

python -m tests.integration.facade.other_clients litellm|infinity BASE_URL
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any

import openai

from tests.stubs import files

SENTIMENT = f"mole/{files.SENTIMENT}"


def by_litellm(base_url: str) -> dict[str, Any]:
    litellm = import_module("litellm")
    common = {"api_base": base_url, "api_key": "none"}

    def chat(text: str, model: str = SENTIMENT, **more: Any) -> Any:
        messages = [{"role": "user", "content": text}]
        return litellm.completion(model=f"openai/{model}", messages=messages, **common, **more)

    def error_of(**more: Any) -> str:
        try:
            chat("x", **more)
        except openai.OpenAIError as error:  # the root of LiteLLM's own, too
            return type(error).__name__
        return "none"

    streamed = "".join(
        part.choices[0].delta.content or "" for part in chat("neutral", model="mole/auto", stream=True)
    )
    messages = [[{"role": "user", "content": text}] for text in ("negative", "positive")]
    several = litellm.batch_completion(model=f"openai/{SENTIMENT}", messages=messages, **common)
    return {
        "label": chat("positive").choices[0].message.content,
        "streamed": streamed,
        "several": [told.choices[0].message.content for told in several],
        "missing": error_of(model="gpt-4o"),
        "wrong": error_of(n=2),
    }


def by_infinity(base_url: str) -> dict[str, Any]:
    classify = import_module("infinity_client.api.default.classify").sync
    client = import_module("infinity_client").Client(base_url=base_url)
    ask = import_module("infinity_client.models").ClassifyInput
    told = classify(client=client, body=ask(input_=["positive", "negative"], model=SENTIMENT))
    return {
        "object": str(told.object_),
        "model": told.model,
        "usage": told.usage.total_tokens,
        "labels": [[(label.label, label.score) for label in labels] for labels in told.data],
        "unspecified": len(classify(client=client, body=ask(input_=["positive"])).data),
    }


if __name__ == "__main__":
    ask_by = {"litellm": by_litellm, "infinity": by_infinity}[sys.argv[1]]
    sys.stdout.write(json.dumps(ask_by(sys.argv[2])) + "\n")
