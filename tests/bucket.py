"""A bucket of Google Cloud Storage on loopback, in memory, for tests.

It has of the JSON API what gcsfs, TensorStore and google-cloud-storage ask for, and keeps what a
run relies on: a write is atomic, a listing sees every write before it, and `ifGenerationMatch`
refuses. `gcp-storage-emulator` of the registry has no preconditions: two runs would both get the
lock, and TensorStore's manifests would overwrite each other.
"""

import base64
import contextlib
import email
import itertools
import json
import re
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import google_crc32c

NAME = "bucket"
OBJECTS = re.compile(r"/(?:(upload|download)/)?storage/v1/b/([^/]+)(?:/o(?:/(.+))?)?")
COPY = re.compile(r"(.+)/(?:copyTo|rewriteTo)/b/[^/]+/o/(.+)")


class Object(NamedTuple):
    """What an object is: a new generation with every write."""

    data: bytes
    generation: int


class Refused(Exception):
    """A request that is answered by a status and nothing else."""

    def __init__(self, status):
        super().__init__(status)
        self.status = status


class Bucket:
    """The objects of a bucket by name, and the environment in which programs find it."""

    def __init__(self, port):
        self.objects = {}
        self.lock = threading.RLock()
        self.generations = itertools.count(1)
        self.uploads = {}
        host = f"http://127.0.0.1:{port}"
        self.environment = {
            "STORAGE_EMULATOR_HOST": host,  # gcsfs, google-cloud-storage
            "TENSORSTORE_GCS_HTTP_URL": host,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "nobody",  # or TensorStore looks for one, for seconds
            "NO_GCE_CHECK": "true",  # and gcsfs for Google's machines
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # by gRPC, which is not here
            "GOOGLE_CLOUD_PROJECT": "nobody",
        }

    def write(self, name, data, query):
        with self.lock:
            self.check(name, query)
            self.objects[name] = Object(bytes(data), next(self.generations))
            return self.about(name)

    def read(self, name, query):
        with self.lock:
            self.check(name, query, refused=304)
            if name not in self.objects:
                raise Refused(404)
            return self.objects[name]

    def delete(self, name, query):
        with self.lock:
            self.check(name, query)
            if self.objects.pop(name, None) is None:
                raise Refused(404)

    def check(self, name, query, refused=412):
        """Refuses what a precondition does; 0 is the generation of what is not there."""
        found = self.objects[name].generation if name in self.objects else 0
        if "ifGenerationMatch" in query and int(query["ifGenerationMatch"]) != found:
            raise Refused(412)
        if "ifGenerationNotMatch" in query and int(query["ifGenerationNotMatch"]) == found:
            raise Refused(refused)

    def about(self, name):
        data, generation = self.objects[name]
        crc = google_crc32c.value(data).to_bytes(4, "big")
        return {
            "kind": "storage#object", "name": name, "bucket": NAME, "size": str(len(data)),
            "generation": str(generation), "metageneration": "1", "storageClass": "STANDARD",
            "crc32c": base64.b64encode(crc).decode(), "etag": str(generation),
            "timeCreated": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:00Z",
        }  # fmt: skip

    def list(self, query):
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        begin = max(query.get("startOffset", ""), query.get("pageToken", ""))
        end = query.get("endOffset") or "\U0010ffff"
        most = int(query.get("maxResults", 1000))
        items, prefixes = [], {}
        with self.lock:
            for name in sorted(self.objects):
                if not name.startswith(prefix) or not begin <= name < end:
                    continue
                if len(items) == most:
                    return {"items": items, "prefixes": [*prefixes], "nextPageToken": name}
                rest = name.removeprefix(prefix)
                if delimiter and delimiter in rest:
                    prefixes[prefix + rest.partition(delimiter)[0] + delimiter] = None
                else:
                    items.append(self.about(name))
        return {"kind": "storage#objects", "items": items, "prefixes": [*prefixes]}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one piece: halves of one wait for each other
    bucket: Bucket

    def log_message(self, *_):
        pass

    def handle(self):
        with contextlib.suppress(ConnectionError):  # of a program that was killed
            super().handle()

    def answer(self):
        body = self.read_body()
        address = urlsplit(self.path)
        try:
            self.dispatch(address.path, dict(parse_qsl(address.query)), body)
        except Refused as refused:
            self.reply(b"", refused.status)

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def read_body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        else:
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        gzipped = self.headers.get("Content-Encoding") == "gzip"
        return zlib.decompress(body, 31) if gzipped else body

    def dispatch(self, path, query, body):
        bucket, method = self.bucket, self.command
        if path.startswith("/batch/"):
            return self.batch(body)
        match = OBJECTS.fullmatch(path)
        if match is None or match[2] != NAME:
            raise Refused(404)
        name = unquote(match[3] or "")
        if match[1] == "upload":
            return self.upload(query, body)
        if "/o" not in path.partition(f"/b/{NAME}")[2]:
            return self.json({"kind": "storage#bucket", "name": NAME, "id": NAME})
        if not name:
            return self.json(bucket.list(query))
        if method == "POST" and (copied := COPY.fullmatch(match[3])):
            found = bucket.read(unquote(copied[1]), {})
            about = bucket.write(unquote(copied[2]), found.data, query)
            return self.json({"done": True, "resource": about, **about})
        if method == "DELETE":
            bucket.delete(name, query)
            return self.reply(b"", 204)
        found = bucket.read(name, query)
        if query.get("alt") == "media" or match[1] == "download":
            return self.content(found)
        return self.json(bucket.about(name))

    def upload(self, query, body):
        kind, bucket = query.get("uploadType"), self.bucket
        if "upload_id" in query:  # a part of a resumable one
            name, condition, data = bucket.uploads[query["upload_id"]]
            data += body
            total = self.headers.get("Content-Range", "*/*").rpartition("/")[2]
            if total not in ("*", str(len(data))):
                self.reply(b"", 308, Range=f"bytes=0-{len(data) - 1}")
                return None
            return self.json(bucket.write(name, data, condition))
        if kind == "resumable":
            name = query.get("name") or json.loads(body)["name"]
            key = str(next(bucket.generations))
            bucket.uploads[key] = (name, query, bytearray())
            host = bucket.environment["STORAGE_EMULATOR_HOST"]
            place = f"{host}/upload/storage/v1/b/{NAME}/o?uploadType=resumable&upload_id={key}"
            return self.reply(b"{}", 200, Location=place)
        name = query.get("name")
        if kind == "multipart":
            head = self.headers["Content-Type"]
            boundary = re.search("boundary=['\"]?([^'\";]+)", head)[1].encode()
            _, about, content, _ = body.split(b"--" + boundary)
            about, content = (re.split(b"\r?\n\r?\n", p, maxsplit=1)[1] for p in (about, content))
            name, body = json.loads(about)["name"], content.removesuffix(b"\n").removesuffix(b"\r")
        return self.json(bucket.write(name, body, query))

    def content(self, found):
        data, status, more = found.data, 200, {}
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(wanted[1]), int(wanted[2] or len(data) - 1)
            if first >= len(data):
                raise Refused(416)
            more = {"Content-Range": f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}"}
            data, status = data[first : last + 1], 206
        crc = base64.b64encode(google_crc32c.value(found.data).to_bytes(4, "big")).decode()
        more |= {"x-goog-generation": str(found.generation), "x-goog-hash": f"crc32c={crc}"}
        self.reply(data, status, **more)

    def batch(self, body):
        """Several deletions in one request, as gcsfs removes a directory."""
        parts = []
        for part in email.message_from_bytes(
            b"Content-Type: " + self.headers["Content-Type"].encode() + b"\r\n\r\n" + body
        ).get_payload():
            _, address, *_ = part.get_payload().split()
            status = "204 No Content"
            try:
                path = urlsplit(address).path
                self.bucket.delete(unquote(OBJECTS.fullmatch(path)[3]), {})
            except Refused:
                status = "404 Not Found"
            number = part["Content-ID"]
            parts.append(
                f"--batch\r\nContent-Type: application/http\r\nContent-ID: <response-{number[1:]}"
                f"\r\n\r\nHTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n\r\n"
            )
        text = "".join(parts) + "--batch--\r\n"
        self.reply(text.encode(), 200, **{"Content-Type": "multipart/mixed; boundary=batch"})

    def json(self, value):
        self.reply(json.dumps(value).encode(), 200, **{"Content-Type": "application/json"})

    def reply(self, data, status, **headers):
        self.send_response(status)
        for name, value in {"Content-Type": "application/octet-stream", **headers}.items():
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if status not in (204, 304):
            self.wfile.write(data)


@contextlib.contextmanager
def serving():
    """An empty bucket, `gs://bucket`, while inside."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    handler = type("Handler", (Handler,), {})
    bucket = Bucket(server.server_port)
    handler.bucket = bucket
    server.RequestHandlerClass = handler
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield bucket
    finally:
        server.shutdown()
        server.server_close()
