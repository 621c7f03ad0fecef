"""A grid search in parallel: each setting is cross-validated in a container of its own.

minimodal run examples/ml_training.py --folds 5

scikit-learn is in the image alone: this machine needs neither it nor numpy.
"""

import itertools
import pickle

import minimodal

image = minimodal.Image.debian_slim().uv_pip_install("scikit-learn")
app = minimodal.App("ml-training", image=image)
models = minimodal.Dict.from_name("digit-models", create_if_missing=True)

CLASSES = 5  # of the ten digits, so that it takes seconds
GRID = {"C": [0.1, 1.0, 10.0], "gamma": [0.0005, 0.001, 0.01]}


@app.function(cpu=1, max_containers=4, timeout=300)
def evaluate(settings: dict[str, float], folds: int) -> float:
    """The mean accuracy of one setting."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import cross_val_score
    from sklearn.svm import SVC

    images, labels = load_digits(n_class=CLASSES, return_X_y=True)
    scores = cross_val_score(SVC(**settings), images, labels, cv=folds)
    print(f"{settings}: {scores.mean():.4f}")
    return float(scores.mean())


@app.function(cpu=1, timeout=300)
def train(settings: dict[str, float]) -> int:
    """Train with the best setting on everything, keep the model, and say how large it is."""
    from sklearn.datasets import load_digits
    from sklearn.svm import SVC

    images, labels = load_digits(n_class=CLASSES, return_X_y=True)
    model = pickle.dumps(SVC(**settings).fit(images, labels))
    models["best"] = model
    return len(model)


@app.cls(scaledown_window=60)
class Classifier:
    @minimodal.enter()
    def load(self) -> None:
        self.model = pickle.loads(models["best"])

    @minimodal.method()
    def read(self, indexes: list[int]) -> list[int]:
        """What the model reads in the pictures with these numbers."""
        from sklearn.datasets import load_digits

        return [
            int(each) for each in self.model.predict(load_digits(n_class=CLASSES).data[indexes])
        ]


@app.local_entrypoint()
def main(folds: int = 3) -> None:
    settings = [
        dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())
    ]
    scores = list(evaluate.map(settings, kwargs={"folds": folds}))
    ranked = sorted(zip(scores, settings, strict=True), key=lambda pair: -pair[0])
    for score, setting in ranked[:3]:
        print(f"{score:.4f}  {setting}")
    print(f"trained: {train.remote(ranked[0][1]) >> 10} KiB")
    print("it reads", *Classifier().read.remote([0, 1, 2, 3]))
