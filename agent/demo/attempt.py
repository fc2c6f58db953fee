"""`till-agent try`: everything runs, and the text says what to type."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from agent.demo.world import World, world

# The usual one, so that what is typed today works tomorrow too.
_PORT = 8717


async def run() -> int:
    """Run until cancelled; an agent that ends by itself is a failure."""
    async with world(port=_PORT) as shop:
        print(greeting(shop), flush=True)
        code = await shop.agent_ended()
        print(f"The agent ended by itself, with code {code}:", file=sys.stderr)
        print(shop.log_path.read_text("utf-8", "replace")[-2000:], file=sys.stderr)
        return 1


def greeting(shop: World) -> str:
    """Give the text; each indented line can be pasted into a shell as it stands, in this order."""
    contacts = f"{shop.url}/api/v3/contacts"
    control = shop.sandbox.control_url
    key = f"-H 'apikey: {shop.till.token}'"
    send = f"curl -s {key} -H 'Content-Type: application/json'"
    agent = program()
    show = r"-w '\n%{http_code} after %{time_total} s\n'"
    vera = '{"email": "vera@example.test", "firstName": "Vera", "lastName": "Lind"}'
    nils = '{"email": "nils@example.test", "firstName": "Nils", "lastName": "Berg"}'
    return rf"""The agent runs, in front of a sandbox that plays Engage.
Nothing leaves this machine.

Page    {shop.url}/
Token   {shop.till.token}
Log     {shop.log_path}
For the examples of docs/integrating.md:
export AGENT={shop.url} TOKEN={shop.till.token} SANDBOX={control}

Sign a customer up, and keep the id:
  answer=$({send} -d '{vera}' '{contacts}'); echo "$answer"
  id=$(echo "$answer" | python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])')
Update the customer:
  {send} {show} -X PATCH -d '{{"city": "Lund"}}' "{contacts}/$id"
Look the customer up:
  curl -s {key} {show} '{contacts}/id?email=vera%40example.test'

Cut the line to Engage:
  {agent} sandbox down --control {control}
or
  curl -s -w '\n' -X POST {control}/down
Sign somebody up all the same; it is stored, and the answer is 202. The first one takes a while,
because the agent still hopes for an answer of Engage; all after it take milliseconds:
  {send} {show} -d '{nils}' '{contacts}'
See where the changes stand:
  {agent} changes list --config {shop.till.config_path}
  curl -s {key} {show} '{shop.url}/agent/v1/changes?limit=5'
Bring the line back; what waited more than 5 seconds went into a file, and that goes by SFTP:
  {agent} sandbox up --control {control}
or
  curl -s -w '\n' -X POST {control}/up
See what Engage holds:
  {agent} sandbox contacts --control {control}
  curl -s -w '\n' {control}/contacts

Ctrl-C ends all of it and leaves nothing behind."""


def program() -> str:
    """Give what to type for this till-agent: its name if the shell finds it, else its path."""
    beside = Path(sys.executable).with_name("till-agent")
    on_path = shutil.which("till-agent")
    if on_path is not None and beside.exists() and os.path.samefile(on_path, beside):
        return "till-agent"
    if not beside.exists():
        return f"{sys.executable} -m agent"
    if beside.is_relative_to(Path.cwd()):
        return str(beside.relative_to(Path.cwd()))
    return str(beside)
