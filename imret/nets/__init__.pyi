# What the room offers: type checkers read this, and __init__.py, which loads what is asked for.
from .attention import SecondOrderAttention, SpatialAttention
from .backbones import Backbone, create_backbone, pypi_weights
from .checkpoints import describe, diff, load_net, save_net, write_checkpoint
from .embedder import EmbeddingNet, create_embedder, hash_weights, list_embedders
from .export import export_onnx
from .heads import DivideEncodeHead, HashHead, LinearHead, create_head
from .importers import import_net
from .inference import InferenceNet, inference_net
from .layers import StagePool, StageRegions
from .naming import HEADS, POOLINGS, read_name
from .onnx import ENGINES, ExportError, OnnxCard, OnnxNet, load_onnx, read_card
from .pooling import (
    GeM,
    GeMCars,
    MAC,
    Pooling,
    SPoC,
    create_pooling,
    place_effects,
    register_pooling,
)
from .preprocess import Preprocess, WeightsError
from .regions import RMAC, RegionalPool, RoIPool, box_cells, rmac_boxes
from .stages import StageMaps, attend, find_stage, freeze, list_stages
from .weighted import (
    CroW,
    GeMPlus,
    HNIP,
    RegionalGeM,
    local_gem,
    nested_invariance,
    quarter_turns,
    scale_gem,
)
from .whiten import LocalWhiten, RegionalWhiten, Whiten

__all__ = [
    "Backbone",
    "CroW",
    "DivideEncodeHead",
    "ENGINES",
    "EmbeddingNet",
    "ExportError",
    "GeM",
    "GeMCars",
    "GeMPlus",
    "HEADS",
    "HNIP",
    "HashHead",
    "InferenceNet",
    "LinearHead",
    "LocalWhiten",
    "MAC",
    "OnnxCard",
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
    "create_head",
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
    "read_card",
    "read_name",
    "register_pooling",
    "rmac_boxes",
    "save_net",
    "scale_gem",
    "write_checkpoint",
]
