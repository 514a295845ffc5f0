"""Weights of eight bits in an ONNX graph: what onnxruntime multiplies out when it reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from melcli.models.int8 import LEAST


def pack(path: Path) -> None:
    """Replace the matrices of a graph by whole numbers and a factor a row (or column, of one that torch wrote transposed)."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(str(path))
    graph = model.graph
    nodes, weights = [], []
    for weight in list(graph.initializer):
        if weight.data_type != TensorProto.FLOAT or len(weight.dims) < 2 or int(np.prod(weight.dims)) < LEAST:
            continue
        values = numpy_helper.to_array(weight)
        whole, scale, axis = min((_packed(values, axis) for axis in (0, 1)), key=lambda found: float(np.abs(_off(values, *found)).max()))
        names = [f"{weight.name}.int8", f"{weight.name}.scale"]
        weights += [numpy_helper.from_array(whole, names[0]), numpy_helper.from_array(scale, names[1])]
        nodes.append(helper.make_node("DequantizeLinear", names, [weight.name], axis=axis))
        graph.initializer.remove(weight)
    graph.initializer.extend(weights)
    own = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *own])
    whole_size = sum(w.ByteSize() for w in graph.initializer)
    data = path.with_name(f"{path.name}.data")
    data.unlink(missing_ok=True)
    onnx.save(model, str(path), save_as_external_data=whole_size > 1_500_000_000, location=data.name)


def _packed(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray, int]:
    others = tuple(i for i in range(values.ndim) if i != axis)
    scale = np.maximum(np.abs(values).max(others), np.finfo(np.float32).tiny * 127) / np.float32(127)
    return np.round(values / _along(scale, axis, values.ndim)).astype(np.int8), scale.astype(np.float32), axis


def _along(scale: np.ndarray, axis: int, dims: int) -> np.ndarray:
    return scale.reshape([-1 if i == axis else 1 for i in range(dims)])


def _off(values: np.ndarray, whole: np.ndarray, scale: np.ndarray, axis: int) -> np.ndarray:
    return whole * _along(scale, axis, values.ndim) - values
