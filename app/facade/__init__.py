"""The API of OpenAI's and vLLM's clients over MoLE: `/v1/chat/completions`, `/v1/models`, `/v1/classify`."""
