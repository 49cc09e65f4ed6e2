"""Photo collections, their queries and their truth."""

from imret.datasets.base import (
    RetrievalDataset,
    data_root,
    list_datasets,
    list_images,
    register_dataset,
)
from imret.datasets.load import load_dataset
from imret.datasets.own import load_folders, load_manifest
from imret.datasets.photos import load_photos
from imret.datasets.revisited import load_revisited, read_pickle, read_revisited

__all__ = [
    "RetrievalDataset",
    "data_root",
    "list_datasets",
    "list_images",
    "load_dataset",
    "load_folders",
    "load_manifest",
    "load_photos",
    "load_revisited",
    "read_pickle",
    "read_revisited",
    "register_dataset",
]
