"""Runtime of Python functions: a client of the Lambda Runtime API (2018-06-01).

Init: imports the handler that _HANDLER names ("folder/module.function") from LAMBDA_TASK_ROOT.
Invoke: asks for the next invocation, calls the handler, posts its answer or its error, for ever.

The interpreter starts with -S, and this file imports little: the rest of the standard library is imported when it is
first needed. A function may therefore bring a module that has the name of a standard one, except those in RESERVED.
"""

import builtins
import io
import os
import sys
import time
from importlib import import_module
from importlib.machinery import PathFinder

import _socket
import _sitebuiltins
import json

# What AWS's client has imported before it imports the function, beyond what the interpreter and this file import. A
# function's module of such a name is never seen on AWS, nor is it here.
RESERVED = frozenset(
    "__future__ _weakrefset atexit collections contextlib copyreg decimal enum functools importlib json keyword "
    "linecache logging numbers operator re reprlib string textwrap threading token tokenize traceback types warnings "
    "weakref".split()
)
RESPONSE_BYTES_MAX = 6_291_556
NO_BREAK_SPACE = "\u00a0"


class Current:
    """What log lines tell about the invocation that runs."""

    request_id = None
    tenant_id = None


# Output


class Flushed(io.BufferedWriter):
    """Hands on each write at once: nothing is lost when the process ends without a word."""

    def write(self, data):
        written = super().write(data)
        self.flush()
        return written


def flush_each_write(stream):
    raw = io.FileIO(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        Flushed(raw), encoding=stream.encoding, errors=stream.errors, newline="\n", write_through=True
    )


# The path of modules


class StandardFinder:
    """Finds the RESERVED modules in the standard library alone, and sets `logging` up when it is first imported."""

    def __init__(self, path):
        self.path = path

    def find_spec(self, name, path=None, target=None):
        if path is not None or name not in RESERVED:
            return None
        spec = PathFinder.find_spec(name, self.path)
        if spec is not None and name == "logging":
            loader = spec.loader

            def exec_module(module):
                type(loader).exec_module(loader, module)
                set_up_logging(module)

            loader.exec_module = exec_module
        return spec


def set_up_path(task_root):
    """Puts the function's code first, then layers, PYTHONPATH, the standard library, and site-packages.

    `.pth` files are not read. A `sitecustomize` in PYTHONPATH is imported: tracing tools start there.
    """
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    given = [it for it in os.environ.get("PYTHONPATH", "").split(os.pathsep) if it]
    here = os.path.dirname(os.path.abspath(__file__))
    standard = [it for it in sys.path if it not in given and it != here]
    layers = [f"/opt/python/lib/{version}/site-packages", "/opt/python"]
    sites = [f"{sys.prefix}/lib/{version}/site-packages"]
    if sys.prefix == "/usr":
        sites = [f"/usr/local/lib/{version}/dist-packages", "/usr/lib/python3/dist-packages"]
    sys.path[:] = [task_root, *layers, *given, *standard, *filter(os.path.isdir, sites)]
    sys.meta_path.insert(0, StandardFinder(standard))
    # What `site` would have defined.
    builtins.exit = _sitebuiltins.Quitter("exit", "Ctrl-D (i.e. EOF)")
    builtins.quit = _sitebuiltins.Quitter("quit", "Ctrl-D (i.e. EOF)")
    spec = PathFinder.find_spec("sitecustomize", given)
    if spec is not None:
        import_module("sitecustomize")


# Logging


def set_up_logging(logging):
    """Gives the root logger a handler that writes Lambda's lines to stdout, as text or JSON."""
    as_json = os.environ.get("AWS_LAMBDA_LOG_FORMAT", "").upper() == "JSON"

    class Output:
        def log(self, text):
            sys.stdout.write(text)

    class LambdaLoggerHandler(logging.Handler):
        log_sink = Output()

        def emit(self, record):
            self.log_sink.log(self.format(record))

    class Invocation(logging.Filter):
        def filter(self, record):
            record.aws_request_id = Current.request_id or ""
            record.tenant_id = Current.tenant_id
            return True

    class JsonFormatter(logging.Formatter):
        # The fields of every record, which are not told a second time.
        known = frozenset(vars(logging.makeLogRecord({}))) | {
            "aws_request_id", "tenant_id", "asctime", "message", "taskName",
        }

        def format(self, record):
            record.levelno = min(50, max(0, record.levelno)) // 10 * 10
            record.levelname = logging.getLevelName(record.levelno)
            structured = isinstance(record.msg, dict) and not record.args
            line = {
                "timestamp": self.formatTime(record, "%Y-%m-%dT%H:%M:%SZ"),
                "level": record.levelname,
                "message": record.msg if structured else record.getMessage(),
                "logger": record.name,
            }
            if record.exc_info:
                kind, error, trace = record.exc_info
                line["stackTrace"] = import_module("traceback").format_tb(trace)
                line["errorType"] = kind.__name__ if kind else None
                line["errorMessage"] = str(error)
            line["requestId"] = record.aws_request_id
            if record.exc_info:
                line["location"] = f"{record.pathname}:{record.funcName}:{record.lineno}"
            line["tenantId"] = record.tenant_id
            for name, value in vars(record).items():
                if name not in self.known and name not in line:
                    line[name] = value
            line = {name: value for name, value in line.items() if value is not None}
            return json.dumps(line, ensure_ascii=False, default=str) + "\n"

    logging.Formatter.converter = time.gmtime
    handler = LambdaLoggerHandler()
    handler.addFilter(Invocation())
    if as_json:
        handler.setFormatter(JsonFormatter())
    else:
        line = "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s\n"
        handler.setFormatter(logging.Formatter(line, "%Y-%m-%dT%H:%M:%S"))
    root = logging.getLogger()
    level = os.environ.get("AWS_LAMBDA_LOG_LEVEL", "")
    level = "DEBUG" if level == "TRACE" else level.upper()
    if level in ("CRITICAL", "FATAL", "ERROR", "WARN", "WARNING", "INFO", "DEBUG", "NOTSET"):
        root.setLevel(level)
    root.addHandler(handler)


def log_error(error):
    if os.environ.get("AWS_LAMBDA_LOG_FORMAT", "").upper() == "JSON":
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        sys.stdout.write(to_json({"timestamp": now, "level": "ERROR", **error}) + "\n")
        return
    kind, message = error["errorType"], error["errorMessage"]
    lines = [f"[ERROR] {kind}: {message}" if message else f"[ERROR] {kind}"]
    lines.append("Traceback (most recent call last):")
    for entry in error["stackTrace"]:
        for line in entry.splitlines() or [""]:
            text = line.lstrip(" ")
            lines.append(NO_BREAK_SPACE * (len(line) - len(text)) + text)
    # One event of the log: its lines end with a carriage return, and spaces at their start would be lost.
    sys.stdout.write("\r".join(lines) + "\n")


# The context


class Fields:
    """An object with the named fields of a JSON object; None for each that is absent."""

    __slots__ = ()

    @classmethod
    def of(cls, values):
        if values is None:
            return None
        made = cls()
        for name in cls.__slots__:
            setattr(made, name, values.get(name))
        return made

    def __repr__(self):
        fields = ",".join(f"{name}={getattr(self, name)}" for name in self.__slots__)
        return f"{type(self).__name__}([{fields}])"


class CognitoIdentity(Fields):
    __slots__ = ("cognito_identity_id", "cognito_identity_pool_id")


class Client(Fields):
    __slots__ = ("installation_id", "app_title", "app_version_name", "app_version_code", "app_package_name")


class ClientContext(Fields):
    __slots__ = ("custom", "env", "client")


class LambdaContext:
    """What a handler may ask about its invocation (AWS: "Using the Lambda context object", Python)."""

    def __init__(self, headers):
        environment = os.environ.get
        self.aws_request_id = headers.get("lambda-runtime-aws-request-id")
        self.log_group_name = environment("AWS_LAMBDA_LOG_GROUP_NAME")
        self.log_stream_name = environment("AWS_LAMBDA_LOG_STREAM_NAME")
        self.function_name = environment("AWS_LAMBDA_FUNCTION_NAME")
        self.memory_limit_in_mb = environment("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
        self.function_version = environment("AWS_LAMBDA_FUNCTION_VERSION")
        self.invoked_function_arn = headers.get("lambda-runtime-invoked-function-arn")
        self.tenant_id = headers.get("lambda-runtime-aws-tenant-id")
        client_context = of_json(headers, "lambda-runtime-client-context", "Client Context")
        trace = client_context.pop("w3c", None) if isinstance(client_context, dict) else None
        self._w3c = trace if isinstance(trace, dict) else {}
        self.client_context = ClientContext.of(client_context)
        if self.client_context is not None:
            self.client_context.client = Client.of(self.client_context.client)
        identity = of_json(headers, "lambda-runtime-cognito-identity", "Cognito Identity") or {}
        self.identity = CognitoIdentity()
        self.identity.cognito_identity_id = identity.get("cognitoIdentityId")
        self.identity.cognito_identity_pool_id = identity.get("cognitoIdentityPoolId")
        self._deadline_ms = int(headers.get("lambda-runtime-deadline-ms", "0"))

    def get_remaining_time_in_millis(self):
        return max(0, self._deadline_ms - int(time.time() * 1000))

    def w3c(self):
        names = ("traceparent", "tracestate", "baggage")
        return {name: self._w3c[name] for name in names if isinstance(self._w3c.get(name), str)}

    def log(self, message):
        sys.stdout.write(str(message))

    def __repr__(self):
        names = (
            "aws_request_id", "log_group_name", "log_stream_name", "function_name", "memory_limit_in_mb",
            "function_version", "invoked_function_arn", "client_context", "identity", "tenant_id",
        )
        fields = ",".join(f"{name}={getattr(self, name)}" for name in names)
        return f"LambdaContext([{fields}])"


def of_json(headers, header, name):
    text = headers.get(header)
    if not text:
        return None
    try:
        return json.loads(text)
    except Exception as error:
        message = f"Unable to parse {name} JSON: {error}"
        raise Fault("Runtime.LambdaContextUnmarshalError", message) from error


# JSON. AWS's client writes JSON with simplejson: it knows Decimal, named tuples and bytes, which `json` does not.

# Up to Python 3.11 AWS's client writes ASCII alone.
ASCII = sys.version_info < (3, 12)
PLAIN = frozenset((str, int, float, bool, type(None)))


def to_json(value):
    text = json.dumps(value, ensure_ascii=ASCII) if is_plain(value) else "".join(pieces(value, set()))
    return text if ASCII else text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def is_plain(value):
    """Tells whether `json` writes a value as AWS's client does. A circle is left to `json`, which refuses it."""
    try:
        return plain(value)
    except RecursionError:
        return True


def plain(value):
    kind = type(value)
    if kind in PLAIN:
        return True
    if kind is list or kind is tuple:
        return all(type(it) in PLAIN or plain(it) for it in value)
    if kind is dict:
        return all(type(it) in PLAIN for it in value) and all(type(it) in PLAIN or plain(it) for it in value.values())
    return False


def pieces(value, within):
    """Yields the JSON text of a value piece by piece; `within` holds the identities of what it is in."""
    fields = getattr(value, "_asdict", None)
    if isinstance(value, bytes):
        yield json.dumps(value.decode(), ensure_ascii=ASCII)
    elif isinstance(value, (str, int, float)) or value is None:
        yield json.dumps(value, ensure_ascii=ASCII)
    elif isinstance(value, (dict, list, tuple)) or callable(fields):
        if id(value) in within:
            raise ValueError("Circular reference detected")
        within.add(id(value))
        content = fields() if callable(fields) else value
        if isinstance(content, dict):
            opening = "{"
            for key, item in content.items():
                yield f"{opening}{key_text(key)}: "
                yield from pieces(item, within)
                opening = ", "
            yield "{}" if opening == "{" else "}"
        else:
            opening = "["
            for item in content:
                yield opening
                yield from pieces(item, within)
                opening = ", "
            yield "[]" if opening == "[" else "]"
        within.discard(id(value))
    elif type(value).__name__ == "Decimal" and isinstance(value, import_module("decimal").Decimal):
        yield "NaN" if value.is_nan() else str(value)
    else:
        raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def key_text(key):
    if isinstance(key, bytes):
        key = key.decode()
    if isinstance(key, str):
        return json.dumps(key, ensure_ascii=ASCII)
    # `json` knows the other keys that there are, and refuses what is none.
    return json.dumps({key: 0})[1:-4]


def utf8(text):
    try:
        return text.encode()
    except UnicodeEncodeError:
        # A surrogate without its partner has no UTF-8: the same JSON, escaped.
        return "".join(it if it.isascii() else json.dumps(it)[1:-1] for it in text).encode()


# Errors


class Fault(Exception):
    """The runtime's own error. `kind` is the error type that the function's caller sees."""

    def __init__(self, kind, message, trace=()):
        super().__init__(message)
        self.kind = kind
        self.trace = list(trace)


def error_object(kind, message, trace, request_id=""):
    return {"errorMessage": message, "errorType": kind, "requestId": request_id, "stackTrace": trace}


def describe(error, request_id=""):
    if isinstance(error, Fault):
        return error_object(error.kind, str(error), error.trace, request_id)
    traceback = import_module("traceback")
    frames = traceback.extract_tb(error.__traceback__)
    own = [it.filename == __file__ for it in frames]
    # The runtime's own frames are left out at the top, unless there are no others.
    frames = frames[own.index(False) if False in own else 0:]
    # Without the columns that a frame of its own would mark.
    lines = traceback.format_list([(it.filename, it.lineno, it.name, it.line) for it in frames])
    return error_object(type(error).__name__, str(error), lines, request_id)


# The Runtime API


class RuntimeApi:
    """A kept connection to the Runtime API."""

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self.host = address
        self.socket = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        self.socket.connect((host, int(port)))
        self.socket.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        self.unread = b""

    def next(self):
        status, headers, body = self.call("GET", "/invocation/next")
        if status != 200:
            raise RuntimeError(f"runtime API: next: HTTP {status}")
        return headers, body

    def answer(self, request_id, body, content_type):
        path = f"/invocation/{request_id}/response"
        status, _, text = self.call("POST", path, body, {"Content-Type": content_type})
        if status == 413:
            message = (
                f"Response payload size exceeded maximum allowed payload size ({RESPONSE_BYTES_MAX} bytes)."
            )
            kind = "Function.ResponseSizeTooLarge"
            self.fail(f"/invocation/{request_id}/error", {"errorMessage": message, "errorType": kind})
        elif status != 202:
            # The invocation may have timed out meanwhile: say so in the log and ask for the next.
            print(f"runtime API: response: HTTP {status} {text[:200]!r}", file=sys.stderr)

    def fail(self, path, error):
        kind = error["errorType"].encode("ascii", "backslashreplace").decode()
        headers = {"Content-Type": "application/json", "Lambda-Runtime-Function-Error-Type": kind}
        self.call("POST", path, utf8(to_json(error)), headers)

    def call(self, method, path, body=None, headers=None):
        lines = [f"{method} /2018-06-01/runtime{path} HTTP/1.1", f"Host: {self.host}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        # In one piece: two would wait for each other's acknowledgement.
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b""))
        status = int(self.line().split(" ", 2)[1])
        found = {}
        while True:
            line = self.line()
            if not line:
                break
            name, _, value = line.partition(":")
            found[name.lower()] = value.strip()
        if found.get("transfer-encoding", "").lower() == "chunked":
            return status, found, b"".join(self.chunks())
        return status, found, self.exactly(int(found.get("content-length", "0")))

    def line(self):
        while b"\n" not in self.unread:
            self.receive()
        line, _, self.unread = self.unread.partition(b"\n")
        return line.rstrip(b"\r").decode("utf-8", "replace")

    def exactly(self, count):
        parts, held = [self.unread], len(self.unread)
        while held < count:
            part = self.socket.recv(min(1 << 20, count - held))
            if not part:
                raise ConnectionError("runtime API: the connection ended")
            parts.append(part)
            held += len(part)
        data = b"".join(parts)
        self.unread = data[count:]
        return data[:count]

    def chunks(self):
        while True:
            count = int(self.line().split(";")[0], 16)
            if count == 0:
                while self.line():
                    pass
                return
            yield self.exactly(count)
            self.line()

    def receive(self):
        part = self.socket.recv(1 << 16)
        if not part:
            raise ConnectionError("runtime API: the connection ended")
        self.unread += part


# The function


def load_handler(name):
    module_name, dot, function_name = name.rpartition(".")
    if not dot:
        reason = "not enough values to unpack (expected 2, got 1)"
        raise Fault("Runtime.MalformedHandlerName", f"Bad handler '{name}': {reason}")
    if module_name.split(".")[0] in sys.builtin_module_names:
        message = f"Cannot use built-in module {module_name} as a handler module"
        raise Fault("Runtime.BuiltInModuleConflict", message)
    try:
        module = import_module(module_name.replace("/", "."))
    except ImportError as error:
        message = f"Unable to import module '{module_name}': {error}"
        raise Fault("Runtime.ImportModuleError", message) from error
    except SyntaxError as error:
        message = f"Syntax error in module '{module_name}': {error}"
        place = f'  File "{error.filename}" Line {error.lineno}\n    {error.text}'
        raise Fault("Runtime.UserCodeSyntaxError", message, [place]) from error
    try:
        return getattr(module, function_name)
    except AttributeError as error:
        message = f"Handler '{function_name}' missing on module '{module_name}'"
        raise Fault("Runtime.HandlerNotFound", message) from error


def call_handler(handler, headers, body):
    """Returns the handler's answer as bytes, and their content type."""
    context = LambdaContext(headers)
    event = body
    if headers.get("content-type", "application/json") == "application/json":
        try:
            event = json.loads(body)
        except Exception as error:
            raise Fault("Runtime.UnmarshalError", f"Unable to unmarshal input: {error}") from error
    result = handler(event, context)
    if isinstance(result, bytes):
        return result, "application/unknown"
    try:
        return utf8(to_json(result)), "application/json"
    except Exception as error:
        raise Fault("Runtime.MarshalError", f"Unable to marshal response: {error}") from error


def invoke(api, handler):
    headers, body = api.next()
    Current.request_id = request_id = headers["lambda-runtime-aws-request-id"]
    Current.tenant_id = headers.get("lambda-runtime-aws-tenant-id")
    trace_id = headers.get("lambda-runtime-trace-id")
    if trace_id:
        os.environ["_X_AMZN_TRACE_ID"] = trace_id
    else:
        os.environ.pop("_X_AMZN_TRACE_ID", None)
    try:
        answer, content_type = call_handler(handler, headers, body)
    except Exception as error:  # the function's own failure, whatever it is
        described = describe(error, request_id)
        log_error(described)
        api.fail(f"/invocation/{request_id}/error", described)
        return
    api.answer(request_id, answer, content_type)


def main():
    # One pipe: the log has the lines of both in the order of their writing.
    os.dup2(1, 2)
    sys.stdout = sys.__stdout__ = flush_each_write(sys.stdout)
    sys.stderr = sys.__stderr__ = flush_each_write(sys.stderr)
    api = RuntimeApi(os.environ["AWS_LAMBDA_RUNTIME_API"])
    set_up_path(os.environ.get("LAMBDA_TASK_ROOT", "/var/task"))
    try:
        handler = load_handler(os.environ.get("_HANDLER", ""))
    except Exception as error:  # whatever the module does while it is imported
        described = describe(error)
        log_error(described)
        api.fail("/init/error", described)
        sys.exit(1)
    while True:
        invoke(api, handler)


if __name__ == "__main__":
    main()
