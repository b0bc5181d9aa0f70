"""One task of the sweep: trains the model with the number SHOAL_ARRAY_INDEX on scikit-learn's
handwritten digits (1797 pictures of 8 x 8), and writes what it scored to SHOAL_OUTPUT_RESULTS."""

import json
import os
import platform
import time

from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

MODELS = [
    ("svm", {"gamma": 0.0001, "C": 1}, lambda p: SVC(**p)),
    ("svm", {"gamma": 0.001, "C": 1}, lambda p: SVC(**p)),
    ("svm", {"gamma": 0.001, "C": 10}, lambda p: SVC(**p)),
    ("svm", {"gamma": 0.01, "C": 1}, lambda p: SVC(**p)),
    ("nearest neighbours", {"n_neighbors": 1}, lambda p: KNeighborsClassifier(**p)),
    ("nearest neighbours", {"n_neighbors": 5}, lambda p: KNeighborsClassifier(**p)),
    ("random forest", {"n_estimators": 50}, lambda p: RandomForestClassifier(random_state=0, **p)),
    ("random forest", {"n_estimators": 300}, lambda p: RandomForestClassifier(random_state=0, **p)),
    ("extra trees", {"n_estimators": 300}, lambda p: ExtraTreesClassifier(random_state=0, **p)),
    ("neural network", {"hidden_layer_sizes": [64], "max_iter": 400}, lambda p: make_pipeline(StandardScaler(), MLPClassifier(random_state=0, **p))),
    ("logistic regression", {"C": 0.1, "max_iter": 500}, lambda p: make_pipeline(StandardScaler(), LogisticRegression(**p))),
    ("decision tree", {"max_depth": 12}, lambda p: DecisionTreeClassifier(random_state=0, **p)),
]


def main():
    index = int(os.environ["SHOAL_ARRAY_INDEX"])
    name, parameters, make = MODELS[index - 1]
    started = time.monotonic()
    digits = load_digits()
    x, x_test, y, y_test = train_test_split(digits.data, digits.target, test_size=0.25, random_state=0, stratify=digits.target)
    folds = cross_val_score(make(parameters), x, y, cv=3)
    model = make(parameters).fit(x, y)
    guessed = model.predict(x_test)
    result = {
        "index": index,
        "model": name,
        "parameters": parameters,
        "folds": float(folds.mean()),
        "accuracy": float((guessed == y_test).mean()),
        "confusion": confusion_matrix(y_test, guessed).tolist(),
        "seconds": round(time.monotonic() - started, 2),
        "machine": platform.node(),
        "user": os.environ.get("USER", ""),
    }
    # Written beside and moved, so that whoever gathers sees whole results only.
    path = os.path.join(os.environ["SHOAL_OUTPUT_RESULTS"], f"{index}.json")
    with open(path + ".new", "w") as f:
        json.dump(result, f)
    os.replace(path + ".new", path)
    print(f"{name} {parameters}: {result['accuracy']:.4f} in {result['seconds']} s on {result['machine']}")


if __name__ == "__main__":
    main()
