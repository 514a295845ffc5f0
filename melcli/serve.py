"""`melcli serve`: models behind OpenAI's API for audio, over the functions that the commands use.

    serve({"tiny-en": "tiny-en"}, {"tiny-voice": "tiny-voice"}, Options(port=8000))

A thread's event loop takes requests; the main thread runs the models, a batch at a time (serving/worker.py).
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from melcli import console
from melcli.errors import UsageError
from melcli.serving.app import make_app
from melcli.serving.connection import connection
from melcli.serving.desks import OWN_VOICE, STOCK_VOICES, Desks
from melcli.serving.ears import Ears
from melcli.serving.endpoint import Service
from melcli.serving.limits import Limits
from melcli.serving.metrics import Metrics
from melcli.serving.mouth import Mouth
from melcli.serving.worker import Desk, Worker
from melcli.synthesize import Synthesizer
from melcli.transcribe import Transcriber
from melcli.voice_prompt import read_voice


@dataclass(frozen=True)
class Options:
    """listening, speaking: for `Transcriber.load` and `Synthesizer.load`. voices: recordings to speak like, by the name that clients send.

    port: 0 for one that is free.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    limits: Limits = field(default_factory=Limits)
    listening: Mapping[str, Any] = field(default_factory=dict)
    speaking: Mapping[str, Any] = field(default_factory=dict)
    voices: Mapping[str, Path] = field(default_factory=dict)


class Server:
    """Models behind a port. `run` returns when it was told to stop and what was accepted is done."""

    def __init__(
        self, heard: Mapping[str, str], spoken: Mapping[str, str], options: Options, *, ready: Callable[[str], None] = lambda _: None
    ) -> None:
        """heard, spoken: models to transcribe and to synthesize with, by the name that clients call them by. ready: told the address when they are
        loaded. Raises UsageError where the port cannot be had, or a name cannot be."""
        for name in options.voices:
            if name == OWN_VOICE or name in STOCK_VOICES:
                raise UsageError(f"--voice {name}=…: {name} stands for the model's own voice; give another name.")
        self.heard, self.spoken, self.options = heard, spoken, options
        self.socket = _bound(options.host, options.port)
        self.metrics = Metrics()
        self.desks = Desks(since=int(time.time()))
        self.worker = Worker(self._load, self._loaded)
        service = Service(self.desks, options.limits, self.metrics, self._unready, options.api_key)
        self._told_ready = ready
        grace = int(options.limits.seconds) + 5
        for library in ("uvicorn", "python_multipart"):  # what goes wrong is said by ourselves
            logging.getLogger(library).setLevel(logging.CRITICAL)
        config = uvicorn.Config(
            make_app(service),
            http=connection(options.limits.seconds),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=grace,
        )
        self._server = uvicorn.Server(config)
        self._failure: BaseException | None = None
        self._left = False

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self.socket.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def run(self) -> None:
        """Serve until SIGINT, SIGTERM or `stop`. Raises what loading the models raised, and KeyboardInterrupt after a second SIGINT, which breaks off
        what was accepted."""
        handlers = {}
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.signal(number, self._signalled) for number in (signal.SIGINT, signal.SIGTERM)}
        requests = threading.Thread(target=self._take_requests, name="melcli-requests", daemon=True)
        requests.start()
        try:
            self.worker.run()
        except _LeftLoading:
            self.stop()
        except BaseException:
            self._server.should_exit = self._server.force_exit = True
            raise
        finally:
            requests.join()
            self.socket.close()
            for number, handler in handlers.items():
                signal.signal(number, handler)
        failure = None if self._left else self.worker.failure  # or else it is what compiled code, or who read a file with it, made of the signal
        if failure := failure or self._failure:
            raise failure

    def _take_requests(self) -> None:
        """The event loop; when it has ended, no work will come."""
        try:
            asyncio.run(self._server.serve(sockets=[self.socket]))
        except BaseException as failure:  # for `run`
            self._failure = failure
        finally:
            self.worker.stop()

    def _signalled(self, number: int, _: object) -> None:
        if number == signal.SIGINT and self._server.should_exit:
            raise KeyboardInterrupt
        loading = not (self.worker.ready or self._server.should_exit)
        self.stop()
        if loading:
            self._left = True
            raise _LeftLoading

    def stop(self) -> None:
        """End `run`, from another thread."""
        self._server.should_exit = True

    def _unready(self) -> str | None:
        """Why requests are not taken."""
        if self._server.should_exit:
            return "stopping"
        return None if self.worker.ready else "loading its models"

    def _load(self, changed: threading.Condition) -> Sequence[Desk]:
        limits = self.options.limits
        for name, model in self.heard.items():
            transcriber = Transcriber.load(model, vad=True, **self.options.listening)
            console.decided(transcriber.decisions, title=f"transcriptions, {name}")
            self.desks.ears[name] = Ears(transcriber, changed, limits, self.metrics)
        for name, model in self.spoken.items():
            synthesizer = Synthesizer.load(model, **self.options.speaking)
            console.decided(synthesizer.decisions, title=f"speech, {name}")
            spec, alphabet = synthesizer.speaker.spec, synthesizer.alphabet
            voices = {voice: read_voice(path, spec, alphabet) for voice, path in self.options.voices.items()}
            for voice in voices.values():
                synthesizer.speaker.check_voice(voice)
            self.desks.voices[name] = voices
            self.desks.mouths[name] = Mouth(synthesizer, changed, limits, self.metrics)
        return [*self.desks.ears.values(), *self.desks.mouths.values()]

    def _loaded(self) -> None:
        if self.worker.failure is not None:
            self.stop()
        elif not self._server.should_exit:
            self._told_ready(self.url)


class _LeftLoading(BaseException):
    """A signal came while the models were loaded: nothing was accepted yet, and nothing is to be waited for."""


def _bound(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises UsageError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise UsageError(f"--host {host} --port {port}: cannot be listened on: {getattr(error, 'strerror', None) or error}.") from None
