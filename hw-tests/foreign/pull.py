"""Pulls from a WebSocket listener of gattway with pythonblip, which others wrote for Sync Gateway: its WebSocket client, frames, checksums,
checkpoints, flow of a pull and way to get an attachment are its own. Prints each document, one a line, as JSON, with the SHA-1 of what it got
for attachments.

usage: pull.py PORT DATABASE USER PASSWORD [version-vectors]

pythonblip knows revision trees alone. With `version-vectors` it asks for the sub-protocol and the versioning of version vectors instead; a
revision's ID is a text to it. It says that it finds blobs in documents, but it only reads the stubs that a Sync Gateway adds, so that word is
taken back.
"""

import base64
import hashlib
import json
import os
import sys

import pythonblip.client
from pythonblip.headers import BasicAuth
from pythonblip.output import ScreenOutput
from pythonblip.replicator import Replicator, ReplicatorConfiguration, ReplicatorType

SUB_PROTOCOL = "BLIP_3+CBMobile_4"


class Kept(ScreenOutput):
    """Takes each document once."""

    def __init__(self):
        super().__init__()
        self.documents = {}

    def write(self, identity, document, collection=None):
        if identity in self.documents:
            raise ValueError(f"{identity} came twice")
        self.documents[identity] = document

    def write_attachment(self, identity, content_type, data, collection=None):
        digest = base64.b64encode(hashlib.sha1(bytes(data)).digest()).decode()
        self.documents[identity].setdefault("got", []).append(f"sha1-{digest}")


def main():
    port, database, user, password = sys.argv[1:5]
    versioning = sys.argv[5] if len(sys.argv) > 5 else None
    if versioning:
        connect = pythonblip.client.websockets.connect
        pythonblip.client.websockets.connect = lambda uri, **options: connect(
            uri, **{**options, "subprotocols": [SUB_PROTOCOL]})
    kept = Kept()
    replicator = Replicator(ReplicatorConfiguration.create(
        database, "127.0.0.1", ReplicatorType.PULL, BasicAuth(user, password), False, port, "_default", ["_default"], kept))
    if versioning:
        replicator.sub_changes_props["versioning"] = versioning
    del replicator.max_history_props["blobs"]
    replicator.start()
    replicator.replicate()
    for identity in sorted(kept.documents):
        print(json.dumps({"_id": identity, **kept.documents[identity]}, sort_keys=True, ensure_ascii=False))
    sys.stdout.flush()


try:
    main()
    code = 0
except Exception as error:  # whatever it was, it is what the caller wants to read
    print(error, file=sys.stderr)
    code = 1
# Its thread waits for the end of a connection that its own stop asks for from another thread, and so for ever.
sys.stderr.flush()
os._exit(code)
