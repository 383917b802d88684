#!/usr/bin/env python3
"""Makes the network of one style, from the photographs to the measured ONNX file: `style.py
wave_print`. Without a name it makes all.

Results are kept in the work folder: an interrupted command continues with the first missing result.
"""

import argparse
import hashlib
import json
import tomllib
from pathlib import Path

import cv2
import numpy as np
import torch

from export import export
from frames import HEIGHT, WIDTH, frames
from measure import Painter, figures
from photographs import MANIFEST, photographs
from sheet import sheet
from teacher import Teacher
from training import train

HERE = Path(__file__).parent
MODELS = HERE.parent
TEACHER = MODELS / "style26.onnx"
SEGMENTER = MODELS / "selfie_landscape_144x256.onnx"


def main():
    recipes = {recipe["name"]: recipe for recipe in tomllib.loads((HERE / "styles.toml").read_text())["style"]}
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("style", nargs="*", choices=[[], *recipes], help="those to make; without any, all")
    options.add_argument("--work", type=Path, default=HERE / "work", help="the folder for what is made on the way")
    options.add_argument("--threads", type=int, help="that training computes with")
    given = options.parse_args()
    cv2.setNumThreads(1)
    if given.threads:
        torch.set_num_threads(given.threads)
    workshop = Workshop(given.work, recipes)
    for name in given.style or recipes:
        workshop.make(name)


class Workshop:
    def __init__(self, work, recipes):
        self.work, self.recipes = work, recipes
        taken = photographs(work / "packages")
        self.tests = [framed(picture) for entry, picture in taken if entry["use"] == "test"]
        # Other photographs or other windows give other frames, so the results are kept in a folder
        # per version of these files.
        key = hashlib.sha256(MANIFEST.read_bytes() + (HERE / "frames.py").read_bytes()).hexdigest()[:8]
        self.folder = work / key
        self.folder.mkdir(parents=True, exist_ok=True)
        self.frames = self.kept(
            "frames.npy",
            lambda: frames([(picture, entry.get("person", False)) for entry, picture in taken if entry["use"] == "train"], SEGMENTER),
        )
        print(f"{len(self.frames)} frames")

    def make(self, name):
        weights, paintings, teacher = self.weights(name), self.paintings(name), Teacher(TEACHER, self.recipes[name]["number"])
        model = self.folder / f"style_{name}.onnx"
        export(weights, self.frames, paintings, model)
        measured = figures(model, teacher, self.tests)
        (self.folder / f"{name}.json").write_text(json.dumps(measured, indent=2) + "\n")
        for figure, value in measured.items():
            print(f"{name}: {figure:12}", " beside the teacher's ".join(f"{part:.4g}" for part in np.atleast_1d(value)))
        page = self.folder / f"{name}.jpg"
        sheet(self.tests, [teacher, Painter(model)], ["source", "style26", f"style_{name}"], page)
        print(f"{name}: {model} (sha256 {hashlib.sha256(model.read_bytes()).hexdigest()}), side by side in {page}")

    def weights(self, name):
        """Returns the student of a style, trained if necessary; the student that it starts from is
        trained first.
        """
        path, recipe = self.folder / f"{name}.pt", self.recipes[name]
        if not path.exists():
            start = self.weights(recipe["start"]) if "start" in recipe else None
            log = lambda line: print(f"{name}: {line}", flush=True)
            trained = train(self.frames, self.paintings(name), path.with_suffix(".checkpoint"), recipe["steps"], start, recipe.get("agreement"), log)
            torch.save(trained, path)
        return torch.load(path)

    def paintings(self, name):
        teacher = Teacher(TEACHER, self.recipes[name]["number"])

        def paint():
            print(f"{name}: the teacher paints {len(self.frames)} frames", flush=True)
            return np.stack([teacher.paint(frame) for frame in self.frames])

        return self.kept(f"{name}.npy", paint)

    def kept(self, name, make):
        path = self.folder / name
        if not path.exists():
            partial = path.with_suffix(".part.npy")
            np.save(partial, make())
            partial.replace(path)
        return np.load(path)


def framed(picture):
    """Returns the largest 16:9 window from the upper part of a picture, at the size of a frame."""
    height, width = picture.shape[:2]
    wide = min(width, height * 16 // 9)
    high = wide * 9 // 16
    y, x = (height - high) // 4, (width - wide) // 2
    return cv2.resize(picture[y : y + high, x : x + wide], (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)


if __name__ == "__main__":
    main()
