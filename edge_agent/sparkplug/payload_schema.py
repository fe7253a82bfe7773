"""The Protocol Buffers schema of a Sparkplug B payload, built without a compiler.

Field numbers and types are those of the specification, 6.4 (proto2, package
``org.eclipse.tahu.protobuf``); extensions are not declared, so that they are read as unknown
fields and ignored.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

PACKAGE: Final = "org.eclipse.tahu.protobuf"

# (name, number, type); a type of ours is given by its path. "repeated" and "oneof" are prefixes.
_VALUES: Final = (
    ("int_value", "uint32"),
    ("long_value", "uint64"),
    ("float_value", "float"),
    ("double_value", "double"),
    ("boolean_value", "bool"),
    ("string_value", "string"),
)
_MESSAGES: Final[dict[str, tuple[tuple[str, int, str], ...]]] = {
    "Payload": (
        ("timestamp", 1, "uint64"),
        ("metrics", 2, "repeated Payload.Metric"),
        ("seq", 3, "uint64"),
        ("uuid", 4, "string"),
        ("body", 5, "bytes"),
    ),
    "Payload.Template": (
        ("version", 1, "string"),
        ("metrics", 2, "repeated Payload.Metric"),
        ("parameters", 3, "repeated Payload.Template.Parameter"),
        ("template_ref", 4, "string"),
        ("is_definition", 5, "bool"),
    ),
    "Payload.Template.Parameter": (
        ("name", 1, "string"),
        ("type", 2, "uint32"),
        *((name, 3 + n, f"oneof {kind}") for n, (name, kind) in enumerate(_VALUES)),
    ),
    "Payload.DataSet": (
        ("num_of_columns", 1, "uint64"),
        ("columns", 2, "repeated string"),
        ("types", 3, "repeated uint32"),
        ("rows", 4, "repeated Payload.DataSet.Row"),
    ),
    "Payload.DataSet.DataSetValue": tuple(
        (name, 1 + n, f"oneof {kind}") for n, (name, kind) in enumerate(_VALUES)
    ),
    "Payload.DataSet.Row": (("elements", 1, "repeated Payload.DataSet.DataSetValue"),),
    "Payload.PropertyValue": (
        ("type", 1, "uint32"),
        ("is_null", 2, "bool"),
        *((name, 3 + n, f"oneof {kind}") for n, (name, kind) in enumerate(_VALUES)),
        ("propertyset_value", 9, "oneof Payload.PropertySet"),
        ("propertysets_value", 10, "oneof Payload.PropertySetList"),
    ),
    "Payload.PropertySet": (
        ("keys", 1, "repeated string"),
        ("values", 2, "repeated Payload.PropertyValue"),
    ),
    "Payload.PropertySetList": (("propertyset", 1, "repeated Payload.PropertySet"),),
    "Payload.MetaData": (
        ("is_multi_part", 1, "bool"),
        ("content_type", 2, "string"),
        ("size", 3, "uint64"),
        ("seq", 4, "uint64"),
        ("file_name", 5, "string"),
        ("file_type", 6, "string"),
        ("md5", 7, "string"),
        ("description", 8, "string"),
    ),
    "Payload.Metric": (
        ("name", 1, "string"),
        ("alias", 2, "uint64"),
        ("timestamp", 3, "uint64"),
        ("datatype", 4, "uint32"),
        ("is_historical", 5, "bool"),
        ("is_transient", 6, "bool"),
        ("is_null", 7, "bool"),
        ("metadata", 8, "Payload.MetaData"),
        ("properties", 9, "Payload.PropertySet"),
        *((name, 10 + n, f"oneof {kind}") for n, (name, kind) in enumerate(_VALUES)),
        ("bytes_value", 16, "oneof bytes"),
        ("dataset_value", 17, "oneof Payload.DataSet"),
        ("template_value", 18, "oneof Payload.Template"),
    ),
}


@cache
def payload_class() -> Any:
    """Return the class of Sparkplug B payloads; protobuf is imported by the first call."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(
        name="heddle/sparkplug_b.proto", package=PACKAGE, syntax="proto2"
    )
    made: dict[str, Any] = {}
    for path, fields in _MESSAGES.items():
        outer, _, name = path.rpartition(".")
        message = made[outer].nested_type.add() if outer else file.message_type.add()
        message.name = name
        made[path] = message
        for field_name, number, kind in fields:
            _add_field(message, field_name, number, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.Payload"))


def _add_field(message: Any, name: str, number: int, declared: str) -> None:
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto

    prefix, _, kind = declared.rpartition(" ")
    field = message.field.add(name=name, number=number)
    field.label = (
        FieldDescriptorProto.LABEL_REPEATED
        if prefix == "repeated"
        else FieldDescriptorProto.LABEL_OPTIONAL
    )
    if kind.startswith("Payload"):
        field.type = FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{kind}"
    else:
        field.type = getattr(FieldDescriptorProto, f"TYPE_{kind.upper()}")
    if prefix == "oneof":
        if not message.oneof_decl:
            message.oneof_decl.add(name="value")
        field.oneof_index = 0
