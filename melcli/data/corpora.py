"""Corpora by name: where they are looked for under the data root, how they are read, and where they are fetched from.

Each is found in its public release's layout and as re-coded copies lay it out (a folder of the corpus's name with JSONL manifests). Checksums are
the publishers' own (openslr's MD5 lists) or those torchaudio has published for the same archives; a corpus whose home publishes none has none
here, and the SHA-256 of the first download is then kept beside it (data/download.py). Text is as the corpus has it; LibriSpeech's and
speechocean762's upper-case text is lower-cased.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from melcli.data import selection
from melcli.data.digit_strings import WORDS, digit_strings
from melcli.data.folders import is_audio, read_librispeech, read_libritts, read_ljspeech, walk
from melcli.data.hub import HubSplit, read_split
from melcli.data.kaldi import read_kaldi
from melcli.data.rows import read_jsonl
from melcli.data.utterance import Utterance
from melcli.errors import ManifestError, nearest


@dataclass(frozen=True, slots=True)
class Archive:
    """Something to fetch. inside: the folder of the archive that is kept; to: where it goes under the data root."""

    url: str
    checksum: str | None
    inside: str
    to: str


@dataclass(frozen=True)
class Corpus:
    """A corpus with a name.

    splits: their names; the empty string stands for all of it.
    read: (data root, split, options) -> utterances, None where the split is not there. It takes out of `options` those that it applied itself.
    archives: split -> what to fetch for it. options: keys of the corpus's own, beside those of data/selection.py. hub: where its only split is on the
    hub, for those that are published nowhere else.
    """

    name: str
    summary: str
    licence: str
    home: str
    splits: tuple[str, ...]
    default: str
    read: Callable[[Path, str, dict[str, str]], list[Utterance] | None]
    archives: dict[str, Archive]
    options: tuple[str, ...] = ()
    hub: HubSplit | None = None

    def utterances(self, split: str | None, root: Path, options: dict[str, str], source: str, offline: bool = False) -> list[Utterance]:
        """What the options keep of a split, fetched first where it is not under `root`. ManifestError says what is missing and where it belongs."""
        split = self.default if split is None else split
        if split not in self.splits:
            valid = ", ".join(filter(None, self.splits))
            raise ManifestError(f"{source}: {self.name} has no split '{split}', valid: {valid}.{nearest(split, filter(None, self.splits))}")
        left = dict(options)
        found = self.read(root, split, left)
        if found is None and self.hub is not None:
            found = self._from_hub(self.hub, root, source, offline)
        if found is None:
            self._fetch(split, root, source, offline)
            found = self.read(root, split, left)
        if not found:
            raise ManifestError(f"{source}: nothing of {self.name} was found under {root}")
        return selection.select(found, left, source)

    def _from_hub(self, split: HubSplit, root: Path, source: str, offline: bool) -> list[Utterance]:
        try:
            return read_split(split, root, offline)
        except ManifestError as error:
            raise ManifestError(f"{source}: no {root / self.name / f'{split.split}.jsonl'}; and {error}") from None

    def _fetch(self, split: str, root: Path, source: str, offline: bool) -> None:
        from melcli.data.download import download, extract

        archive = self.archives.get(split)
        missing = f"{source}: not found under {root} (data.root)"
        if archive is None:
            raise ManifestError(f"{missing}, and it cannot be fetched for you; get it from {self.home} and place it in {root / self.name}")
        if (root / archive.to).exists() and not any(sibling.to == archive.to for key, sibling in self.archives.items() if key != split):
            raise ManifestError(f"{missing}: {root / archive.to} is there but cannot be read as {self.name}; move it away to fetch it again")
        if offline:
            raise ManifestError(f"{missing}; place it in {root / archive.to}, or go without --offline to fetch {archive.url}")
        try:
            # Archives of several corpora and splits share names (dev-clean.tar.gz), so the corpus's name goes in front.
            fetched = download(archive.url, root / "downloads" / f"{self.name}-{archive.url.rsplit('/', 1)[1]}", archive.checksum)
        except ManifestError as error:
            raise ManifestError(f"{missing}; {error}; or place it in {root / archive.to}") from None
        extract(fetched, archive.inside, root / archive.to)
        fetched.unlink()


def _first(*candidates: Path) -> Path | None:
    return next((path for path in candidates if path.exists()), None)


# LibriSpeech and LibriTTS: the same subsets, a folder each.
SUBSETS = ("train-clean-100", "train-clean-360", "train-other-500", "dev-clean", "dev-other", "test-clean", "test-other")


def _read_subsets(name: str, folder: str, reader: Callable[[Path], list[Utterance]]) -> Callable[[Path, str, dict[str, str]], list[Utterance] | None]:
    def read(root: Path, split: str, options: dict[str, str]) -> list[Utterance] | None:
        homes = (root / name / folder, root / folder, root / name, root)
        found: list[Utterance] = []
        for subset in (split,) if split else SUBSETS:
            at = _first(*(home / subset for home in homes))
            found += reader(at) if at is not None else []
        return found or None

    return read


_LIBRISPEECH_MD5 = {
    "dev-clean": "42e2234ba48799c1f50f24a7926300a1",
    "dev-other": "c8d0bcc9cca99d4f8b62fcc847357931",
    "test-clean": "32fa31d27d2e1cad72775fee3f4849a9",
    "test-other": "fb5a50374b501bb3bac4815ee91d3135",
    "train-clean-100": "2a93770f6d5c6c964bc36631d331a522",
    "train-clean-360": "c0e676e450a7ff2f54aeade5171606fa",
    "train-other-500": "d1a0fd59409feb2c614ce4d30c387708",
}
_LIBRITTS_SHA256 = {
    "dev-clean": "da0864e1bd26debed35da8a869dd5c04dfc27682921936de7cff9c8a254dbe1a",
    "dev-other": "d413eda26f3a152ac7c9cf3658ef85504dfb1b625296e5fa83727f5186cca79c",
    "test-clean": "234ea5b25859102a87024a4b9b86641f5b5aaaf1197335c95090cde04fe9a4f5",
    "test-other": "33a5342094f3bba7ccc2e0500b9e72d558f72eb99328ac8debe1d9080402f10d",
    "train-clean-100": "c5608bf1ef74bb621935382b8399c5cdd51cd3ee47cec51f00f885a64c6c7f6b",
    "train-clean-360": "ce7cff44dcac46009d18379f37ef36551123a1dc4e5c8e4eb73ae57260de4886",
    "train-other-500": "e35f7e34deeb2e2bdfe4403d88c8fdd5fbf64865cae41f027a185a6965f0a5df",
}

LIBRISPEECH = Corpus(
    name="librispeech",
    summary="read English out of audiobooks, 960 h, 2338 speakers",
    licence="CC BY 4.0",
    home="https://www.openslr.org/12/",
    splits=("", *SUBSETS),
    default="",
    read=_read_subsets("librispeech", "LibriSpeech", read_librispeech),
    archives={
        subset: Archive(f"https://www.openslr.org/resources/12/{subset}.tar.gz", f"md5:{md5}", f"LibriSpeech/{subset}", f"LibriSpeech/{subset}")
        for subset, md5 in _LIBRISPEECH_MD5.items()
    },
)
LIBRITTS = Corpus(
    name="libritts",
    summary="LibriSpeech's books cut at sentences, 24 kHz, with case and punctuation, 585 h",
    licence="CC BY 4.0",
    home="https://www.openslr.org/60/",
    splits=("", *SUBSETS),
    default="",
    read=_read_subsets("libritts", "LibriTTS", read_libritts),
    archives={
        subset: Archive(f"https://www.openslr.org/resources/60/{subset}.tar.gz", f"sha256:{sha256}", f"LibriTTS/{subset}", f"LibriTTS/{subset}")
        for subset, sha256 in _LIBRITTS_SHA256.items()
    },
)


def _read_lj(root: Path, split: str, options: dict[str, str]) -> list[Utterance] | None:
    at = _first(*(folder / "metadata.csv" for folder in (root / "LJSpeech-1.1", root / "ljspeech" / "LJSpeech-1.1", root / "ljspeech")))
    return read_ljspeech(at.parent) if at is not None else None


LJSPEECH = Corpus(
    name="ljspeech",
    summary="one woman reading non-fiction, 24 h, 22.05 kHz",
    licence="public domain",
    home="https://keithito.com/LJ-Speech-Dataset/",
    splits=("",),
    default="",
    read=_read_lj,
    archives={
        "": Archive(
            "https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2",
            "sha256:be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5",
            "LJSpeech-1.1",
            "LJSpeech-1.1",
        )
    },
)


def _read_speechocean(root: Path, split: str, options: dict[str, str]) -> list[Utterance] | None:
    if (manifest := _first(root / "speechocean762" / f"{split}.jsonl")) is not None:
        return read_jsonl(manifest)
    folder = root / "speechocean762" / split
    if not (folder / "wav.scp").is_file():
        return None
    return [replace(utterance, text=(utterance.text or "").lower()) for utterance in read_kaldi(folder)]


_SPEECHOCEAN = Archive("https://www.openslr.org/resources/101/speechocean762.tar.gz", None, "speechocean762", "speechocean762")
SPEECHOCEAN762 = Corpus(
    name="speechocean762",
    summary="English sentences read by 250 Mandarin speakers, half of them children (splits: the release has train and test)",
    licence="free for any use",
    home="https://www.openslr.org/101/",
    splits=("train", "dev", "test"),
    default="train",
    read=_read_speechocean,
    archives={"train": _SPEECHOCEAN, "test": _SPEECHOCEAN},
)


def _read_robotutor(root: Path, split: str, options: dict[str, str]) -> list[Utterance] | None:
    manifests = [root / "robotutor" / f"{part}.jsonl" for part in ((split,) if split else ("stories", "words"))]
    present = [path for path in manifests if path.exists()]
    return [utterance for path in present for utterance in read_jsonl(path)] if len(present) == len(manifests) else None


ROBOTUTOR = Corpus(
    name="robotutor",
    summary="children's stories, words and letters read for a reading tutor, 3 h, some with word times",
    licence="CC BY 4.0",
    home="the RoboTutor project (English recordings; docs/data.md has the layout)",
    splits=("", "stories", "words"),
    default="",
    read=_read_robotutor,
    archives={},
)


def _digits(root: Path) -> list[Utterance] | None:
    manifest = _first(root / "digits" / "all.jsonl")
    if manifest is not None:
        return read_jsonl(manifest)
    at = _first(*(root / name / "recordings" for name in ("free-spoken-digit-dataset", "digits", "free-spoken-digit-dataset-master")))
    if at is None:
        return None
    clips = []
    for name in filter(is_audio, walk(at)):
        fields = Path(name).stem.split("_")  # DIGIT_SPEAKER_TAKE
        if len(fields) == 3 and fields[0] in "0123456789" and len(fields[0]) == 1:
            clips.append(Utterance(id=Path(name).stem, audio=(str(at.resolve() / name),), text=WORDS[int(fields[0])], speaker=fields[1]))
    return clips or None


LEFT_OUT = "theo"


def _read_digits(root: Path, split: str, options: dict[str, str]) -> list[Utterance] | None:
    """train: single digits of all speakers but the one left out; test: strings of the one left out; strings: strings of the training speakers."""
    clips = _digits(root)
    if clips is None or split == "all":
        return clips
    source = f"digits:{split}"
    chosen = {key: options.pop(key) for key in ("speakers", "without") if key in options}
    if not chosen:
        chosen = {"speakers": LEFT_OUT} if split == "test" else {"without": LEFT_OUT}
    clips = selection.by_speaker(clips, chosen, source)
    if split == "train":
        return clips
    from melcli.data.durations import fill_durations

    least = selection.number(options, "min", source, 3 if split == "test" else 1, least=1)
    most = selection.number(options, "max", source, 7 if split == "test" else 8, least=1)
    if most < least:
        raise ManifestError(f"{source}: max={most} is below min={least}")
    count = selection.number(options, "count", source, 200 if split == "test" else 2000, least=1)
    seed = selection.number(options, "seed", source, 0)
    options.pop("seed", None)  # the strings are drawn with it already, so `limit` takes the first ones
    return digit_strings(fill_durations(clips), count, least, most, seed)


_FSDD = Archive(
    "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/heads/master.zip",
    None,
    "free-spoken-digit-dataset-master",
    "free-spoken-digit-dataset",
)
DIGITS = Corpus(
    name="digits",
    summary=f"free spoken digit data set: single digits (train, all), strings of them (test: the left-out speaker {LEFT_OUT}; strings: the others)",
    licence="CC BY-SA 4.0",
    home="https://github.com/Jakobovski/free-spoken-digit-dataset",
    splits=("train", "test", "strings", "all"),
    default="train",
    read=_read_digits,
    archives=dict.fromkeys(("train", "test", "strings", "all"), _FSDD),
    options=("count", "min", "max"),
)


def _read_synth(root: Path, split: str, options: dict[str, str]) -> list[Utterance] | None:
    from melcli.data.synth_plan import corpus
    from melcli.data.synth_qa import qa

    own = {key: options.pop(key) for key in ("hours", "seed", "mix", "voices", "text", "steady", "answers") if key in options}
    return qa(own, root) if split == "qa" else corpus(own, root)


SYNTH = Corpus(
    name="synth",
    summary="English sentences, questions, spelled words and digits spoken by flite, espeak-ng, festival, RHVoice and Pico when they are loaded",
    licence="that of the texts",
    home="the text collections in text/",
    splits=("en", "qa"),
    default="en",
    read=_read_synth,
    archives={},
    options=("hours", "mix", "voices", "text", "steady", "answers"),
)


def _read_asked(name: str, written: str | None = None) -> Callable[[Path, str, dict[str, str]], list[Utterance] | None]:
    """Reads a manifest of questions that lies in a folder of the corpus's name; where there is none, the file of questions without audio."""

    def read(root: Path, split: str, options: dict[str, str]) -> list[Utterance] | None:
        from melcli.data.questions import read_rows

        at = _first(root / name / f"{split}.jsonl", *([root / written.format(split)] if written else []))
        return None if at is None else read_rows(at)

    return read


LLAMA_QUESTIONS = Corpus(
    name="llama-questions",
    summary="300 spoken questions of general knowledge with their answers, one synthetic voice, 0.25 h",
    licence="as published by google-research-datasets",
    home="https://github.com/google-research-datasets/LLAMA1-Test-Set",
    splits=("test",),
    default="test",
    read=_read_asked("llama-questions"),
    archives={},
    hub=HubSplit("fixie-ai/llama-questions", "", "test"),
)
WEB_QUESTIONS = Corpus(
    name="web-questions",
    summary="2,032 questions that people asked a search engine with all accepted answers; written, unless web-questions/test.jsonl has audio",
    licence="CC BY 4.0",
    home="https://nlp.stanford.edu/software/sempre/",
    splits=("test",),
    default="test",
    read=_read_asked("web-questions", "text/webquestions-{}.jsonl"),
    archives={},
    hub=HubSplit("fixie-ai/spoken-web-questions", "", "test"),
)

CORPORA: dict[str, Corpus] = {
    corpus.name: corpus for corpus in (LIBRISPEECH, DIGITS, SPEECHOCEAN762, ROBOTUTOR, LIBRITTS, LJSPEECH, SYNTH, LLAMA_QUESTIONS, WEB_QUESTIONS)
}
