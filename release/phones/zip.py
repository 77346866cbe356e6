#!/usr/bin/env python3
"""Packs a folder as a zip, with nothing in it of when or by whom: zip.py ARCHIVE FOLDER"""

import os
import pathlib
import sys
import time
import zipfile

archive, folder = map(pathlib.Path, sys.argv[1:])
# A zip begins in 1980.
moment = time.gmtime(max(int(os.environ["SOURCE_DATE_EPOCH"]), 315532800))[:6]
with zipfile.ZipFile(archive, "w") as packed:
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        entry = zipfile.ZipInfo(file.relative_to(folder).as_posix(), moment)
        entry.external_attr = 0o100644 << 16
        entry.compress_type = zipfile.ZIP_DEFLATED
        packed.writestr(entry, file.read_bytes())
