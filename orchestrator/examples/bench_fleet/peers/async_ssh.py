"""The operations with asyncssh."""

import asyncio
import os
import sys

import asyncssh

import second_pass

operation = sys.argv[1]
line = os.environ["BENCH_LINE"]
place = os.environ["BENCH_PLACE"]
total = f'echo "{os.environ["BENCH_SHA256"]}  {place}" | sha256sum -c --status'
limit = asyncio.Semaphore(int(os.environ["BENCH_PARALLEL"]))
payload = open(os.environ["BENCH_PAYLOAD"], "rb").read()


def connect(host):
    return asyncssh.connect(
        host,
        port=int(os.environ["BENCH_PORT"]),
        username=os.environ["BENCH_USER"],
        client_keys=["client_key"],
        known_hosts="known_hosts",
        agent_path=None,
        config=None,
    )


async def deploy(connection):
    found = await connection.run(f"{total} 2>/dev/null && {place} --version")
    if found.exit_status != 0:
        upload = f"mkdir -p {os.path.dirname(place)} && cat > {place} && {total}"
        line = f"{upload} && chmod 700 {place} && {place} --version"
        await connection.run(line, input=payload, encoding=None, check=True)


async def visit(host):
    async with limit:
        connection = await connect(host)
        if operation in ("exec", "kept"):
            await connection.run(line, check=True)
        else:
            await deploy(connection)
        if operation != "kept":
            connection.close()
            await connection.wait_closed()
        return connection


async def again(connection):
    async with limit:
        await connection.run(line, check=True)


async def main():
    hosts = [line.strip() for line in open("hosts", encoding="ascii")]
    connections = await asyncio.gather(*map(visit, hosts))
    if operation == "kept":
        started = second_pass.start()
        await asyncio.gather(*map(again, connections))
        second_pass.report(started)
        for connection in connections:
            connection.close()


asyncio.run(main())
