"""What the notebook sweep.ipynb sends: a model of handwritten digits, trained and tried on digits it has not seen."""

import os
import socket

# A task that asked for one processor should use one.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")


def train(parameters):
    """Returns {"gamma", "c", "accuracy" (of 450 digits, 0 to 1), "machine"} for {"gamma", "c"}."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.svm import SVC

    digits = load_digits()  # 1,797 pictures of 8×8 pixels, from 0 to 16
    seen, unseen, labels, wanted = train_test_split(digits.data, digits.target, test_size=450, random_state=0, stratify=digits.target)
    model = SVC(gamma=parameters["gamma"], C=parameters["c"]).fit(seen, labels)
    accuracy = model.score(unseen, wanted)
    print(f"{model} reaches {accuracy:.4f}")
    return {**parameters, "accuracy": accuracy, "machine": socket.gethostname()}
