"""Futures: several ways in which all of a scene may go on, how likely each is, and whether the true one is among them."""

from flowlib.tasks.futures.task import FuturesTask, latent_experiments

__all__ = ["FuturesTask", "latent_experiments"]
