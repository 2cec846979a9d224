"""Datasets of OGBench and others: found, made, checked, and read for training."""

from bench.data._errors import DataDamaged, DataMissing
from bench.data._generate import Progress, generate
from bench.data._names import DatasetName, task_number
from bench.data._recipes import RECIPES, Recipe, recipe_for
from bench.data._record import DataRecord, FileRecord

__all__ = [
    "RECIPES",
    "DataDamaged",
    "DataMissing",
    "DataRecord",
    "DatasetName",
    "FileRecord",
    "Progress",
    "Recipe",
    "generate",
    "recipe_for",
    "task_number",
]
