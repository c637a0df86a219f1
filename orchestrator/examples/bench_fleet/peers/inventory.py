"""Hosts for pyinfra."""

import os

data = {
    "ssh_user": os.environ["BENCH_USER"],
    "ssh_port": int(os.environ["BENCH_PORT"]),
    "ssh_key": os.path.abspath("client_key"),
    "ssh_allow_agent": False,
    "ssh_look_for_keys": False,
    "ssh_known_hosts_file": os.path.abspath("known_hosts"),
    "ssh_strict_host_key_checking": "yes",
}

hosts = ([line.strip() for line in open("hosts", encoding="ascii")], data)
