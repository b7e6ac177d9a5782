"""Futures: several ways in which all of a scene may go on, and how likely each is."""

from flowlib.tasks.futures.task import FuturesTask, latent_experiments, task_for

__all__ = ["FuturesTask", "latent_experiments", "task_for"]
