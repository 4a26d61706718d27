"""Architectures that operators add: distributions with the entry point ``planish.architectures``.

The entry point's name is the library in a spec, its value an `ArchitecturePlugin`::

    [project.entry-points."planish.architectures"]
    acme = "acme_planish:PLUGIN"

    PLUGIN = ArchitecturePlugin({"tinynet": (TinyNet, "acme_planish.networks:tinynet")})

`TinyNet` is an `ArchitectureConfig`; the API reads it, so its module must not import torch. The
text names a function of the config that returns the ``nn.Module``; only workers import it. Clients
choose among its names and send scalars that the config has checked, never code.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points

from planish.contract.architectures.base import OWN_LIBRARY, ArchitectureConfig
from planish.contract.architectures.published import TRANSFORMERS
from planish.contract.architectures.zoo import TIMM, TORCHVISION

log = logging.getLogger(__name__)

GROUP = "planish.architectures"
TAKEN = (OWN_LIBRARY, TRANSFORMERS, TIMM, TORCHVISION)


@dataclass(frozen=True)
class ArchitecturePlugin:
    """What one library adds.

    Attributes:
        architectures: for each name the config, and ``module:function`` of what builds it.
    """

    architectures: Mapping[str, tuple[type[ArchitectureConfig], str]]


@cache
def plugins() -> Mapping[str, ArchitecturePlugin]:
    """Return what is installed, by library; one that cannot be loaded is logged and left out."""
    found: dict[str, ArchitecturePlugin] = {}
    for point in entry_points(group=GROUP):
        if point.name in TAKEN or point.name in found:
            log.warning("the architectures of %r are left out: the name is taken", point.name)
            continue
        try:
            plugin = point.load()
        except Exception as error:  # a stranger's module: whatever it raises, we go on without it
            log.warning("the architectures of %r cannot be loaded: %s", point.name, error)
            continue
        if isinstance(plugin, ArchitecturePlugin):
            found[point.name] = plugin
        else:
            log.warning("%r is no ArchitecturePlugin: %s", point.name, point.value)
    return found
