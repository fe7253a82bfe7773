"""Resolvers called as what they are, where the framework has nothing to convert for them.

The framework walks the types of all arguments at each call, also of those that need no conversion:
numbers, texts, enums and whatever else a scalar has read. A call that was given nothing but such
arguments goes to the method itself; every other one goes the framework's way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from graphql import (
    GraphQLField,
    GraphQLFieldResolver,
    GraphQLSchema,
    get_nullable_type,
    is_leaf_type,
    is_object_type,
)
from graphql.execution import MiddlewareManager
from strawberry.schema.schema_converter import GraphQLCoreConverter
from strawberry.types import Info
from strawberry.types.base import StrawberryMaybe


class DirectResolvers(MiddlewareManager):
    """The resolvers of one schema; takes a middleware's place in graphql-core's executor."""

    def __init__(self, schema: GraphQLSchema) -> None:
        super().__init__()
        self._direct = dict(_direct_resolvers(schema))

    def get_field_resolver(self, field_resolver: GraphQLFieldResolver) -> GraphQLFieldResolver:
        """Return what answers as `field_resolver` does, with less ado."""
        return self._direct.get(field_resolver, field_resolver)


def _direct_resolvers(
    schema: GraphQLSchema,
) -> Iterator[tuple[GraphQLFieldResolver, GraphQLFieldResolver]]:
    for type_ in schema.type_map.values():
        if not is_object_type(type_):
            continue
        for field in type_.fields.values():
            direct = None if field.resolve is None else _direct_resolver(schema, field)
            if direct is not None:
                assert field.resolve is not None, "it has one to stand in for"
                yield field.resolve, direct


def _direct_resolver(schema: GraphQLSchema, field: GraphQLField) -> Callable[..., Any] | None:
    """Return the resolver of `field`; None where the framework does more than convert arguments."""
    definition = (field.extensions or {}).get(GraphQLCoreConverter.DEFINITION_BACKREF)
    if definition is None or definition.base_resolver is None or definition.extensions:
        return None
    resolver = definition.base_resolver
    if resolver.root_parameter or resolver.parent_parameter or resolver.self_parameter is None:
        return None
    config = schema._strawberry_schema.config  # type: ignore[attr-defined]
    arguments = {
        config.name_converter.from_argument(argument): argument for argument in definition.arguments
    }
    if any(isinstance(argument.type, StrawberryMaybe) for argument in arguments.values()):
        return None
    names = {name: argument.python_name for name, argument in arguments.items()}
    converted = {
        name for name in names if not is_leaf_type(get_nullable_type(field.args[name].type))
    }
    told = resolver.info_parameter.name if resolver.info_parameter else None
    method, otherwise = resolver.wrapped_func, field.resolve
    assert otherwise is not None, "asked for a field that has one"

    def resolve(source: Any, info: Any, **given: Any) -> Any:
        named = {}
        for name, value in given.items():
            if value is not None and name in converted:
                return otherwise(source, info, **given)
            named[names[name]] = value
        if told is not None:
            named[told] = Info(_raw_info=info, _field=definition)
        return method(source, **named)

    return resolve
