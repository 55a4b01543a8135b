"""How a picture's cells are counted. The notebook and the engines import this same file."""

import numpy as np
from PIL import Image


def load(path):
    """The picture as an array of floats, 0 to 1."""
    return np.asarray(Image.open(path).convert("L")) / 255


def smooth(image, times):
    """Blur with the weights 1-2-1, along both axes, `times` over."""
    for _ in range(times):
        for axis in (0, 1):
            image = (np.roll(image, 1, axis) + 2 * image + np.roll(image, -1, axis)) / 4
    return image


def threshold(image):
    """Otsu's threshold: the grey that divides dark from bright with the least variance on either side."""
    counts, edges = np.histogram(image, bins=256)
    middles = (edges[:-1] + edges[1:]) / 2
    dark = np.cumsum(counts)
    bright = counts.sum() - dark
    below = np.cumsum(counts * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = dark * bright * (below / dark - (below[-1] - below) / bright) ** 2
    return middles[np.nanargmax(between)]


def label(mask):
    """Give every connected region of `mask` a number from 1 on; 0 is what is outside."""
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:  # each pixel takes the highest number in its neighbourhood, until nothing changes
        grown = labels
        for axis in (0, 1):
            for step in (1, -1):
                grown = np.maximum(grown, np.where(mask, np.roll(labels, step, axis), 0))
        if (grown == labels).all():
            break
        labels = grown
    _, numbers = np.unique(labels, return_inverse=True)
    return numbers.reshape(mask.shape)


def segment(path, smallest=60):
    """Find the cells of one picture: an array with a number for each cell, and 0 between them."""
    image = smooth(load(path), times=4)
    labels = label(image > threshold(image))
    for number in range(1, labels.max() + 1):
        if (labels == number).sum() < smallest:
            labels[labels == number] = 0  # a speck
    _, numbers = np.unique(labels, return_inverse=True)
    return numbers.reshape(labels.shape)
