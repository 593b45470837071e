"""Small named JSON values."""

import json
from collections.abc import Mapping

from pydantic import JsonValue
from sqlalchemy import Connection, bindparam, func, select

from serve.store import tables
from serve.store.database import Database, reading, writing

_NOTES = tables.notes
_READ = select(_NOTES.c.value).where(_NOTES.c.name == bindparam("note"))


class SqlNotes:
    """`NoteStore` over a database. A note that was never written reads as None."""

    def __init__(self, db: Database) -> None:
        self._db = db
        insert = db.insert(_NOTES)
        self._write = insert.on_conflict_do_update(
            index_elements=[_NOTES.c.name], set_={"value": insert.excluded.value}
        )
        self._write_once = insert.on_conflict_do_nothing(index_elements=[_NOTES.c.name])

    @reading
    def read(self, connection: Connection, name: str) -> JsonValue:
        value = connection.execute(_READ, {"note": name}).scalar_one_or_none()
        return None if value is None else json.loads(value)

    @writing
    def write(self, connection: Connection, name: str, value: JsonValue) -> None:
        connection.execute(self._write, {"name": name, "value": json.dumps(value)})

    @writing
    def write_once(self, connection: Connection, name: str, value: JsonValue) -> None:
        connection.execute(self._write_once, {"name": name, "value": json.dumps(value)})

    @reading
    def read_many(self, connection: Connection, prefix: str) -> Mapping[str, JsonValue]:
        statement = select(_NOTES).where(func.substr(_NOTES.c.name, 1, len(prefix)) == prefix).order_by(_NOTES.c.name)
        return {name: json.loads(value) for name, value in connection.execute(statement)}
