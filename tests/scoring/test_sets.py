"""Names of sets, and the sets that names of result files mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from melcli import registry
from melcli.errors import RegistryError
from melcli.scoring import results, sets
from melcli.scoring.chunks import join_chunks
from melcli.scoring.results import ResultRow
from melcli.scoring.sets import ScoreGroup, by_label, default_protocol, of_label, open_sets


def test_every_registered_set_opens() -> None:
    for entry in registry.entries("score-set"):
        assert entry.load().name == entry.name and open_sets([entry.name])
    assert {name.replace(".", "_") for name in registry.names("score-set")} == {
        key for key, entry in sets.SETS.items() if isinstance(entry, ScoreGroup) or entry.column or entry.task != "asr"
    }


def test_groups() -> None:
    assert len(open_sets(["openasr"])) == 7 and len(open_sets(["openasr-classic"])) == 8
    assert [one.source for one in open_sets(["librispeech", "librispeech:test-clean"])] == ["librispeech:test-clean", "librispeech:test-other"]
    with pytest.raises(RegistryError, match="Did you mean 'tedlium'"):
        open_sets(["tedlum"])


@pytest.mark.parametrize(
    ("names", "protocol"),
    [
        (["openasr"], "openasr-2026"),
        (["openasr-classic"], "openasr-classic"),
        (["librispeech"], "plain"),
        (["ami", "tedlium"], "openasr-classic"),
        (["ami_cleaned"], "openasr-2026"),
        (["librispeech_test.clean"], "openasr-2026"),
        (["librispeech_test.clean", "ami"], "openasr-classic"),
        (["ami", "ami_cleaned"], "plain"),
        (["hf:hf-audio/open-asr-leaderboard:spgispeech:test"], "openasr-2026"),
        (["openasr", "digits:test"], "plain"),
        (["dev.jsonl"], "plain"),
        ([], "plain"),
    ],
)
def test_the_protocol_of_a_leaderboard_is_its_own(names: list[str], protocol: str) -> None:
    entries = open_sets(names)
    assert default_protocol(entries)[0] == protocol
    assert default_protocol([of_label(entry.label) for entry in entries])[0] == protocol  # of the result files too


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("hf-audio-open-asr-leaderboard_ami_cleaned_test", "ami_cleaned"),
        ("hf-audio-esb-datasets-test-only-sorted_ami_test", "ami"),
        ("hf-audio-esb-datasets-test-only-sorted_librispeech_test.other", "librispeech_test.other"),
        ("hf-audio-open-asr-leaderboard_voxpopuli_cleaned_aa_test", "voxpopuli_cleaned_aa"),
        ("hf-audio-open-asr-leaderboard_earnings22_test", "earnings22"),
        ("ArtificialAnalysis-Earnings22-Cleaned-AA-chunked__test", "earnings22_cleaned_aa_chunked"),
        ("ArtificialAnalysis-Earnings22-Cleaned-AA-chunked_earnings22_cleaned_aa_chunked_test", "earnings22_cleaned_aa_chunked"),
        ("VoiceArena-Monsoon_en_IN_test__test", "VoiceArena-Monsoon_en_IN_test__test"),
        ("librispeech_test-clean", "librispeech:test-clean"),
        ("dev", "dev"),
        ("ami_test", "ami_test"),
        ("my_ami_test", "my_ami_test"),
        ("spgispeech", "spgispeech"),
    ],
)
def test_sets_of_result_files(label: str, name: str) -> None:
    assert by_label(label) == name


def test_file_names_go_both_ways() -> None:
    for entry in open_sets(["openasr", "openasr-classic", "librispeech", "digits:test"]):
        model, label = results.parse_name(Path("x") / results.file_name("nvidia/canary-1b_v2", entry.label))
        assert model == "nvidia-canary-1b_v2" and (label == entry.label or by_label(label) == entry.name)
    assert results.parse_name(Path("mine.jsonl")) == (None, "mine")


def test_pieces_are_joined() -> None:
    piece = {"duration": 1.0, "time": 0.5, "text": "all of it"}
    rows = [ResultRow(f"c{i}", pred_text=text, parent_id="c", chunk_index=i, **piece) for i, text in ((1, " b "), (10, "d"), (0, "a"), (2, ""))]
    (whole,), incomplete = join_chunks(rows, "f")
    assert incomplete == ["c"] and whole == ResultRow("c", 4.0, 2.0, "all of it", "a b d")
    assert join_chunks(rows, "f", [("c", 0), ("c", 1), ("c", 2), ("c", 10)])[1] == []
    assert join_chunks(rows, "f", [("c", 0), ("e", 0)])[1] == ["e"]


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [
        (["eos", "silence", "eos"], "eos"),  # a pause is no reason
        (["silence", "length", "repetition"], "length"),
        (["silence"], "silence"),
        (["eos", None], None),
        ([], None),
    ],
)
def test_why_the_whole_stopped(pieces: list[str | None], whole: str | None) -> None:
    assert results.finish_reason(pieces) == whole


@pytest.mark.parametrize(
    ("held", "kept", "torn"),
    [
        ("", "", False),
        ('{"a": 1}\n', '{"a": 1}\n', False),
        ('{"a": 1}\n{"b', '{"a": 1}\n', True),
        ('{"b', "", True),
        ('{"a": 1}', '{"a": 1}\n', False),
    ],
)
def test_a_torn_line_is_cut_off(tmp_path: Path, held: str, kept: str, torn: bool) -> None:
    file = tmp_path / "f.jsonl"
    file.write_text(held)
    assert results.repair(file) is torn and file.read_text() == kept
