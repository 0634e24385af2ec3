"""The stages of a run, each a function of a `training.run.Context` and the folder that it fills."""
