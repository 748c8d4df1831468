"""Runtime of Python functions: speaks the Lambda Runtime API (2018-06-01), standard library only.

Init: imports the handler that _HANDLER names ("folder/module.function") from LAMBDA_TASK_ROOT.
Invoke: asks for the next invocation, calls the handler, posts its answer or its error, for ever.
"""

import base64
import http.client
import importlib
import json
import os
import sys
import time
import traceback

API = "/2018-06-01/runtime"
# The error type travels in a header and the message in a body: both are bounded.
STACK_FRAMES_MAX = 50


class Context:
    """What a handler may ask about its invocation (AWS: "Python Lambda context")."""

    def __init__(self, headers):
        self.aws_request_id = headers.get("Lambda-Runtime-Aws-Request-Id", "")
        self.invoked_function_arn = headers.get("Lambda-Runtime-Invoked-Function-Arn", "")
        self.function_name = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "")
        self.function_version = os.environ.get("AWS_LAMBDA_FUNCTION_VERSION", "")
        self.memory_limit_in_mb = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")
        self.log_group_name = os.environ.get("AWS_LAMBDA_LOG_GROUP_NAME", "")
        self.log_stream_name = os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME", "")
        self.client_context = json_header(headers, "Lambda-Runtime-Client-Context")
        self.identity = json_header(headers, "Lambda-Runtime-Cognito-Identity")
        self._deadline_ms = int(headers.get("Lambda-Runtime-Deadline-Ms", "0"))

    def get_remaining_time_in_millis(self):
        return max(0, self._deadline_ms - int(time.time() * 1000))


def json_header(headers, name):
    """A header's JSON, plain or in base64; None when it is absent or neither."""
    text = headers.get(name)
    if not text:
        return None
    for decode in (lambda: text, lambda: base64.b64decode(text)):
        try:
            return json.loads(decode())
        except ValueError:
            continue
    return None


class HandlerError(Exception):
    """The handler cannot be had. `kind` is the error type that the caller of the function sees."""

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


def load_handler(name):
    module_name, dot, function_name = name.rpartition(".")
    if not dot:
        raise HandlerError(
            "Runtime.MalformedHandlerName", f"Bad handler '{name}': not enough values to unpack"
        )
    try:
        module = importlib.import_module(module_name.replace("/", "."))
    except ImportError as error:
        raise HandlerError(
            "Runtime.ImportModuleError", f"Unable to import module '{module_name}': {error}"
        ) from error
    except SyntaxError as error:
        raise HandlerError(
            "Runtime.UserCodeSyntaxError", f"Syntax error in module '{module_name}': {error}"
        ) from error
    try:
        return getattr(module, function_name)
    except AttributeError as error:
        raise HandlerError(
            "Runtime.HandlerNotFound",
            f"Handler '{function_name}' missing on module '{module_name}'",
        ) from error


def describe(error):
    """The error object that AWS documents: errorMessage, errorType, stackTrace."""
    kind = error.kind if isinstance(error, HandlerError) else type(error).__name__
    own = os.path.abspath(__file__)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if os.path.abspath(f.filename) != own]
    stack = [] if isinstance(error, HandlerError) else traceback.format_list(frames[-STACK_FRAMES_MAX:])
    return kind, {"errorMessage": str(error), "errorType": kind, "stackTrace": stack}


class RuntimeApi:
    """One kept connection to the Runtime API."""

    def __init__(self, address):
        self.connection = http.client.HTTPConnection(address)

    def call(self, method, path, body=None, headers=None):
        self.connection.request(method, API + path, body=body, headers=headers or {})
        response = self.connection.getresponse()
        return response, response.read()

    def next(self):
        response, body = self.call("GET", "/invocation/next")
        if response.status != 200:
            raise RuntimeError(f"runtime API: next: HTTP {response.status}")
        return response.headers, body

    def answer(self, request_id, body):
        response, text = self.call(
            "POST", f"/invocation/{request_id}/response", body, {"Content-Type": "application/json"}
        )
        if response.status == 413:
            self.fail(
                f"/invocation/{request_id}/error",
                "Function.ResponseSizeTooLarge",
                {
                    "errorMessage": f"Response payload size ({len(body)} bytes) exceeded maximum "
                    "allowed payload size (6291556 bytes).",
                    "errorType": "Function.ResponseSizeTooLarge",
                },
            )
        elif response.status != 202:
            # The invocation may have timed out meanwhile: say so in the log and ask for the next.
            print(f"runtime API: response: HTTP {response.status} {text[:200]!r}", file=sys.stderr)

    def fail(self, path, kind, error):
        self.call(
            "POST",
            path,
            json.dumps(error),
            {"Content-Type": "application/json", "Lambda-Runtime-Function-Error-Type": kind},
        )


def log_error(error):
    print(f"[ERROR] {error['errorType']}: {error['errorMessage']}")
    for line in error.get("stackTrace", []):
        print(line, end="")
    sys.stdout.flush()


def invoke(api, handler):
    headers, body = api.next()
    request_id = headers["Lambda-Runtime-Aws-Request-Id"]
    trace_id = headers.get("Lambda-Runtime-Trace-Id")
    if trace_id:
        os.environ["_X_AMZN_TRACE_ID"] = trace_id
    try:
        try:
            event = json.loads(body) if body else None
        except ValueError as error:
            raise HandlerError(
                "Runtime.UnmarshalError", f"Unable to unmarshal input: {error}"
            ) from error
        result = handler(event, Context(headers))
        try:
            answer = json.dumps(result, ensure_ascii=False).encode()
        except (TypeError, ValueError) as error:
            raise HandlerError(
                "Runtime.MarshalError", f"Unable to marshal response: {error}"
            ) from error
    except Exception as error:  # the function's own failure, whatever it is
        kind, described = describe(error)
        log_error(described)
        api.fail(f"/invocation/{request_id}/error", kind, described)
        return
    sys.stdout.flush()
    api.answer(request_id, answer)


def main():
    api = RuntimeApi(os.environ["AWS_LAMBDA_RUNTIME_API"])
    sys.path.insert(0, os.environ.get("LAMBDA_TASK_ROOT", "/var/task"))
    try:
        handler = load_handler(os.environ.get("_HANDLER", ""))
    except Exception as error:  # whatever the module does while it is imported
        kind, described = describe(error)
        log_error(described)
        api.fail("/init/error", kind, described)
        sys.exit(1)
    while True:
        invoke(api, handler)


if __name__ == "__main__":
    main()
