"""The ready measurements by name: ``load_feature("pose")`` is a network with its weights and the reading of it.

Neighbours: ``faces``, ``pixels`` and ``geometry`` say what each measures; ``shipped`` reads the files. Networks are built once in a
process, so that features of one network share its run. ``JUDGES`` names, for a column, the column of another network that can speak to
it, ``MIRRORED`` those that ``controls.solve`` moves in the mirror image as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from torch import Tensor, nn

from steerable import checks
from steerable.features import backbone, digits, faces
from steerable.features.backbone import EfficientNetLite0
from steerable.features.face_mesh import FaceMesh
from steerable.features.face_networks import AgeGender, Expression, Identity, Landmarks68
from steerable.features.geometry import GEOMETRY
from steerable.features.heads import HeadNetwork
from steerable.features.person import PersonMask
from steerable.features.pixels import PIXELS
from steerable.protocols import Feature
from steerable.shipped import WEIGHTS, tensors

JUDGES: Mapping[str, str] = {  # the second judge of an attribute: a network that no fit has seen
    "yaw": "yaw68",
    "pitch": "pitch68",
    "roll": "roll68",
    "mouth-open": "mouth-open68",
    "mouth-width": "mouth-width68",
    "smile": "mouth-width68",
}
MIRRORED = ("pitch",)  # columns that a mirror image shares, though their network reads it otherwise
NETWORKS: Mapping[str, Callable[[Mapping[str, Tensor]], nn.Module]] = {
    "facemesh": FaceMesh.from_state,
    "expression": Expression.from_state,
    "landmarks68": Landmarks68.from_state,
    "identity": Identity.from_state,
    "age-gender": AgeGender.from_state,
    "person": PersonMask.from_state,
    "digits-predictor": digits.DigitNetwork.from_state,
    "digits-judge": digits.DigitNetwork.from_state,
    "heads-predictor": HeadNetwork.from_state,
    "heads-judge": HeadNetwork.from_state,
}


@cache
def load_network(name: str) -> Any:
    """A measuring network with its weights, frozen; the same object at every call.

    Raises:
        ValueError: an unknown name.
    """
    return NETWORKS[checks.known(name, NETWORKS, "network")](tensors(name))


def load_backbone(*, size: int = 64) -> EfficientNetLite0:
    """ImageNet features, ``(n, 1280)``: for heads trained on a user's labels and for distances between sets of images.

    Args:
        size: images are resized to this many pixels a side. The network was trained at 224; 64 is 12 times faster.
    """
    return backbone.shipped(size)


@cache
def _beside(name: str) -> faces.Beside:
    return faces.Beside(load_network(name))


def _calibration() -> Mapping[str, Any]:
    return json.loads((WEIGHTS / "landmarks68.json").read_text(encoding="utf-8"))


FEATURES: Mapping[str, Mapping[str, Callable[[], Feature]]] = {
    "pixels": {one.name: lambda one=one: one for one in PIXELS},
    "geometry": {one.name: lambda one=one: one for one in GEOMETRY},
    "faces": {
        "pose": lambda: faces.pose(_beside("facemesh")),
        "mouth": lambda: faces.mouth(_beside("facemesh")),
        "eyes": lambda: faces.eyes(_beside("facemesh")),
        "face-place": lambda: faces.place(_beside("facemesh")),
        "smile": lambda: faces.smile(load_network("expression")),
        "expression": lambda: faces.expression(load_network("expression")),
        "age": lambda: faces.age(load_network("age-gender")),
        "gender-presentation": lambda: faces.gender_presentation(load_network("age-gender")),
        "pose68": lambda: faces.pose68(load_network("landmarks68"), _calibration()),
        "mouth68": lambda: faces.mouth68(load_network("landmarks68")),
    },
    "regions": {
        "person": lambda: faces.person(_beside("person")),
        "person-colour": lambda: faces.person_colour(_beside("person")),
        "background-colour": lambda: faces.background_colour(_beside("person")),
        "skin-colour": lambda: faces.skin_colour(_beside("facemesh")),
        "hair-colour": lambda: faces.hair_colour(_beside("facemesh")),
    },
}
HOLDS: Mapping[str, Callable[[], Feature]] = {  # wide ones: to hold or to judge by, not to turn; in no group
    "identity": lambda: faces.identity(load_network("identity")),
    "landmarks68": lambda: faces.landmarks68(load_network("landmarks68")),
}
OF_DIGITS: Mapping[str, Callable[[], Feature]] = {  # of drawn digits, light on black; in no group, because faces have none
    "slant": lambda: digits.SLANT,
    "ink": lambda: digits.INK,
    "digit": lambda: digits.digit(load_network("digits-predictor")),
    "digit-class": lambda: digits.digit_class(load_network("digits-predictor")),
    "digit-judge": lambda: digits.digit_class(load_network("digits-judge"), "digit-judge", prefix="judged"),
}


def feature_names() -> Mapping[str, tuple[str, ...]]:
    """The groups and the features in each; "all" is every group, without the wide features that are only held."""
    groups = {group: tuple(makers) for group, makers in FEATURES.items()}
    return {**groups, "all": tuple(name for names in groups.values() for name in names)}


def load_feature(name: str, *, device: str = "cpu") -> Feature:
    """A ready measurement: ``load_feature("pose")``. Its network moves to the device, for every feature that shares it.

    Raises:
        ValueError: an unknown name; the error has the nearest known one.
    """
    makers = {name: maker for group in FEATURES.values() for name, maker in group.items()} | dict(HOLDS) | dict(OF_DIGITS)
    feature = makers[checks.known(name, makers, "feature")]()
    network = getattr(feature, "network", None)
    network = network.network if isinstance(network, faces.Beside) else network
    if isinstance(network, nn.Module):
        network.to(device)
    return feature


def load_features(*names: str, device: str = "cpu") -> tuple[Feature, ...]:
    """Several, by name or by group ("pixels", "geometry", "faces", "regions", "all"), each once; without names, all."""
    groups = feature_names()
    wanted = [one for name in names or ("all",) for one in groups.get(name, (name,))]
    for name in wanted:
        checks.known(name, {*groups, *groups["all"], *HOLDS, *OF_DIGITS}, "feature or group")
    return tuple(load_feature(name, device=device) for name in dict.fromkeys(wanted))
