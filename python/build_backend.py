"""maturin, which says in plain words what is missing to build the package instead of installing it by itself."""

import re
import shutil
import subprocess
import sys

from maturin import *  # noqa: F403
import maturin

#: `rust-version` of the workspace; a test compares them.
RUST = (1, 95)


def _need_rust() -> None:
    version = ".".join(map(str, RUST))
    how = f"Install Rust {version} or newer from https://rustup.rs, open a new terminal, and run pip again."
    if shutil.which("cargo") is None or shutil.which("rustc") is None:
        sys.exit(f"palmtop is written in Rust, and is compiled here, but there is no Rust compiler.\n{how}")
    said = subprocess.run(["rustc", "--version"], stdout=subprocess.PIPE, text=True).stdout
    found = re.match(r"rustc (\d+)\.(\d+)", said)
    if found and tuple(map(int, found.groups())) < RUST:
        sys.exit(f"palmtop needs Rust {version} or newer, and this is {said.strip()}.\n{how} With rustup: rustup update")
    if sys.platform == "linux" and not any(map(shutil.which, ("cc", "gcc", "clang"))):
        sys.exit("Rust needs a linker, and there is none: install gcc (Debian: apt install gcc libc6-dev)")


def get_requires_for_build_wheel(config_settings=None):
    _need_rust()
    return maturin.get_requires_for_build_wheel(config_settings)


def get_requires_for_build_editable(config_settings=None):
    _need_rust()
    return maturin.get_requires_for_build_editable(config_settings)
