"""Reading, merging, overriding and explaining configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from melcli.config import Config, apply_overrides, dump_yaml, load_tree, validate
from melcli.errors import ConfigError


class Patch(Config):
    kind: Literal["patch"] = "patch"
    stack: int = 4


class Conv(Config):
    kind: Literal["conv"] = "conv"
    width: int = 8


class Train(Config):
    lr: float = 1e-3
    steps: int = Field(10, gt=0)
    mode: Literal["fast", "slow"] = "fast"
    names: tuple[str, ...] = ()
    stages: list[Patch] = []


class Whole(Config):
    name: str
    from_: str | None = Field(None, alias="from")
    input: Annotated[Patch | Conv, Field(discriminator="kind")] = Patch()
    train: Train = Train()
    other: Patch | None = None

    @model_validator(mode="after")
    def _name(self) -> Whole:
        if self.name == "forbidden":
            raise ValueError("this name is forbidden")
        return self


def write(folder: Path, text: str, name: str = "recipe.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def read(folder: Path, text: str, *overrides: str) -> Whole:
    return validate(Whole, apply_overrides(load_tree(write(folder, text)), overrides))


def test_reads_values_with_yaml_1_2_scalars(tmp_path: Path) -> None:
    whole = read(tmp_path, "name: no\ntrain: {lr: 1e-4, names: [on, 12:30, 2020-01-01, '1e5']}\nfrom: hub/x\n")
    assert whole == Whole(name="no", train=Train(lr=1e-4, names=("on", "12:30", "2020-01-01", "1e5")), **{"from": "hub/x"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a\ntrain:\n  lrr: 1\n", "recipe.yaml:3: unknown key 'train.lrr'. Did you mean 'lr'? Valid here: lr, mode, names, stages, steps."),
        ("nmae: a\n", "recipe.yaml:1: unknown key 'nmae'. Did you mean 'name'?"),
        ("train: {}\n", "recipe.yaml: 'name' is required and missing."),
        ("name: a\ntrain:\n  lr: 1\n  steps: 2\n  lr: 3\n", "recipe.yaml:5: key 'lr' is given twice (first at "),
        ("name: a\ntrain:\n  steps: -1\n", "recipe.yaml:3: train.steps: Input should be greater than 0, not -1."),
        ("name: a\ntrain: {mode: fsat}\n", "recipe.yaml:2: train.mode cannot be 'fsat'. Did you mean 'fast'? Valid here: fast, slow."),
        ("name: a\ninput:\n  kind: cnv\n", "recipe.yaml:3: input.kind cannot be 'cnv'. Did you mean 'conv'? Valid here: patch, conv."),
        ("name: a\ninput:\n  kind: conv\n  stack: 3\n", "recipe.yaml:4: unknown key 'input.stack'. Valid here: kind, width."),
        ("name: a\nother: {stak: 3}\n", "recipe.yaml:2: unknown key 'other.stak'. Did you mean 'stack'?"),
        ("name: a\ntrain:\n  stages:\n  - stack: 1\n  - stuck: 1\n", "recipe.yaml:5: unknown key 'train.stages.1.stuck'. Did you mean 'stack'?"),
        ("name: forbidden\n", "recipe.yaml: the configuration: this name is forbidden."),
        ("name: [\n", "recipe.yaml:2: not YAML: "),
        ("name:\n\tx: 1\n", "recipe.yaml:2: not YAML: "),
        ("- a\n", "recipe.yaml: holds a list, and a configuration is a mapping"),
        ("name: a\ntrain: &x {names: *x}\n", "recipe.yaml:2: an alias that contains itself."),
        ("name: a\ntrain: {<<: {lr: 1}}\n", "recipe.yaml:2: the merge key '<<' is not supported; use 'extends'."),
        ("name: !!python/object/apply:os.getcwd []\n", "recipe.yaml"),
        ("name: a\n---\nname: b\n", "recipe.yaml:2: not YAML"),
        ("extends: nothing\nname: a\n", "recipe.yaml:1: extends 'nothing', which is neither a file beside it nor a recipe."),
        ("extends: recipe\nname: a\n", "recipe.yaml:1: extends 'recipe', which extends this file in turn."),
        ("extends: 3\nname: a\n", "recipe.yaml:1: 'extends' takes "),
    ],
)
def test_mistakes_are_one_line_with_place_and_remedy(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert "\n" not in message
    assert message.replace(f"{tmp_path}/", "").startswith(expected)
    assert caught.value.exit_code == 2


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: no such file"):
        load_tree(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_tree(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load_tree(tmp_path / "binary.yaml")


def test_more_mistakes_are_counted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\(2 more\)$"):
        read(tmp_path, "name: a\nx: 1\ny: 2\nz: 3\n")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("train.lr=2e-4", Whole(name="a", train=Train(lr=2e-4, stages=[Patch(stack=1)]))),
        ("train.stages.0.stack=7", Whole(name="a", train=Train(stages=[Patch(stack=7)]))),
        ("train={steps: 3}", Whole(name="a", train=Train(steps=3))),
        ("other.stack=2", Whole(name="a", train=Train(stages=[Patch(stack=1)]), other=Patch(stack=2))),
        ("name=b=c", Whole(name="b=c", train=Train(stages=[Patch(stack=1)]))),
        ("input={kind: conv, width: 2}", Whole(name="a", train=Train(stages=[Patch(stack=1)]), input=Conv(width=2))),
    ],
)
def test_overrides(tmp_path: Path, setting: str, expected: Whole) -> None:
    assert read(tmp_path, "name: a\ntrain:\n  stages: [{stack: 1}]\n", setting) == expected


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("train.lr", "'train.lr' is not a setting: write key=value"),
        ("=1", "'=1' is not a setting"),
        ("train..lr=1", "'train..lr=1' is not a setting"),
        ("train.lrr=1", "setting 'train.lrr=1': unknown key 'train.lrr'. Did you mean 'lr'?"),
        ("train.lr=fast", "setting 'train.lr=fast': train.lr: Input should be a valid number"),
        ("name.x=1", "setting 'name.x=1': 'name' is a text and has no keys below it."),
        ("train.stages.1.stack=1", "setting 'train.stages.1.stack=1': 'train.stages' is a list of 1; '1' is no position in it"),
        ("train={", "setting 'train={': not YAML"),
    ],
)
def test_wrong_overrides_name_themselves(tmp_path: Path, setting: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, "name: a\ntrain:\n  stages: [{stack: 1}]\n", setting)
    assert str(caught.value).startswith(expected)


def test_overrides_leave_the_tree_alone(tmp_path: Path) -> None:
    tree = load_tree(write(tmp_path, "name: a\ntrain: {lr: 1.0}\n"))
    apply_overrides(tree, ["train.lr=2", "name=b"])
    assert tree.data == {"name": "a", "train": {"lr": 1.0}}


def test_extends_merges_and_keeps_places(tmp_path: Path) -> None:
    write(tmp_path, "name: base\ntrain:\n  lr: 0.1\n  steps: 5\ninput:\n  kind: patch\n  stack: 9\n", "base.yaml")
    write(tmp_path, "train:\n  steps: 6\n  names: [x]\n", "second.yaml")
    path = write(tmp_path, "extends: [base, second.yaml]\nname: child\ninput: {kind: conv}\ntrain: {names: [y]}\n")
    tree = load_tree(path)
    assert validate(Whole, tree) == Whole(name="child", input=Conv(), train=Train(lr=0.1, steps=6, names=("y",)))
    assert tree.where(("train", "lr")) == f"{tmp_path}/base.yaml:3"
    assert tree.where(("train", "steps")) == f"{tmp_path}/second.yaml:2"
    assert tree.where(("train", "names")) == f"{path}:4"


def test_extends_keeps_settings_of_the_same_kind(tmp_path: Path) -> None:
    write(tmp_path, "input: {kind: patch, stack: 9}\n", "base.yaml")
    assert read(tmp_path, "extends: base\nname: a\ninput: {kind: patch}\n").input == Patch(stack=9)


def test_extends_in_a_circle(tmp_path: Path) -> None:
    write(tmp_path, "extends: two\n", "one.yaml")
    write(tmp_path, "extends: one\n", "two.yaml")
    with pytest.raises(ConfigError, match=r"two\.yaml:1: extends 'one', which extends this file in turn"):
        load_tree(tmp_path / "one.yaml")


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12) | st.sampled_from(
    ["1e-4", "1.", "~", "null", "0x1f", "012", "true", "yes", "=", "<<", "- a", "a: b", "#", "'", ".inf", "-1e5"]
)


@given(name=words.filter(lambda w: w != "forbidden"), lr=st.floats(allow_nan=False), steps=st.integers(1), names=st.lists(words))
def test_what_is_saved_loads_back(tmp_path_factory: pytest.TempPathFactory, name: str, lr: float, steps: int, names: list[str]) -> None:
    whole = Whole(name=name, train=Train(lr=lr, steps=steps, names=tuple(names)), **{"from": name})
    path = write(tmp_path_factory.getbasetemp(), dump_yaml(whole), "round.yaml")
    assert validate(Whole, load_tree(path)) == whole


@pytest.mark.parametrize(("prompt", "times"), [("listen", 0), ("<|speech|><|speech|>", 2)])
def test_a_prompt_holds_the_speech_once(tmp_path: Path, prompt: str, times: int) -> None:
    from melcli import recipe

    path = tmp_path / "r.yaml"
    path.write_text("name: x\ndata: {train: [{source: a.jsonl}]}\nmodel: {backbone: {model_type: llama}}\ntrain: {steps: 1}\n")
    assert recipe.load(str(path)).model.prompt == "auto"
    assert recipe.load(str(path), ["model.prompt=<|speech|> said"]).model.prompt == "<|speech|> said"
    with pytest.raises(ConfigError, match=rf"must hold <\|speech\|> once, where the audio goes, and holds it {times} times"):
        recipe.load(str(path), [f"model.prompt='{prompt}'"])
    recipe.load(str(path), [f"model.prompt='{prompt}'", "data.task=text"])


def test_a_model_begins_somewhere(tmp_path: Path) -> None:
    from melcli import recipe

    path = tmp_path / "r.yaml"
    path.write_text("name: x\ndata: {train: [{source: a.jsonl}]}\nmodel: {}\ntrain: {steps: 1}\n")
    with pytest.raises(ConfigError, match=r"give model\.init, a model to start from, or model\.backbone"):
        recipe.load(str(path))
    assert recipe.load(str(path), ["model.init=tiny-en"]).model.backbone is None
