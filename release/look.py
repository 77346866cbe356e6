#!/usr/bin/env python3
"""Looks at what release/build has made, without running it.

    look.py program FILE BYTES_MAX PATH...   static, stripped, no longer than that, none of the paths in it
    look.py bill FILE                        a bill of materials that names licences and sums
    look.py wheel FILE                       licences, stubs, one native module
"""

import json
import struct
import sys
import zipfile


def program(name, bytes_max, *paths):
    with open(name, "rb") as file:
        data = file.read()
    assert data[:6] == b"\x7fELF\x02\x01", "no ELF of 64 bits"
    kind, machine = struct.unpack_from("<HH", data, 16)
    # Rust links programs for aarch64 and musl at fixed addresses.
    assert kind == {62: 3, 183: 2}[machine], "not position independent"
    assert machine == {"x86_64": 62, "aarch64": 183}[name.split("/")[-2]], "of another architecture"
    offset, size, count = *struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54)
    kinds = [struct.unpack_from("<II", data, offset + size * index) for index in range(count)]
    assert 3 not in [kind for kind, _ in kinds], "it has an interpreter, so it is not static"
    # Of the stack; and no segment that is both written and executed.
    assert (0x6474E551, 6) in kinds and not any(kind == 1 and flags & 3 == 3 for kind, flags in kinds), "memory that may be written and run"
    assert 0x6474E552 in [kind for kind, _ in kinds], "nothing is read-only after relocation"
    sections, = struct.unpack_from("<Q", data, 40)
    entry, number, names = struct.unpack_from("<HHH", data, 58)
    table, = struct.unpack_from("<Q", data, sections + entry * names + 24)
    found = [data[table + at :].split(b"\0", 1)[0] for at, in (struct.unpack_from("<I", data, sections + entry * i) for i in range(number))]
    assert b".symtab" not in found and b".debug_info" not in found, "not stripped"
    assert len(data) <= int(bytes_max), f"{len(data)} bytes: more than {bytes_max}"
    for path in paths:
        assert path.encode() not in data, f"{path} is in it"


def bill(name):
    with open(name, encoding="utf-8") as file:
        found = json.load(file)
    assert found["bomFormat"] == "CycloneDX" and found["specVersion"] == "1.6"
    components = found["components"]
    names = {component["name"] for component in components}
    assert {"palmtop", "palmtop-kernels", "rustls", "musl"} <= names and "tempfile" in names, names
    # None of the tests, of builds, or of a feature that is off.
    assert not {"criterion", "proptest", "cc", "rustdds", "tokenizers"} & names, names
    for component in components:
        licence = component["licenses"][0]["expression"]
        assert licence and licence != "NOASSERTION" and "/" not in licence, component["name"]
        assert "hashes" in component or not component.get("purl") or component["name"].startswith("palmtop"), component["name"]
    references = {component["bom-ref"] for component in components} | {found["metadata"]["component"]["bom-ref"]}
    for edge in found["dependencies"]:
        assert {edge["ref"], *edge["dependsOn"]} <= references, edge


def wheel(name):
    with zipfile.ZipFile(name) as packed:
        names = packed.namelist()
        for ending in ("/licenses/LICENSE", "/licenses/THIRD-PARTY.txt", "palmtop/py.typed", "palmtop/_palmtop.pyi", "palmtop/_palmtop.abi3.so",
                       "/sboms/palmtop.cdx.json"):
            assert sum(entry.endswith(ending) for entry in names) == 1, f"{ending}: {names}"
        metadata = packed.read(next(entry for entry in names if entry.endswith(".dist-info/METADATA"))).decode()
        assert "License-Expression: Apache-2.0\n" in metadata and "Requires-Python: >=3.9\n" in metadata, metadata
        notices = packed.read(next(entry for entry in names if entry.endswith("/THIRD-PARTY.txt"))).decode()
        assert "pyo3" in notices and "Apache License" in notices


what, *arguments = sys.argv[1:]
{"program": program, "bill": bill, "wheel": wheel}[what](*arguments)
