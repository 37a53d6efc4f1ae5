"""How a game is learned: rounds, optimisers, checkpoints, the sentinel. No ray, mlflow or optuna here."""
