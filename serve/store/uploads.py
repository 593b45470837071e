"""Files that clients were told they may send."""

from sqlalchemy import Connection, delete, insert, select, update

from serve.store import tables
from serve.store.audit import tell, teller_of
from serve.store.audit_entries import upload_created, upload_received, upload_removed
from serve.store.contract import Upload
from serve.store.database import Database, reading, writing

_UPLOADS = tables.uploads
_OWNER = (_UPLOADS.c.id, _UPLOADS.c.key_id)


class SqlUploads:
    """`UploadStore` over a database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @writing
    def add(self, connection: Connection, upload: Upload) -> None:
        connection.execute(insert(_UPLOADS), vars(upload))
        tell(connection, [upload_created(upload)])

    @reading
    def get(self, connection: Connection, upload_id: str) -> Upload | None:
        row = connection.execute(select(_UPLOADS).where(_UPLOADS.c.id == upload_id)).one_or_none()
        return None if row is None else Upload(**row._mapping)

    @writing
    def complete(self, connection: Connection, upload_id: str, content_type: str, upload_bytes: int) -> None:
        arrived = {"content_type": content_type, "upload_bytes": upload_bytes}
        statement = update(_UPLOADS).where(_UPLOADS.c.id == upload_id).values(arrived).returning(*_OWNER)
        row = connection.execute(statement).one_or_none()
        if row is not None:
            tell(connection, [upload_received(row, content_type, upload_bytes, teller_of(connection).now())])

    @reading
    def expired(self, connection: Connection, now: float) -> tuple[Upload, ...]:
        statement = select(_UPLOADS).where(_UPLOADS.c.expires_at <= now).order_by(_UPLOADS.c.expires_at)
        return tuple(Upload(**row._mapping) for row in connection.execute(statement))

    @writing
    def remove(self, connection: Connection, upload_id: str) -> None:
        row = connection.execute(delete(_UPLOADS).where(_UPLOADS.c.id == upload_id).returning(*_OWNER)).one_or_none()
        if row is not None:
            teller = teller_of(connection)
            tell(connection, [upload_removed(row, teller.now(), teller)])
