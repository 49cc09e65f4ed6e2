"""Photo collections, their queries and their truth."""

from imret.datasets.base import (
    RetrievalDataset,
    data_root,
    iter_images,
    list_images,
)
from imret.datasets.classes import (
    load_cub200,
    load_sop,
    load_stanford_dogs,
    read_cub200,
    read_list,
    read_mat,
    read_sop,
    read_stanford_dogs,
)
from imret.datasets.compact_lists import (
    CompactDataset,
    CompactPairs,
    check_vectors,
    load_cdvs_test,
    load_cdvs_train,
    read_compact_pairs,
    read_compact_test,
    read_text_lists,
    write_compact_lists,
)
from imret.datasets.emoji import load_emoji, read_emoji
from imret.datasets.describe import Description, describe_images
from imret.datasets.export import write_pairs, write_revisited
from imret.datasets.distractors import (
    Distractors,
    load_distractors,
    open_shards,
    stream_scores,
    write_shards,
)
from imret.datasets.fetch import RemoteFile, fetch
from imret.datasets.letterbox import (
    ImageMatrix,
    letterbox,
    open_image_matrix,
    write_image_matrix,
)
from imret.datasets.load import load_dataset
from imret.datasets.own import load_folders, load_manifest
from imret.datasets.oxford_paris import (
    PARIS_CORRUPT,
    load_oxford5k,
    load_paris6k,
    load_roxford5k,
    load_rparis6k,
    read_landmarks,
)
from imret.datasets.photos import load_photos
from imret.datasets.registry import (
    DatasetCard,
    check_dataset,
    dataset_state,
    find_card,
    get_dataset,
    list_datasets,
    register_check,
    register_dataset,
    register_get,
)
from imret.datasets.revisited import load_revisited, read_pickle, read_revisited
from imret.datasets.sfm import (
    load_gldv1,
    load_retrieval_sfm_30k,
    load_retrieval_sfm_120k,
    make_pairs,
    read_pair_list,
)
from imret.datasets.splits import (
    LabelledImages,
    Split,
    TrainingPairs,
    split_by_class,
    split_within_classes,
)
from imret.datasets.tinytown import Tinytown, load_tinytown, load_tinytown_train
from imret.datasets.tinytown_clips import (
    load_tinytown_clips,
    origin_groups,
    read_groups,
    write_groups,
)
from imret.datasets.gldv2 import (
    gldv2_paths,
    load_gldv2,
    load_gldv2_clean,
    load_gldv2_train,
)
from imret.datasets.ukbench import (
    load_ukbench,
)
from imret.datasets.uniform import (
    class_labels,
    copy_classes,
    copy_results,
    load_uni_oxford,
    make_uniform,
)

__all__ = [
    "PARIS_CORRUPT",
    "CompactDataset",
    "CompactPairs",
    "DatasetCard",
    "Description",
    "Distractors",
    "ImageMatrix",
    "LabelledImages",
    "RemoteFile",
    "RetrievalDataset",
    "Split",
    "Tinytown",
    "TrainingPairs",
    "check_dataset",
    "check_vectors",
    "class_labels",
    "copy_classes",
    "copy_results",
    "data_root",
    "dataset_state",
    "describe_images",
    "fetch",
    "find_card",
    "get_dataset",
    "gldv2_paths",
    "iter_images",
    "letterbox",
    "list_datasets",
    "list_images",
    "load_cdvs_test",
    "load_cdvs_train",
    "load_cub200",
    "load_dataset",
    "load_distractors",
    "load_emoji",
    "load_folders",
    "load_gldv1",
    "load_gldv2",
    "load_gldv2_clean",
    "load_gldv2_train",
    "load_manifest",
    "load_oxford5k",
    "load_paris6k",
    "load_photos",
    "load_retrieval_sfm_30k",
    "load_retrieval_sfm_120k",
    "load_revisited",
    "load_roxford5k",
    "load_rparis6k",
    "load_sop",
    "load_stanford_dogs",
    "load_tinytown",
    "load_tinytown_clips",
    "load_tinytown_train",
    "load_ukbench",
    "load_uni_oxford",
    "make_pairs",
    "make_uniform",
    "open_image_matrix",
    "open_shards",
    "origin_groups",
    "read_compact_pairs",
    "read_compact_test",
    "read_cub200",
    "read_emoji",
    "read_groups",
    "read_landmarks",
    "read_list",
    "read_mat",
    "read_pair_list",
    "read_pickle",
    "read_revisited",
    "read_sop",
    "read_stanford_dogs",
    "read_text_lists",
    "register_check",
    "register_dataset",
    "register_get",
    "split_by_class",
    "split_within_classes",
    "stream_scores",
    "write_compact_lists",
    "write_groups",
    "write_image_matrix",
    "write_pairs",
    "write_revisited",
    "write_shards",
]
