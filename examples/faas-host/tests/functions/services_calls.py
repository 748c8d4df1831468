"""Queues and streams beside a host: what goes to them, and what comes from them."""
import io
import json
import sys
import time
import zipfile

import boto3

endpoint, services, runtime = sys.argv[1:]
lambda_ = boto3.client("lambda", endpoint_url=endpoint)
sqs, kinesis, dynamodb = (boto3.client(name, endpoint_url=services) for name in ("sqs", "kinesis", "dynamodb"))
ROLE = "arn:aws:iam::123456789012:role/test"
# Tells a queue what came: by way of its destination.
CODE = """
def handler(event, context):
    if event.get("fail") or any(it.get("body") == "fail" for it in event.get("Records", [])):
        raise RuntimeError("asked to fail")
    return event
"""


def function(name):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as it:
        it.writestr("app.py", CODE)
    lambda_.create_function(
        FunctionName=name, Runtime=runtime, Handler="app.handler", Role=ROLE, Timeout=10,
        Code={"ZipFile": archive.getvalue()}, DeadLetterConfig={"TargetArn": queue("dead-" + name)[1]})


def queue(name, **attributes):
    url = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    return url, sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]


def received(url, seconds=20):
    end = time.time() + seconds
    while time.time() < end:
        got = sqs.receive_message(
            QueueUrl=url, MessageAttributeNames=["All"], AttributeNames=["All"], WaitTimeSeconds=1)
        for message in got.get("Messages", []):
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            return message
    raise AssertionError(f"nothing came to {url}")


def eventually(check, seconds=20):
    end = time.time() + seconds
    while not check():
        assert time.time() < end, "it did not come"
        time.sleep(0.2)


# Destinations and dead letters.
told, told_arn = queue("told")
function("f")
lambda_.put_function_event_invoke_config(
    FunctionName="f", MaximumRetryAttempts=1,
    DestinationConfig={"OnSuccess": {"Destination": told_arn}, "OnFailure": {"Destination": told_arn}})
lambda_.invoke(FunctionName="f", InvocationType="Event", Payload=json.dumps({"n": 1}))
message = received(told)
record = json.loads(message["Body"])
assert record["requestContext"]["condition"] == "Success" and record["responsePayload"] == {"n": 1}, record
assert message["Attributes"]["AWSTraceHeader"].startswith("Root=1-"), message
lambda_.invoke(FunctionName="f", InvocationType="Event", Payload=json.dumps({"fail": True}))
record = json.loads(received(told)["Body"])
assert record["requestContext"]["condition"] == "RetriesExhausted", record
assert record["requestContext"]["approximateInvokeCount"] == 2, record
dead = received(queue("dead-f")[0])
assert json.loads(dead["Body"]) == {"fail": True}, dead
assert dead["MessageAttributes"]["ErrorMessage"]["StringValue"] == "asked to fail", dead

# A queue as a source: what is handled is deleted, what is not wanted too, what fails comes again.
source, source_arn = queue("source", VisibilityTimeout="2")
function("reads-queue")
mapping = lambda_.create_event_source_mapping(
    FunctionName="reads-queue", EventSourceArn=source_arn,
    FilterCriteria={"Filters": [{"Pattern": json.dumps({"body": [{"anything-but": ["no"]}]})}]})
sqs.send_message(QueueUrl=source, MessageBody="yes")
sqs.send_message(QueueUrl=source, MessageBody="no")


def left():
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    got = sqs.get_queue_attributes(QueueUrl=source, AttributeNames=names)["Attributes"]
    return sum(int(got[name]) for name in names)


eventually(lambda: left() == 0)
sqs.send_message(QueueUrl=source, MessageBody="fail")
time.sleep(3)
assert left() == 1, "a message that fails stays"
lambda_.delete_event_source_mapping(UUID=mapping["UUID"])

# Streams as sources: a batch that fails is given up in the end, and its destination is told.
given_up, given_up_arn = queue("given-up")
kinesis.create_stream(StreamName="s", ShardCount=1)
eventually(lambda: kinesis.describe_stream(StreamName="s")["StreamDescription"]["StreamStatus"] == "ACTIVE")
stream_arn = kinesis.describe_stream(StreamName="s")["StreamDescription"]["StreamARN"]
dynamodb.create_table(
    TableName="t", KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
    AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}], BillingMode="PAY_PER_REQUEST",
    StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"})
table_arn = dynamodb.describe_table(TableName="t")["Table"]["LatestStreamArn"]
archive = io.BytesIO()
with zipfile.ZipFile(archive, "w") as it:
    it.writestr("app.py", "def handler(event, context):\n    raise RuntimeError(str(len(event['Records'])))\n")
lambda_.create_function(
    FunctionName="fails", Runtime=runtime, Handler="app.handler", Role=ROLE, Timeout=10,
    Code={"ZipFile": archive.getvalue()})
for arn in (stream_arn, table_arn):
    lambda_.create_event_source_mapping(
        FunctionName="fails", EventSourceArn=arn, StartingPosition="TRIM_HORIZON", MaximumRetryAttempts=1,
        DestinationConfig={"OnFailure": {"Destination": given_up_arn}})
kinesis.put_records(StreamName="s", Records=[{"Data": b"x", "PartitionKey": str(n)} for n in range(3)])
record = json.loads(received(given_up)["Body"])
assert record["requestContext"]["condition"] == "RetryAttemptsExhausted", record
assert record["KinesisBatchInfo"]["streamArn"] == stream_arn, record
dynamodb.put_item(TableName="t", Item={"id": {"S": "1"}})
while "DDBStreamBatchInfo" not in record:
    record = json.loads(received(given_up)["Body"])
assert record["DDBStreamBatchInfo"]["batchSize"] == 1, record

# `LATEST` begins with the mapping, not with its first reading.
late, late_arn = queue("late")
kinesis.create_stream(StreamName="late", ShardCount=1)
eventually(lambda: kinesis.describe_stream(StreamName="late")["StreamDescription"]["StreamStatus"] == "ACTIVE")
kinesis.put_record(StreamName="late", Data=b"before", PartitionKey="1")
time.sleep(1.1)
lambda_.create_event_source_mapping(
    FunctionName="fails", EventSourceArn=kinesis.describe_stream(StreamName="late")["StreamDescription"]["StreamARN"],
    StartingPosition="LATEST", MaximumRetryAttempts=0, DestinationConfig={"OnFailure": {"Destination": late_arn}})
after = kinesis.put_record(StreamName="late", Data=b"after", PartitionKey="1")
batch = json.loads(received(late)["Body"])["KinesisBatchInfo"]
assert (batch["batchSize"], batch["startSequenceNumber"]) == (1, after["SequenceNumber"]), batch

# A source that is not there is refused.
try:
    lambda_.create_event_source_mapping(
        FunctionName="fails", EventSourceArn=stream_arn + "x", StartingPosition="LATEST")
    raise AssertionError("a stream that is not there was taken")
except lambda_.exceptions.InvalidParameterValueException as error:
    assert "Stream not found" in str(error), error
