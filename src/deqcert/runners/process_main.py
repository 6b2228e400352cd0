"""What a worker process runs."""

from __future__ import annotations

import os
import pickle
import threading
from multiprocessing.connection import Connection

from deqcert.runners.bench import Bench, sendable


def serve(descriptor: int) -> None:
    """Do tasks that come over a socket, until it is closed."""
    threading.Thread(target=_end_with_the_caller, daemon=True).start()
    channel = Connection(descriptor)
    try:
        certifier, threads = pickle.loads(channel.recv_bytes())
        try:
            bench = Bench(certifier, threads)
        except Exception as error:
            channel.send_bytes(pickle.dumps(sendable(error)))
            return
        channel.send_bytes(pickle.dumps(bench.facts))

        def report(stage: str, done: int, total: int) -> None:
            channel.send_bytes(pickle.dumps((stage, done, total)))

        while True:
            task = pickle.loads(channel.recv_bytes())
            channel.send_bytes(pickle.dumps(bench.answer(task, report)))
    except (EOFError, ConnectionError):
        return  # the caller has closed the socket


def _end_with_the_caller() -> None:
    """Wait until nobody holds the other end of the standard input any more."""
    while os.read(0, 1024):
        pass
    os._exit(1)
