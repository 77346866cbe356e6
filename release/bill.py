#!/usr/bin/env python3
"""What a package is made of: a software bill of materials (CycloneDX 1.6, JSON), and the licences of others.

    release/bill.py PACKAGE TARGET --bill OUT.cdx.json --notices OUT.txt [--extra NAME=LICENCE[=FILE] ...]

Both come from `cargo tree`, which knows what is linked for a target, from `cargo metadata`, and from the files of the
crates as cargo has fetched them. A crate that may be had under the Apache License 2.0, as palmtop is, is taken under it;
of the others every text that they bring is given. `--extra` adds something that is no crate, such as the C library. The
time is SOURCE_DATE_EPOCH, so that the same sources give the same bytes.
"""

import argparse
import datetime
import json
import os
import pathlib
import re
import subprocess
import uuid

APACHE = "Apache-2.0"
# Names of files with licences. What follows the name may say which one it is.
LICENCE_FILE = re.compile(r"(un)?licen[sc]es?|copying|copyright|notices?", re.IGNORECASE)


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def linked(package, target, features):
    """Names and versions of the crates that are linked, the package itself first."""
    tree = run(
        "cargo", "tree", "--locked", "-p", package, "--target", target, "--features", features, "-e", "normal,no-proc-macro",
        "--prefix", "none", "--no-dedupe", "--format", "{p}",
    )
    names = [tuple(line.split()[:2]) for line in tree.splitlines()]
    return list(dict.fromkeys((name, version.lstrip("v")) for name, version in names))


def expression(crate):
    """Its licence as SPDX writes it; old manifests have a slash for OR."""
    return (crate["license"] or "NOASSERTION").replace("/", " OR ")


def allows(expression, licence):
    """Whether an SPDX expression is satisfied by this licence alone."""
    words = re.findall(r"\(|\)|[\w.+-]+", re.sub(r"(\S+) WITH (\S+?)(?=[\s)]|$)", r"\1-WITH-\2", expression))
    python = [{"AND": "and", "OR": "or", "(": "(", ")": ")"}.get(word, str(word == licence)) for word in words]
    return eval(" ".join(python), {"__builtins__": {}})  # Nothing but True, False, and, or, and parentheses.


def texts(folder):
    """The files of a crate that have its licences."""
    for file in sorted(folder.rglob("*")):
        depth = len(file.relative_to(folder).parts)
        is_named = LICENCE_FILE.match(file.name) or (depth == 2 and LICENCE_FILE.fullmatch(file.parent.name))
        if depth <= 2 and is_named and file.is_file() and file.suffix not in (".rs", ".toml", ".json", ".html", ".bib"):
            yield file


def clean(text):
    lines = [line.rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    return "\n".join(lines).strip("\n") + "\n"


def notices(crates, extras, root):
    """The text, and what could not be found."""
    under_apache, others, missing = [], {}, []
    for crate in crates:
        title = f"{crate['name']} {crate['version']}"
        folder = pathlib.Path(crate["manifest_path"]).parent
        files = list(texts(folder))
        if allows(expression(crate), APACHE):
            under_apache.append(title)
            files = [file for file in files if file.name.upper().startswith("NOTICE")]
        elif not files:
            missing.append(f"{title} ({expression(crate)})")
        for file in files:
            text = clean(file.read_text(encoding="utf-8", errors="replace"))
            others.setdefault(text, []).append(f"{title} ({expression(crate)})")
    for name, licence, file in extras:
        if allows(licence, APACHE):
            under_apache.append(name)
        else:
            others.setdefault(clean(file.read_text(encoding="utf-8", errors="replace")), []).append(f"{name} ({licence})")
    rule = "=" * 80
    parts = [
        "palmtop contains the work of others. This file has their licences.\n",
        f"{rule}\n\nUnder the Apache License 2.0, whose text ends this file:\n\n"
        + "".join(f"    {title}\n" for title in under_apache),
    ]
    if missing:
        parts.append(
            f"{rule}\n\nUnder the licence that their manifests name; they bring no text of it:\n\n"
            + "".join(f"    {title}\n" for title in missing)
        )
    for text, titles in sorted(others.items(), key=lambda item: item[1]):
        parts.append(f"{rule}\n\n" + "".join(f"    {title}\n" for title in dict.fromkeys(titles)) + f"\n{text}")
    parts.append(f"{rule}\n\n{clean((root / 'LICENSE').read_text())}")
    return "\n".join(parts)


def purl(crate):
    return f"pkg:cargo/{crate['name']}@{crate['version']}"


def component(crate, hashes):
    found = {
        "type": "library",
        "bom-ref": purl(crate),
        "name": crate["name"],
        "version": crate["version"],
        "licenses": [{"expression": expression(crate)}],
        "purl": purl(crate),
    }
    if crate["description"]:
        found["description"] = " ".join(crate["description"].split())
    if digest := hashes.get((crate["name"], crate["version"])):
        found["hashes"] = [{"alg": "SHA-256", "content": digest}]
    if crate["repository"]:
        found["externalReferences"] = [{"type": "vcs", "url": crate["repository"]}]
    return found


def lock_hashes(root):
    """What Cargo.lock says of each crate's archive."""
    entries = re.findall(
        r'name = "(.*?)"\nversion = "(.*?)"\nsource = ".*?"\nchecksum = "(\w{64})"', (root / "Cargo.lock").read_text()
    )
    return {(name, version): digest for name, version, digest in entries}


def bill(package, target, crates, extras, edges, root):
    hashes = lock_hashes(root)
    epoch = int(os.environ["SOURCE_DATE_EPOCH"])
    commit = os.environ.get("PALMTOP_COMMIT", "")
    main, *rest = crates
    subject = component(main, hashes) | {"type": "application" if package == "palmtop-cli" else "library"}
    subject["properties"] = [{"name": "target", "value": target}, {"name": "commit", "value": commit or "unknown"}]
    components = [component(crate, hashes) for crate in rest]
    for name, licence, _ in extras:
        components.append({"type": "library", "bom-ref": name, "name": name, "licenses": [{"expression": licence}]})
    number = uuid.uuid5(uuid.NAMESPACE_URL, f"palmtop/{package}/{main['version']}/{target}/{commit}/{epoch}")
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{number}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": subject,
        },
        "components": components,
        "dependencies": [
            {"ref": purl(crate), "dependsOn": sorted(edges[purl(crate)])} for crate in crates
        ],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package")
    parser.add_argument("target")
    parser.add_argument("--features", default="")
    parser.add_argument("--bill", type=pathlib.Path)
    parser.add_argument("--notices", type=pathlib.Path)
    parser.add_argument("--extra", action="append", default=[], metavar="NAME=LICENCE[=FILE]")
    arguments = parser.parse_args()
    root = pathlib.Path(__file__).resolve().parent.parent
    os.chdir(root)

    metadata = json.loads(run("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", arguments.target))
    known = {(crate["name"], crate["version"]): crate for crate in metadata["packages"]}
    crates = [known[name] for name in linked(arguments.package, arguments.target, arguments.features)]
    crates[1:] = sorted(crates[1:], key=lambda crate: (crate["name"], crate["version"]))
    extras = []
    for extra in arguments.extra:
        name, licence, file = (extra + "=").split("=", 3)[:3]
        extras.append((name, licence, pathlib.Path(file)))

    by_id = {crate["id"]: crate for crate in crates}
    edges = {purl(crate): set() for crate in crates}
    for node in metadata["resolve"]["nodes"]:
        if node["id"] in by_id:
            for other in node["deps"]:
                if other["pkg"] in by_id and any(kind["kind"] is None for kind in other["dep_kinds"]):
                    edges[purl(by_id[node["id"]])].add(purl(by_id[other["pkg"]]))

    if arguments.bill:
        text = json.dumps(bill(arguments.package, arguments.target, crates, extras, edges, root), indent=1)
        arguments.bill.write_text(text + "\n")
    if arguments.notices:
        of_others = [crate for crate in crates if crate["source"]]
        arguments.notices.write_text(notices(of_others, extras, root), encoding="utf-8")


main()
