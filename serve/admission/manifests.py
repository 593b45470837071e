"""Which manifests a key may name: those below a folder of its own in the endpoint's object store.

What a URI leads to is resolved first, percent-encoding and symbolic links and all, and compared then; and what was
compared is what the run reads.
"""

import re
from pathlib import Path
from urllib.parse import unquote

from schemas.errors import ConfigError, StorageError
from serve.store.contract import ApiKey
from serve.wire.base import WireError, issue
from storage import keys
from storage.address import BucketAddress, FolderAddress, parse_address
from storage.objects import ObjectStore
from storage.uris import list_uris

_GLOB = re.compile(r"[*?\[\]]")


def allowed_manifest(uri: str, key: ApiKey, objects: ObjectStore) -> str:
    """The URI of the file or folder that `uri` leads to, resolved. Blocking. Raises WireError at `manifestUri`."""
    home = keys.manifests_prefix(key.id)
    try:
        address = parse_address(uri)
        if isinstance(address, BucketAddress):
            found = _in_bucket(address, objects, home)
        else:
            found = _in_folder(uri, address, objects, home)
    except (ConfigError, StorageError, OSError, ValueError) as error:
        raise _refused(objects, home) from error
    return found


def _in_bucket(address: BucketAddress, objects: ObjectStore, home: str) -> str:
    root = objects.address
    if not isinstance(root, BucketAddress) or address.bucket != root.bucket:
        raise _refused(objects, home)
    # Keys are not encoded, but what stands between us and the bucket may decode, or normalise, them.
    plain = _decoded(address.prefix)
    if any(part in ("", ".", "..") for part in plain.split("/")) or "\\" in plain:
        raise _refused(objects, home)
    if _GLOB.search(plain):
        raise _glob()
    if not f"{address.prefix}/".startswith(root.full_key(home)):
        raise _refused(objects, home)
    _check_there(str(address))
    return str(address)


def _in_folder(uri: str, address: FolderAddress, objects: ObjectStore, home: str) -> str:
    root = objects.address
    # A plain path is read from wherever a process happens to stand: it says nothing.
    if not isinstance(root, FolderAddress) or not uri.startswith("file:"):
        raise _refused(objects, home)
    if _GLOB.search(str(address.folder)):
        raise _glob()
    inside = (root.folder / home).resolve()
    found = address.folder.resolve()
    if not found.is_relative_to(inside):
        raise _refused(objects, home)
    if found.is_dir() and any(_leads_out(path, inside) for path in found.rglob("*")):
        raise _refused(objects, home)
    _check_there(found.as_uri())
    return found.as_uri()


def _leads_out(path: Path, inside: Path) -> bool:
    return path.is_symlink() and not path.resolve().is_relative_to(inside)


def _check_there(uri: str) -> None:
    try:
        list_uris(uri)
    except StorageError as error:
        raise WireError([issue("manifest", "manifestUri", "there is no manifest at this address")]) from error


def _decoded(text: str) -> str:
    """However often it was encoded."""
    for _ in range(8):
        plain = unquote(text)
        if plain == text:
            return plain
        text = plain
    raise ValueError("encoded too often")


def _glob() -> WireError:
    return WireError([issue("address_not_allowed", "manifestUri", "name one file or folder: patterns are not taken")])


def _refused(objects: ObjectStore, home: str) -> WireError:
    text = f"must be below {objects.uri(home[:-1])}/: this endpoint reads no other place for this key"
    return WireError([issue("address_not_allowed", "manifestUri", text)])
