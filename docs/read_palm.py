"""Reads a .palm file as docs/format.md describes it, and nothing else. Needs numpy; checksums are compared if the
package xxhash is there.

    python docs/read_palm.py model.palm                lists metadata and tensors
    python docs/read_palm.py model.palm text.norm      prints a tensor

From Python: `Palm("model.palm").array("text.norm")`.
"""

import mmap
import struct
import sys

import numpy as np

try:
    from xxhash import xxh3_64_intdigest as checksum
except ImportError:
    checksum = None

STORAGES = {0: "bytes", 1: "f32 plain", 16: "f32 packed", 17: "f16 packed", 18: "int8 packed", 19: "int4 packed"}
FLOATS = {16: np.dtype("<f4"), 17: np.dtype("<f2")}


class Palm:
    """`metadata` by key, `tensors` by name: (storage, shape, offset, bytes, checksum)."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if self.data[:8] != b"PALM\r\n\x1a\n":
            raise ValueError("not a .palm file")
        version, flags, head, total, stated = struct.unpack_from("<IIQQQ", self.data, 8)
        if (version, flags) != (1, 0) or not 48 <= head <= min(total, 1 << 26) or total != len(self.data):
            raise ValueError(f"version {version}, flags {flags}, a head of {head} and a file of {total} bytes")
        if checksum and checksum(self.data[40:head]) != stated:
            raise ValueError("the head is damaged")
        self.head, self.at = self.data[:head], 40
        entries, tensors = self.fields("II")
        self.metadata = {self.text(): self.value() for _ in range(entries)}
        self.tensors = {}
        for _ in range(tensors):
            name = self.text()
            storage, dimensions = self.fields("BB")
            shape = self.fields("Q" * dimensions)
            self.tensors[name] = (storage, shape, *self.fields("QQQ"))
        assert self.at == head, "bytes are left over in the head"

    def fields(self, types):
        values = struct.unpack_from("<" + types, self.head, self.at)
        self.at += struct.calcsize("<" + types)
        return values

    def text(self):
        (length,) = self.fields("I")
        return self.fields(f"{length}s")[0].decode()

    def value(self):
        (kind,) = self.fields("B")
        if kind == 4:
            return self.text()
        if kind in (5, 6):
            (count,) = self.fields("I")
            return list(self.fields(f"{count}{'Qd'[kind - 5]}"))
        return self.fields({1: "Q", 2: "d", 3: "?"}[kind])[0]

    def bytes(self, name):
        _, _, offset, length, stated = self.tensors[name]
        data = self.data[offset : offset + length]
        if len(data) != length or checksum and checksum(data) != stated:
            raise ValueError(f"{name} is damaged")
        return data

    def array(self, name):
        """A tensor's values: f32, or u8 for bytes."""
        (storage, shape, *_), data = self.tensors[name], np.frombuffer(self.bytes(name), np.uint8)
        if storage == 0:
            return data
        if storage == 1:
            return data.view("<f4").reshape(shape)
        rows, cols = shape
        stripes = data.reshape(-(-rows // 16), -1)
        unpack = self.floats if storage in FLOATS else self.integers
        return np.concatenate([unpack(stripe, storage, cols) for stripe in stripes])[:rows]

    @staticmethod
    def floats(stripe, storage, cols):
        return stripe.view(FLOATS[storage]).reshape(cols, 16).T.astype(np.float32)

    @staticmethod
    def integers(stripe, storage, cols):
        chunk = 32 if cols <= 512 else 256
        chunks, groups = -(-cols // chunk), -(-cols // 16)
        scales = stripe[: chunks * 32].view("<u2").astype(np.uint32) << 16
        scales = np.repeat(scales.view(np.float32).reshape(chunks, 16).T, chunk, axis=1)[:, :cols]
        pairs = -(-groups // 2) if storage == 19 else 0
        tiles = stripe[-(-(chunks * 32 + pairs * 16) // 64) * 64 :].reshape(-1, 16, 4)
        if storage == 18:
            q = tiles.view(np.int8).transpose(1, 0, 2).reshape(16, -1)[:, :cols]
            return scales * q
        q = np.stack([tiles & 15, tiles >> 4], axis=1).reshape(-1, 16, 4).astype(np.int32) - 8
        q = q.transpose(1, 0, 2).reshape(16, -1)[:, :cols]
        group = stripe[chunks * 32 :][: pairs * 16].reshape(pairs, 16)
        group = np.stack([group & 15, group >> 4], axis=1).reshape(-1, 16).T.astype(np.int32)
        return scales * (q * np.repeat(group, 16, axis=1)[:, :cols]).astype(np.float32)


def main(path, name=None):
    palm = Palm(path)
    if name is None:
        for key, value in palm.metadata.items():
            print(f"{key:<28}{value}")
        for name, (storage, shape, offset, length, _) in palm.tensors.items():
            print(f"{name:<40}{STORAGES.get(storage, storage):<12}{list(shape)!s:<18}{length:>12} bytes at {offset}")
    else:
        print(palm.array(name))


if __name__ == "__main__":
    main(*sys.argv[1:]) if sys.argv[1:] else print(__doc__)
