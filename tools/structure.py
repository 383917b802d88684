#!/usr/bin/env python3
"""Checks the types of crates/*/src, tests left out: at most 12 fields, no anonymous tuple as a field, and the
methods of a type in at most two files.

usage: structure.py      exit 1 where a type breaks a rule
Reads the source as text: it counts named fields of structs and of enum variants, and takes two types of one name in
a crate apart by the file that declares them.
"""
import collections, glob, re, sys

MAX_FIELDS, MAX_FILES = 12, 2
ALLOWED = {  # (file, type): reason
    ("crates/config/src/lib.rs", "Config"): "one field for each section of ooblex.toml",
    ("crates/api/src/http/gateway.rs", "Gateway"): "one field for each part of the gateway that handlers use",
    ("crates/config/src/lib.rs", "Limits"): "one field for each key of [limits]; flattened parts would accept unknown keys",
}


def code(path):
    text = re.sub(r"//.*", "", open(path).read())
    return re.sub(r"#\[cfg\(test\)\]\s*mod \w+ \{.*", "", text, flags=re.S)


def fields(body):
    body, out, depth, part = re.sub(r"#\[(?:[^][]|\[[^]]*\])*\]", "", body).replace("->", "  "), [], 0, ""
    for c in body + ",":
        depth += (c in "<([{") - (c in ">)]}")
        if c == "," and not depth:
            if ":" in part: out.append((part.split(":")[0].split()[-1], part.split(":", 1)[1]))
            part = ""
        else: part += c
    return out


def block(text, start):
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if not depth: return text[start + 1:i]


def named_parts(text):
    for m in re.finditer(r"\b(struct|enum) (\w+)[^;{(]*\{", text):
        body = block(text, m.end() - 1)
        if m[1] == "struct": yield m[2], fields(body)
        else:
            for v in re.finditer(r"(\w+)\s*\{", body): yield f"{m[2]}::{v[1]}", fields(block(body, v.end() - 1))


def is_tuple(type_):
    return re.search(r"\([^()]+,[^()]*\)", re.sub(r"\b[Ff]n(Mut|Once)?\([^()]*\)", "", type_))


def main():
    wrong, declared, impls = [], collections.defaultdict(set), collections.defaultdict(set)
    for path in sorted(glob.glob("crates/*/src/**/*.rs", recursive=True)):
        if path.endswith("tests.rs") or "/simulation" in path: continue
        text, crate = code(path), path.split("/")[1]
        for name, parts in named_parts(text):
            if len(parts) > MAX_FIELDS and (path, name) not in ALLOWED: wrong.append(f"{path}: {name} has {len(parts)} fields: group them into parts")
            wrong += [f"{path}: {name}.{field} is a tuple: name its parts in a struct" for field, type_ in parts if is_tuple(type_)]
        for m in re.finditer(r"\b(?:struct|enum) (\w+)", text): declared[crate, m[1]].add(path)
        for m in re.finditer(r"^impl(?:<[^>]*>)?\s+(?!.* for )(\w+)", text, re.M): impls[crate, m[1]].add(path)
    for (crate, name), files in impls.items():
        own = declared[crate, name]
        if len(files - own) + bool(files & own) > MAX_FILES: wrong.append(f"crates/{crate}: {name} has methods in {' '.join(sorted(files))}: divide it into parts")
    print("\n".join(wrong) or "structure: no type breaks a rule")
    sys.exit(bool(wrong))


main()
