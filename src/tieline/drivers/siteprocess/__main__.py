"""``python -m tieline.drivers.siteprocess FOLDER``: a site process without the command line around it, 6 MB smaller."""

import sys

from tieline.drivers.siteprocess import run_site

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tieline.drivers.siteprocess FOLDER")
    sys.exit(run_site(sys.argv[1]))
