"""Real files: counts that were counted otherwise, and the rows that real files break."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from catalign.data.dataset import Dataset
from catalign.data.layouts import table_source
from catalign.data.options import TableOptions, TableSource, WindowOptions
from catalign.data.prepare import prepare_tables, prepare_windows
from tests.conftest import SHARED
