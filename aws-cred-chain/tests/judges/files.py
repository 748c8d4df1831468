"""Reads cases of shared files as botocore does. Input: a JSON array of `{"config": .., "credentials": ..}`.
Output: for each either null, where botocore refuses the files, or the profiles, sessions and services."""

import json
import os
import sys
import tempfile

import botocore.configloader as loader
from botocore.exceptions import BotoCoreError


def load(folder, case):
    paths = {}
    for name in ("config", "credentials"):
        paths[name] = os.path.join(folder, name)
        with open(paths[name], "wb") as file:
            file.write(case[name].encode("utf-8"))
    full = loader.load_config(paths["config"])
    profiles = full["profiles"]
    for name, values in loader.raw_config_parse(paths["credentials"]).items():
        if name in profiles:
            profiles[name].update(values)
        else:
            profiles[name] = values
    return {
        "profiles": profiles,
        "sso_sessions": full["sso_sessions"],
        "services": full["services"],
    }


def main():
    answers = []
    with tempfile.TemporaryDirectory() as folder:
        for case in json.load(sys.stdin):
            try:
                answers.append(load(folder, case))
            except BotoCoreError:
                answers.append(None)
    json.dump(answers, sys.stdout)


main()
