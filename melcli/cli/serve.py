"""`melcli serve`: its options."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from melcli import console
from melcli.cli.options import BatchSize, Beams, Device, Dtype, Offline, Quiet, Verbose, batch_size_of, prepare
from melcli.errors import UsageError

NEEDED = ("starlette", "uvicorn", "python_multipart")
LOCAL = ("127.0.0.1", "localhost", "::1")


def serve(
    transcribe: Annotated[
        list[str], typer.Option(metavar="[NAME=]MODEL", help="A model for transcriptions, and the name clients call it by; may repeat, or none.")
    ] = ["tiny-en"],  # noqa: B006  typer copies it
    synthesize: Annotated[list[str], typer.Option(metavar="[NAME=]MODEL", help="A model for speech, in the same way.")] = ["tiny-voice"],  # noqa: B006
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    api_key: Annotated[
        str | None, typer.Option(metavar="KEY|@FILE", help="Clients must send this as bearer token; @FILE reads it from a file.")
    ] = None,
    voice: Annotated[list[str], typer.Option(metavar="NAME=FILE", help="A voice that clients may ask for: a recording of 1 to 30 s.")] = [],  # noqa: B006
    max_upload: Annotated[float, typer.Option(min=0.001, max=1e6, metavar="MB", help="Largest recording.")] = 25,
    max_seconds: Annotated[float, typer.Option(min=1, max=1e6, metavar="SECONDS", help="Longest recording.")] = 3600,
    max_text: Annotated[int, typer.Option(min=1, metavar="N", help="Most characters to speak at a time.")] = 4096,
    queue: Annotated[int, typer.Option(min=1, metavar="N", help="Requests under way at a time; more are told to come again.")] = 128,
    timeout: Annotated[float, typer.Option(min=1, max=1e6, metavar="SECONDS", help="Longest time a request may take.")] = 300,
    beam: Beams = None,
    batch_size: BatchSize = "auto",
    seed: Annotated[int, typer.Option(help="What the voices draw from.")] = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    offline: Offline = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Answer requests over HTTP as OpenAI's audio API does, with a page to try it.

    \b
    melcli serve
    melcli serve --transcribe whisper-1=tiny-en --synthesize none --port 9000
    """
    prepare(quiet, verbose, offline)
    heard, spoken = _named(transcribe, "--transcribe"), _named(synthesize, "--synthesize")
    if not heard and not spoken:
        raise UsageError("--transcribe none and --synthesize none leave nothing to serve.")
    if twice := set(heard) & set(spoken):
        raise UsageError(f"{min(twice)}: is both of --transcribe and --synthesize; give one of them another name, as in NAME={min(twice)}.")
    voices = dict(_pair(given, "--voice") for given in voice)
    if voices and not spoken:
        raise UsageError("--voice: nothing speaks; leave out --synthesize none.")
    key = _key(api_key)
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise UsageError(f"melcli serve needs {', '.join(missing).replace('_', '-')}: pip install 'melcli[serve]'.")
    from melcli.serve import Options, Server
    from melcli.serving.limits import MEGABYTE, Limits

    common = {"device": device, "dtype": dtype, "offline": offline}
    options = Options(
        host=host,
        port=port,
        api_key=key,
        limits=Limits(upload=round(max_upload * MEGABYTE), audio=max_seconds, text=max_text, queue=queue, seconds=timeout),
        listening=common | {"beam": beam, "batch_size": batch_size_of(batch_size)},
        speaking=common | {"seed": seed},
        voices={name: Path(path) for name, path in voices.items()},
    )

    def ready(url: str) -> None:
        if key is None and host not in LOCAL:
            console.warn(f"whoever reaches {host} may use this server: --api-key asks for a key")
        console.note("ready; Ctrl-C ends it when it has answered what it took")
        print(url, flush=True)

    Server(heard, spoken, options, ready=ready).run()


def _named(given: list[str], flag: str) -> dict[str, str]:
    """Models by the name that clients call them by."""
    if given == ["none"]:
        return {}
    found: dict[str, str] = {}
    for one in given:
        name, model = _pair(one, flag) if "=" in one else (one, one)
        if name in found:
            raise UsageError(f"{flag} {one}: {name} is there already; give it another name, as in NAME=MODEL.")
        found[name] = model
    return found


def _pair(given: str, flag: str) -> tuple[str, str]:
    name, _, value = given.partition("=")
    if not name or not value:
        raise UsageError(f"{flag} {given}: give NAME=VALUE.")
    return name, value


def _key(given: str | None) -> str | None:
    if given is None or not given.startswith("@"):
        key = given
    else:
        key = Path(given[1:]).read_text(encoding="utf-8", errors="replace").strip()  # what is no text is refused below
    if key == "":
        raise UsageError("--api-key: is empty.")
    if key is not None and not (key.isascii() and key.isprintable()):
        raise UsageError("--api-key: clients can send letters, figures and signs of ASCII only, in one line.")
    return key
