"""Detectors as ONNX, so that an agent runs them without the room that trained them.

The graph is written node by node with ``onnx.helper``: float32, one input ``deviations`` of shape
(n, n_channels), and the outputs ``ratio`` (n,), ``contributions`` (n, n_channels) and ``health``
(n,) of `ml.anomaly.Assessment`. The same detector gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from ml.anomaly import AnomalyDetector
from ml.artefact import described

OPSET: Final = 17
IR_VERSION: Final = 8
PRODUCER: Final = "heddle"


def anomaly_onnx(
    detector: AnomalyDetector, name: str, version: str, asset_types: Sequence[str]
) -> bytes:
    """Return `detector` as the bytes of an ONNX model.

    What an agent has to know of it stands in its metadata under ``heddle``, so that the one file
    is the whole artefact.
    """
    from onnx import TensorProto, checker, helper, numpy_helper  # only who trains has it

    count = len(detector.channels)
    scaled = (detector.precision / detector.limit).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["deviations", "precision"], ["weighted"]),
            helper.make_node("Mul", ["deviations", "weighted"], ["contributions"]),
            helper.make_node("ReduceSum", ["contributions", "channel_axis"], ["ratio"], keepdims=0),
            # 1 within the limit, its inverse share beyond: no division by nothing.
            helper.make_node("Max", ["ratio", "one"], ["beyond"]),
            helper.make_node("Div", ["one", "beyond"], ["health"]),
        ],
        name,
        [helper.make_tensor_value_info("deviations", TensorProto.FLOAT, ["n", count])],
        [
            helper.make_tensor_value_info("ratio", TensorProto.FLOAT, ["n"]),
            helper.make_tensor_value_info("contributions", TensorProto.FLOAT, ["n", count]),
            helper.make_tensor_value_info("health", TensorProto.FLOAT, ["n"]),
        ],
        [
            numpy_helper.from_array(scaled, "precision"),
            numpy_helper.from_array(np.array([1], np.int64), "channel_axis"),
            numpy_helper.from_array(np.array([1.0], np.float32), "one"),
        ],
    )
    model = helper.make_model(
        graph,
        producer_name=PRODUCER,
        producer_version=version,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, {"heddle": described(detector, name, version, asset_types)})
    checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))
