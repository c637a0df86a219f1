"""The deploy for pyinfra."""

import os

from pyinfra.operations import files, server

place = os.environ["BENCH_PLACE"]
files.put(src=os.environ["BENCH_PAYLOAD"], dest=place, mode="700")
server.shell(commands=[f"{place} --version"])
