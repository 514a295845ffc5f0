"""The page in a real browser: a file and the microphone are heard, with their words over the spectrogram, and a text is spoken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.serving.chromium import Chromium, binary
from tests.serving.maker import DIGITS, GARDEN, Running, running

PAGE = Path(__file__).resolve().parents[2] / "melcli" / "serving" / "page.html"
needs_browser = pytest.mark.skipif(binary() is None, reason="needs Chromium (chromium, chromium-browser or google-chrome)")


def test_one_file_that_asks_nobody_else(served: Running) -> None:
    answer = served.ask("GET", "/")
    assert answer.status == 200 and answer.body.decode() == PAGE.read_text(encoding="utf-8")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "'unsafe" not in policy
    assert not re.findall(r"(?:src|href)=[\"']?(?:https?:)?//|url\(|@import|import ", answer.body.decode())


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium"), DIGITS) as found:
        yield found


def text(browser: Chromium, name: str) -> str:
    return browser.run(f"document.getElementById('{name}').textContent")


@needs_browser
@pytest.mark.parametrize(("dark", "width"), [(False, 1000), (True, 360)])
def test_hearing_and_speaking(served: Running, browser: Chromium, dark: bool, width: int, tmp_path: Path) -> None:
    browser.said.clear()
    browser.open(f"{served.url}/", dark=dark, width=width)
    browser.wait("document.getElementById('state').textContent === 'ready'")
    browser.choose("#file", GARDEN)
    expected = GARDEN.with_suffix(".txt").read_text().strip()
    browser.wait("!document.getElementById('text').hidden")
    assert text(browser, "text") == expected
    browser.wait(f"document.querySelectorAll('.words span').length === {len(expected.split())}")
    lefts = browser.run("[...document.querySelectorAll('.words span')].map(one => parseFloat(one.style.left))")
    assert lefts == sorted(lefts)
    browser.run("document.querySelectorAll('.words span')[5].click()")  # a click goes to where it is in the recording
    browser.wait("document.querySelector('#hear-result audio').currentTime > 0.5")
    browser.run("document.getElementById('speak').click()")
    browser.wait("document.querySelector('#say-result audio')?.duration > 1 && !document.getElementById('speak').disabled")
    levels = browser.run(
        "(c => [...new Set(c.getContext('2d').getImageData(0, 0, c.width, 80).data)].length)(document.querySelector('#say-result canvas'))"
    )
    assert levels > 50  # a picture, not a blank
    assert browser.run("document.documentElement.scrollWidth") <= width  # nothing hangs over the edge
    assert browser.run("[...document.querySelectorAll('button, input, select, textarea')].every(one => one.textContent.trim() || one.labels?.length)")
    assert browser.picture(tmp_path / "page.png").stat().st_size > 20_000
    assert browser.said == []


@needs_browser
def test_the_microphone(served: Running, browser: Chromium) -> None:
    """The browser's false microphone says digits over and over."""
    browser.said.clear()
    browser.open(f"{served.url}/")
    browser.wait("document.getElementById('state').textContent === 'ready'")
    browser.run("document.getElementById('record').click()")
    browser.wait("/Recording, ([4-9]|[1-9][0-9]+) s/.test(document.getElementById('hear-status').textContent)")
    assert browser.run("document.getElementById('record').getAttribute('aria-pressed')") == "true"
    browser.run("document.getElementById('record').click()")
    browser.wait("document.getElementById('hear-status').textContent.startsWith('recording.wav:')")
    assert len(set(text(browser, "text").split()) & set(DIGITS.with_suffix(".txt").read_text().split())) >= 3
    assert browser.said == []


@needs_browser
def test_errors_are_shown(served: Running, browser: Chromium, tmp_path: Path) -> None:
    browser.open(f"{served.url}/")
    browser.wait("document.getElementById('state').textContent === 'ready'")
    (tmp_path / "notes.wav").write_text("so it goes")
    browser.choose("#file", tmp_path / "notes.wav")
    browser.wait("document.getElementById('hear-status').classList.contains('bad')")
    assert "is text, not audio" in text(browser, "hear-status")
    browser.run("document.getElementById('say-text').value = '語'; document.getElementById('speak').click()")
    browser.wait("document.getElementById('say-status').classList.contains('bad')")
    assert "does not know" in text(browser, "say-status")


@needs_browser
def test_a_server_with_a_key(browser: Chromium) -> None:
    """What cannot be used yet is not shown."""
    with running(spoken={}, api_key="sesame") as served:
        browser.open(f"{served.url}/")
        browser.wait("document.getElementById('state').textContent === 'waiting for the key'")
        assert browser.run("document.getElementById('hear').hidden && document.getElementById('say').hidden")
        for key, state in (("parsley", "the key is wrong"), ("sésame", "the key is wrong"), ("sesame", "ready")):
            browser.run(f"document.getElementById('key').value = '{key}'; document.querySelector('#key-form button').click()")
            browser.wait(f"document.getElementById('state').textContent === '{state}'")
        assert browser.run("!document.getElementById('hear').hidden && document.getElementById('say').hidden")
    browser.choose("#file", DIGITS)
    browser.wait("document.getElementById('hear-status').textContent === 'the server does not answer'")


@needs_browser
def test_the_spectrogram_is_a_mel_spectrogram(served: Running, browser: Chromium) -> None:
    """The page's own arithmetic beside numpy's."""
    browser.open(f"{served.url}/")
    wave_S, rate = soundfile.read(DIGITS, dtype="float32")
    start = int(np.abs(wave_S).argmax())
    window_S = wave_S[start : start + 400]
    samples = ",".join(f"{x:.9g}" for x in window_S)
    found = browser.run(f"(() => {{ const out = new Float32Array(80); melFrame(Float32Array.from([{samples}]), 0, out); return [...out]; }})()")
    power_F = np.abs(np.fft.rfft(window_S * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)), 512)) ** 2
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), 82) / 2595) - 1) * 512 / rate
    lines = np.arange(257)[:, None]
    weights_FM = np.clip(np.minimum((lines - edges[:-2]) / np.diff(edges)[:-1], (edges[2:] - lines) / np.diff(edges)[1:]), 0, None)
    assert np.allclose(found, 10 * np.log10(power_F @ weights_FM + 1e-10), atol=0.01)
