"""Counts the words of a text that the site laid here, and cannot change it."""

import collections
import json
import pathlib
import sys

words = collections.Counter(pathlib.Path(sys.argv[1]).read_text().split())
pathlib.Path("words.json").write_text(json.dumps(words.most_common(10)))
print(f"{sum(words.values())} words, {len(words)} different ones")
