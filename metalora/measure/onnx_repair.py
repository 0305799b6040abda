"""Small repairs of ONNX files, on their bytes: model files that OpenCV 4 reads and stricter runtimes refuse.

An ONNX file is a protobuf message, and protobuf's wire format is simple enough to drop a field without knowing the
rest: a message is a row of fields, each a key (number * 8 + wire type) followed by its value. That saves depending on
the `onnx` package for three edits; everything not named here is copied byte for byte. The files' checksums are checked
before they come here, so a malformed one is our own mistake.
"""

from collections.abc import Callable, Iterator

# Field numbers from onnx.proto3.
MODEL_GRAPH = 7
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT, GRAPH_VALUE_INFO = 1, 5, 11, 12, 13
NODE_INPUT, NODE_OUTPUT, NODE_NAME, NODE_OP_TYPE, NODE_ATTRIBUTE = 1, 2, 3, 4, 5
ATTRIBUTE_NAME = 1
TENSOR_DIMS, TENSOR_NAME = 1, 8
VALUE_NAME, VALUE_TYPE = 1, 2
FLOAT_OF_ANY_SHAPE = b"\x0a\x02\x08\x01"  # TypeProto { tensor_type { elem_type: FLOAT } }, no shape

VARINT, EIGHT_BYTES, COUNTED, FOUR_BYTES = 0, 1, 2, 5  # protobuf's wire types

# (number, value) of a field of the graph -> its new value; several to replace it with them, None to drop it
Edit = Callable[[int, bytes], bytes | list[bytes] | None]


def keep_inputs(model: bytes, names: set[str]) -> bytes:
    """The model with only these graph inputs.

    Old exporters listed every weight as an input too; a runtime that takes the list at its word then asks for them.
    """

    def edit(number: int, value: bytes) -> bytes | None:
        return None if number == GRAPH_INPUT and text(value, VALUE_NAME) not in names else value

    return with_edited_graph(model, edit)


def free_sizes(model: bytes) -> bytes:
    """The model without declared shapes, for a fully convolutional network that was exported for one image size."""

    def edit(number: int, value: bytes) -> bytes | None:
        if number == GRAPH_VALUE_INFO:
            return None
        if number in (GRAPH_INPUT, GRAPH_OUTPUT):
            name = text(value, VALUE_NAME).encode()
            return counted(VALUE_NAME, name) + counted(VALUE_TYPE, FLOAT_OF_ANY_SHAPE)
        return value

    return with_edited_graph(model, edit)


def plain_scalar_scales(model: bytes) -> bytes:
    """The model without `block_size` where the scale is a vector of one number.

    One block that spans the whole bias is ordinary per-tensor quantization; onnxruntime wants it said that way.
    """
    scalars = {text(tensor, TENSOR_NAME) for tensor in in_graph(model, GRAPH_INITIALIZER) if dims(tensor) == [1]}

    def edit(number: int, value: bytes) -> bytes | None:
        if number != GRAPH_NODE or text(value, NODE_OP_TYPE) != "DequantizeLinear":
            return value
        scale = inside(value, NODE_INPUT)[1].decode()
        return without_attribute(value, "block_size") if scale in scalars else value

    return with_edited_graph(model, edit)


def unrolled_prelu(model: bytes) -> bytes:
    """The model with every PRelu as max(x, 0) + slope * min(x, 0): the same numbers.

    onnxruntime's PRelu takes one number at a time, and half of SFace's whole time; these four it does in vectors.
    """

    def edit(number: int, value: bytes) -> bytes | list[bytes] | None:
        if number != GRAPH_NODE or text(value, NODE_OP_TYPE) != "PRelu":
            return value
        (x, slope), out = (name.decode() for name in inside(value, NODE_INPUT)), text(value, NODE_OUTPUT)
        above, below, scaled = f"{out} above 0", f"{out} below 0", f"{out} scaled"
        return [
            node("Relu", [x], above),
            node("Sub", [x, above], below),
            node("Mul", [below, slope], scaled),
            node("Add", [above, scaled], out),
        ]

    return with_edited_graph(model, edit)


def node(kind: str, inputs: list[str], output: str) -> bytes:
    """An operation without attributes, named after its output."""
    names = b"".join(counted(NODE_INPUT, name.encode()) for name in inputs) + counted(NODE_OUTPUT, output.encode())
    return names + counted(NODE_NAME, output.encode()) + counted(NODE_OP_TYPE, kind.encode())


def input_names(model: bytes) -> list[str]:
    """The names of the graph's inputs."""
    return [text(value, VALUE_NAME) for value in in_graph(model, GRAPH_INPUT)]


def with_edited_graph(model: bytes, edit: Edit) -> bytes:
    """The model with every message of its graph passed through `edit`."""
    pieces = []
    for number, value, raw in fields(model):
        if number == MODEL_GRAPH and isinstance(value, bytes):
            raw = counted(MODEL_GRAPH, edited(value, edit))
        pieces.append(raw)
    return b"".join(pieces)


def edited(graph: bytes, edit: Edit) -> bytes:
    """The graph with each of its messages as `edit` returns it."""
    pieces = []
    for number, value, raw in fields(graph):
        new = edit(number, value) if isinstance(value, bytes) else value
        if new is value:
            pieces.append(raw)
        elif isinstance(new, bytes):
            pieces.append(counted(number, new))
        elif isinstance(new, list):
            pieces += [counted(number, one) for one in new]
    return b"".join(pieces)


def without_attribute(node: bytes, name: str) -> bytes:
    """The node without the attribute of this name."""
    return b"".join(
        raw
        for number, value, raw in fields(node)
        if not (number == NODE_ATTRIBUTE and isinstance(value, bytes) and text(value, ATTRIBUTE_NAME) == name)
    )


def in_graph(model: bytes, wanted: int) -> list[bytes]:
    """The graph's messages of one kind."""
    return [value for graph in inside(model, MODEL_GRAPH) for value in inside(graph, wanted)]


def inside(message: bytes, wanted: int) -> list[bytes]:
    """The values of all counted fields with this number: messages, texts and bytes."""
    return [value for number, value, _ in fields(message) if number == wanted and isinstance(value, bytes)]


def text(message: bytes, wanted: int) -> str:
    """The first text field with this number."""
    return next((value.decode() for value in inside(message, wanted)), "")


def dims(tensor: bytes) -> list[int]:
    """A tensor's shape; protobuf may write the sizes one by one or packed together."""
    sizes: list[int] = []
    for number, value, _ in fields(tensor):
        if number == TENSOR_DIMS:
            sizes += [value] if isinstance(value, int) else varints(value)
    return sizes


def fields(message: bytes) -> Iterator[tuple[int, int | bytes, bytes]]:
    """(number, value, the field's own bytes) of each field. Joining those bytes gives the message back."""
    position = 0
    while position < len(message):
        start = position
        key, position = varint(message, position)
        value: int | bytes
        if key & 7 == VARINT:
            value, position = varint(message, position)
        else:
            fixed = {EIGHT_BYTES: 8, FOUR_BYTES: 4}
            assert key & 7 in (COUNTED, *fixed), f"wire type {key & 7} at byte {start}: not an ONNX file"
            length, position = varint(message, position) if key & 7 == COUNTED else (fixed[key & 7], position)
            value, position = message[position : position + length], position + length
        assert position <= len(message), "a field runs past the end of its message"
        yield key >> 3, value, message[start:position]


def varints(packed: bytes) -> list[int]:
    """All the numbers of a packed field."""
    numbers, position = [], 0
    while position < len(packed):
        number, position = varint(packed, position)
        numbers.append(number)
    return numbers


def varint(message: bytes, position: int) -> tuple[int, int]:
    """(number, position after it): seven bits a byte, low ones first; the top bit says that more follow."""
    number = shift = 0
    while True:
        byte = message[position]
        number |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return number, position


def counted(number: int, value: bytes) -> bytes:
    """A field that holds its own length."""
    return as_varint(number << 3 | COUNTED) + as_varint(len(value)) + value


def as_varint(number: int) -> bytes:
    """The opposite of `varint`."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])
