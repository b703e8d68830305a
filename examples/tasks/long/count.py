"""Count to STEPS, 20 a second, and write down where it is; a second life starts from there.

``checkpoint/state.json`` holds the number reached and every process that ever counted; ``result.json`` is left behind.
"""

import json
import os
import time
from pathlib import Path

STEPS = int(os.environ.get("STEPS", "240"))
STATE = Path("checkpoint/state.json")


def main() -> None:
    state = json.loads(STATE.read_text()) if STATE.exists() else {"at": 0, "lives": []}
    state["lives"].append({"run": os.environ.get("TIELINE_RUN_ID", ""), "from": state["at"]})
    print(f"starting from {state['at']}", flush=True)
    STATE.parent.mkdir(exist_ok=True)
    while state["at"] < STEPS:
        state["at"] += 1
        partial = STATE.with_suffix(".part")
        partial.write_text(json.dumps(state))
        partial.rename(STATE)
        time.sleep(0.05)
    Path("result.json").write_text(json.dumps(state))
    print(f"reached {state['at']} in {len(state['lives'])} lives", flush=True)


if __name__ == "__main__":
    main()
