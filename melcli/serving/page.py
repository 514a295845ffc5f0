"""The page at `/`: one file, with its script and style inside. The browser is told to run these and nothing else."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from pathlib import Path

from starlette.responses import HTMLResponse

FILE = Path(__file__).with_name("page.html")


def response() -> HTMLResponse:
    """The page."""
    return HTMLResponse(*_page())


@functools.cache
def _page() -> tuple[str, int, dict[str, str]]:
    text = FILE.read_text(encoding="utf-8")
    script, style = (_digest(re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)) for tag in ("script", "style"))
    policy = {
        "default-src": "'none'",
        "script-src": script,
        "style-src": style,
        "connect-src": "'self'",
        "media-src": "blob:",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    headers = {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }
    return text, 200, headers


def _digest(found: re.Match[str] | None) -> str:
    if found is None:
        raise ValueError("page.html holds no script or no style")
    return f"'sha256-{base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()}'"
