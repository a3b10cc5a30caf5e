"""Order, cancelling and the end of requests."""

from __future__ import annotations

import threading
import time

from VISTA3DCore.engine.jobs import Job, JobQueue


def queue_of(*jobs: Job) -> JobQueue:
    queue = JobQueue()
    for job in jobs:
        queue.put(job)
    return queue


def test_requests_come_in_order_and_the_background_last():
    queue = queue_of(
        Job(1, "warm", None, True), Job(2, "click", None), Job(3, "warm", None, True), Job(4, "click", None)
    )
    assert len(queue) == 4
    assert [queue.take().id for _ in range(4)] == [2, 4, 1, 3]
    assert len(queue) == 0


def test_taking_waits_for_a_job():
    queue, taken = JobQueue(), []
    thread = threading.Thread(target=lambda: taken.append(queue.take().id))
    thread.start()
    time.sleep(0.05)
    assert not taken
    queue.put(Job("a", "click", None))
    thread.join(5)
    assert taken == ["a"]
    assert queue.running.id == "a"


def test_a_waiting_job_is_taken_out_and_a_running_one_asked_to_stop():
    queue = queue_of(Job(1, "segment", None), Job(2, "click", None), Job(3, "warm", None, True))
    running = queue.take()
    assert queue.cancel(1) is None
    assert running.progress.cancelled
    assert queue.cancel(2).id == 2
    assert queue.cancel(3).id == 3
    assert queue.cancel(2) is None
    assert len(queue) == 0
    assert queue.has(1)
    assert queue.finish()
    assert not queue.has(1)


def test_a_closed_queue_hands_out_nothing_and_its_jobs_are_answered_by_nobody_else():
    queue = queue_of(Job(1, "segment", None), Job(2, "click", None), Job(3, "warm", None, True))
    running = queue.take()
    assert [job.id for job in queue.close()] == [1, 2, 3]
    assert running.progress.cancelled
    assert not queue.finish()
    assert queue.take() is None
