"""Processes that are going to be killed: each appends jobs and prints the name of each one that was acknowledged.

Each line on stdin, ``PIPE URL SEED [BUG]``, forks one, which writes to the named pipe; its process id is printed, and
when it is gone how it ended. So none has to import everything anew. BUG plants a mistake that the test must catch:
``answer_early`` acknowledges before the commit, ``no_transaction`` writes projections and log in two transactions.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from concurrent.futures import Future
from typing import Any

from toycore import ALICE, ToyView, submit, toy_writer

from tieline.drivers.clock import SystemClock, SystemIds
from tieline.drivers.stores import desk
from tieline.drivers.stores.store import Batch, Store
from tieline.drivers.stores.writer import Writer
from tieline.exchange.commands import StopJob

IN_FLIGHT = 300


def say(word: str, name: str) -> None:
    sys.stdout.write(f"{word} {name}\n")
    sys.stdout.flush()


def plant(bug: str, store: Store) -> None:
    if bug == "answer_early":
        decide = desk.Desk.run

        def run(self: Any, draft: Any, items: Any, *rest: Any) -> Any:
            blamed = decide(self, draft, items, *rest)
            for _, reply, error in draft.answers:
                if error is None and isinstance(reply, tuple):
                    say("submitted", reply[0].id)
            return blamed

        desk.Desk.run = run  # type: ignore[method-assign]
    elif bug == "no_transaction":
        append = store.append

        def split(batch: Batch) -> None:
            append(Batch(changes=batch.changes))
            append(Batch(batch.entries, (), batch.replies))

        store.append = split  # type: ignore[method-assign]


def work(writer: Writer[ToyView], seed: str, is_honest: bool) -> None:
    """Keep many commands in flight, so that a kill finds batches in every stage."""
    waiting: deque[tuple[str, Future[Any]]] = deque()
    count = 0
    while True:
        while len(waiting) < IN_FLIGHT:
            waiting.append(("submitted", writer.submit(submit("t", key=f"k-{seed}-{count}", digest="d"))))
            count += 1
        word, future = waiting.popleft()
        reply = future.result()
        if word == "submitted":
            (job,) = reply
            if is_honest:
                say(word, job.id)
            if count % 3 == 0:
                waiting.append(("stopped", writer.submit(StopJob(actor=ALICE, job=job.id))))
        elif is_honest:
            say(word, reply.id)


def run(pipe: str, url: str, seed: str, bug: str = "") -> None:
    os.dup2(os.open(pipe, os.O_WRONLY), 1)
    store = Store(url).open()
    plant(bug, store)
    say("opened", seed)
    writer = toy_writer(store, SystemClock(), ids=SystemIds(), batch=64, tick_ms=5)
    work(writer.start(), seed, bug != "answer_early")


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if not child:
            run(*line.split())
        say("forked", str(child))
        say("ended", str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))


main()
