"""Several processes train one model: how its weights and the optimiser's states are laid out among them.

    ddp     each process holds all of both; gradients are averaged
    zero1   each holds all weights and its share of the optimiser's states (DeepSpeed's ZeRO stage 1, Rajbhandari et al., arXiv 1910.02054)
    fsdp    each holds its share of both and fetches the others' share layer by layer (PyTorch's FSDP2, `fully_shard`)

accelerate does the work. What is here tells it how, and gives the weights back whole where they are decoded with or written.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn

from melcli.errors import ConfigError
from melcli.models import checkpoint
from melcli.models.layers import decoder_layers

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel

    from melcli.models.speech_lm import SpeechLM
    from melcli.recipe import TrainSection


def choose(wanted: str, world: int, device: str) -> tuple[str, str]:
    """How `world` processes share a model, `none` for a single one, and the reason. Raises ConfigError where what DeepSpeed needs is missing."""
    if world == 1:
        return "none", "one process holds everything" + ("" if wanted == "ddp" else f"; train.parallel {wanted} asks for several, see --devices")
    if wanted == "zero1" and importlib.util.find_spec("deepspeed") is None:
        raise ConfigError("train.parallel: zero1 needs the package 'deepspeed': pip install melcli[deepspeed], or take ddp or fsdp")
    if wanted == "zero1" and device == "cpu":
        raise ConfigError("train.parallel: zero1 needs GPUs, of which none was found; ddp and fsdp train on processors, too")
    reasons = {
        "ddp": "each of {} processes holds all weights",
        "zero1": "each of {} processes holds all weights and its share of the optimiser's states",
        "fsdp": "each of {} processes holds its share of weights and optimiser's states",
    }
    return wanted, reasons[wanted].format(world)


def check_layout(mark: Path, kind: str) -> None:
    """Whether a checkpoint, whose mark says how processes shared what is in it, can be resumed from. Raises ConfigError where it cannot."""
    try:
        before = mark.read_text() or "ddp"
    except OSError:
        return
    names = [before.replace("none", "ddp"), kind.replace("none", "ddp")]
    if names[0] != names[1]:
        several = "" if before == "none" or kind != "none" else " and --devices"
        raise ConfigError(f"--resume: {mark.parent} was written with train.parallel={names[0]}, and is resumed with it{several}, not with {names[1]}")


def arguments(kind: str, train: TrainSection, model: SpeechLM, dtype: torch.dtype) -> dict[str, Any]:
    """The fields of TrainingArguments that decide how a model is shared, and with it the number format and where activations are computed anew."""
    low = dtype == torch.bfloat16
    if kind == "fsdp":
        config = {
            "version": 2,
            "transformer_layer_cls_to_wrap": layer_classes(model.llm),
            "reshard_after_forward": True,
            "state_dict_type": "SHARDED_STATE_DICT",
            "activation_checkpointing": train.gradient_checkpointing,
        }
        return {"bf16": low, "fsdp": True, "fsdp_config": config}
    if kind == "zero1":  # which has its own autocast
        return {"activation_checkpointing": train.gradient_checkpointing, "deepspeed": deepspeed_config(train, dtype)}
    return {"activation_checkpointing": train.gradient_checkpointing, "bf16": low}


def layer_classes(llm: PreTrainedModel) -> list[str]:
    """Names of the classes of a language model's layers."""
    return sorted({type(layer).__name__ for layer in decoder_layers(llm) or ()})


def compile_layers(llm: PreTrainedModel) -> None:
    """Compile each layer, for any number of positions: they are alike, so one compilation serves all.

    A whole model would be compiled anew for most shapes of packed batches, which takes longer than it saves.
    """
    for layer in decoder_layers(llm) or ():
        layer.compile(dynamic=True)


def deepspeed_config(train: TrainSection, dtype: torch.dtype) -> dict[str, Any]:
    """ZeRO stage 1 in the number formats that we train in elsewhere: weights in float32, products in `dtype`."""
    return {
        "zero_optimization": {"stage": 1},
        "zero_allow_untested_optimizer": True,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": train.accumulate,
        "gradient_clipping": train.clip,
        "fp16": {"enabled": False},
        "bf16": {"enabled": False},
        "torch_autocast": {"enabled": dtype != torch.float32, "dtype": str(dtype).removeprefix("torch.")},
    }


def use_fsdp(accelerator: Accelerator, plugin_fields: dict[str, Any]) -> None:
    """Have accelerate share the weights on whatever device there is, in the number formats that we train in elsewhere.

    Left to itself it does so on GPUs only and trains with plain DDP on processors, and with bfloat16 it would round the features of the
    speech and the loss.
    """
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
    from torch.distributed.fsdp import MixedPrecisionPolicy

    plugin = getattr(accelerator.state, "fsdp_plugin", None) or FullyShardedDataParallelPlugin(**plugin_fields)
    low = accelerator.mixed_precision == "bf16"
    plugin.mixed_precision_policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if low else None, reduce_dtype=torch.float32 if low else None, cast_forward_inputs=False
    )
    for state in (AcceleratorState, PartialState):
        state._shared_state["distributed_type"] = DistributedType.FSDP
    AcceleratorState._shared_state["fsdp_plugin"] = plugin


def _shards(model: nn.Module) -> list[Any]:
    if not distributed.is_initialized():
        return []
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)]


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Inside, each process holds all weights of a shared model, so that it can decode at its own pace. Entered and left by all processes together.

    The weights are not to be changed inside.
    """
    shards = _shards(model)
    kept = []
    for shard in shards:
        group = shard._get_fsdp_state()._fsdp_param_group
        kept.append(None if group is None else group.post_forward_mesh_info)
        shard.set_reshard_after_forward(False, recurse=False)
        shard.unshard()
    try:
        yield
    finally:
        for shard, mesh in zip(shards, kept, strict=True):
            shard.reshard()
            shard.set_reshard_after_forward(mesh is not None, recurse=False)


def moving_state(model: SpeechLM) -> dict[str, Tensor]:
    """The tensors that training changes, whole, on the processor, in the first process; in the others nothing. To be called by all processes.

    They are the parameters that train, tied ones once, and buffers.
    """
    return _state(model, moving=True)


def _state(model: SpeechLM, moving: bool) -> dict[str, Tensor]:
    left_out = set(model._tied_weights_keys or {})
    if _shards(model):
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=moving)
        state = get_model_state_dict(model, options=options)
        return {name: tensor for name, tensor in state.items() if name not in left_out}
    if not is_first():
        return {}
    if moving:
        left_out |= {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items() if name not in left_out}


def load_full(model: SpeechLM, state: dict[str, Tensor]) -> None:
    """Give a model the weights that the first process has in `state`, as `moving_state` gives them. To be called by all processes."""
    whole_state = dict(state)
    for name, source in (model._tied_weights_keys or {}).items():
        if source in state:
            whole_state[name] = state[source]
    if not distributed.is_initialized():
        model.load_state_dict(whole_state, strict=False)
        return
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    set_model_state_dict(model, whole_state, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=False))


def gathered(model: SpeechLM, origin: Path) -> SpeechLM | None:
    """A model with all its weights in the first process, for that one to write; in the others None. To be called by all processes.

    The same object where each process holds all weights, else a new one on the processor. origin: the training's folder, for errors.
    """
    if not _shards(model):
        return model if is_first() else None
    state = _state(model, moving=False)
    if not is_first():
        return None
    whole = checkpoint.build(copy.deepcopy(model.config), state, origin)
    whole.llm.set_attn_implementation(model.llm.config._attn_implementation)
    whole.generation_config = model.generation_config
    return whole


def is_first() -> bool:
    """Whether this process is the first of those that train, or the only one."""
    return not distributed.is_initialized() or distributed.get_rank() == 0


class Agreement:
    """Whether any process says yes; asked by all at the same place. Over a group of the processors, so that no GPU is waited for."""

    def __init__(self) -> None:
        several = distributed.is_initialized() and distributed.get_world_size() > 1
        self.group = distributed.new_group(backend="gloo") if several else None

    def __call__(self, yes: bool) -> bool:
        if self.group is None:
            return yes
        said = torch.tensor(float(yes))
        distributed.all_reduce(said, distributed.ReduceOp.MAX, group=self.group)
        return bool(said)
