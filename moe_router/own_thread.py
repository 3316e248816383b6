"""Work in a thread of its own, which ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_own_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As asyncio.to_thread, whose threads stay; for what computes with torch now and then.

    OpenMP keeps helpers for every thread that has computed, until it ends. Once there are more of them than
    processors they sleep where they would spin, and each of the thousand parallel loops of a pass waits until
    one is awake: on two cores a request took an expert 1.6 times as long.
    The end of the event loop does not wait for the work, that of the interpreter does.
    """
    threads = ThreadPoolExecutor(1, thread_name_prefix="own")
    task = partial(copy_context().run, work, *args, **kwargs)
    try:
        return await asyncio.get_running_loop().run_in_executor(threads, task)
    finally:
        threads.shutdown(wait=False)  # it ends with its work
