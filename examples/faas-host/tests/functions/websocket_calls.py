# Connects to a WebSocket API with the package `websockets`, and reaches the connection by boto3.
import json, sys, time
import boto3, botocore
from websockets.sync.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

gateway, endpoint = sys.argv[1:]
address = gateway.replace("http://", "ws://") + "/prod"
lambdas = boto3.client("lambda", endpoint_url=endpoint)
lambdas.get_waiter("function_active_v2").wait(FunctionName="sockets")
api = boto3.client("apigatewaymanagementapi", endpoint_url=gateway + "/prod")

try:
    connect(address + "?key=bad", proxy=None)
    raise SystemExit("a function that refuses lets nobody in")
except InvalidStatus as refused:
    assert refused.response.status_code == 403, refused

def gone(identifier):
    try:
        api.get_connection(ConnectionId=identifier)
        return False
    except api.exceptions.GoneException:
        return True

with connect(address, proxy=None, user_agent_header="tests") as socket:
    socket.send("plain")
    told = json.loads(socket.recv(timeout=10))
    assert told["got"] == "plain", told
    identifier = told["id"]
    socket.send(json.dumps({"action": "fail"}))
    failed = json.loads(socket.recv(timeout=10))
    assert failed["message"] == "Internal server error" and failed["connectionId"] == identifier, failed
    assert socket.ping().wait(10)
    # A message of 128 KiB in frames of 32 KiB, of which each part is one.
    parts = ["x" * (32 << 10)] * 3
    socket.send(parts)
    assert json.loads(socket.recv(timeout=10))["got"] == "".join(parts)
    api.post_to_connection(ConnectionId=identifier, Data="from a function é".encode())
    assert socket.recv(timeout=10) == "from a function é"
    seen = api.get_connection(ConnectionId=identifier)
    assert seen["Identity"] == {"SourceIp": "127.0.0.1", "UserAgent": "tests"}, seen
    assert abs(seen["ConnectedAt"].timestamp() - time.time()) < 60, seen
    assert seen["LastActiveAt"] >= seen["ConnectedAt"], seen
    try:
        api.post_to_connection(ConnectionId=identifier, Data=b"x" * ((128 << 10) + 1))
        raise SystemExit("a long message is sent")
    except api.exceptions.PayloadTooLargeException:
        pass
    api.delete_connection(ConnectionId=identifier)
    try:
        socket.recv(timeout=10)
        raise SystemExit("the connection is open")
    except ConnectionClosed as closed:
        assert closed.rcvd.code == 1000, closed
    assert gone(identifier)

with connect(address, proxy=None) as socket:
    socket.send(b"\x00\x01")
    try:
        socket.recv(timeout=10)
        raise SystemExit("binary frames are taken")
    except ConnectionClosed as closed:
        assert closed.rcvd.code == 1003, closed

with connect(address, proxy=None) as socket:
    socket.send("x" * ((32 << 10) + 1))
    try:
        socket.recv(timeout=10)
        raise SystemExit("long frames are taken")
    except ConnectionClosed as closed:
        assert closed.rcvd.code == 1009, closed

# The function was told of each end.
logs = boto3.client("logs", endpoint_url=endpoint)
wanted = {'["DISCONNECT", "$disconnect", %d]' % code for code in (1000, 1003, 1009)}
for _ in range(100):
    try:
        events = logs.filter_log_events(logGroupName="/aws/lambda/sockets")["events"]
    except logs.exceptions.ResourceNotFoundException:
        # A log appears some time after its lines were written, as on AWS.
        events = []
    missing = wanted - {event["message"].strip() for event in events}
    if not missing:
        break
    time.sleep(0.1)
assert not missing, missing
print("all is well")
