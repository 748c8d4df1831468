"""Calls a host through boto3. Arguments: the endpoint, a runtime, the path of an archive."""

import base64
import json
import sys

import boto3
import botocore
from botocore.config import Config

endpoint, runtime, archive = sys.argv[1:]
client = boto3.client(
    "lambda", endpoint_url=endpoint, config=Config(retries={"max_attempts": 0}, read_timeout=30)
)
with open(archive, "rb") as file:
    code = file.read()

created = client.create_function(
    FunctionName="boto",
    Runtime=runtime,
    Handler="app.handler",
    Role="arn:aws:iam::123456789012:role/test",
    Code={"ZipFile": code},
    Timeout=10,
    MemorySize=256,
    Publish=True,
)
assert created["ResponseMetadata"]["HTTPStatusCode"] == 201, created
for waiter in ("function_exists", "function_active", "function_active_v2"):
    client.get_waiter(waiter).wait(FunctionName="boto", WaiterConfig={"Delay": 1})
client.get_waiter("published_version_active").wait(FunctionName="boto", Qualifier="1", WaiterConfig={"Delay": 1})


def updated():
    """Waits until the last change is no longer under way; another is refused until then."""
    for waiter in ("function_updated", "function_updated_v2"):
        client.get_waiter(waiter).wait(FunctionName="boto", WaiterConfig={"Delay": 1})



context = base64.b64encode(json.dumps({"client": {"app_title": "tést"}}).encode()).decode()
invoked = client.invoke(
    FunctionName=created["FunctionArn"],
    Payload=json.dumps({"do": "echo", "text": "x" * 100_000}),
    ClientContext=context,
    LogType="Tail",
)
answer = json.loads(invoked["Payload"].read())
assert invoked["StatusCode"] == 200 and "FunctionError" not in invoked, invoked
assert answer["text"] == "x" * 100_000
assert answer["request"] == invoked["ResponseMetadata"]["RequestId"], (answer, invoked)
assert b"REPORT RequestId" in base64.b64decode(invoked["LogResult"])

assert client.invoke(FunctionName="boto", InvocationType="DryRun")["StatusCode"] == 204
client.update_function_configuration(
    FunctionName="boto", MemorySize=512, Environment={"Variables": {"STAGE": "b"}}
)
updated()
again = client.invoke(FunctionName="boto", Payload=json.dumps({"do": "echo"}))
assert json.loads(again["Payload"].read())["sandbox"] != answer["sandbox"], "new settings, new sandbox"
changed = client.update_function_code(FunctionName="boto", ZipFile=code)
assert changed["LastUpdateStatus"] == "InProgress", changed
try:
    client.update_function_configuration(FunctionName="boto", Timeout=9)
    raise SystemExit("a change was taken while another is under way")
except client.exceptions.ResourceConflictException as error:
    assert "An update is in progress for resource: " + created["FunctionArn"] in str(error), error
updated()

# A dry run checks the archive and changes nothing.
before = client.get_function_configuration(FunctionName="boto")
tried = client.update_function_code(FunctionName="boto", ZipFile=code, DryRun=True)
assert tried["RevisionId"] == before["RevisionId"], tried
# A change that expects another revision is refused.
try:
    client.update_function_code(FunctionName="boto", ZipFile=code, RevisionId="seen long ago")
    raise SystemExit("a revision that is gone was replaced")
except client.exceptions.PreconditionFailedException as error:
    assert "Revision Id" in str(error), error
client.update_function_configuration(
    FunctionName="boto", Description="new", RevisionId=before["RevisionId"], TracingConfig={"Mode": "PassThrough"}
)

updated()

# Lists in pages of one.
for number in ("a", "b", "c"):
    client.create_alias(FunctionName="boto", Name=number, FunctionVersion="1")
    client.publish_layer_version(LayerName="layer-" + number, Content={"ZipFile": code})
    client.publish_layer_version(LayerName="layer-a", Content={"ZipFile": code})
for operation, arguments, member, count in (
    ("list_aliases", {"FunctionName": "boto"}, "Aliases", 3),
    ("list_versions_by_function", {"FunctionName": "boto"}, "Versions", 2),
    ("list_layers", {}, "Layers", 3),
    ("list_layer_versions", {"LayerName": "layer-a"}, "LayerVersions", 4),
    ("list_function_event_invoke_configs", {"FunctionName": "boto"}, "FunctionEventInvokeConfigs", 0),
    ("list_provisioned_concurrency_configs", {"FunctionName": "boto"}, "ProvisionedConcurrencyConfigs", 0),
    ("list_function_url_configs", {"FunctionName": "boto"}, "FunctionUrlConfigs", 0),
    ("list_event_source_mappings", {}, "EventSourceMappings", 0),
    ("list_code_signing_configs", {}, "CodeSigningConfigs", 0),
):
    pages = list(client.get_paginator(operation).paginate(**arguments, PaginationConfig={"PageSize": 1}))
    found = [json.dumps(row, default=str) for page in pages for row in page[member]]
    assert len(found) == len(set(found)) == count, (operation, found)
    assert all(len(page[member]) <= 1 for page in pages), operation

names = [f["FunctionName"] for page in client.get_paginator("list_functions").paginate() for f in page["Functions"]]
assert names == ["boto"], names
try:
    client.invoke(FunctionName="other")
    raise SystemExit("a function that is not there was invoked")
except client.exceptions.ResourceNotFoundException as error:
    assert "other" in str(error)
for bad in (b"this is no zip", b"", code[: len(code) // 2]):
    try:
        client.update_function_code(FunctionName="boto", ZipFile=bad)
        raise SystemExit("an archive that is none was taken")
    except client.exceptions.InvalidParameterValueException as error:
        assert "unzip" in str(error) or "source" in str(error), error

# boto3 refuses these values itself, unless its validation is off.
raw = boto3.client(
    "lambda",
    endpoint_url=endpoint,
    config=Config(retries={"max_attempts": 0}, parameter_validation=False),
)
for setting in ({"MemorySize": 64}, {"MemorySize": 10_241}, {"Timeout": 0}, {"Handler": "a b"}, {"Role": "no role"}):
    try:
        raw.update_function_configuration(FunctionName="boto", **setting)
        raise SystemExit(f"{setting} was taken")
    except botocore.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] == "ValidationException", error
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 400, error
client.delete_function(FunctionName="boto")
print("boto3", botocore.__version__, "is content")
