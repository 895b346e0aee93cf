"""Querysets whose SQL is written once: for the few reads that happen with every click.

Django writes a query's SQL anew each time it is used, which takes several times as long as the
database takes to answer. A Prepared keeps the SQL, and gives the same rows as the queryset would:

    HELD = Prepared(lambda pk: Assignment.objects.filter(annotator=pk, holds_slot=True), pk=1)
    HELD(pk=annotator.pk)

The values that differ from call to call are named, each with an example of its type. A queryset may
use filter, order_by, select_related, a slice and values_list; prefetches and `in` lists of varying
length stay with Django.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import count
from typing import Any, Generic, NamedTuple, TypeVar

from django.db import connection
from django.db.models import Model, QuerySet
from django.db.models.query import ModelIterable, get_related_populators

T = TypeVar("T")
_marks = count()
_inserts: dict[type[Model], tuple[str, list[Any]]] = {}


class _Statement(NamedTuple):
    """A queryset as one database takes it."""

    sql: str
    values: list[Any]
    """Names of the caller's values, wrapped in _Name, between constants."""
    rows: Callable[[Iterator[Any]], Iterator[Any]]


class _Name(str):
    __slots__ = ()


class Prepared(Generic[T]):
    """Called with the named values, it returns the list of the queryset's rows."""

    def __init__(self, queryset: Callable[..., QuerySet[Any, T]], **examples: Any) -> None:
        self._queryset = queryset
        self._examples = examples
        self._statements: dict[str, _Statement] = {}

    def __call__(self, **values: Any) -> list[T]:
        statement = self._statements.get(connection.vendor)
        if statement is None:
            statement = self._statements[connection.vendor] = self._prepare()
        with connection.cursor() as cursor:
            cursor.execute(
                statement.sql,
                [_adapted(values[one]) if type(one) is _Name else one for one in statement.values],
            )
            return list(statement.rows(cursor.fetchall()))

    def first(self, **values: Any) -> T | None:
        """The first row or None; slice the queryset to one."""
        return next(iter(self(**values)), None)

    def _prepare(self) -> _Statement:
        marks = {name: _mark(example) for name, example in self._examples.items()}
        queryset = self._queryset(**marks)
        compiler = queryset.query.get_compiler(connection=connection)
        sql, params = compiler.as_sql()
        names = {_adapted(mark): _Name(name) for name, mark in marks.items()}
        values = [names.get(value, value) if _hashable(value) else value for value in params]
        if missing := set(self._examples) - {one for one in values if type(one) is _Name}:
            raise ValueError(f"The SQL does not hold the values {sorted(missing)}: {sql}")
        return _Statement(sql, values, _reader(queryset, compiler))


def _reader(queryset: QuerySet[Any, Any], compiler: Any) -> Callable[[Any], Iterator[Any]]:
    """Turns rows of the database into rows of the queryset, as django.db.models.query does."""
    selected = [expression for expression, _, _ in compiler.select]
    converters = compiler.get_converters(selected)

    def converted(rows: Any) -> Iterator[list[Any]]:
        for row in map(list, rows):
            for place, (functions, expression) in converters.items():
                for function in functions:
                    row[place] = function(row[place], expression, connection)
            yield row

    if queryset._iterable_class is not ModelIterable:
        return lambda rows: map(tuple, converted(rows))
    model: type[Model] = compiler.klass_info["model"]
    places = compiler.klass_info["select_fields"]
    start, end = places[0], places[-1] + 1
    names = [one.target.attname for one in selected[start:end]]
    related = get_related_populators(compiler.klass_info, compiler.select, queryset.db)  # type: ignore[call-arg]

    def instances(rows: Any) -> Iterator[Any]:
        for row in converted(rows):
            instance = model.from_db(queryset.db, names, row[start:end])
            for one in related:
                one.populate(row, instance)
            yield instance

    return instances


def _mark(example: Any) -> Any:
    """A value of the example's type that stands nowhere else in the query, and fits any column."""
    number = 30_000 + next(_marks) % 2_000
    if isinstance(example, datetime):
        return example.replace(microsecond=number)
    return type(example)(number)


def _adapted(value: Any) -> Any:
    """As the database takes it."""
    if isinstance(value, datetime):
        return connection.ops.adapt_datetimefield_value(value)
    return value


def _hashable(value: Any) -> bool:
    return value.__hash__ is not None


def insert(instance: Model) -> None:
    """Add the row, as save(force_insert=True) does for a model without parents; its pk is set."""
    statement = _inserts.get(type(instance))
    if statement is None:
        meta = type(instance)._meta
        fields = [field for field in meta.local_concrete_fields if not field.primary_key]
        quote = connection.ops.quote_name
        columns = ", ".join(quote(str(field.column)) for field in fields)
        sql = (
            f"INSERT INTO {quote(meta.db_table)} ({columns}) "
            f"VALUES ({', '.join(['%s'] * len(fields))}) RETURNING {quote(str(meta.pk.column))}"
        )
        statement = _inserts[type(instance)] = (sql, fields)
    sql, fields = statement
    values = [
        field.get_db_prep_save(field.pre_save(instance, add=True), connection) for field in fields
    ]
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        instance.pk = cursor.fetchone()[0]
    instance._state.adding, instance._state.db = False, connection.alias
