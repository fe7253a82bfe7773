"""Completion of plain objects by generated functions, in place of the executor's walk.

Most of a query's time goes into completing fields that only read an attribute. For a selection
whose fields all do, or call a resolver that is synchronous and takes nothing, one function is
generated that makes an object's answer at once: attribute reads, type checks, a dict. Whatever it
meets that is not plain (a null where none may be, a value of another class, an error) makes it give
up, and the executor completes that value from the beginning, in the standard's way with the
standard's errors: the two cannot differ in an answer, only in its cost.

Generated code holds names of the schema's Python attributes, and response keys that were checked to
be GraphQL names; nothing else of a request, and no literal of it, gets there.
"""

from __future__ import annotations

import asyncio
import inspect
import keyword
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, Final, cast

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLEnumType,
    GraphQLError,
    GraphQLField,
    GraphQLLeafType,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    Undefined,
    default_field_resolver,
    default_type_resolver,
    get_variable_values,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
    is_object_type,
)
from graphql.execution.collect_fields import FragmentDetails
from graphql.execution.executor_throwing_on_incremental import ExecutorThrowingOnIncremental
from strawberry.schema.schema_converter import GraphQLCoreConverter
from strawberry.types import Info

from api.graphql.direct import DirectResolvers
from api.graphql.fields import LOADS, ROW, ROWS, Many, Row
from api.graphql.kept_text import KeptTexts
from api.graphql.relay import Connection, Page

COMPILE_AFTER_HITS: Final = 3
SHAPES_MAX: Final = 100
"""Selections of one document that functions are generated for; the rest is walked as ever."""

NESTING_MAX: Final = 12

_NOTHING: Final = cast("Any", get_variable_values(GraphQLSchema(), (), {}))

_NAME: Final = re.compile(r"[_A-Za-z][_0-9A-Za-z]*")

Convert = Callable[[Any], Any]
Complete = Callable[[Any, "_Run"], Any]


class NotPlain(Exception):
    """A value that generated code does not deal with."""


class _Run:
    """One completion under way: what its objects still wait for.

    Each entry of `pending` is an answer's dict, the key to fill, the coroutine that brings the
    value, what completes that, and whether it may be null. `batches` are answers and the objects
    that they tell, by what brings one value for each of them at once.
    """

    __slots__ = ("_executor", "_infos", "_path", "batches", "pending")

    def __init__(self, executor: CompiledExecutor, path: Any) -> None:
        self._executor = executor
        self._path = path
        self.batches: dict[_Batch, list[tuple[dict[str, Any], Any]]] = {}
        self._infos: dict[int, Info[Any, Any]] = {}
        self.pending: list[tuple[dict[str, Any], str, Any, Complete, bool]] = []

    def info(
        self, type_: GraphQLObjectType, field: GraphQLField, node: FieldNode
    ) -> Info[Any, Any]:
        """Return what the resolver behind `node` is told; the same for each of the objects."""
        found = self._infos.get(id(node))
        if found is None:
            raw = self._executor.build_resolve_info(field, [node], type_, self._path)
            definition = field.extensions[GraphQLCoreConverter.DEFINITION_BACKREF]
            found = self._infos[id(node)] = Info(_raw_info=raw, _field=definition)
        return found

    async def settle(self) -> None:
        """Fill in what is waited for, and what that waits for in turn."""
        while self.pending or self.batches:
            batches, self.batches = self.batches, {}
            for batch, entries in batches.items():
                await batch.fill(entries, self._executor.context_value, self)
            pending, self.pending = self.pending, []
            values = await _run_side_by_side([entry[2] for entry in pending])
            for (answer, key, _, complete, nullable), value in zip(pending, values, strict=True):
                answer[key] = None if value is None and nullable else complete(value, self)

    def drop(self) -> None:
        """Close what was never started."""
        for entry in self.pending:
            entry[2].close()


class _Batch:
    """A field whose values are loaded for many objects at once."""

    __slots__ = ("_complete", "_key", "_load", "_nullable")

    def __init__(
        self,
        key: str,
        load: Callable[[Any, list[Any]], Awaitable[list[Any]]],
        complete: Complete,
        nullable: bool,
    ) -> None:
        self._key = key
        self._load = load
        self._complete = complete
        self._nullable = nullable

    async def fill(
        self, entries: list[tuple[dict[str, Any], Any]], context: Any, run: _Run
    ) -> None:
        """Put the field's value into the answer of each of `entries`."""
        values = await self._load(context, [entry[1] for entry in entries])
        key, complete, nullable = self._key, self._complete, self._nullable
        for (answer, _), value in zip(entries, values, strict=True):
            answer[key] = None if value is None and nullable else complete(value, run)


async def _run_side_by_side(coroutines: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Return what `coroutines` return, run step by step in this task.

    For those that await futures of loaders: a task for each would cost more than they do.
    """
    values: list[Any] = [None] * len(coroutines)
    waiting: list[tuple[int, Any]] = []
    try:
        for n, coroutine in enumerate(coroutines):
            try:
                waiting.append((n, coroutine.send(None)))
            except StopIteration as done:
                values[n] = done.value
        while waiting:
            again: list[tuple[int, Any]] = []
            for n, future in waiting:
                if future is None:
                    await asyncio.sleep(0)
                else:
                    future._asyncio_future_blocking = False  # as a task says that it waits
                    if not future.done():
                        await asyncio.wait((future,))
                try:
                    again.append((n, coroutines[n].send(None)))
                except StopIteration as done:
                    values[n] = done.value
            waiting = again
    except BaseException:
        for coroutine in coroutines:
            coroutine.close()
        raise
    return values


class Plan:
    """The generated functions of one document; made when a field is first completed.

    Parameters
    ----------
    texts : keeps the text of rows; None: nobody does
    resolvers : those of the schema that can be called as what they are
    """

    def __init__(
        self,
        schema: GraphQLSchema,
        document: DocumentNode,
        texts: KeptTexts | None = None,
        resolvers: DirectResolvers | None = None,
    ) -> None:
        self._schema = schema
        self._texts = texts
        self.resolvers = resolvers
        self.fragment_definitions = {
            node.name.value: node
            for node in document.definitions
            if isinstance(node, FragmentDefinitionNode)
        }
        self.fragment_details = {
            name: FragmentDetails(node) for name, node in self.fragment_definitions.items()
        }
        self._made: dict[tuple[int, int], Complete | None] = {}

    def completion(self, type_: GraphQLOutputType, node: FieldNode) -> Complete | None:
        """Return what completes the value of the field `node`, of the type `type_`; or None.

        Nodes and types live as long as the plan does, so their ids name them.
        """
        key = id(node), id(type_)
        try:
            return self._made[key]
        except KeyError:
            made = None
            if len(self._made) < SHAPES_MAX:
                try:
                    generator = _Generator(self._schema, self.fragment_definitions, self._texts)
                    made = generator.completion(type_, node, 0)
                except NotPlain:
                    made = None
            self._made[key] = made
            return made


class CompiledExecutor(ExecutorThrowingOnIncremental):
    """graphql-core's executor, which takes the generated function where there is one."""

    def __init__(self, *arguments: Any, plan: Plan, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.plan = plan

    @classmethod
    def of(
        cls,
        plan: Plan,
        schema: GraphQLSchema,
        definition: OperationDefinitionNode,
        context: Any,
        variables: dict[str, Any] | None,
    ) -> CompiledExecutor | list[GraphQLError]:
        """Return what `build` does for an operation of the plan's document, known to be valid."""
        declared = definition.variable_definitions or ()
        values = get_variable_values(schema, declared, variables or {}) if declared else _NOTHING
        if isinstance(values, list):
            return values
        return cls(
            schema,
            plan.fragment_definitions,
            plan.fragment_details,
            None,
            context,
            definition,
            values,
            default_field_resolver,
            default_type_resolver,
            default_field_resolver,
            middleware_manager=plan.resolvers,
            plan=plan,
        )

    def complete_list_value(
        self,
        return_type: Any,
        field_details_list: Any,
        info: Any,
        path: Any,
        result: Any,
        position_context: Any,
    ) -> Any:
        """Complete a list."""
        if len(field_details_list) == 1 and result.__class__ is list and path.key.__class__ is str:
            complete = self.plan.completion(return_type, field_details_list[0].node)
            if complete is not None:
                return self._completed(
                    complete,
                    super().complete_list_value,
                    (return_type, field_details_list, info, path, result, position_context),
                )
        return super().complete_list_value(
            return_type, field_details_list, info, path, result, position_context
        )

    def complete_object_value(
        self,
        return_type: Any,
        field_details_list: Any,
        info: Any,
        path: Any,
        result: Any,
        position_context: Any,
    ) -> Any:
        """Complete an object."""
        if len(field_details_list) == 1 and path.key.__class__ is str:
            complete = self.plan.completion(return_type, field_details_list[0].node)
            if complete is not None:
                return self._completed(
                    complete,
                    super().complete_object_value,
                    (return_type, field_details_list, info, path, result, position_context),
                )
        return super().complete_object_value(
            return_type, field_details_list, info, path, result, position_context
        )

    def _completed(
        self, complete: Complete, walk: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> Any:
        """Return what `complete` makes of a value, or what `walk` does where it gives up."""
        run = _Run(self, arguments[3])
        try:
            answer = complete(arguments[4], run)
        except Exception:
            run.drop()
            return walk(*arguments)  # it is told as the standard has it
        if run.pending or run.batches:
            return self._settled(answer, run, walk, arguments)
        return answer

    async def _settled(
        self, answer: Any, run: _Run, walk: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> Any:
        try:
            await run.settle()
        except Exception:
            run.drop()
            walked = walk(*arguments)
            return await walked if inspect.isawaitable(walked) else walked
        except BaseException:
            run.drop()
            raise
        return answer


class _Generator:
    """Generates the functions of one field's selection, from the innermost one outwards."""

    def __init__(
        self,
        schema: GraphQLSchema,
        fragments: dict[str, FragmentDefinitionNode],
        texts: KeptTexts | None,
    ) -> None:
        self._schema = schema
        self._fragments = fragments
        self._texts = texts
        self._of_rows = False
        self._reads_only = True
        """Whether all that was generated since looks at nothing but what it is given."""

    def row_completion(
        self, type_: GraphQLOutputType, node: FieldNode, depth: int
    ) -> Complete | None:
        """Return what completes the row that a value of `type_` is made of; None where none does.

        So no object is made for the fields that are planned.
        """
        outside, self._of_rows = self._of_rows, True
        try:
            return self.completion(type_, node, depth)
        except NotPlain:
            return None
        finally:
            self._of_rows = outside

    def completion(self, type_: GraphQLOutputType, node: FieldNode, depth: int) -> Complete:
        """Return what completes a value of `type_` that is not null.

        Raises
        ------
        NotPlain
            the selection holds something that has to be walked
        """
        if depth > NESTING_MAX:
            raise NotPlain
        if is_non_null_type(type_):
            type_ = type_.of_type
        if is_list_type(type_):
            return self._of_list(type_.of_type, node, depth)
        if is_leaf_type(type_):
            convert = _of_leaf(type_)
            return lambda value, _run: convert(value)
        if is_object_type(type_) and node.selection_set is not None:
            return self._of_object(type_, node.selection_set, depth)
        raise NotPlain

    def _of_list(self, item_type: GraphQLOutputType, node: FieldNode, depth: int) -> Complete:
        complete = self.completion(item_type, node, depth + 1)

        def of_items(values: Any, run: _Run) -> list[Any]:
            if values.__class__ is not list and values.__class__ is not tuple:
                raise NotPlain
            return [complete(value, run) for value in values]

        def of_items_or_nulls(values: Any, run: _Run) -> list[Any]:
            if values.__class__ is not list and values.__class__ is not tuple:
                raise NotPlain
            return [None if value is None else complete(value, run) for value in values]

        return of_items if is_non_null_type(item_type) else of_items_or_nulls

    def _of_object(
        self, type_: GraphQLObjectType, selections: SelectionSetNode, depth: int
    ) -> Complete:
        definition = (type_.extensions or {}).get(GraphQLCoreConverter.DEFINITION_BACKREF)
        if definition is None or definition.origin is None:
            raise NotPlain
        is_page = issubclass(definition.origin, Connection)
        # Pages are made of the class itself, whatever they are pages of.
        made_of = Connection if is_page else definition.origin
        row: Row | None = getattr(definition.origin, ROW, None) if self._of_rows else None
        if row is not None:
            made_of = row.made_of
        elif self._of_rows:
            raise NotPlain
        names: dict[str, Any] = {"cls": made_of, "NotPlain": NotPlain}
        lines = ["def complete(o, run):", " if o.__class__ is not cls: raise NotPlain"]
        members: list[str] = []
        loading: list[str] = []
        keys: set[str] = set()
        for n, node in enumerate(self._fields(type_, selections)):
            key = (node.alias or node.name).value
            if key in keys or not _NAME.fullmatch(key):
                raise NotPlain
            keys.add(key)
            if node.name.value == "__typename":
                members.append(f'"{key}": "{type_.name}"')
                continue
            field = self._schema.get_field(type_, node.name.value)
            if field is None:
                raise NotPlain
            if is_page and node.name.value == "nodes":
                names[f"k{n}"] = self._kept_nodes(field, node, depth)
                lines.append(f" v{n} = k{n}(o, run)")
                members.append(f'"{key}": v{n}')
                continue
            if _loads(field):
                loading.append(self._loading(type_, field, node, n, key, names, depth))
                members.append(f'"{key}": None')
                continue
            lines += self._lines(field, node, n, names, depth, row)
            members.append(f'"{key}": v{n}')
        lines.append(f" d = {{{', '.join(members)}}}")
        lines += loading
        lines.append(" return d")
        exec(compile("\n".join(lines), f"<completion of {type_.name}>", "exec"), names)
        return cast("Complete", names["complete"])

    def _loading(
        self,
        type_: GraphQLObjectType,
        field: GraphQLField,
        node: FieldNode,
        n: int,
        key: str,
        names: dict[str, Any],
        depth: int,
    ) -> str:
        """Return the line that has a field wait for what its resolver loads."""
        self._reads_only = False
        resolve, told = _resolver(field, node, asynchronous=True)
        many = _loads(field)
        if isinstance(many, Many):
            of_row = self.row_completion(field.type, node, depth + 1)
            if of_row is not None:
                load = many.rows_of_rows if self._of_rows else many.rows
                complete = of_row
            elif self._of_rows:
                raise NotPlain
            else:
                load, complete = many.objects, self.completion(field.type, node, depth + 1)
            names[f"b{n}"] = _Batch(key, load, complete, not is_non_null_type(field.type))
            return f" run.batches.setdefault(b{n}, []).append((d, o))"

        def start(value: Any, run: _Run) -> Any:
            return resolve(value, **{told: run.info(type_, field, node)})

        nullable = not is_non_null_type(field.type)
        names[f"r{n}"] = start
        names[f"c{n}"] = self.completion(field.type, node, depth + 1)
        return f' run.pending.append((d, "{key}", r{n}(o, run), c{n}, {nullable}))'

    def _lines(
        self,
        field: GraphQLField,
        node: FieldNode,
        n: int,
        names: dict[str, Any],
        depth: int,
        row: Row | None,
    ) -> Iterator[str]:
        """Yield the lines that put the completed value of a field into ``v<n>``."""
        attribute = _attribute(field)
        if row is not None:
            name = _python_name(field)
            if node.arguments or name not in row.same:
                raise NotPlain
            read = row.same[name]
            if read is not None:
                names[f"r{n}"] = read
            yield f" v{n} = o.{name}" if read is None else f" v{n} = r{n}(o)"
        elif attribute is not None and not node.arguments:
            yield f" v{n} = o.{attribute}"
        else:
            self._reads_only = False
            names[f"r{n}"], _ = _resolver(field, node, asynchronous=False)
            rows = _metadata(field).get(ROWS)
            of_rows = None if rows is None else self.row_completion(field.type, node, depth + 1)
            if of_rows is not None:
                names[f"r{n}"], names[f"c{n}"] = rows, of_rows
                yield f" v{n} = c{n}(r{n}(o), run)"
                return
            yield f" v{n} = r{n}(o)"
        nullable = not is_non_null_type(field.type)
        named = field.type if nullable else cast("Any", field.type).of_type
        if is_leaf_type(named):
            names[f"c{n}"], given = _of_leaf(named), f"v{n}"
        else:
            names[f"c{n}"], given = self.completion(named, node, depth + 1), f"v{n}, run"
        plain = _PLAIN.get(named.name) if is_leaf_type(named) else None
        if isinstance(named, GraphQLEnumType):
            names[f"e{n}"], names[f"m{n}"] = _members(named)
            null = f"if v{n} is not None: " if nullable else ""
            yield f" {null}v{n} = m{n}[v{n}._name_] if v{n}.__class__ is e{n} else c{n}(v{n})"
        elif plain is not None:
            # What is of the very class that goes out needs no call.
            test = plain.replace("V", f"v{n}")
            null = f"v{n} is not None and " if nullable else ""
            yield f" if {null}({test}): v{n} = c{n}(v{n})"
        elif nullable:
            yield f" if v{n} is not None: v{n} = c{n}({given})"
        else:
            yield f" v{n} = c{n}({given})"

    def _kept_nodes(self, field: GraphQLField, node: FieldNode, depth: int) -> Complete:
        """Return what completes the nodes of a page, if it can from texts that were kept."""
        self._reads_only = True
        listed = cast("Any", field.type).of_type
        of_list = self.completion(listed, node, depth + 1)
        texts = self._texts.selection() if self._texts and self._reads_only else None
        of_row = self.row_completion(listed.of_type, node, depth + 2)
        of_item = self.completion(listed.of_type, node, depth + 2)
        self._reads_only = False

        def of_page(page: Any, run: _Run) -> Any:
            made_of = Page.behind(page)
            if made_of is None or made_of.kept_by is None or (of_row is None and texts is None):
                return of_list(page.nodes, run)
            tell = made_of.node
            rows = made_of.rows[: made_of.first]
            if texts is None:
                assert of_row is not None, "asked before"
                return [of_row(row, run) for row in rows]
            return texts.of(rows, made_of.kept_by, lambda row: of_item(tell(row), run))

        return of_page

    def _fields(
        self, type_: GraphQLObjectType, selections: SelectionSetNode
    ) -> Iterator[FieldNode]:
        """Yield the fields of `selections`, fragments of this very type spread."""
        for node in selections.selections:
            if node.directives:
                raise NotPlain
            match node:
                case FieldNode():
                    yield node
                case InlineFragmentNode(type_condition=condition, selection_set=inside):
                    if condition is not None and condition.name.value != type_.name:
                        raise NotPlain
                    yield from self._fields(type_, inside)
                case FragmentSpreadNode(name=name):
                    fragment = self._fragments.get(name.value)
                    if (
                        fragment is None
                        or fragment.directives
                        or fragment.type_condition.name.value != type_.name
                    ):
                        raise NotPlain
                    yield from self._fields(type_, fragment.selection_set)
                case _:
                    raise NotPlain


_PLAIN: Final = {
    "String": "V.__class__ is not str",
    "ID": "V.__class__ is not str",
    "Cursor": "V.__class__ is not str",
    "Boolean": "V.__class__ is not bool",
    "Position": "V.__class__ is not int",
    "Int": "V.__class__ is not int or not -2147483648 <= V <= 2147483647",
    "Float": "V.__class__ is not float or V - V != 0",
}
"""When a value of a scalar has to be coerced; it is what goes out where that does not hold."""


def _of_leaf(type_: GraphQLLeafType) -> Convert:
    coerce = type_.coerce_output_value

    def of_leaf(value: Any) -> Any:
        if value is None:
            raise NotPlain
        coerced = coerce(value)
        if coerced is None or coerced is Undefined:
            raise NotPlain
        return coerced

    if not isinstance(type_, GraphQLEnumType):
        return of_leaf
    enum, members = _members(type_)
    return {member: members[member.name] for member in enum}.__getitem__


def _members(type_: GraphQLEnumType) -> tuple[type[Enum], dict[str, Any]]:
    """Return the class behind `type_`, and what goes out for each of its members, by name."""
    definition = (type_.extensions or {}).get(GraphQLCoreConverter.DEFINITION_BACKREF)
    if definition is None:
        raise NotPlain
    enum: type[Enum] = definition.wrapped_cls
    return enum, {member.name: type_.coerce_output_value(member) for member in enum}


def _attribute(field: GraphQLField) -> str | None:
    """Return the Python attribute that `field` reads; None where it does something else."""
    definition = (field.extensions or {}).get(GraphQLCoreConverter.DEFINITION_BACKREF)
    if definition is None or not definition.is_basic_field:
        return None
    name: str = definition.python_name
    return name if name.isidentifier() and not keyword.iskeyword(name) else None


def _python_name(field: GraphQLField) -> str:
    definition = (field.extensions or {}).get(GraphQLCoreConverter.DEFINITION_BACKREF)
    return "" if definition is None else str(definition.python_name)


def _loads(field: GraphQLField) -> Any:
    """Return whether the resolver of `field` awaits loaders alone, or what does so for many."""
    return _metadata(field).get(LOADS)


def _metadata(field: GraphQLField) -> Mapping[Any, Any]:
    definition = (field.extensions or {}).get(GraphQLCoreConverter.DEFINITION_BACKREF)
    return {} if definition is None else definition.metadata


def _resolver(
    field: GraphQLField, node: FieldNode, *, asynchronous: bool
) -> tuple[Callable[..., Any], str]:
    """Return the method behind `field` and what it calls ``info``, if it takes nothing else.

    Raises
    ------
    NotPlain
        it takes arguments that matter, or is not `asynchronous` where it should be
    """
    definition = (field.extensions or {}).get(GraphQLCoreConverter.DEFINITION_BACKREF)
    if definition is None:
        raise NotPlain
    resolver = definition.base_resolver
    if resolver is None or node.arguments or definition.extensions:
        raise NotPlain
    if definition.is_async is not asynchronous or resolver.self_parameter is None:
        raise NotPlain
    if resolver.root_parameter or resolver.parent_parameter:
        raise NotPlain
    told = resolver.info_parameter.name if resolver.info_parameter else ""
    if bool(told) is not asynchronous:
        raise NotPlain
    for argument in field.args.values():
        if argument.default_value not in (None, Undefined) or is_non_null_type(argument.type):
            raise NotPlain
    return resolver.wrapped_func, told
