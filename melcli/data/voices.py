"""The synthetic voices and the addresses that say how one of them is to speak a text.

A voice belongs to one of five Debian programs: flite, espeak-ng, festival and, of the part non-free, RHVoice and SVOX Pico. A `Delivery`
is a voice with its tempo, pitch and vocal-tract size. With a text it makes a `synth:` address, which stands where a manifest has an audio path:
`synth:flite/slt?stretch=1.1&pitch=0.9&shift=1.05#hello%20there`.

- `stretch`: duration relative to the voice's own (1.2 = slower), after everything else.
- `pitch`: fundamental frequency relative to the voice's own, made by the synthesiser, formants unmoved.
- `shift`: formants and pitch together, by playing the samples faster, while the synthesiser makes the tempo good: 1.1 to 1.3 are children, 0.88 to
  0.95 big men.
- `lead`, `tail`: seconds of silence kept before and after.

A program keeps tempo and pitch within what it can do: RHVoice both within a half and twice its own, Pico its pitch.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote

from melcli.errors import AudioError, nearest

SCHEME = "synth:"
LIMITS = {"stretch": (0.4, 3.0), "pitch": (0.4, 2.5), "shift": (0.6, 1.6), "lead": (0.0, 5.0), "tail": (0.0, 5.0)}
PACKAGES = {
    "flite": "flite",
    "espeak-ng": "espeak-ng",
    "festival": "festival festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts",
    "RHVoice-test": "rhvoice rhvoice-english (of Debian's part non-free)",
    "pico2wave": "libttspico-utils (of Debian's part non-free)",
}
"""Program: the Debian packages that bring it and its voices."""
_PROGRAMS = {"flite": "flite", "espeak": "espeak-ng", "festival": "festival", "rhvoice": "RHVoice-test", "pico": "pico2wave"}


@dataclass(frozen=True, slots=True)
class Voice:
    """One synthetic speaker.

    name: as in the address, `program/voice`; for espeak-ng `accent+variant`.
    f0: mean fundamental frequency, Hz, measured; 0 for espeak-ng, which takes a relative pitch.
    base, pace, spell, pause: seconds an utterance, a letter, a single letter (beyond its pace) and an inner punctuation mark at stretch 1,
        fitted to 120 utterances, for estimates of duration (mean error 11 % an utterance, 1 % an hour).
    shifts: the range of `shift` in which pocketsphinx, trained on adults, still understands the voice. slt is a woman's: at 1.15 it is a small child.
    pitched, stretched: whether the synthesiser can change pitch and tempo at all (flite's rms ignores a pitch, festival's HTS voice both).
    """

    name: str
    f0: float = 0.0
    base: float = 0.11
    pace: float = 0.058
    spell: float = 0.02
    pause: float = 0.35
    shifts: tuple[float, float] = (0.92, 1.12)
    pitched: bool = True
    stretched: bool = True

    @property
    def program(self) -> str:
        return _PROGRAMS[self.name.split("/")[0]]

    @property
    def voice(self) -> str:
        return self.name.split("/", 1)[1]


_NAMED = (
    Voice("flite/kal16", f0=92, base=0.15, pace=0.057, spell=0.1, pause=0.37, shifts=(0.9, 1.3)),
    Voice("flite/kal", f0=91, base=0.15, pace=0.057, spell=0.1, pause=0.37, shifts=(0.9, 1.3)),
    Voice("flite/awb", f0=130, base=0.25, pace=0.061, spell=0.03, pause=0.3, shifts=(0.9, 1.3)),
    Voice("flite/rms", f0=102, base=0.18, pace=0.073, spell=0.09, pause=0.22, shifts=(0.93, 1.3), pitched=False),
    Voice("flite/slt", f0=178, base=0.15, pace=0.061, spell=0.1, pause=0.28, shifts=(0.85, 1.13)),
    Voice("festival/kal_diphone", f0=105, base=0.18, pace=0.066, spell=0.15, pause=0.13, shifts=(0.9, 1.3)),
    Voice("festival/ked_diphone", f0=105, base=0.23, pace=0.063, spell=0.09, pause=0.18, shifts=(0.9, 1.3)),
    Voice(
        "festival/cmu_us_slt_arctic_hts", f0=168, base=0.07, pace=0.069, spell=0.09, pause=0.14, shifts=(0.85, 1.13), pitched=False, stretched=False
    ),
    Voice("rhvoice/bdl", f0=119, base=0.22, pace=0.06, spell=0.04, pause=0.23, shifts=(0.93, 1.3)),
    Voice("rhvoice/clb", f0=180, base=0.26, pace=0.069, spell=0.03, pause=0.16, shifts=(0.85, 1.13)),
    Voice("rhvoice/slt", f0=172, base=0.34, pace=0.059, spell=0.04, pause=0.27, shifts=(0.85, 1.13)),
    Voice("pico/en-US", f0=167, base=0.21, pace=0.064, spell=0.05, pause=0.47, shifts=(0.85, 1.13)),
    Voice("pico/en-GB", f0=178, base=0.17, pace=0.061, spell=0.08, pause=0.5, shifts=(0.85, 1.13)),
)
VOICES = {voice.name: voice for voice in _NAMED}
ESPEAK_ACCENTS = ("en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029", "en-us-nyc")
ESPEAK_VARIANTS = tuple(
    "m1 m2 m3 m4 m5 m6 m7 m8 f1 f2 f3 f4 f5 Alex Alicia Andrea Andy Annie Denis Diogo Gene Gene2 Hugo Jacky Lee Marco Mario Michael Mike adam anika "
    "announcer antonio aunty belinda benjamin boris caleb david ed edward grandma grandpa iven john klatt klatt2 klatt3 klatt4 klatt6 linda max "
    "michel miguel norbert pablo paul pedro quincy rob robert sandro shelby steph steph2 steph3 travis victor zac".split()
)
ESPEAK_CLEAR = tuple(
    "m1 m2 m3 m5 m6 f1 f2 f3 f4 f5 Denis Diogo Gene Gene2 Hugo adam anika announcer antonio aunty benjamin caleb david edward grandpa iven klatt "
    "klatt2 klatt3 klatt4 klatt6 michel miguel sandro victor".split()
)
"""Those that pocketsphinx with a grammar of digits gets at most 40 % of the digits wrong of; the rest are hoarse, buzzing or too high."""


def voice(name: str) -> Voice:
    """The voice of that name. AudioError where no program has it."""
    if name in VOICES:
        return VOICES[name]
    program, _, rest = name.partition("/")
    accent, _, variant = rest.partition("+")
    if program == "espeak" and accent in ESPEAK_ACCENTS and (not variant or variant in ESPEAK_VARIANTS):
        return Voice(name)
    known = [*VOICES, *(f"espeak/{accent}+{variant}" for accent in ESPEAK_ACCENTS for variant in ESPEAK_VARIANTS)]
    raise AudioError(
        f"No synthetic voice '{name}'.{nearest(name, known)} Valid: {', '.join(VOICES)} and espeak/ACCENT+VARIANT such as espeak/en-us+f2."
    )


@dataclass(frozen=True, slots=True)
class Delivery:
    """A voice and how it speaks; see the top of the file for the numbers."""

    voice: str
    stretch: float = 1.0
    pitch: float = 1.0
    shift: float = 1.0
    lead: float = 0.1
    tail: float = 0.1

    def address(self, text: str) -> str:
        """The `synth:` address of this delivery of `text`. Numbers that are the default are left out."""
        given = {name: getattr(self, name) for name in LIMITS}
        query = "&".join(f"{name}={value:g}" for name, value in given.items() if value != getattr(Delivery(self.voice), name))
        return f"{SCHEME}{quote(self.voice, safe='/+')}{'?' + query if query else ''}#{quote(text, safe='')}"

    @classmethod
    def parse(cls, address: str) -> tuple[Delivery, str]:
        """(delivery, text) of a `synth:` address. AudioError where it is none, or has an unknown voice, option or an empty text."""
        if not address.startswith(SCHEME):
            raise AudioError(f"'{address[:60]}' is no {SCHEME} address; valid: {SCHEME}flite/slt?stretch=1.1#hello")
        head, _, text = address[len(SCHEME) :].partition("#")
        name, _, query = head.partition("?")
        numbers: dict[str, float] = {}
        for key, value in parse_qsl(query, keep_blank_values=True):
            if key not in LIMITS:
                raise AudioError(f"Unknown option '{key}' in {address[:80]}.{nearest(key, LIMITS)} Valid: {', '.join(LIMITS)}.")
            low, high = LIMITS[key]
            try:
                numbers[key] = float(value)
            except ValueError:
                raise AudioError(f"{key}='{value}' in {address[:80]} is not a number; valid: {low:g} to {high:g}.") from None
            if not low <= numbers[key] <= high:
                raise AudioError(f"{key}={value} in {address[:80]} is out of range; valid: {low:g} to {high:g}.")
        spoken = unquote(text).strip()
        if not spoken:
            raise AudioError(f"Nothing to say in '{address[:80]}': the text follows a '#'.")
        return cls(voice(unquote(name)).name, **numbers), spoken

    def seconds(self, text: str) -> float:
        """Estimated duration of `text`, silence included."""
        one = voice(self.voice)
        letters = sum(letter.isalnum() for letter in text)
        words = text.split()
        singles = sum((len(word.strip(" .,;:!?")) == 1 and word[0] not in "ai") or (word.startswith("eigh") and len(word) < 6) for word in words)
        inner = sum(text.rstrip(" .,;:!?").count(mark) for mark in ".,;:!?")
        tempo = self.stretch if one.stretched else 1 / self.shift
        return tempo * (one.base + one.pace * letters + one.spell * singles + one.pause * inner) + self.lead + self.tail
