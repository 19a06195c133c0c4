"""Reading the .wandb file of an offline run: W&B's protobuf records in LevelDB's log format.

A header of 7 bytes, then blocks of 32 KiB with chunks of (checksum 4, length 2, kind 1) and data; a record too long
for a block is split into first, middle and last chunks.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 32768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[Any]:
    """Every record of the file, in order."""
    from wandb.proto.wandb_internal_pb2 import Record

    data = path.read_bytes()
    assert data[:4] == b":W&B"
    place, parts = 7, []
    while place + 7 <= len(data):
        if BLOCK - place % BLOCK < 7:  # no chunk begins in the last bytes of a block
            place += BLOCK - place % BLOCK
            continue
        checksum, length, kind = struct.unpack_from("<IHB", data, place)
        chunk = data[place + 7 : place + 7 + length]
        assert zlib.crc32(chunk, zlib.crc32(bytes([kind]))) == checksum
        place += 7 + length
        parts.append(chunk)
        if kind in (FULL, LAST):
            record = Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            yield record
        else:
            assert kind in (FIRST, MIDDLE)


def read_back(wandb_folder: Path) -> dict[str, Any]:
    """Config, last value of every history key, summary, files folder and exit code of the one offline run there."""
    (path,) = wandb_folder.glob("offline-run-*/run-*.wandb")
    found: dict[str, Any] = {"config": {}, "history": {}, "summary": {}, "files": path.parent / "files"}
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found["run"] = record.run
            update(found["config"], record.run.config.update)
        elif kind == "config":
            update(found["config"], record.config.update)
        elif kind == "history":
            update(found["history"], record.history.item)
        elif kind == "summary":
            update(found["summary"], record.summary.update)
        elif kind == "exit":
            found["exit"] = record.exit.exit_code
    return found


def rows_of(wandb_folder: Path) -> Iterator[dict[str, Any]]:
    """What the one offline run there logged, entry by entry."""
    (path,) = wandb_folder.glob("offline-run-*/run-*.wandb")
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            row: dict[str, Any] = {}
            update(row, record.history.item)
            yield row


def update(values: dict[str, Any], items: Any) -> None:
    for item in items:
        values[".".join(item.nested_key) if item.nested_key else item.key] = json.loads(item.value_json)
