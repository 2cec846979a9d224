"""Replicated networks, TD targets and chunked replay for off-policy reinforcement learning.

Every trainable tensor has a leading replica axis ``R``: many runs train as one, none touches
another, and each gives the numbers that it gives alone.
"""

from qlearn._arithmetic import has_bfloat16_products
from qlearn._chunks import ChunkBatch, ChunkSource
from qlearn._ema import ema_update
from qlearn._encoders import EncodedCritic, ImageEncoder, ObservationEncoder
from qlearn._entropy import EntropyTemperature
from qlearn._episodes import EpisodeData
from qlearn._flow_actor import FlowActor, FlowField, RecordedField
from qlearn._frozen import frozen
from qlearn._gaussian import GaussianActor, TanhGaussian
from qlearn._gradients import GradientGuard, GradientReport, clip_gradients
from qlearn._history import ObservationHistory
from qlearn._images import is_image, random_shift
from qlearn._learner import Learner
from qlearn._mapped import MappedRows
from qlearn._mixtures import BalancedSampler, ShardRotation, UnionSampler
from qlearn._networks import MLP, CriticEnsemble
from qlearn._normalizer import Normalization, ObservationNormalizer
from qlearn._one_step_actor import OneStepActor
from qlearn._prefetch import PrefetchingSampler
from qlearn._random import RandomStreams
from qlearn._ring import RingBuffer
from qlearn._sampler import ChunkMode, ChunkSampler
from qlearn._td import expectile_loss, pessimistic_value, td_loss, td_target
from qlearn._tree import (
    LeafSpec,
    Observation,
    ObservationSpec,
    check_spec,
    leading_shape,
    tree_concat,
    tree_leaves,
    tree_map,
    tree_rows,
    tree_spec,
)

__all__ = [
    "MLP",
    "BalancedSampler",
    "ChunkBatch",
    "ChunkMode",
    "ChunkSampler",
    "ChunkSource",
    "CriticEnsemble",
    "EncodedCritic",
    "EntropyTemperature",
    "EpisodeData",
    "FlowActor",
    "FlowField",
    "GaussianActor",
    "GradientGuard",
    "GradientReport",
    "ImageEncoder",
    "LeafSpec",
    "Learner",
    "MappedRows",
    "Normalization",
    "Observation",
    "ObservationEncoder",
    "ObservationHistory",
    "ObservationNormalizer",
    "ObservationSpec",
    "OneStepActor",
    "PrefetchingSampler",
    "RandomStreams",
    "RecordedField",
    "RingBuffer",
    "ShardRotation",
    "TanhGaussian",
    "UnionSampler",
    "check_spec",
    "clip_gradients",
    "ema_update",
    "expectile_loss",
    "frozen",
    "has_bfloat16_products",
    "is_image",
    "leading_shape",
    "pessimistic_value",
    "random_shift",
    "td_loss",
    "td_target",
    "tree_concat",
    "tree_leaves",
    "tree_map",
    "tree_rows",
    "tree_spec",
]
