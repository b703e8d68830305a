"""An exchange in a process of its own, for the tests of how it ends. Says its address on standard error."""

import asyncio
import sys
from pathlib import Path

from api_world import World


def main() -> None:
    folder, *tls = map(Path, sys.argv[1:])
    world = World(folder, tls=(tls[0], tls[1]) if tls else None)
    world.prepare()
    print(world.url, file=sys.stderr, flush=True)
    asyncio.run(world.server.serve(sockets=[world.listener]))
    print(f"signals {world.server.signals}", file=sys.stderr)
    assert world.writer.close()
    world.store.close()
    world.listener.close()


if __name__ == "__main__":
    main()
