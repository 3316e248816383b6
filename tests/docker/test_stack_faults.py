"""A worker that dies under load, and a coordinator that is stopped while it has requests in flight."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.docker.conftest import NAMES
from tests.docker.engine import API, IMAGE, Stack, docker, inspect, wait_for
from tests.docker.requests import LABELS, Load, classify, get, wait_until_answered

COORDINATOR, WORKER = NAMES
IN_FLIGHT = 6


def kill_as_the_kernel_would() -> None:
    """SIGKILL for the worker's process from outside of its container, as when memory runs out.

    Not by `docker kill`, which the Engine takes for the operator's will; nor from inside, where the
    kernel keeps process 1 from it.
    """
    pid = inspect(WORKER)["State"]["Pid"]
    docker("run", "--rm", "--pid", "host", "-u", "0", "--entrypoint", "sh", IMAGE, "-c", f"kill -9 {pid}")


def wait_for_steady_answers(load: Load) -> None:
    """Answers again, and from then on nothing else."""
    before = load.statuses[200]
    wait_for("answers again", lambda: load.statuses[200] >= before + 5)
    refused, settled = load.statuses[503], load.statuses[200]
    wait_for("more answers", lambda: load.statuses[200] >= settled + 10)
    assert load.statuses[503] == refused


def judge(load: Load) -> None:
    """Each answer was right, or a 503 with a problem document and Retry-After."""
    assert load.unclean == []
    assert set(load.statuses) == {200, 503}
    assert load.refused == 0


def test_a_worker_that_dies_is_restarted_and_until_then_requests_are_503(stack: Stack):
    wait_until_answered()
    assert inspect(WORKER)["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    started = inspect(WORKER)["State"]["StartedAt"]
    restarts = inspect(WORKER)["RestartCount"]
    with Load() as load:
        wait_for("answers", lambda: load.statuses[200] >= 5)
        kill_as_the_kernel_would()
        wait_for("the restart", lambda: inspect(WORKER)["RestartCount"] == restarts + 1)
        wait_for("refusals", lambda: load.statuses[503] >= 5)
        wait_for_steady_answers(load)
    assert inspect(WORKER)["State"]["StartedAt"] > started
    judge(load)


def test_docker_kill_is_taken_for_the_operators_will_and_start_brings_it_back(stack: Stack):
    """The Engine never restarts what `docker kill` ended, whatever the policy says."""
    wait_until_answered()
    with Load() as load:
        wait_for("answers", lambda: load.statuses[200] >= 5)
        docker("kill", WORKER)
        wait_for("refusals", lambda: load.statuses[503] >= 8)
        assert inspect(WORKER)["State"]["Status"] == "exited"
        docker("start", WORKER)
        wait_for_steady_answers(load)
    judge(load)


def test_stopping_the_coordinator_cuts_no_answer(stack: Stack):
    wait_until_answered()
    docker("pause", WORKER)  # so that the requests are in flight for as long as this test wants
    try:
        with ThreadPoolExecutor(IN_FLIGHT + 1) as pool:
            asked = [pool.submit(classify) for _ in range(IN_FLIGHT)]
            wait_for("calls", lambda: get(f"{API}/workers")["workers"][0]["outstanding"] == IN_FLIGHT)
            stopped = pool.submit(docker, "stop", "-t", "45", COORDINATOR)
            wait_for("draining", lambda: "draining: " in docker("logs", "--tail", "60", COORDINATOR))
            docker("unpause", WORKER)
            answers = [future.result() for future in asked]
            stopped.result()
    finally:
        docker("unpause", WORKER, ok=False)
    assert inspect(COORDINATOR)["State"]["ExitCode"] in (0, 143)  # ended by itself: 137 is a kill
    assert [answer.status_code for answer in answers] == [200] * IN_FLIGHT
    assert {answer.json()["result"] for answer in answers} <= {*LABELS}
    docker("start", COORDINATOR)
    wait_until_answered()
