"""The code of a registered generator: MLflow copies this file into the model, and runs it to load the model.

z (n, z_dim) float32 -> samples (n, *sample_shape) float32, on the CPU. Needs torch, safetensors, numpy and
`saddlepoint.networks`; no training code, no pickle.
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
from safetensors.torch import load_file

from saddlepoint.networks import build


class GeneratorModel(PythonModel):
    def load_context(self, context: PythonModelContext) -> None:
        card = json.loads(Path(context.artifacts["generator.json"]).read_text())
        module, colon, _ = card["network"]["factory"].partition(":")
        if colon:  # the code that lies with the model, not what bears its name in the working folder today
            importlib.import_module(module)
        self.network = build(card["network"]["factory"], card["network"]["options"])
        self.network.load_state_dict(load_file(context.artifacts["generator.safetensors"]))
        self.network.eval()

    def predict(self, context: PythonModelContext, model_input: np.ndarray, params: Any = None) -> NDArray[Any]:
        with torch.no_grad():
            samples: torch.Tensor = self.network(torch.from_numpy(model_input))
        return samples.numpy()


mlflow.models.set_model(GeneratorModel())
