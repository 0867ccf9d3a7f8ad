"""Documents of a gattway database, for programs in Python 3.9 or newer. Nothing but the standard library is needed: copy this file.

A database that is open in `gattway run`, `serve` or `sync` answers on a Unix socket in its directory:

>>> db = Database("plant.db")
>>> readings = db.collection("readings", create=True)
>>> readings["r-1"] = {"sensor": "boiler", "time": "2026-11-27T10:00:00Z", "celsius": 71.5}
>>> readings["r-1"]["celsius"]
71.5
>>> "r-2" in readings, len(readings)
(False, 1)

A document knows its ID and its revision. Who saves it again changes what he has read, or hears that somebody else has changed it:

>>> mine, other = readings["r-1"], readings["r-1"]
>>> mine["celsius"] = 72.0
>>> readings.save(mine)
>>> other["celsius"] = 70.0
>>> readings.save(other)
Traceback (most recent call last):
    ...
gattway.Conflict: document "r-1" is not at the revision in `If-Match`; read it, apply the change, and give its ETag

Many at once, and questions:

>>> readings.save_all({"_id": f"s-{n}", "sensor": "pump", "time": n, "bar": n / 10} for n in range(100))
>>> [row["bar"] for row in readings.query({"sensor": "pump"}, sort=[{"time": "desc"}], limit=2)]
[9.9, 9.8]
>>> for row in readings.query(group=["sensor"], aggregate={"last": {"last": "bar", "by": "time"}, "n": "count"}):
...     print(row["sensor"], row["last"], row["n"])
boiler None 1
pump 9.9 100

Changes, those to come too, each document at its newest:

>>> del readings["r-1"]
>>> changes = readings.changes(follow=True)
>>> seen = [next(changes) for _ in range(101)]
>>> seen[-1].id, seen[-1].deleted
('r-1', True)

Content of any kind and size stands beside documents, which name it at a path:

>>> readings.attach("s-0", "picture", b"JFIF...", "image/jpeg")
'sha1-3sJt/8nMls1Jo3JbEr5JzkZs1eM='
>>> readings["s-0"]["picture"]["length"]
7
>>> with readings.attachment("s-0", "picture") as content:
...     content.headers["Content-Type"], content.read(4), content.read()
('image/jpeg', b'JFIF', b'...')
>>> readings.detach("s-0", "picture")

The gateway as a whole, by its own socket (`/run/gattway/control`) or over TCP: `Gateway().status()`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import urllib.parse
from dataclasses import dataclass
from typing import Any, BinaryIO, Iterable, Iterator, Mapping, Optional, Union

__all__ = ["Change", "Collection", "Conflict", "Database", "Document", "Error", "Gateway", "NotFound"]

Json = Any


class Error(Exception):
    """What the database answers if it does not do what was asked: `status` of HTTP, `kind` for programs, and what to do."""

    def __init__(self, status: int, answer: Mapping[str, Json]):
        self.status = status
        self.kind: str = answer.get("error", "")
        self.advice: Optional[str] = answer.get("advice")
        reason = answer.get("reason", "")
        super().__init__(f"{reason}; {self.advice}" if self.advice else reason)


class NotFound(Error, KeyError):
    """There is no such document, collection or database."""

    __str__ = Exception.__str__


class Conflict(Error):
    """Somebody else has changed the document since it was read: read it again, change it, save it again."""


class Document(dict):
    """The body of a document, with its ID and the revision that was read; `None` for one that is new."""

    def __init__(self, id: str, body: Mapping[str, Json] = {}, revision: Optional[str] = None):
        super().__init__(body)
        self.id = id
        self.revision = revision


@dataclass(frozen=True)
class Change:
    """The newest change of a document. `sequence` is where to go on: `changes(since=sequence)`."""

    sequence: int
    id: str
    revision: str
    deleted: bool
    document: Optional[Document]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: Optional[float]):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        folder, name = os.path.split(self.path)
        try:
            # The path of a socket has 107 bytes at most, that of its folder may be longer.
            descriptor = os.open(folder or ".", os.O_PATH | os.O_DIRECTORY)
            try:
                self.sock.connect(f"/proc/self/fd/{descriptor}/{name}")
            finally:
                os.close(descriptor)
        except OSError as error:
            self.close()
            raise ConnectionError(f"{self.path}: {error.strerror}; is the database open in `gattway run`, `serve` or `sync`?")


class Gateway:
    """A process that answers: the path of its socket, or `http://HOST:PORT` or `https://...` with its token.

    `context`: what an https address is checked with, as `ssl.create_default_context(cafile="tls.pem")`.
    `timeout`: seconds to wait for an answer; feeds that follow wait for ever.
    """

    def __init__(
        self,
        address: Union[str, os.PathLike] = "/run/gattway/control",
        *,
        token: Optional[str] = None,
        context: Optional[ssl.SSLContext] = None,
        timeout: float = 60,
    ):
        self._address = os.fspath(address)
        self._token = token
        self._context = context
        self._timeout = timeout

    def database(self, name: str) -> Database:
        """A database by the name that the configuration gives it."""
        return Database(self, name)

    def databases(self) -> list[str]:
        """Names of the databases that are open."""
        return self._ask("GET", "/_all_dbs")

    def status(self) -> dict[str, Json]:
        """What `gattway status --json` tells."""
        return self._ask("GET", "/_status")

    def peers(self) -> list[dict[str, Json]]:
        """Peers that came or were visited."""
        return self._ask("GET", "/_peers")

    def sync(self, order: str = "now", name: Optional[str] = None) -> None:
        """`now`, `pause` or `resume`: all syncs, or that of one name."""
        self._ask("POST", "/_sync", {"order": order, **({"name": name} if name else {})})

    def _connect(self, timeout: Optional[float]) -> http.client.HTTPConnection:
        url = urllib.parse.urlsplit(self._address)
        if url.scheme == "http":
            return http.client.HTTPConnection(url.netloc, timeout=timeout)
        if url.scheme == "https":
            return http.client.HTTPSConnection(url.netloc, timeout=timeout, context=self._context)
        return _UnixConnection(self._address, timeout)

    def _open(
        self,
        method: str,
        path: str,
        body: Json = None,
        *,
        headers: Mapping[str, str] = {},
        timeout: Optional[float] = -1,
        content: Union[bytes, BinaryIO, None] = None,
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        headers = dict(headers)
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        connection = self._connect(self._timeout if timeout == -1 else timeout)
        try:
            data = content if body is None else json.dumps(body, allow_nan=False).encode()
            try:
                connection.request(method, path, data, headers)
            except (BrokenPipeError, ConnectionResetError):
                pass  # What is too much is refused before all of it has gone; the answer is there.
            response = connection.getresponse()
            if response.status < 400:
                return connection, response
            answer = response.read()
            try:
                told = json.loads(answer)
            except ValueError:
                told = {"reason": answer.decode(errors="replace")}
            kinds = {404: NotFound, 409: Conflict, 412: Conflict}
            raise kinds.get(response.status, Error)(response.status, told)
        except BaseException:
            connection.close()
            raise

    def _ask(self, method: str, path: str, body: Json = None, **more: Any) -> Json:
        connection, response = self._open(method, path, body, **more)
        try:
            answer = response.read()
            return json.loads(answer) if answer else None
        finally:
            connection.close()


class Database:
    """A database, by its directory; or by a `Gateway` and its name there."""

    def __init__(self, place: Union[str, os.PathLike, Gateway], name: str = "_db"):
        self._gateway = place if isinstance(place, Gateway) else Gateway(os.path.join(place, "http"))
        self._name = name

    def collection(self, name: str = "_default", *, create: bool = False) -> Collection:
        """A collection, `NAME` or `SCOPE.NAME`; `create`: it is made if there is none."""
        collection = Collection(self._gateway, self._name, name)
        if create:
            try:
                self._gateway._ask("PUT", collection._path)
            except Conflict:
                pass  # It is there.
        return collection


class Collection:
    """Documents by their IDs."""

    def __init__(self, gateway: Gateway, database: str, name: str):
        self._gateway = gateway
        self._path = "/" + urllib.parse.quote(f"{database}.{name}", safe="")

    def __getitem__(self, id: str) -> Document:
        return _document(self._gateway._ask("GET", self._of(id)))

    def __setitem__(self, id: str, body: Mapping[str, Json]) -> None:
        """Saves a document, whatever is there."""
        while True:
            try:
                current = self[id].revision
            except NotFound:
                current = None
            try:
                return self.save(Document(id, body, current))
            except Conflict:
                continue  # Somebody was faster.

    def __delitem__(self, id: str) -> None:
        """Deletes a document, whatever is there; peers learn of it."""
        self._gateway._ask("DELETE", self._of(id), headers={"If-Match": "*"})

    def __contains__(self, id: str) -> bool:
        try:
            self[id]
        except NotFound:
            return False
        return True

    def __len__(self) -> int:
        return self._gateway._ask("GET", self._path + "/_all_docs?limit=0")["total_rows"]

    def __iter__(self) -> Iterator[str]:
        """IDs, in the order of their bytes."""
        return (row["id"] for row in self._rows({}))

    def items(self, *, prefix: str = "") -> Iterator[tuple[str, Document]]:
        """Documents in the order of their IDs."""
        options = {"include_docs": "true", **({"prefix": prefix} if prefix else {})}
        return ((row["id"], _document(row["doc"])) for row in self._rows(options))

    def save(self, document: Document) -> None:
        """Saves a document that was read, or is new, and gives it its new revision.

        Raises `Conflict` if somebody else has changed it meanwhile."""
        headers = {"If-Match": f'"{document.revision}"'} if document.revision else {}
        saved = self._gateway._ask("PUT", self._of(document.id), dict(document), headers=headers)
        document.revision = saved["rev"]

    def save_all(self, documents: Iterable[Mapping[str, Json]]) -> None:
        """Saves many, each with its `_id`, and `_rev` if it is there already: all of up to
        1,000 in one commit, or none of them."""
        batch: list[Mapping[str, Json]] = []
        size = 0
        for document in documents:
            length = len(json.dumps(document))
            if batch and (len(batch) == 1000 or size + length > 4_000_000):
                self._gateway._ask("POST", self._path + "/_bulk_docs", {"docs": batch, "atomic": True})
                batch, size = [], 0
            batch.append(document)
            size += length
        if batch:
            self._gateway._ask("POST", self._path + "/_bulk_docs", {"docs": batch, "atomic": True})

    def attach(
        self,
        id: str,
        path: str,
        content: Union[bytes, BinaryIO],
        content_type: str = "application/octet-stream",
    ) -> str:
        """Saves content, or what a file holds, at a path of a document that is there; gives its digest."""
        headers = {"If-Match": "*", "Content-Type": content_type}
        return self._gateway._ask("PUT", self._at(id, path), headers=headers, content=content)["digest"]

    @contextlib.contextmanager
    def attachment(self, id: str, path: str) -> Iterator[http.client.HTTPResponse]:
        """The content at a path of a document, to be read as it comes."""
        connection, response = self._gateway._open("GET", self._at(id, path))
        try:
            yield response
        finally:
            connection.close()

    def detach(self, id: str, path: str) -> None:
        """Takes the content at a path out of a document."""
        self._gateway._ask("DELETE", self._at(id, path), headers={"If-Match": "*"})

    def query(self, selector: Optional[Mapping[str, Json]] = None, **more: Json) -> Iterator[dict[str, Json]]:
        """Rows of a query, as firmware-notes/query.md has it: `sort`, `limit`, `fields`, `group`, `aggregate`."""
        query = {**({} if selector is None else {"selector": selector}), **more}
        return iter(self._gateway._ask("POST", self._path + "/_query", query)["rows"])

    def create_index(self, *paths: str, name: Optional[str] = None) -> None:
        """Declares an index on these paths, which is built in the background; one that is there is left as it is."""
        self._gateway._ask("POST", self._path + "/_index", {"on": paths, **({"name": name} if name else {})})

    def changes(self, since: Union[int, str] = 0, *, follow: bool = False) -> Iterator[Change]:
        """Changes after a sequence, or from `now` on, in order; `follow`: those to come too, for ever."""
        if not follow:
            while True:
                answer = self._gateway._ask("GET", f"{self._path}/_changes?include_docs=true&since={since}&limit=1000")
                yield from map(_change, answer["results"])
                since = answer["last_seq"]
                if len(answer["results"]) < 1000:
                    return
        path = f"{self._path}/_changes?include_docs=true&since={since}&feed=continuous&heartbeat=20000"
        connection, response = self._gateway._open("GET", path, timeout=60)
        try:
            for line in response:
                row = json.loads(line) if line.strip() else {}
                if "id" in row:
                    yield _change(row)
                elif "last_seq" in row:
                    return  # The process that serves it ends.
        finally:
            connection.close()

    def _rows(self, options: Mapping[str, str]) -> Iterator[dict[str, Json]]:
        """Pages, so that no answer has to be held as a whole."""
        start: dict[str, str] = {}
        while True:
            arguments = urllib.parse.urlencode({"limit": "1000", **options, **start})
            rows = self._gateway._ask("GET", f"{self._path}/_all_docs?{arguments}")["rows"]
            last = rows[-1]["id"] if rows else None
            # Each page but the first begins with the last row of the one before, unless that was deleted meanwhile.
            known = json.loads(start["start_key"]) if start else None
            yield from (row for row in rows if row["id"] != known)
            if len(rows) < 1000:
                return
            start = {"start_key": json.dumps(last)}

    def _at(self, id: str, path: str) -> str:
        return f"{self._of(id)}/{urllib.parse.quote(path, safe='')}"

    def _of(self, id: str) -> str:
        return f"{self._path}/{urllib.parse.quote(id, safe='')}"


def _document(record: dict[str, Json]) -> Document:
    id, revision = record.pop("_id"), record.pop("_rev", None)
    return Document(id, record, revision)


def _change(row: dict[str, Json]) -> Change:
    deleted = bool(row.get("deleted"))
    document = _document(row["doc"]) if row.get("doc") and not deleted else None
    return Change(row["seq"], row["id"], row["changes"][0]["rev"], deleted, document)
