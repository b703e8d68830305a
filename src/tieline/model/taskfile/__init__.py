"""Task files: SkyPilot's and dstack's YAML, with Tieline's own fields on top, become tasks.

::

    bytes --compose--> nodes with positions --fields--> values --read_*--> Draft --finish--> ParsedTask

>>> from tieline.model.taskfile import parse_tasks
>>> parse_tasks(b"resources: {accelerators: H100:8}\\nrun: nvidia-smi\\n", "t.yaml")[0].task.resources[0].accelerator
'h100'
"""

from tieline.model.taskfile.document import parse_tasks
from tieline.model.taskfile.parsed import DEFAULT_RATE, LocalFile, ParsedTask, Rate
from tieline.model.taskfile.schema import json_schema

__all__ = ["DEFAULT_RATE", "LocalFile", "ParsedTask", "Rate", "json_schema", "parse_tasks"]
