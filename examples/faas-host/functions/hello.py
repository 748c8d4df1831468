"""Answers with a greeting, and with what the function can see of its sandbox."""

import os

invocations = 0


def handler(event, context):
    global invocations
    invocations += 1
    print(f"greeting, invocation {invocations} of this sandbox")
    return {
        "greeting": f"hello from Python, {event.get('name', 'you')}",
        "invocations": invocations,
        "pid": os.getpid(),
        "remaining_ms": context.get_remaining_time_in_millis(),
    }
