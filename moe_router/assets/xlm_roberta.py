"""Builds the ONNX graph of an `XLMRobertaModel` sentence encoder, with int8 matrix products for a CPU.

The graph is made from plain arrays, so that the conversion needs neither torch nor a tracer. It
computes what `transformers.XLMRobertaModel` does, then mean pooling over the tokens that are not
padding, then L2 normalisation:

    input_ids, attention_mask: (batch, tokens) int64  ->  embedding: (batch, hidden) float32

On a CPU matrix products are dynamically quantised: activations per token, so that a text's embedding does
not depend on the others in its batch (ONNX Runtime's own dynamic quantisation takes one scale for
the whole tensor); weights per output channel to 7 bits, since AVX2's vpmaddubsw saturates on the
eighth. The word embedding is int8 with one scale a row, a quarter of its float size. On a GPU, whose
provider has no such products, everything is float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from moe_router.assets.encoder import Precision

Array = NDArray[Any]
Weights = Mapping[str, Array]

MICROSOFT = "com.microsoft"
MASKED = -10_000.0
"""Added to the attention scores of padding; softmax makes it 0 in float32."""
WEIGHT_RANGE = 63
TINY = 1e-9


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers of a checkpoint's config.json that the graph needs."""

    layers: int
    heads: int
    epsilon: float
    position_offset: int = 1
    """The position of the first token, less 1: XLM-R's padding index, or -1 where positions count from 0."""


def build(
    weights: Weights,
    shape: Shape,
    pooling: Literal["mean", "cls"] = "mean",
    precision: Precision = "int8",
) -> onnx.ModelProto:
    """Makes the graph.

    Args:
        weights: float arrays by the names of `XLMRobertaModel.state_dict()`.
        shape: layers, heads and the layer norms' epsilon.
        pooling: how the tokens' vectors become one.
        precision: of matrix products and the word embedding.

    Returns:
        A model of opset 17 and com.microsoft 1, runnable by ONNX Runtime.
    """
    return _Builder(weights, shape, precision).model(pooling)


class _Builder:
    def __init__(self, weights: Weights, shape: Shape, precision: Precision) -> None:
        self.precision = precision
        self.weights = weights
        self.shape = shape
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.names = 0

    def model(self, pooling: Literal["mean", "cls"]) -> onnx.ModelProto:
        mask = self.node("Cast", ["attention_mask"], to=TensorProto.FLOAT)
        bias = self.attention_bias(mask)
        x = self.embeddings()
        for layer in range(self.shape.layers):
            x = self.layer(x, bias, f"encoder.layer.{layer}.")
        self.pool(x, mask, pooling)
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
            for name in ("input_ids", "attention_mask")
        ]
        hidden = self.weights["embeddings.LayerNorm.weight"].shape[0]
        outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", hidden])]
        graph = helper.make_graph(self.nodes, "xlm_roberta", inputs, outputs, self.initializers)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9)

    def embeddings(self) -> str:
        """Word + position + type, then the layer norm: (batch, tokens, hidden)."""
        word = self.words()
        counted = self.node("CumSum", ["attention_mask", self.constant(np.array(1))])
        counted = self.node("Mul", [counted, "attention_mask"])
        positions = self.node("Add", [counted, self.constant(np.array(self.shape.position_offset))])
        table = self.weights["embeddings.position_embeddings.weight"]
        table = table + self.weights["embeddings.token_type_embeddings.weight"][0]
        position = self.node("Gather", [self.constant(table.astype(np.float32)), positions])
        return self.skip_norm(word, position, "embeddings.LayerNorm.")

    def words(self) -> str:
        table = self.weights["embeddings.word_embeddings.weight"].astype(np.float32)
        if self.precision == "float32":
            return self.node("Gather", [self.constant(table), "input_ids"])
        scale = np.maximum(np.abs(table).max(axis=1, keepdims=True), TINY) / 127
        rows = self.constant(np.rint(table / scale).astype(np.int8))
        word = self.node("Gather", [rows, "input_ids"])
        word = self.node("Cast", [word], to=TensorProto.FLOAT)
        return self.node("Mul", [word, self.node("Gather", [self.constant(scale), "input_ids"])])

    def attention_bias(self, mask: str) -> str:
        """0 for tokens, MASKED for padding: (batch, 1, tokens, tokens)."""
        inverse = self.node("Sub", [self.constant(np.array(1, np.float32)), mask])
        bias = self.node("Mul", [inverse, self.constant(np.array(MASKED, np.float32))])
        row = self.node("Unsqueeze", [bias, self.constant(np.array([1, 2]))])
        size = self.node("Shape", ["input_ids"])
        tokens = self.node("Slice", [size, self.constant(np.array([1])), self.constant(np.array([2]))])
        ones = self.constant(np.array([1]))
        return self.node("Expand", [row, self.node("Concat", [ones, ones, tokens, ones], axis=0)])

    def layer(self, x: str, bias: str, prefix: str) -> str:
        """One post-norm transformer layer."""
        own = prefix + "attention.self."
        weight = np.concatenate([self.weights[own + part + ".weight"] for part in ("query", "key", "value")])
        offset = np.concatenate([self.weights[own + part + ".bias"] for part in ("query", "key", "value")])
        query, key, value = self.split(self.linear(x, weight, offset), 3)
        attended = self.node(
            "MultiHeadAttention", [query, key, value, "", "", bias], MICROSOFT, num_heads=self.shape.heads
        )
        projected = self.named_linear(attended, prefix + "attention.output.dense.")
        x = self.skip_norm(x, projected, prefix + "attention.output.LayerNorm.")
        inner = self.node("Gelu", [self.named_linear(x, prefix + "intermediate.dense.")], MICROSOFT)
        outer = self.named_linear(inner, prefix + "output.dense.")
        return self.skip_norm(x, outer, prefix + "output.LayerNorm.")

    def pool(self, x: str, mask: str, pooling: Literal["mean", "cls"]) -> None:
        """One vector of length 1 a text."""
        if pooling == "cls":
            pooled = self.node("Gather", [x, self.constant(np.array(0))], axis=1)
        else:
            column = self.node("Unsqueeze", [mask, self.constant(np.array([2]))])
            total = self.node(
                "ReduceSum", [self.node("Mul", [x, column]), self.constant(np.array([1]))], keepdims=0
            )
            count = self.node("ReduceSum", [mask, self.constant(np.array([1]))], keepdims=1)
            pooled = self.node("Div", [total, count])
        self.nodes.append(helper.make_node("LpNormalization", [pooled], ["embedding"], axis=-1, p=2))

    def named_linear(self, x: str, prefix: str) -> str:
        return self.linear(x, self.weights[prefix + "weight"], self.weights[prefix + "bias"])

    def linear(self, x: str, weight: Array, bias: Array) -> str:
        """Computes x W^T + b with W (out, in); in int8 per output channel, and x in uint8 per token."""
        if self.precision == "float32":
            product = self.node(
                "MatMul", [x, self.constant(np.ascontiguousarray(weight.astype(np.float32).T))]
            )
            return self.node("Add", [product, self.constant(bias.astype(np.float32))])
        scale = np.maximum(np.abs(weight).max(axis=1), TINY).astype(np.float32) / WEIGHT_RANGE
        quantised = np.ascontiguousarray(np.rint(weight / scale[:, None]).astype(np.int8).T)
        peak = self.node("ReduceMax", [self.node("Abs", [x])], axes=[-1], keepdims=1)
        peak = self.node("Max", [peak, self.constant(np.array(TINY, np.float32))])
        step = self.constant(np.array(1 / 127, np.float32))
        middle = self.constant(np.array(128, np.uint8))
        tokens = self.node("QuantizeLinear", [self.node("Div", [x, peak]), step, middle])
        zeros = self.constant(np.zeros(len(scale), np.int8))
        inputs = [tokens, self.constant(quantised), step, self.constant(scale), middle, zeros]
        product = self.node("MatMulIntegerToFloat", inputs, MICROSOFT)
        scaled = self.node("Mul", [product, peak])
        return self.node("Add", [scaled, self.constant(bias.astype(np.float32))])

    def skip_norm(self, x: str, y: str, prefix: str) -> str:
        gamma, beta = (self.constant(self.weights[prefix + n].astype(np.float32)) for n in ("weight", "bias"))
        return self.node("SkipLayerNormalization", [x, y, gamma, beta], MICROSOFT, epsilon=self.shape.epsilon)

    def split(self, x: str, parts: int) -> list[str]:
        names = [self.name() for _ in range(parts)]
        sizes = self.constant(np.full(parts, self.weights["embeddings.LayerNorm.weight"].shape[0]))
        self.nodes.append(helper.make_node("Split", [x, sizes], names, axis=-1))
        return names

    def constant(self, value: Array) -> str:
        name = self.name()
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, kind: str, inputs: list[str], domain: str = "", **attributes: Any) -> str:
        output = self.name()
        self.nodes.append(helper.make_node(kind, inputs, [output], domain=domain, **attributes))
        return output

    def name(self) -> str:
        self.names += 1
        return f"t{self.names}"
