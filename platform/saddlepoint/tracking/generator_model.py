"""The code of a registered generator: MLflow copies this file into the model, and runs it to load the model.

What `predict` takes depends on the game; all arrays are float32 but y, and it runs on the CPU.

    draws samples     z (n, z_dim)                              -> samples (n, *sample_shape)
    conditional       {"z": (n, z_dim), "y": (n,) int64}        -> samples (n, *sample_shape)
    translates        images (n, *sample_shape), params={"direction": "x_to_y" or "y_to_x"}  -> images

No training code runs, and no pickle is read.
"""

import importlib
import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from numpy.typing import NDArray

from saddlepoint.generator import load_generator


class GeneratorModel(PythonModel):
    def load_context(self, context: PythonModelContext) -> None:
        path = Path(context.artifacts["generator.json"])
        card = json.loads(path.read_text())
        for name in (card["game"]["name"], *(network["factory"] for network in card["networks"].values())):
            module, colon, _ = name.partition(":")
            if colon:  # the code that lies with the model, not what bears its name in the working folder today
                importlib.import_module(module)
        self.generator = load_generator(path.parent)

    def predict(self, context: PythonModelContext, model_input: np.ndarray, params: Any = None) -> NDArray[Any]:
        if self.generator.game.translate:
            images = torch.from_numpy(np.ascontiguousarray(model_input))
            return self.generator.translate(images, params["direction"]).numpy()
        if self.generator.classes is None:
            return self.generator(torch.from_numpy(model_input)).numpy()
        named: Any = model_input  # a dict of arrays; to MLflow it is not to be told in the signature of `predict`
        return self.generator(torch.from_numpy(named["z"]), torch.from_numpy(named["y"])).numpy()


mlflow.models.set_model(GeneratorModel())
