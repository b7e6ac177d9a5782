"""Batch-norm policies that networks share: statistics of the batch, frozen running ones, or group norm instead."""

from __future__ import annotations

from torch import nn

POLICIES = ("train", "frozen", "group")


def use_group_norm(network: nn.Module) -> None:
    """Replace every batch norm by a group norm of up to 32 groups that starts with its scale and shift."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                channels = child.num_features
                groups = max(g for g in range(1, 33) if channels % g == 0)
                norm = nn.GroupNorm(groups, channels, eps=child.eps, affine=child.affine)
                if child.affine:
                    norm.load_state_dict({"weight": child.weight, "bias": child.bias})
                after = list(child.children())  # timm's batch norms have their activation inside
                setattr(module, name, nn.Sequential(norm, *after) if after else norm)


def set_statistics(network: nn.Module, mode: bool, policy: str) -> None:
    """Let batch norms use and update statistics of the batch only where the policy is "train" and they are trained.

    With "frozen", and in layers whose parameters are held, they keep the running ones, whatever `mode` is.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            held = module.affine and not module.weight.requires_grad
            module.train(mode and policy == "train" and not held)
