"""A function whose event says what it does: answer, fail, wait, use up memory, fork, spin, die."""

import ctypes
import mmap
import os
import sys
import time

sandbox = os.urandom(8).hex()


def handler(event, context):
    return globals()[event["do"]](event, context)


def echo(event, context):
    print("echoing", event.get("text"))
    return {"text": event.get("text"), "sandbox": sandbox, "request": context.aws_request_id}


def fail(event, context):
    raise ValueError("no good: " + event["text"])


def wait(event, context):
    time.sleep(event["seconds"])
    return "waited"


def die(event, context):
    os._exit(event["status"])


def kill(event, context):
    os.kill(os.getpid(), 9)


def crash(event, context):
    ctypes.string_at(0)


def eat(event, context):
    held = []
    while True:
        block = mmap.mmap(-1, 1 << 20)
        block.write(b"x" * (1 << 20))
        held.append(block)


def fork(event, context):
    children = 0
    try:
        while True:
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
            children += 1
    except OSError as error:
        return {"children": children, "errno": error.errno}


def spin(event, context):
    start, cpu = time.monotonic(), time.process_time()
    while time.monotonic() - start < event["seconds"]:
        pass
    return {"share": (time.process_time() - cpu) / (time.monotonic() - start)}


def large(event, context):
    return "x" * event["bytes"]


def write(event, context):
    with open("/tmp/file", "wb") as file:
        try:
            while True:
                file.write(b"x" * (1 << 20))
        except OSError as error:
            return {"bytes": file.tell(), "errno": error.errno}


def environment(event, context):
    return dict(os.environ)
