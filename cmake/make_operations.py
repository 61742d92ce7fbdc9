"""Makes the C++ header of the table of operations: ``make_operations.py operations.py OUT.h``.

CMake calls it; it needs Python alone. The header holds data for native/executor/operation.h.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

_VIEWS = ("a", "b")  # how native/executor/program.h names the inputs


def main(table: Path, out: Path) -> None:
    text = header(_load(table))
    out.parent.mkdir(parents=True, exist_ok=True)
    if not out.exists() or out.read_text() != text:  # an old date spares a build
        out.write_text(text)


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("operations", path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules["operations"] = module  # dataclasses look there
    sys.dont_write_bytecode = True
    spec.loader.exec_module(module)
    return module


def header(table: ModuleType) -> str:
    operations = table.OPERATIONS
    types: dict[str, str] = {}
    for operation in operations:
        assert len(operation.inputs) <= len(_VIEWS) and len(operation.outputs) <= 1, operation
        for attribute in operation.attributes:
            held = table.ATTRIBUTE_TYPES[attribute.type]
            assert types.setdefault(attribute.name, held) == held, attribute
    lines = [
        "// Made by cmake/make_operations.py from src/bandweave/programs/operations.py.",
        "#define BW_OPERATIONS(X) \\",
        *(f"    X({one.kind}) \\" for one in operations[:-1]),
        f"    X({operations[-1].kind})",
        "",
        "namespace bw {",
        "",
        "enum class OpKind : int {",
        *(f"    {one.kind}," for one in operations),
        "};",
        f"constexpr int kKinds = {len(operations)};",
        f"constexpr uint32_t kOperationsDigest = {table.OPERATIONS_DIGEST}u;",
        "",
        "// Of all operations, each of which uses its own.",
        "struct Attributes {",
        *(f"    {held} {name}{{}};" for name, held in types.items()),
        "};",
        "",
        "// Calls visit(name, type, value) for each attribute of a kind, in the table's order.",
        "template <typename A, typename Visit>",
        "void visit_attributes(OpKind kind, A& attributes, Visit&& visit) {",
        "    switch (kind) {",
    ]
    for one in operations:
        lines.append(f"        case OpKind::{one.kind}:")
        lines += [
            f'            visit("{a.name}", AttributeType::{a.type}, attributes.{a.name});'
            for a in one.attributes
        ]
        lines.append("            return;")
    lines += ["    }", "}", "", "constexpr OperationInfo kOperations[] = {"]
    lines += [_info(one) for one in operations]
    return "\n".join([*lines, "};", "", "}  // namespace bw", ""])


def _info(one) -> str:
    views = (*one.inputs, *one.outputs)
    attributes = {attribute.name for attribute in one.attributes}

    def operand(view) -> str:
        grid, optional = (str(value).lower() for value in (view.dtype == "grid", view.optional))
        return f"{{Rows::{view.rows}, {grid}, {optional}, {_width(one, view, attributes)}}}"

    absent = "{Rows::none}"
    inputs = [operand(view) for view in one.inputs] + [absent] * (len(_VIEWS) - len(one.inputs))
    output = operand(one.outputs[0]) if one.outputs else absent
    vector = "{}"
    if one.vector:
        factor = _factor(one, one.vector, attributes)
        vector = f"{{true, {str(one.optional_vector).lower()}, {factor}}}"
    assert all(view.name for view in views)
    shared = f"Shared::{one.shared}" if one.shared not in attributes else "Shared::pieces"
    pieces = f"&Attributes::{one.shared}" if one.shared in attributes else "nullptr"
    return (
        f'    {{"{one.kind}", {{{", ".join(inputs)}, {output}}}, {str(one.weight).lower()}, '
        f"{vector}, {shared}, {pieces}, Item::{one.item}}},"
    )


def _width(one, view, attributes: set[str]) -> str:
    assert len(view.width) <= 2, view
    factors = [_factor(one, name, attributes) for name in view.width]
    return "{" + ", ".join(factors) + "}"


def _factor(one, name: str, attributes: set[str]) -> str:
    """What a number is taken from: an attribute, the model's width, or a view."""
    if name in attributes:
        return f"{{&Attributes::{name}}}"
    if name == "hidden_size":
        return "{nullptr, true}"
    views = [view.name for view in one.inputs]
    if name in views:
        return f"{{nullptr, false, {views.index(name)}}}"
    (output,) = one.outputs
    assert name == output.name, (one.kind, name)
    return f"{{nullptr, false, {len(_VIEWS)}}}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
