"""Recipes: YAML that is damaged, nested, aliased, tagged and overridden."""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st

from melcli import config, recipe, sweep
from melcli.registry import get, names
from tests.fuzz.confined import fuzz
from tests.fuzz.damage import NAMES, damaged, values

TAGS = (
    "!!int",
    "!!float",
    "!!bool",
    "!!null",
    "!!timestamp",
    "!!binary",
    "!!set",
    "!!omap",
    "!!pairs",
    "!!str",
    "!!python/object/apply:os.system",
    "!x",
    "!!merge",
    "!!map",
    "!!seq",
)
SCALARS = (
    "",
    "~",
    "1",
    "-",
    "0x",
    "1_000",
    "9" * 5000,
    "1e999",
    ".nan",
    "yes",
    "2001-99-99",
    "é",
    "a: b",
    "[",
    "{",
    "&a",
    "*a",
    "<<",
    "---",
    "%YAML 9.9",
    "\t",
    "\0",
    "\ufeff",
    "|",
    ">",
    "? ",
    "'",
    '"',
)
SHIPPED = st.sampled_from(sorted(names("recipe"))).map(lambda name: Path(get("recipe", name).path()).read_bytes())


def load(folder: Path, text: bytes, overrides: tuple[str, ...] = ()) -> None:
    path = folder / "r.yaml"
    path.write_bytes(text)
    read = recipe.load(str(path), list(overrides))
    (folder / "again.yaml").write_text(config.dump_yaml(read), encoding="utf-8")
    assert recipe.load(str(folder / "again.yaml")) == read
    if getattr(read, "sweep", None) is not None:
        sweep.members(recipe.read(str(path), list(overrides)))


def test_damaged_recipes() -> None:
    fuzz(damaged(SHIPPED), load, examples=20)


def test_bits_of_yaml() -> None:
    bit = st.one_of(
        st.sampled_from(SCALARS),
        st.sampled_from(TAGS).map(lambda tag: f"{tag} "),
        st.sampled_from(("\n", "  ", ": ", "- ", ", ", "a", "extends: ", "data: ", "name: x\n")),
    )
    fuzz(st.lists(bit, max_size=14).map(lambda bits: "".join(bits).encode()), load, examples=50)


def test_tagged_scalars() -> None:
    value = st.tuples(st.sampled_from(TAGS), st.sampled_from((*SCALARS, "[a, b]", "{a: b}", "[{a: b}]", "[[a, b]]"))).map(" ".join)
    fuzz(value.map(lambda text: f"name: {text}\n".encode()), load, examples=30)


def test_values_that_nobody_expects() -> None:
    keys = st.sampled_from(
        (
            "name",
            "seed",
            "data.train",
            "data.mel",
            "data.root",
            "model.backbone",
            "model.speech_input",
            "model.drop",
            "train.steps",
            "train.lr",
            "train.betas",
            "tune.lora",
            "sweep.grid",
            "sweep.cases",
            "model.tokenizer",
            "unified",
            "vocoder",
            "data.train.0.source",
            "x",
        )
    )

    def overridden(folder: Path, given: list[tuple[str, object]]) -> None:
        base = Path(get("recipe", "digits").path()).read_bytes()
        load(folder, base, tuple(f"{key}={text if isinstance(text, str) else config.dump_yaml({'a': text})[3:].strip()}" for key, text in given))

    fuzz(
        st.lists(st.tuples(keys, st.one_of(values().map(clean), st.sampled_from((*SCALARS, *NAMES)).map(clean))), min_size=1, max_size=2),
        overridden,
        examples=120,
    )


def clean(value: object) -> object:
    """Without half characters, which no command line or UTF-8 file holds."""
    if isinstance(value, str):
        return value.replace("\ud800", "")
    if isinstance(value, dict):
        return {clean(key): clean(inner) for key, inner in value.items()}
    return [clean(inner) for inner in value] if isinstance(value, list) else value


def test_shape_bombs() -> None:
    """Laughs by aliases, brackets in brackets, mappings in mappings, one very long line."""

    def laughs(depth: int, width: int) -> str:
        return "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]\n" for i in range(1, depth))

    bombs = st.one_of(
        st.builds(laughs, st.integers(2, 40), st.integers(2, 12)),
        st.integers(1, 20_000).map(lambda n: f"a: {'[' * n}{']' * n}\n"),
        st.integers(1, 20_000).map(lambda n: f"a: {'{a: ' * n}1{'}' * n}\n"),
        st.integers(1, 3000).map(lambda n: "".join(f"{' ' * i}a:\n" for i in range(n))),
        st.integers(1, 200_000).map(lambda n: f"name: {'x' * n}\n"),
        st.integers(1, 20_000).map(lambda n: "- " * n),
        st.integers(1, 20_000).map(lambda n: "? " * n),
        st.integers(1, 20_000).map(lambda n: "a: " + "&a " * n),
    )  # fmt: skip
    fuzz(bombs.map(str.encode), load, examples=10)
    fuzz(st.integers(1, 30_000).map(lambda n: ".".join(["a"] * n) + "=1"), lambda folder, text: load(folder, b"name: x\n", (text,)), examples=5)


def test_extends() -> None:
    name = st.sampled_from(
        (
            "r.yaml",
            "s.yaml",
            "digits",
            "/dev/null",
            "/dev/zero",
            "..",
            ".",
            "\0",
            "x" * 300,
            "~",
            "../../../../etc/passwd",
            "again",
            "[r.yaml, s.yaml]",
            "5",
            "{a: b}",
            "[[digits]]",
            "null",
        )
    )

    def read(folder: Path, given: tuple[str, str]) -> None:
        (folder / "s.yaml").write_text(f"extends: {given[1]!r}\nname: s\n" if "[" not in given[1] else f"extends: {given[1]}\n")
        load(folder, f"extends: {given[0]}\nname: r\n".encode())

    fuzz(st.tuples(name, name), read, examples=20)
