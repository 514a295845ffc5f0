"""Typed configuration: YAML in and out, with errors that name the file, the line and the nearest valid key.

A `Tree` is plain data (dicts, lists, scalars) plus, for every key, where it was written. The steps are kept apart so that each can be used alone:

    tree = load_tree("recipes/digits.yaml")              # reads, refuses duplicate keys, follows `extends:`
    tree = apply_overrides(tree, ["train.lr=1e-3"])      # key.sub=value, the value is YAML
    recipe = validate(Recipe, tree)                      # a frozen pydantic model, or ConfigError
    text = dump_yaml(recipe)                             # what is saved beside the weights; loads back to an equal model

Scalars follow YAML 1.2's core schema, not PyYAML's 1.1: `1e-4` is a number, `no` and `on` are words, `12:30` is not sexagesimal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from melcli import registry
from melcli.errors import ConfigError, first_line, nearest

Key = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


MOST_VALUES, DEEPEST = 20_000, 50
SHOWN = 120
"""Characters of a value that a message repeats."""

PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
LARGEST = 10_000_000
"""Bytes of a configuration file."""


class Config(BaseModel):
    """Base of every configuration: frozen, no unknown keys, the docstring under a field is its documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


@dataclass(frozen=True)
class Tree:
    """Configuration data and where each key comes from: `marks[("train", "lr")] == "recipes/digits.yaml:12"`; `name` stands for the whole."""

    data: dict[str, Any]
    marks: dict[Key, str]
    name: str

    def where(self, key: Key) -> str:
        """Where a key comes from; of one that was only written as part of another (`a` of `a.b=1`) where that does; of an absent one where its
        parent does."""
        written = [key, *(other for other in self.marks if key and other[: len(key)] == key), *(key[:end] for end in range(len(key) - 1, 0, -1))]
        return next((self.marks[one] for one in written if one in self.marks), self.name)


def load_tree(path: str | Path) -> Tree:
    """Read a YAML file and everything it `extends:`. Raises ConfigError with file and line.

    `extends` is a file (relative to the one that says so) or a recipe's name, or a list of them; later ones win, the file itself wins over all.
    Mappings are merged key by key, except where both name a different `kind`: then the other's settings have no meaning and it is replaced.
    """
    return _load(Path(path), ())


def apply_overrides(tree: Tree, overrides: Iterable[str]) -> Tree:
    """A new tree with `key.sub=value` settings applied in order; the value is YAML (`a=`: null; `a={b: 1}` replaces the whole of `a`)."""
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals or not all(name.split(".")) or name.count(".") > DEEPEST:
            raise ConfigError(f"'{text[:80]}' is not a setting: write key=value or key.sub=value.")
        mark = f"setting '{text if len(text) <= SHOWN else f'{text[:SHOWN]}…'}'"
        tree = assign(tree, name, _parse(value, mark)[0], mark)
    return tree


def assign(tree: Tree, name: str, value: Any, mark: str) -> Tree:
    """A new tree with the value at a dotted key, in place of all that was there. mark: where the value comes from, for messages."""
    data = _copy(tree.data)
    key = _set(data, name.split("."), _copy(value), mark)
    return Tree(data, {k: m for k, m in tree.marks.items() if k[: len(key)] != key} | {key: mark}, tree.name)


def validate(model: type[Model], tree: Tree) -> Model:
    """The tree as a typed, checked model. Raises ConfigError for the first thing wrong, with its place and the nearest valid key."""
    try:
        return model.model_validate(tree.data)
    except ValidationError as error:
        found = sorted(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")  # a misspelt key explains a missing one
    message = _explain(model, tree, found[0])
    raise ConfigError(message + (f" ({len(found) - 1} more)" if len(found) > 1 else ""))


def dump_yaml(model: BaseModel | Mapping[str, Any]) -> str:
    """YAML which loads back to an equal model."""
    data = model.model_dump(mode="json", by_alias=True) if isinstance(model, BaseModel) else dict(model)
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=140)


# --- reading -------------------------------------------------------------------------------------------------------------------------------


def _core_schema(cls: type) -> type:
    """Give a PyYAML loader or dumper YAML 1.2's core scalars in place of 1.1's."""
    cls.yaml_implicit_resolvers = {}
    for tag, pattern, first in (
        ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
        (
            "float",
            r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$",
            "-+.0123456789",
        ),
        ("int", r"^[-+]?[0-9]+$|^0x[0-9a-fA-F]+$", "-+0123456789"),
        ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ):
        cls.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))
    return cls


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's core scalars."""


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes what `_Loader` would not read as a string, and repeats values rather than write aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_core_schema(_Loader)
_core_schema(_Dumper)


def _load(path: Path, above: tuple[Path, ...]) -> Tree:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file.") from None
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a name with a zero byte
        raise ConfigError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8 text'}).") from None
    if len(text) > LARGEST:
        raise ConfigError(f"{path}: is larger than {LARGEST / 1e6:g} MB, so no configuration.")
    data, marks = _parse(text, str(path))
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds a {_kind(data)}, and a configuration is a mapping of keys to values.")
    bases = data.pop("extends", None) or []
    merged = Tree({}, {}, str(path))
    for base in bases if isinstance(bases, list) else [bases]:
        merged = _merge(merged, _load(_base_path(path, base, marks[("extends",)], (*above, path.resolve())), (*above, path.resolve())))
    return _merge(merged, Tree(data, marks, str(path)))


def _base_path(path: Path, base: Any, mark: str, above: tuple[Path, ...]) -> Path:
    if not isinstance(base, str):
        raise ConfigError(f"{mark}: 'extends' takes a file or recipe name, or a list of them, not {repr(base)[:SHOWN]}.")
    try:
        beside = [p for p in (path.parent / base, path.parent / f"{base}.yaml") if p.is_file()]
    except (OSError, ValueError) as error:  # too long for a name, or NUL in it
        raise ConfigError(f"{mark}: 'extends' cannot be a file: {first_line(error)[:200]}") from None
    if not beside and base not in registry.names("recipe"):
        raise ConfigError(
            f"{mark}: extends '{base[:SHOWN]}', which is neither a file beside it nor a recipe.{nearest(base, registry.names('recipe'))}"
        )
    found = beside[0] if beside else registry.get("recipe", base).path()
    if found.resolve() in above:
        raise ConfigError(f"{mark}: extends '{base}', which extends this file in turn.")
    return found


def _parse(text: str, name: str) -> tuple[Any, dict[Key, str]]:
    """The data of one YAML document and the marks of its keys. `name` is a file, or what to say instead of one."""
    marks: dict[Key, str] = {}
    count = 0

    def mark(node: yaml.Node) -> str:
        return name if name.startswith("setting ") else f"{name}:{node.start_mark.line + 1}"

    def build(node: yaml.Node, key: Key, above: tuple[int, ...]) -> Any:
        nonlocal count
        count += 1
        if id(node) in above:
            raise ConfigError(f"{mark(node)}: an alias that contains itself.")
        if count > MOST_VALUES:
            raise ConfigError(f"{mark(node)}: more than {MOST_VALUES:,} values, once aliases are written out.")
        if len(above) > DEEPEST:
            raise ConfigError(f"{mark(node)}: more than {DEEPEST} lists and mappings within one another.")
        if not isinstance(node, yaml.ScalarNode) and node.tag not in PLAIN_TAGS:
            raise ConfigError(f"{mark(node)}: a value of type {node.tag}, which no configuration holds.")
        inside = (*above, id(node))
        if isinstance(node, yaml.SequenceNode):
            return [build(child, (*key, i), inside) for i, child in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            return _scalar(loader, node, mark)
        out: dict[str, Any] = {}
        for key_node, value_node in node.value:
            word = key_node.value
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"{mark(key_node)}: a key must be a word.")
            if word == "<<":
                raise ConfigError(f"{mark(key_node)}: the merge key '<<' is not supported; use 'extends'.")
            if word in out:
                raise ConfigError(f"{mark(key_node)}: key '{word}' is given twice (first at {marks[(*key, word)]}).")
            marks[(*key, word)] = mark(key_node)
            out[word] = build(value_node, (*key, word), inside)
        return out

    loader = None
    try:
        loader = _Loader(text)  # which looks for characters that YAML does not know
        node = loader.get_single_node()
        return (None if node is None else build(node, (), ())), marks
    except RecursionError:
        raise ConfigError(f"{name}: brackets or indents within one another, too deep to be read.") from None
    except yaml.MarkedYAMLError as error:
        place = f":{error.problem_mark.line + 1}" if error.problem_mark and not name.startswith("setting ") else ""
        raise ConfigError(f"{name}{place}: not YAML: {error.problem or error.context}.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not YAML: {' '.join(str(error).split())}.") from None
    except ValueError as error:
        raise ConfigError(f"{name}: {error}.") from None
    finally:
        if loader is not None:
            loader.dispose()


def _scalar(loader: yaml.SafeLoader, node: yaml.ScalarNode, mark: Callable[[yaml.Node], str]) -> Any:
    """A word, number, yes or no, or nothing. Raises ConfigError for a tag that says otherwise, or that the text does not fit."""
    try:
        value = loader.construct_object(node)
    except (ValueError, LookupError, AttributeError, OverflowError) as error:
        raise ConfigError(f"{mark(node)}: {node.value[:60]!r} cannot be read as {node.tag.rpartition(':')[2]} ({str(error)[:100]}).") from None
    if not isinstance(value, str | int | float | bool | None):
        raise ConfigError(f"{mark(node)}: a value of type {node.tag}, which no configuration holds.")
    return value


# --- merging -------------------------------------------------------------------------------------------------------------------------------


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _copy(v) for k, v in value.items()}
    return [_copy(v) for v in value] if isinstance(value, list) else value


def _merge(base: Tree, top: Tree) -> Tree:
    data, marks = _copy(base.data), dict(base.marks)

    def lay(under: dict[str, Any], over: dict[str, Any], key: Key) -> None:
        for word, value in over.items():
            here = (*key, word)
            below = under.get(word)
            if isinstance(below, dict) and isinstance(value, dict) and not _other_kind(below, value):
                lay(below, value, here)
            else:
                under[word] = _copy(value)
                for old in [k for k in marks if k[: len(here)] == here]:
                    del marks[old]
                marks.update({k: m for k, m in top.marks.items() if k[: len(here)] == here})

    lay(data, top.data, ())
    return Tree(data, marks, top.name)


def _other_kind(below: dict[str, Any], value: dict[str, Any]) -> bool:
    return "kind" in value and "kind" in below and value["kind"] != below["kind"]


def _set(data: dict[str, Any], words: list[str], value: Any, mark: str) -> Key:
    """Put a value at a dotted key, making mappings on the way; returns the key as it is in the tree (list positions as integers)."""
    here: Any = data
    key: Key = ()
    for position, word in enumerate(words):
        last = position == len(words) - 1
        if isinstance(here, list):
            if not word.isdigit() or int(word) >= len(here):
                raise ConfigError(f"{mark}: '{'.'.join(words[:position])}' is a list of {len(here)}; '{word}' is no position in it (the first is 0).")
            step: str | int = int(word)
        elif isinstance(here, dict):
            step = word
        else:
            raise ConfigError(f"{mark}: '{'.'.join(words[:position])}' is a {_kind(here)} and has no keys below it.")
        key = (*key, step)
        if last:
            here[step] = value
        else:
            if isinstance(step, str) and here.get(step) is None:
                here[step] = {}
            here = here[step]
    return key


def _kind(value: Any) -> str:
    names = {dict: "mapping", list: "list", str: "text", bool: "yes/no value", int: "number", float: "number", type(None): "null"}
    return names.get(type(value), type(value).__name__)


# --- explaining ----------------------------------------------------------------------------------------------------------------------------


def _explain(model: type[BaseModel], tree: Tree, error: Mapping[str, Any]) -> str:
    """One line for one pydantic error."""
    key, tags = _locate(tree.data, error["loc"])
    ctx = error.get("ctx") or {}
    if error["type"] == "union_tag_invalid":  # pydantic blames the whole mapping: point at the discriminator
        key = (*key, ctx["discriminator"].strip("'"))
    dotted = ".".join(map(str, key))
    where = tree.where(key)
    if error["type"] == "extra_forbidden":
        valid = _fields(model, key[:-1], tags)
        return f"{where}: unknown key '{dotted}'.{nearest(str(key[-1]), valid)} Valid here: {', '.join(valid) or 'nothing'}."
    if error["type"] == "missing":
        return f"{where}: '{dotted}' is required and missing."
    if error["type"] in ("union_tag_invalid", "literal_error", "enum"):
        given = ctx.get("tag", error["input"])
        choices = re.findall(r"'([^']*)'", ctx.get("expected_tags", ctx.get("expected", "")))
        return f"{where}: {dotted} cannot be {repr(given)[:SHOWN]}.{nearest(str(given), choices)} Valid here: {', '.join(choices)}."
    said = error["msg"].removeprefix("Value error, ").rstrip(".")
    given = error.get("input")
    shown = "" if isinstance(given, (dict, list)) or error["type"] == "value_error" else f", not {repr(given)[:SHOWN]}"
    return f"{where}: {dotted or 'the configuration'}: {said}{shown}."


def _locate(data: Any, loc: tuple[str | int, ...]) -> tuple[Key, tuple[str, ...]]:
    """Split pydantic's location into the key in the data and the union tags that it mixes in."""
    key: Key = ()
    tags: list[str] = []
    for position, word in enumerate(loc):
        inside = (isinstance(data, dict) and word in data) or (isinstance(data, list) and isinstance(word, int) and word < len(data))
        if inside:
            key, data = (*key, word), data[word]
        elif position == len(loc) - 1 and isinstance(data, dict):
            key = (*key, word)
        else:
            tags.append(str(word))
    return key, tuple(tags)


def _fields(model: type[BaseModel], key: Key, tags: tuple[str, ...]) -> list[str]:
    """The keys that are valid at `key` of a model, as they are written in YAML; of a union only the members that `tags` name."""
    here = [model]
    for word in key:
        if isinstance(word, int):
            continue
        annotations = [f.annotation for m in here for name, f in m.model_fields.items() if (f.alias or name) == word]
        found = [m for a in annotations for m in _models(a)]
        here = [m for m in found if _tagged(m, tags)] or found
    return sorted({f.alias or name for m in here for name, f in m.model_fields.items()})


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Annotated, Union, UnionType, list, tuple, dict):
        for part in get_args(annotation):
            yield from _models(part)


def _tagged(model: type[BaseModel], tags: tuple[str, ...]) -> bool:
    """Whether a union member is the one that pydantic's location names: by its class, or by the value of a Literal field."""
    literals = {str(v) for f in model.model_fields.values() if get_origin(f.annotation) is Literal for v in get_args(f.annotation)}
    return bool(set(tags) & (literals | {model.__name__}))
