"""Files that clients were told they may send."""

from sqlalchemy import Connection, delete, insert, select, update

from serve.store import tables
from serve.store.contract import Upload
from serve.store.database import Database, reading, writing

_UPLOADS = tables.uploads


class SqlUploads:
    """`UploadStore` over a database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @writing
    def add(self, connection: Connection, upload: Upload) -> None:
        connection.execute(insert(_UPLOADS), vars(upload))

    @reading
    def get(self, connection: Connection, upload_id: str) -> Upload | None:
        row = connection.execute(select(_UPLOADS).where(_UPLOADS.c.id == upload_id)).one_or_none()
        return None if row is None else Upload(**row._mapping)

    @writing
    def complete(self, connection: Connection, upload_id: str, content_type: str, upload_bytes: int) -> None:
        arrived = {"content_type": content_type, "upload_bytes": upload_bytes}
        connection.execute(update(_UPLOADS).where(_UPLOADS.c.id == upload_id).values(arrived))

    @reading
    def expired(self, connection: Connection, now: float) -> tuple[Upload, ...]:
        statement = select(_UPLOADS).where(_UPLOADS.c.expires_at <= now).order_by(_UPLOADS.c.expires_at)
        return tuple(Upload(**row._mapping) for row in connection.execute(statement))

    @writing
    def remove(self, connection: Connection, upload_id: str) -> None:
        connection.execute(delete(_UPLOADS).where(_UPLOADS.c.id == upload_id))
