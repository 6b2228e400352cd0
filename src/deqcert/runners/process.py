"""A worker in a process of its own on this machine.

Why not a ready-made pool. `concurrent.futures` and loky give the whole pool up when one process is
killed; Pebble replaces it and has time limits, but its processes share one pipe and its lock, all
start alike (each of ours has a GPU of its own) and say nothing while they work. Here each process
has a socket of its own: whatever is killed, nobody else waits for it.

A worker is started as a program, not by `multiprocessing`, which would run the caller's script once
more in every worker; and it ends by itself when the caller is gone, since its standard input, which
nobody else holds, is then at its end.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from deqcert.errors import WorkerError
from deqcert.runners.bench import Answer, require_alike
from deqcert.runners.crew import Report, TimeLimitError, WorkerLostError
from deqcert.runners.tasks import Task

_POLL = 0.5
_PROGRAM = (
    "import json, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "sys.path[:] = json.loads(sys.argv[1]); "
    "from deqcert.runners.process_main import serve; serve(int(sys.argv[2]))"
)
"""Ctrl-C reaches all processes of a terminal; the caller decides what it means."""


class ProcessWorker:
    """A worker in a process of its own; it starts at once, and `await_ready` waits for it.

    Args:
        name: Its name.
        order: Certifier and threads, packed.
        environment: Environment variables that are its own.
    """

    def __init__(self, name: str, order: bytes, environment: dict[str, str]) -> None:
        if os.name != "posix":
            raise WorkerError("several processes need Linux or macOS; elsewhere use one, or Ray")
        self.name = name
        ours, theirs = socket.socketpair()
        path = json.dumps([entry for entry in sys.path if isinstance(entry, str)])
        try:
            with theirs:
                self.process = subprocess.Popen(
                    [sys.executable, "-c", _PROGRAM, path, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.PIPE,
                    stdout=2,  # what a model prints is no part of our output
                    env={**os.environ, **environment},
                )
        except OSError as error:
            ours.close()
            raise WorkerError(f"cannot start a process: {error}") from error
        self._channel = Connection(ours.detach())
        self._ended = threading.Lock()
        self._order = order

    def await_ready(self, facts: dict[str, str], closed: threading.Event) -> None:
        """Wait until it has loaded the certifier.

        Raises:
            WorkerLostError: It died, or the crew was closed.
            WorkerError: It is of another kind than `facts`.
            Exception: What kept it from loading the certifier.
        """
        self._send(self._order)
        while not self._has_message(_POLL):
            if closed.is_set():
                raise WorkerLostError("closed")
        found = self._receive()
        if isinstance(found, Exception):
            raise found
        require_alike(self.name, facts, found)

    def run(self, task: Task, left: Callable[[], float], report: Report) -> Answer:
        """Do a task, as `Worker.run`."""
        self._send(pickle.dumps(task))
        while (seconds := left()) > 0:
            if self._has_message(min(_POLL, seconds)):
                message = self._receive()
                if isinstance(message, Answer):
                    return message
                report(*message)
        raise TimeLimitError

    def stop(self) -> None:
        """Kill the process; a second call does nothing."""
        with self._ended:
            if self.process.stdin is None or self.process.stdin.closed:
                return
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
            # The channel stays open, at its end, for whoever may be waiting for it.

    def _send(self, message: bytes) -> None:
        try:
            self._channel.send_bytes(message)
        except (OSError, ValueError) as error:
            raise WorkerLostError(self._how()) from error

    def _has_message(self, seconds: float) -> bool:
        try:
            return self._channel.poll(seconds)
        except (OSError, ValueError) as error:  # closed under our hands
            raise WorkerLostError(self._how()) from error

    def _receive(self) -> Any:
        try:
            message = self._channel.recv_bytes()
        except (EOFError, OSError, ValueError) as error:
            raise WorkerLostError(self._how()) from error
        return pickle.loads(message)

    def _how(self) -> str:
        """Return how the process has ended, in words."""
        try:
            status = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "without a word"
        if status < 0:
            name = signal.Signals(-status).name
            hint = " (out of memory?)" if name == "SIGKILL" else ""
            return f"by {name}{hint}"
        return f"with exit status {status}"
