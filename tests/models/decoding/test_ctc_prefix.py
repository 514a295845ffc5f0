"""CTC prefix scores against sums over all paths and against torch's CTC loss."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from melcli.models.decoding import ctc_prefix
from melcli.models.decoding.ctc_prefix import Continuations, PrefixScorer


def collapse(path, blank):
    return tuple(c for i, c in enumerate(path) if c != blank and (i == 0 or path[i - 1] != c))


def by_enumeration(log_probs, wanted, whole):
    frames, classes = log_probs.shape
    total = [
        sum(log_probs[t, c] for t, c in enumerate(path))
        for path in itertools.product(range(classes), repeat=frames)
        if (text := collapse(path, classes - 1)) == wanted or (not whole and text[: len(wanted)] == wanted)
    ]
    return torch.stack(total).logsumexp(0)


@pytest.mark.parametrize("text", [(0,), (1, 1), (0, 1, 0), (2, 2, 1)])
def test_scores_are_sums_over_all_paths(text):
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)) * 2
    scorer = PrefixScorer(logits, torch.tensor([6]))
    longer = Continuations(scorer, scorer.start(), [0], [text])
    prefixes = longer.select([0])
    log_probs = logits.log_softmax(-1)
    assert prefixes.score_N == longer.score_M
    torch.testing.assert_close(prefixes.score_N[0], by_enumeration(log_probs, text, whole=False), atol=1e-4, rtol=0)
    torch.testing.assert_close(scorer.whole(prefixes)[0], by_enumeration(log_probs, text, whole=True), atol=1e-4, rtol=0)


@pytest.mark.parametrize("few", [0, 1 << 20])
def test_whole_texts_score_as_torchs_ctc_loss_whatever_stands_beside_them(few, monkeypatch):
    """Long utterances of different length, extended together by pieces of different size, as a large batch and as a small one."""
    monkeypatch.setattr(ctc_prefix, "FEW", few)
    generator = torch.Generator().manual_seed(2)
    frames = torch.tensor([400, 90, 700])
    logits = torch.randn(int(frames.sum()), 30, generator=generator) * 4
    texts = [torch.randint(29, (n,), generator=generator).tolist() for n in (60, 31, 100)]
    scorer = PrefixScorer(logits, frames)
    prefixes = scorer.start()
    for at in range(0, 100, 7):
        pieces = [text[at : at + (7 if i else 3)] + ([] if i else text[at + 3 : at + 7]) for i, text in enumerate(texts)]
        prefixes = Continuations(scorer, prefixes, range(3), pieces).select(range(3))
    padded = torch.nn.utils.rnn.pad_sequence([x.log_softmax(-1) for x in logits.split(frames.tolist())])
    targets = torch.tensor([c for text in texts for c in text])
    loss = F.ctc_loss(padded, targets, frames, torch.tensor([len(t) for t in texts]), blank=29, reduction="none")
    torch.testing.assert_close(scorer.whole(prefixes), -loss, rtol=1e-4, atol=0.05)


def test_the_empty_text():
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(3))
    scorer = PrefixScorer(logits, torch.tensor([5]))
    torch.testing.assert_close(scorer.whole(scorer.start())[0], logits.log_softmax(-1)[:, 2].sum())


def test_continuations_that_share_beginnings_are_as_each_by_itself():
    generator = torch.Generator().manual_seed(4)
    frames = torch.tensor([40, 25])
    scorer = PrefixScorer(torch.randn(65, 6, generator=generator) * 3, frames)
    start = Continuations(scorer, scorer.start(), [0, 1, 1], [(1,), (2, 2), ()]).select([2, 0, 1])
    rows = [0, 1, 1, 2, 0, 2, 1, 2]
    classes = [(3,), (1, 2), (1, 2, 4), (1, 2, 4), (), (1,), (4, 4, 4, 4), (1, 3)]
    together = Continuations(scorer, start, rows, classes)
    order = [7, 0, 4, 2, 3, 6, 1, 5, 5]
    selected = together.select(order)
    for place, m in enumerate(order):
        alone = start.select([rows[m]])
        for c in classes[m]:
            alone = scorer.append(alone, torch.tensor([0]), torch.tensor([c]))
        for name in ("in_class", "in_blank", "ready", "utterance_N", "last_N", "score_N"):
            torch.testing.assert_close(getattr(selected, name)[place], getattr(alone, name)[0])
        torch.testing.assert_close(together.score_M[m], alone.score_N[0])


def test_frames_that_lie_behind_are_forgotten_and_scores_stay():
    """Sharp frames, as of a trained head: text after text, the search leaves its beginning behind."""
    generator = torch.Generator().manual_seed(6)
    texts = [torch.randint(9, (n,), generator=generator).tolist() for n in (40, 40)]
    frames = [c for text in texts for c in text for _ in range(4)]
    logits = torch.full((len(frames), 10), -8.0)
    logits[torch.arange(0, len(frames), 4), frames[::4]] = 8.0
    logits[:, 9] += 8.0 + torch.randn(len(frames), generator=generator)
    kept, forgetting = (PrefixScorer(logits, torch.tensor([160, 160])) for _ in range(2))
    every, some = kept.start(), forgetting.start()
    for pieces in zip(*texts, strict=True):
        every = Continuations(kept, every, [0, 1], [(c,) for c in pieces]).select([0, 1])
        some = forgetting.forget(Continuations(forgetting, some, [0, 1], [(c,) for c in pieces]).select([0, 1]))
        torch.testing.assert_close(some.score_N, every.score_N)
        torch.testing.assert_close(forgetting.whole(some), kept.whole(every))
    assert some.ready.shape[1] < 60 < every.ready.shape[1]


def test_cumulative_sums_of_a_large_batch_are_torchs(monkeypatch):
    """Classes that are all but impossible for long, and beginnings that nothing leads to."""
    monkeypatch.setattr(ctc_prefix, "FEW", 0)
    generator = torch.Generator().manual_seed(5)
    enter = torch.randn(20, 333, generator=generator).cumsum(-1) * 3
    enter[:, :30] = ctc_prefix.LEAST
    enter[3] = ctc_prefix.LEAST
    for slope in (0.0, 2.0, -ctc_prefix.FLOOR):
        x = enter + slope * torch.arange(333)
        found, meant = ctc_prefix._log_cumulative_sum(x), torch.logcumsumexp(x, 1)
        torch.testing.assert_close(found[:, 30:], meant[:, 30:], rtol=1e-6, atol=1e-3)
        torch.testing.assert_close(found[3], meant[3])
        assert (found[:3, :30] < meant[:3, 31:32] - 600).all()  # as good as never
