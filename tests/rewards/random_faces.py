"""Networks of the form of YuNet and SFace that OpenCV itself runs: a detector by hand and random features.

The detector finds a "face" wherever a cell of 8 × 8 pixels is red: 48 pixels wide, with its eyes, nose and mouth at
fixed places around the cell's corner.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STRIDES = (8, 16, 32)
SIDE = 48  # pixels of a face
LANDMARKS = (-1.5, -1.0, 1.5, -1.0, 0.0, 0.2, -1.2, 1.5, 1.2, 1.5)  # in cells
HEADS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}


class Graph:
    """Nodes and their constants."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Any, kind: Any = np.float32) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def add(self, operation: str, *inputs: str, to: str = "", **more: Any) -> str:
        output = to or f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, list(inputs), [output], **more))
        return output

    def save(self, file: Path, given: list[Any], made: list[Any]) -> Path:
        graph = helper.make_graph(self.nodes, "network", given, made, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
        model.ir_version = 8
        onnx.checker.check_model(model)
        onnx.save(model, str(file))
        return file


def detector(file: Path) -> Path:
    """YuNet's twelve outputs: confidence twice, box and landmarks of each cell, at three strides."""
    graph = Graph()
    for stride in STRIDES:
        cell = {"kernel_shape": [stride, stride], "strides": [stride, stride]}
        red = np.zeros((1, 3, stride, stride))  # of blue, green and red, the mean of red less that of green
        red[0, 2], red[0, 1] = 1 / (255 * stride**2), -1 / (255 * stride**2)
        raw = graph.add("Conv", "input", graph.constant(red * (stride == 8)), **cell)
        seen = graph.add("Clip", raw, graph.constant(0), graph.constant(1))
        fixed = {"bbox": (0, 0, np.log(SIDE / stride), np.log(SIDE / stride)), "kps": LANDMARKS}
        for head, channels in HEADS.items():
            source = seen
            if head in fixed:
                nothing = graph.constant(np.zeros((channels, 3, stride, stride)))
                source = graph.add("Conv", "input", nothing, graph.constant(fixed[head]), **cell)
            last = graph.add("Transpose", source, perm=[0, 2, 3, 1])
            graph.add("Reshape", last, graph.constant([1, -1, channels], np.int64), to=f"{head}_{stride}")
    given = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "height", "width"])]
    made = [
        helper.make_tensor_value_info(f"{head}_{stride}", TensorProto.FLOAT, [1, None, channels])
        for head, channels in HEADS.items()
        for stride in STRIDES
    ]
    return graph.save(file, given, made)


def recognizer(file: Path) -> Path:
    """SFace's form: 112 × 112 pixels to 128 numbers."""
    graph, random = Graph(), np.random.default_rng(0)
    kernel = random.normal(size=(16, 3, 16, 16))
    kernel -= kernel.mean(axis=(1, 2, 3), keepdims=True)  # brightness alone is nobody
    found = graph.add("Conv", "data", graph.constant(kernel / 255), kernel_shape=[16, 16], strides=[16, 16])
    flat = graph.add("Flatten", found)
    graph.add("Gemm", flat, graph.constant(random.normal(size=(784, 128)) / 28), to="fc1")
    given = [helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, 112, 112])]
    return graph.save(file, given, [helper.make_tensor_value_info("fc1", TensorProto.FLOAT, [1, 128])])
