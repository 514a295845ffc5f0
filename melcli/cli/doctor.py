"""`melcli doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from melcli import console
from melcli.cli.options import Offline, Quiet, Verbose, prepare


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    offline: Offline = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Say what works on this machine, and the remedy for what does not; paste it into a report of a fault.

    Every line was tried: clips are written and read in each format, the hub is called, the model in the box hears a recording and the voice in
    the box speaks to it. The exit code is 1 where a line says broken; what is missing is only needed for what the line names.

    \b
    melcli doctor
    melcli doctor --offline --json
    """
    prepare(quiet, verbose, offline)
    from melcli.doctor import checks

    found = []
    with console.progress("doctor", None) as bar:
        for check in checks(offline=offline):
            found.append(check)
            bar.advance(1, check.name)
    broken = [check.name for check in found if check.status == "broken"]
    if as_json:
        print(json.dumps({"ok": not broken, "checks": [asdict(check) for check in found]}, indent=2))
    else:
        console.table(("what", "state", "detail"), [(check.name, check.status, check.detail) for check in found], stdout=True)
        console.note(f"broken: {', '.join(broken)}" if broken else "all that melcli needs works here")
    if broken:
        raise typer.Exit(1)
