"""Serve one folder over HTTP, with ranges: `files.py FOLDER PORT`, on every address of its network."""

import sys

from aiohttp import web

application = web.Application()
application.router.add_static("/", sys.argv[1])
web.run_app(application, host="::", port=int(sys.argv[2]), print=None, access_log=None)
