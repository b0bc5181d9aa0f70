"""Reads what the sweep's tasks left on the share, prints the table and draws plot.png.

    python3 gather.py [DIRECTORY]    the directory of a job's results; without one, the newest
"""

import glob
import json
import os
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def read(directory):
    results = []
    for path in glob.glob(os.path.join(directory, "*.json")):
        with open(path) as f:
            results.append(json.load(f))
    if not results:
        sys.exit(f"there are no results in {directory}")
    return sorted(results, key=lambda r: (-r["accuracy"], -r["folds"], r["index"]))


def label(r):
    return r["model"] + " " + ", ".join(f"{k}={v}" for k, v in r["parameters"].items())


def table(results):
    width = max(len(label(r)) for r in results)
    print(f"{'MODEL':<{width}}  ACCURACY  3 FOLDS  SECONDS  MACHINE")
    for r in results:
        print(f"{label(r):<{width}}  {r['accuracy']:8.4f}  {r['folds']:7.4f}  {r['seconds']:7.2f}  {r['machine']}")


def plot(results, path):
    best = results[0]
    figure, (bars, matrix) = plt.subplots(1, 2, figsize=(12, 4.8), gridspec_kw={"width_ratios": [3, 2]})
    rows = results[::-1]
    machines = sorted({r["machine"] for r in results})
    colours = plt.cm.viridis([i / max(1, len(machines)) for i in range(len(machines))])
    bars.barh([label(r) for r in rows], [r["accuracy"] for r in rows], color=[colours[machines.index(r["machine"])] for r in rows])
    bars.set_xlim(min(r["accuracy"] for r in results) - 0.03, 1)
    bars.set_xlabel("accuracy on 450 digits never seen")
    bars.set_title(f"{len(results)} models on {len(machines)} machine" + "s" * (len(machines) > 1))
    bars.legend([plt.Rectangle((0, 0), 1, 1, color=c) for c in colours], machines, loc="lower right", fontsize=8)
    bars.tick_params(axis="y", labelsize=8)
    matrix.imshow(best["confusion"], cmap="Greens")
    for y, row in enumerate(best["confusion"]):
        for x, n in enumerate(row):
            if n:
                matrix.text(x, y, n, ha="center", va="center", fontsize=8, color="white" if n > 20 else "black")
    matrix.set_xticks(range(10))
    matrix.set_yticks(range(10))
    matrix.set_xlabel("taken for")
    matrix.set_ylabel("digit")
    matrix.set_title(f"best: {label(best)}")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    if len(sys.argv) > 1:
        directory = sys.argv[1]
    else:
        directory = max(glob.glob(os.path.join(here, "results", "*")), key=os.path.getmtime, default=here)
    results = read(directory)
    table(results)
    path = os.path.join(directory, "plot.png")
    plot(results, path)
    print(f"\nthe plot is in {path}")


if __name__ == "__main__":
    main()
