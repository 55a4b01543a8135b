"""Draw the pictures in ``cells/``, and write down in ``cells/truth.csv`` how many cells each one has.

They look like what a fluorescence microscope sees: bright cells, uneven light, noise. Run it again with other
numbers to make the task harder.
"""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 160


def picture(rng, number):
    """A grey picture with `number` cells that do not touch."""
    y, x = np.mgrid[:SIZE, :SIZE]
    light = 25 + 30 * np.exp(-((x - rng.uniform(0, SIZE)) ** 2 + (y - rng.uniform(0, SIZE)) ** 2) / 90**2)
    placed = []
    while len(placed) < number:
        cx, cy = rng.uniform(16, SIZE - 16, 2)
        long, short = rng.uniform(8, 13), rng.uniform(5.5, 8)
        if all(np.hypot(cx - ox, cy - oy) > long + other + 5 for ox, oy, other in placed):
            placed.append((cx, cy, long))
            turn = rng.uniform(0, np.pi)
            u = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
            v = (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
            body = 1 / (1 + np.exp(6 * (np.hypot(u / long, v / short) - 1)))
            nucleus = 0.5 * np.exp(-((u / (long / 3)) ** 2 + (v / (short / 2.5)) ** 2))
            light = light + rng.uniform(70, 130) * (body + nucleus)
    light = light + rng.normal(0, 4, light.shape)
    return Image.fromarray(np.clip(light, 0, 255).astype("uint8"))


if __name__ == "__main__":
    rng = np.random.default_rng(1665)  # the year Robert Hooke gave the cell its name
    folder = Path(__file__).parent / "cells"
    folder.mkdir(exist_ok=True)
    with open(folder / "truth.csv", "w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["picture", "cells"])
        for index in range(24):
            number = int(rng.integers(3, 17))
            picture(rng, number).save(folder / f"{index:02}.jpg", quality=60, optimize=True)
            rows.writerow([f"{index:02}.jpg", number])
