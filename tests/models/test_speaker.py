"""Speaking: step by step is what was taught, batches and streams change nothing, and nothing goes on forever."""

from __future__ import annotations

import pytest
import torch

from melcli.audio.mel_spec import preset
from melcli.data.collate import Item, pack
from melcli.data.silence import level
from melcli.data.tasks import spread
from melcli.data.utterance import Utterance
from melcli.errors import CheckpointError, UsageError
from melcli.models import checkpoint
from melcli.models.guards import Guard
from melcli.models.noise import Seeded, seed_of
from melcli.models.speaker import Speaker, VoicePrompt
from melcli.models.speaking import speak
from tests.models.conftest import OUTPUTS, TEXTS, make_model, make_speaker

SPEC = preset("speecht5")
STOP_NEVER = -60.0


def speaker(kind="vae", stop=None, **more) -> Speaker:
    model, processor = make_speaker(OUTPUTS[kind], mel=SPEC.model_dump(), **more)
    if stop is not None:
        never_stop(model, stop)
    return Speaker(model, processor)


def never_stop(model, logit) -> None:
    output = model.speech_output
    with torch.no_grad():
        if hasattr(output, "stop"):
            output.stop.weight.zero_()
            output.stop.bias.fill_(logit)
        else:
            output.codes.bias[-1] = logit


class Replay:
    """Noise of several steps at once, as single steps drew it: of each step its normal numbers, then two dropout masks."""

    def __init__(self, seed: int, steps: int, latent: int, hidden: int) -> None:
        noise = Seeded([seed])
        self.normals, self.masks = [], ([], [])
        for _ in range(steps):
            self.normals.append(noise.normal(torch.zeros(1, latent)))
            for layer in (0, 1):
                self.masks[layer].append(noise.uniform(torch.zeros(1, hidden)))
        self.layer = 0

    def normal(self, like):
        return torch.cat(self.normals)

    def keep(self, like, share):
        self.layer += 1
        return (torch.cat(self.masks[(self.layer - 1) % 2]) < share).float() / share


@pytest.mark.parametrize("positions", ["plain", "spread"])
@pytest.mark.parametrize("backbone", ["llama", "qwen3", "mistral", "gemma3"])
def test_taught_is_step_by_step(backbone, positions):
    """The patches of a free run, given to the model as teaching gives them, are predicted as they were said."""
    one = speaker(backbone=backbone, text_positions=positions, stop=STOP_NEVER)
    prompt = one._prompt(TEXTS[3], None, 5, None)
    *_, (track,) = speak(one.model, [prompt], 0.7)
    output, said = one.model.speech_output, torch.stack(track.patches)
    mel_TM = output.frames(said)
    example = one.encoder(Utterance("", (), TEXTS[3]), len(said), one.encoder.texts([Utterance("", (), TEXTS[3])])[0])
    batch = pack([[Item(example, spoken_TM=mel_TM)]], 0)
    read = {name: batch[name] for name in ("input_ids", "documents", "position_ids", "spoken", "spoken_lengths")}
    noise = Replay(prompt.seed, len(said), said.shape[1], 24)
    with torch.no_grad():
        states_SD = one.model(**read, noise=noise).states
        again = output.say(states_SD[:-1], noise, 0.7)
    assert len(said) > 8
    torch.testing.assert_close(again.patch_NX, said, atol=2e-3, rtol=1e-3)
    torch.testing.assert_close(again.stop_N, torch.tensor(track.stops), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", OUTPUTS)
def test_the_same_alone_in_a_batch_and_in_a_stream(kind):
    one = speaker(kind, text_positions="spread")
    together = one.speak(TEXTS, seed=3)
    assert len({tuple(x.mel_TM.shape) for x in together}) > 1
    for text, batched in zip(TEXTS, together, strict=True):
        alone = one.speak([text], seed=3)[0]
        assert alone.reason == batched.reason
        torch.testing.assert_close(alone.mel_TM, batched.mel_TM, atol=2e-2, rtol=1e-2)
        streamed = torch.cat(list(one.stream(text, seed=3)))
        torch.testing.assert_close(streamed, alone.mel_TM, atol=1e-4, rtol=1e-4)
        assert one.last is not None and torch.equal(one.last.mel_TM, alone.mel_TM)
        assert not torch.is_inference_mode_enabled()


def test_seeds_and_temperature():
    one = speaker(stop=STOP_NEVER)
    mels = [one.speak(TEXTS[:1], seed=seed, temperature=t)[0].mel_TM for seed, t in ((1, 1.0), (1, 1.0), (2, 1.0), (1, 0.0), (1, 0.1))]
    assert torch.equal(mels[0], mels[1])
    assert (mels[0] - mels[2]).abs().max() > 0.05
    assert (mels[3] - mels[0]).abs().mean() > (mels[3] - mels[4]).abs().mean() > 0
    assert seed_of(1, "a") != seed_of(1, "b") == seed_of(1, "b")


def test_what_is_said_depends_on_the_text():
    one = speaker(stop=STOP_NEVER)
    a, b = (one.speak([text], seed=1, temperature=0, max_seconds=0.4)[0].mel_TM for text in (TEXTS[0], TEXTS[3]))
    assert (a - b).abs().max() > 0.01


# --- guards --------------------------------------------------------------------------------------------------------------------------------


def test_length_is_bound_to_the_text():
    one = speaker(stop=STOP_NEVER)
    short, long = one.speak(["one", "one two three four five six seven"])
    assert short.reason == long.reason == "length"
    assert len(short.mel_TM) < len(long.mel_TM) < 62.5 * 8
    cut = one.speak(["one two three four five six seven"], max_seconds=0.5)[0]
    assert len(cut.mel_TM) == int(0.5 * 62.5 / 3) * 3 and cut.reason == "length"


def test_it_may_not_stop_at_once():
    one = speaker(stop=60.0)
    text = "one two three four five six seven"
    spoken = one.speak([text])[0]
    steps = one.model.config.spoken_pace * len(one.encoder.texts([Utterance("", (), text)])[0])
    assert spoken.reason == "stop" and len(spoken.mel_TM) == 3 * int(0.35 * steps) > 0
    assert len(spoken.stop_P) == int(0.35 * steps) + 1 and float(spoken.stop_P.min()) > 0.99


def guard(**more) -> Guard:
    return Guard(SPEC, 5, 200, **{"reference": 10.0, **more})


def frames(db: float, count: int = 5) -> torch.Tensor:
    """Frames of that level: noise that is never twice the same."""
    mel = torch.randn(count, 80) * 0.5
    return mel + (db - level(SPEC, mel)[:, None]) / 20


def run(watch: Guard, db: list[float]) -> tuple[str | None, int]:
    for number, loud in enumerate(db, 1):
        if reason := watch.check(frames(loud)):
            return reason, number
    return None, len(db)


def test_a_silent_loop_is_cut_and_a_pause_is_not():
    torch.manual_seed(4)
    watch = guard()
    assert run(watch, [10.0] * 20 + [-60.0] * 60) == ("silence", 20 + 19)  # 94 frames
    assert watch.frames == 100 + 12
    assert run(guard(), [10.0] * 20 + [-60.0] * 12 + [10.0] * 30) == (None, 62)
    assert run(guard(), [-60.0] * 60)[0] == "silence"  # from the beginning on
    assert run(guard(reference=None), [-60.0] * 60) == (None, 60)  # where nobody knows how loud a voice is


def test_what_hangs_or_repeats_itself_is_cut():
    torch.manual_seed(4)
    hum, bar = frames(10.0), [frames(10.0) for _ in range(3)]
    for period in ([hum], bar):
        watch, reason, number = guard(), None, 0
        while reason is None and number < 60:
            piece = period[number % len(period)]
            reason, number = watch.check(piece + 0.02 * torch.randn(5, 80)), number + 1
        assert reason == "repetition" and 19 <= number <= 19 + len(period)
    assert run(guard(), [10.0] * 60) == (None, 60)


@pytest.mark.parametrize("kind", OUTPUTS)
def test_a_model_that_falls_silent_is_stopped(kind):
    """The whole way, with a stream that gives out no more than the whole does."""
    one = speaker(kind, stop=STOP_NEVER, spoken_pace=40.0, spoken_level=30.0)
    for module in one.model.speech_output.modules():
        if hasattr(module, "global_mean"):
            module.global_mean.fill_(-9.0)
    spoken = one.speak([TEXTS[0]])[0]
    assert spoken.reason == "silence" and len(spoken.mel_TM) == 12
    streamed = torch.cat(list(one.stream(TEXTS[0])))
    torch.testing.assert_close(streamed, spoken.mel_TM, atol=1e-4, rtol=1e-4)


# --- voices --------------------------------------------------------------------------------------------------------------------------------


def test_a_voice_goes_on():
    """The voice's frames are read as if they had been said, with and without what is said in them."""
    one = speaker(stop=STOP_NEVER, text_positions="spread")
    voice_TM = torch.randn(50, 80) - 2
    plain, told, untold = (
        one.speak([TEXTS[0]], voice=voice, temperature=0, max_seconds=0.5)[0].mel_TM
        for voice in (None, VoicePrompt(voice_TM, "eight nine"), VoicePrompt(voice_TM))
    )
    assert plain.shape == told.shape == untold.shape
    assert min(float((a - b).abs().max()) for a, b in ((plain, told), (plain, untold), (told, untold))) > 1e-3
    prompt = one._prompt(TEXTS[0], VoicePrompt(voice_TM), 0, None)
    assert prompt.example.input_ids[-17:] == [one.model.config.spoken_token_id] * 17


def test_positions_run_beside_each_other():
    """Text and speech begin at the same place; the text's tokens are as far apart as what says them."""
    assert spread(0, 4, 5, 6, 1.5) == [1, 3, 4, 5, 0, 1, 2, 3, 4, 5, 6]
    assert spread(1, 2, 4, 3, 2.0) == [0, 2, 4, 1, 2, 3, 4]
    assert spread(0, 2, 3, 5, 1.0, untold=3) == [4, 5, 0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("voice", "complaint"),
    [
        (torch.zeros(6, 80), r"--voice: 0\.1 s of it; give between 0\.5 and 30 s"),
        (torch.zeros(37500, 80), r"--voice: 600\.0 s of it"),
        (torch.zeros(100, 40), r"--voice: a mel of 40 bins, and the model's has 80"),
    ],
)
def test_voices_that_cannot_be(voice, complaint):
    with pytest.raises(UsageError, match=complaint):
        speaker().speak(["one"], voice=VoicePrompt(voice))


def test_texts_that_cannot_be_said():
    one = speaker(spoken_alphabet=" abcdefghijklmnopqrstuvwxyz',.")
    for text in ("", "  ", "...", "😀"):
        with pytest.raises(UsageError, match="nothing to say"):
            one.speak([text])
    with pytest.raises(UsageError, match="cannot say"):
        one.speak(["one ñ two"])
    with pytest.raises(UsageError, match="--temperature -1"):
        one.speak(["one"], temperature=-1)


# --- models --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OUTPUTS)
def test_saved_and_loaded_says_the_same(kind, tmp_path):
    model, processor = make_speaker(OUTPUTS[kind], mel=SPEC.model_dump(), text_positions="spread", spoken_alphabet="one twhrfu")
    checkpoint.save(tmp_path / "m", model, processor)
    again = Speaker.load(str(tmp_path / "m"), device="cpu", dtype="float32")
    assert again.alphabet == "one twhrfu" and again.frames_per_step == model.speech_output.stride and again.spec == SPEC
    torch.testing.assert_close(again.speak(TEXTS[:1])[0].mel_TM, Speaker(model, processor).speak(TEXTS[:1])[0].mel_TM, atol=1e-4, rtol=1e-3)


def test_statistics_keep_their_precision(tmp_path):
    model, processor = make_speaker(mel=SPEC.model_dump())
    checkpoint.save(tmp_path / "m", model, processor, dtype=torch.bfloat16)
    again, _ = checkpoint.load(str(tmp_path / "m"), dtype=torch.bfloat16)
    assert again.speech_output.normalise.global_mean.dtype == torch.float32
    assert again.speech_output.latent.weight.dtype == torch.bfloat16
    assert torch.isfinite(Speaker(again, processor).speak(TEXTS[:1])[0].mel_TM).all()


def test_a_model_that_only_listens_is_refused(tmp_path):
    model, processor = make_model()
    checkpoint.save(tmp_path / "m", model, processor)
    with pytest.raises(CheckpointError, match="only listens"):
        Speaker.load(str(tmp_path / "m"))
