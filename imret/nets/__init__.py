"""From pictures to descriptors: backbones, pooling, and the net that composes them."""

from imret.nets.attention import SecondOrderAttention, SpatialAttention
from imret.nets.backbones import Backbone, Preprocess, WeightsError, create_backbone, pypi_weights
from imret.nets.checkpoints import describe, diff, load_net, save_net, write_checkpoint
from imret.nets.embedder import (
    EmbeddingNet,
    create_embedder,
    hash_weights,
    list_embedders,
    read_name,
)
from imret.nets.importers import import_net
from imret.nets.export import ExportError, OnnxNet, export_onnx, load_onnx
from imret.nets.inference import InferenceNet, inference_net
from imret.nets.layers import StagePool, StageRegions
from imret.nets.pooling import (
    MAC,
    POOLINGS,
    GeM,
    GeMCars,
    Pooling,
    SPoC,
    create_pooling,
    place_effects,
    register_pooling,
)
from imret.nets.regions import RMAC, RegionalPool, RoIPool, box_cells, rmac_boxes
from imret.nets.stages import StageMaps, attend, find_stage, freeze, list_stages
from imret.nets.weighted import (
    HNIP,
    CroW,
    GeMPlus,
    RegionalGeM,
    local_gem,
    nested_invariance,
    quarter_turns,
    scale_gem,
)
from imret.nets.whiten import LocalWhiten, RegionalWhiten, Whiten

__all__ = [
    "Backbone",
    "CroW",
    "EmbeddingNet",
    "ExportError",
    "GeM",
    "GeMCars",
    "GeMPlus",
    "HNIP",
    "InferenceNet",
    "LocalWhiten",
    "MAC",
    "OnnxNet",
    "POOLINGS",
    "Pooling",
    "Preprocess",
    "RMAC",
    "RegionalGeM",
    "RegionalPool",
    "RegionalWhiten",
    "RoIPool",
    "SPoC",
    "SecondOrderAttention",
    "SpatialAttention",
    "StageMaps",
    "StagePool",
    "StageRegions",
    "WeightsError",
    "Whiten",
    "attend",
    "box_cells",
    "create_backbone",
    "create_embedder",
    "create_pooling",
    "describe",
    "diff",
    "export_onnx",
    "find_stage",
    "freeze",
    "hash_weights",
    "import_net",
    "inference_net",
    "list_embedders",
    "list_stages",
    "load_net",
    "load_onnx",
    "local_gem",
    "nested_invariance",
    "place_effects",
    "pypi_weights",
    "quarter_turns",
    "read_name",
    "register_pooling",
    "rmac_boxes",
    "save_net",
    "scale_gem",
    "write_checkpoint",
]
