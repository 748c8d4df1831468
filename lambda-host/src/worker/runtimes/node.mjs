// Runtime of Node.js functions: speaks the Lambda Runtime API (2018-06-01), no packages.
//
// Init: imports the handler that _HANDLER names ("folder/module.function") from LAMBDA_TASK_ROOT.
// Invoke: asks for the next invocation, calls the handler, posts its answer or its error, for ever.
// A handler is async, or takes a callback as its third parameter.

import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const API = '/2018-06-01/runtime';
const [hostname, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(':');
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

class HandlerError extends Error {
  constructor(kind, message) {
    super(message);
    this.name = kind;
  }
}

function call(method, suffix, body, headers = {}) {
  const bytes = body === undefined ? undefined : Buffer.from(body);
  if (bytes) headers['Content-Length'] = bytes.length;
  return new Promise((resolve, reject) => {
    const options = { hostname, port, method, path: API + suffix, headers, agent };
    const request = http.request(options, (response) => {
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () =>
        resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(chunks) }));
    });
    request.on('error', reject);
    request.end(bytes);
  });
}

// The error object that AWS documents: errorType, errorMessage, trace.
function describe(error) {
  if (error instanceof Error) {
    return {
      errorType: error.name,
      errorMessage: error.message,
      trace: (error.stack ?? '').split('\n'),
    };
  }
  return { errorType: typeof error, errorMessage: String(error), trace: [] };
}

async function fail(suffix, error) {
  const described = describe(error);
  console.error(`${described.errorType}: ${described.errorMessage}`);
  await call('POST', suffix, JSON.stringify(described), {
    'Content-Type': 'application/json',
    'Lambda-Runtime-Function-Error-Type': described.errorType.replace(/[^\x20-\x7e]/g, '?'),
  });
}

async function loadHandler(name) {
  const root = process.env.LAMBDA_TASK_ROOT ?? '/var/task';
  const dot = name.lastIndexOf('.');
  if (dot <= 0) throw new HandlerError('Runtime.MalformedHandlerName', 'Bad handler');
  const [moduleName, functionName] = [name.slice(0, dot), name.slice(dot + 1)];
  const base = path.resolve(root, moduleName);
  const file = ['.mjs', '.js', '.cjs'].map((ending) => base + ending).find((it) => fs.existsSync(it));
  if (!file) {
    throw new HandlerError(
      'Runtime.ImportModuleError',
      `Error: Cannot find module '${moduleName}'`,
    );
  }
  let module;
  try {
    module = await import(pathToFileURL(file).href);
  } catch (error) {
    if (error instanceof SyntaxError) {
      throw new HandlerError('Runtime.UserCodeSyntaxError', `SyntaxError: ${error.message}`);
    }
    if (error?.code === 'ERR_MODULE_NOT_FOUND' || error?.code === 'MODULE_NOT_FOUND') {
      throw new HandlerError('Runtime.ImportModuleError', `Error: ${error.message}`);
    }
    throw error;
  }
  const handler = module[functionName] ?? module.default?.[functionName];
  if (handler === undefined) {
    throw new HandlerError(
      'Runtime.HandlerNotFound',
      `${name} is undefined or not exported`,
    );
  }
  if (typeof handler !== 'function') {
    throw new HandlerError('Runtime.HandlerNotFound', `${name} is not a function`);
  }
  return handler;
}

// A header's JSON, plain or in base64; undefined when it is absent or neither.
function jsonHeader(headers, name) {
  const text = headers[name];
  if (!text) return undefined;
  for (const candidate of [text, Buffer.from(text, 'base64').toString()]) {
    try {
      return JSON.parse(candidate);
    } catch {
      continue;
    }
  }
  return undefined;
}

function contextOf(headers) {
  const deadline = Number(headers['lambda-runtime-deadline-ms'] ?? 0);
  return {
    awsRequestId: headers['lambda-runtime-aws-request-id'],
    invokedFunctionArn: headers['lambda-runtime-invoked-function-arn'],
    functionName: process.env.AWS_LAMBDA_FUNCTION_NAME,
    functionVersion: process.env.AWS_LAMBDA_FUNCTION_VERSION,
    memoryLimitInMB: process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: process.env.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: process.env.AWS_LAMBDA_LOG_STREAM_NAME,
    clientContext: jsonHeader(headers, 'lambda-runtime-client-context'),
    identity: jsonHeader(headers, 'lambda-runtime-cognito-identity'),
    callbackWaitsForEmptyEventLoop: true,
    getRemainingTimeInMillis: () => Math.max(0, deadline - Date.now()),
  };
}

// Calls the handler: the first of its callback and its promise decides.
function run(handler, event, context) {
  return new Promise((resolve, reject) => {
    const callback = (error, result) => (error ? reject(error) : resolve(result));
    Promise.resolve()
      .then(() => handler(event, context, callback))
      .then((result) => {
        if (handler.length < 3 || result !== undefined) resolve(result);
      }, reject);
  });
}

async function invoke(handler) {
  const next = await call('GET', '/invocation/next');
  if (next.status !== 200) throw new Error(`runtime API: next: HTTP ${next.status}`);
  const requestId = next.headers['lambda-runtime-aws-request-id'];
  const traceId = next.headers['lambda-runtime-trace-id'];
  if (traceId) process.env._X_AMZN_TRACE_ID = traceId;
  let answer;
  try {
    let event;
    try {
      event = next.body.length ? JSON.parse(next.body.toString()) : null;
    } catch (error) {
      throw new HandlerError('Runtime.UnmarshalError', `Unable to unmarshal input: ${error.message}`);
    }
    const result = await run(handler, event, contextOf(next.headers));
    try {
      answer = JSON.stringify(result) ?? 'null';
    } catch (error) {
      throw new HandlerError('Runtime.MarshalError', `Unable to stringify response body: ${error.message}`);
    }
  } catch (error) {
    await fail(`/invocation/${requestId}/error`, error);
    return;
  }
  const posted = await call('POST', `/invocation/${requestId}/response`, answer, {
    'Content-Type': 'application/json',
  });
  if (posted.status === 413) {
    await fail(
      `/invocation/${requestId}/error`,
      new HandlerError(
        'Function.ResponseSizeTooLarge',
        `Response payload size (${Buffer.byteLength(answer)} bytes) exceeded maximum allowed payload size (6291556 bytes).`,
      ),
    );
  }
}

let handler;
try {
  handler = await loadHandler(process.env._HANDLER ?? '');
} catch (error) {
  await fail('/init/error', error);
  process.exit(1);
}
for (;;) await invoke(handler);
