"""Small repairs of ONNX models that OpenCV 4 reads and stricter runtimes refuse. Each changes the model in place."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto


def keep_inputs(model: "ModelProto", names: set[str]) -> None:
    """Only these graph inputs stay.

    Old exporters listed every weight as an input too; a runtime that takes the list at its word then asks for them.
    """
    kept = [value for value in model.graph.input if value.name in names]
    del model.graph.input[:]
    model.graph.input.extend(kept)


def free_sizes(model: "ModelProto") -> None:
    """Forget declared shapes, of a fully convolutional network that was exported for one image size."""
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.ClearField("shape")


def plain_scalar_scales(model: "ModelProto") -> None:
    """Remove `block_size` where the scale is a vector of one number.

    One block that spans the whole bias is ordinary per-tensor quantization; onnxruntime wants it said that way.
    """
    scalars = {tensor.name for tensor in model.graph.initializer if list(tensor.dims) == [1]}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[1] in scalars:
            kept = [attribute for attribute in node.attribute if attribute.name != "block_size"]
            del node.attribute[:]
            node.attribute.extend(kept)


def unrolled_prelu(model: "ModelProto") -> None:
    """Every PRelu becomes max(x, 0) + slope * min(x, 0): the same numbers.

    onnxruntime's PRelu takes one number at a time, and half of SFace's whole time; these four it does in vectors.
    """
    from onnx.helper import make_node

    nodes = []
    for node in model.graph.node:
        if node.op_type != "PRelu":
            nodes.append(node)
            continue
        (x, slope), out = node.input, node.output[0]
        above, below, scaled = f"{out} above 0", f"{out} below 0", f"{out} scaled"
        nodes.append(make_node("Relu", [x], [above]))
        nodes.append(make_node("Sub", [x, above], [below]))
        nodes.append(make_node("Mul", [below, slope], [scaled]))
        nodes.append(make_node("Add", [above, scaled], [out]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
