"""Starts a gateway with one front door, described by FRONT (JSON), for the function FUNCTION behind ENDPOINT.

Prints its base URL. FAAS_HOST is the program; in MOUNTS it keeps the definition, and a file that is named after the
gateway's process.
"""

import json
import os
import subprocess
import sys
import tempfile


def definition(front, function):
    kind = front["kind"]
    if kind == "rest":
        paths = front.get("resources") or [front.get("resource", "/{proxy+}")]
        keys = [f"{method} {path}" for path in paths for method in front.get("methods", ["ANY"])]
        stage = {"name": front.get("stage", "test"), "variables": front.get("stageVariables") or {}}
    else:
        keys = [front.get("route", "$default")]
        stage = {"name": front.get("stage", "$default")}
    payload = front.get("payload", front.get("payloadFormatVersion"))
    routes = [{"route": key, "function": function} for key in keys]
    if payload:
        routes = [dict(route, payload=str(payload)) for route in routes]
    # The cases were recorded behind the headers that AWS's edge sets.
    api = {"kind": kind, "trusts_forwarded": True, "stages": [stage], "routes": routes}
    if front.get("cors"):
        api["cors"] = front["cors"]
    if front.get("binaryMediaTypes"):
        api["binary_media_types"] = front["binaryMediaTypes"]
    return {"apis": [api]}


def main():
    folder = os.environ["MOUNTS"]
    with tempfile.NamedTemporaryFile("w", suffix=".json", dir=folder, delete=False) as file:
        json.dump(definition(json.loads(os.environ["FRONT"]), os.environ["FUNCTION"]), file)
    command = [os.environ["FAAS_HOST"], "gateway", "--definition", file.name, "--endpoint", os.environ["ENDPOINT"]]
    # The gateway outlives this program, whose caller waits until nothing holds its standard error.
    gateway = subprocess.Popen(
        command + ["--listen", "127.0.0.1:0"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )
    open(os.path.join(folder, f"{gateway.pid}.pid"), "w").close()
    for line in gateway.stdout:
        if line.startswith("listening"):
            print(line.split()[1])
            return
    sys.exit("the gateway ended")


main()
