"""Train a support-vector classifier on 8 x 8 images of handwritten digits and say how good it is.

Reads rows of 64 pixels (0..16) and a label; writes ``model.joblib`` and ``metrics.json``.
"""

import json
import os
import sys

import joblib
import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC


def main() -> None:
    rows = np.loadtxt(sys.argv[1], delimiter=",")
    images, labels = rows[:, :-1], rows[:, -1].astype(int)
    share = float(os.environ.get("TEST_SHARE", "0.25"))
    seen, held_out, seen_labels, held_out_labels = train_test_split(images, labels, test_size=share, random_state=0)
    model = SVC(gamma=0.001, C=10.0).fit(seen, seen_labels)
    accuracy = model.score(held_out, held_out_labels)
    joblib.dump(model, "model.joblib")
    with open("metrics.json", "w", encoding="utf-8") as file:
        json.dump({"accuracy": accuracy, "trained_on": len(seen), "tested_on": len(held_out)}, file)
    print(f"trained on {len(seen)} images, tested on {len(held_out)}: accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
