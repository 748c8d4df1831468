// Runtime of Node.js functions: a client of the Lambda Runtime API (2018-06-01).
//
// Init: loads the handler that _HANDLER names ("folder/module.function") from LAMBDA_TASK_ROOT.
// Invoke: asks for the next invocation, calls the handler, posts its answer or its error, for ever.
//
// A handler answers by its promise, by its callback (third parameter), or by `done`, `succeed` and `fail` of its
// context. An answer by callback waits until nothing is left to do, unless `callbackWaitsForEmptyEventLoop` is false.

import fs from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import path from 'node:path';
import util from 'node:util';

const API = '/2018-06-01/runtime';
const RESPONSE_BYTES_MAX = 6291556;
const AS_JSON = process.env.AWS_LAMBDA_LOG_FORMAT?.toUpperCase() === 'JSON';
const require = createRequire(import.meta.url);

// Errors

class RuntimeFault extends Error {
  constructor(name, message) {
    super(message);
    // As of a class of that name: not among the error's own properties.
    Object.defineProperty(this, 'name', { value: `Runtime.${name}`, enumerable: false });
    this.stack = this.stack.replace(/^[^\n:]*/, `Runtime.${name}`);
  }
}

const printable = (text) => text?.replace(/\x7F/g, '%7F');
const isError = (it) => util.types.isNativeError(it)
  || Boolean(it && [it.name, it.message, it.stack].every((field) => field && typeof field === 'string'));

// The error object that the function's caller sees.
function errorObject(error) {
  try {
    if (isError(error)) {
      return {
        errorType: printable(error.name),
        errorMessage: printable(error.message),
        trace: printable(error.stack).split('\n'),
      };
    }
    return { errorType: typeof error, errorMessage: error.toString(), trace: [] };
  } catch {
    return {
      errorType: 'handled',
      errorMessage:
        'callback called with Error argument, but there was a problem while retrieving one or more of its message, '
        + 'name, and stack',
    };
  }
}

// Logging: `console` writes a line with time, request and level to stdout.

const current = { requestId: undefined, tenantId: undefined };

function errorFields(error) {
  return {
    errorType: error?.constructor?.name ?? 'UnknownError',
    errorMessage: error.message,
    stackTrace: typeof error.stack === 'string' ? error.stack.split('\n') : error.stack,
  };
}

function jsonLine(level, parts) {
  const line = { timestamp: new Date().toISOString(), level, requestId: current.requestId };
  if (current.tenantId != null) line.tenantId = current.tenantId;
  if (parts.length === 1) {
    const expand = (_, value) => (value instanceof Error ? { ...errorFields(value), ...value } : value);
    try {
      return JSON.stringify({ ...line, message: parts[0] }, expand);
    } catch {
      return JSON.stringify({ ...line, message: util.format(parts[0]) });
    }
  }
  line.message = util.format(...parts);
  const error = parts.find((it) => it instanceof Error);
  return JSON.stringify(error ? { ...line, ...errorFields(error) } : line);
}

function textLine(level, parts) {
  return `${new Date().toISOString()}\t${current.requestId}\t${level}\t${util.format(...parts)}`;
}

function log(level, parts) {
  // One event of the log: the lines within end with a carriage return.
  const line = AS_JSON ? jsonLine(level, parts) : textLine(level, parts);
  process.stdout.write(`${line.replace(/\n/g, '\r')}\n`);
}

function setUpConsole() {
  // A pipe is written to at once, so that nothing is lost when the process ends.
  for (const stream of [process.stdout, process.stderr]) stream._handle?.setBlocking?.(true);
  const levels = ['TRACE', 'DEBUG', 'INFO', 'WARN', 'ERROR', 'FATAL'];
  const least = Math.max(0, levels.indexOf(process.env.AWS_LAMBDA_LOG_LEVEL?.toUpperCase()));
  levels.forEach((level, at) => {
    // The first parameter is counted even when it is not given, as AWS's client does.
    const write = (message, ...more) => log(level, [message, ...more]);
    console[level.toLowerCase()] = at >= least ? write : () => {};
  });
  console.log = console.info;
}

function logError(what, thrown) {
  const error = thrown instanceof Error ? thrown : new Error(thrown);
  if (AS_JSON) {
    console.error(error);
    return;
  }
  const expand = (_, value) => {
    if (!(value instanceof Error)) return value;
    const fields = { errorType: value.name, errorMessage: value.message, code: value.code, ...value };
    if (typeof value.stack === 'string') fields.stack = value.stack.split('\n');
    return fields;
  };
  let text;
  try {
    text = JSON.stringify(error, expand);
  } catch {
    text = JSON.stringify(errorObject(error));
  }
  console.error(what, `\t${text}`);
}

// The Runtime API

const [hostname, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(':');
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

function request(method, suffix, headers, onResponse) {
  const options = { hostname, port, method, path: API + suffix, headers, agent };
  return http.request(options, onResponse);
}

function call(method, suffix, body, headers = {}) {
  const bytes = body === undefined ? undefined : Buffer.from(body);
  if (bytes) headers = { 'Content-Type': 'application/json', 'Content-Length': bytes.length, ...headers };
  return new Promise((resolve, reject) => {
    const sent = request(method, suffix, headers, (response) => {
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () =>
        resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(chunks).toString() }));
    });
    sent.on('error', reject);
    sent.end(bytes);
  });
}

function postError(suffix, described) {
  // A header holds no line break, and ASCII alone.
  const kind = String(described.errorType).replace(/[^\x20-\x7e]/g, '?');
  return call('POST', suffix, JSON.stringify(described), { 'Lambda-Runtime-Function-Error-Type': kind });
}

async function postAnswer(requestId, text) {
  const { status } = await call('POST', `/invocation/${requestId}/response`, text);
  if (status === 413) {
    const errorType = 'Function.ResponseSizeTooLarge';
    const errorMessage =
      `Response payload size exceeded maximum allowed payload size (${RESPONSE_BYTES_MAX} bytes).`;
    await postError(`/invocation/${requestId}/error`, { errorType, errorMessage });
  }
}

function answerText(result) {
  try {
    return JSON.stringify(result === undefined ? null : result) ?? '';
  } catch {
    throw new Error('Unable to stringify response body');
  }
}

// Streaming: `awslambda.streamifyResponse` marks a handler that writes its answer to a stream.

const STREAMING = Symbol.for('aws.lambda.runtime.handler.streaming');
const HIGH_WATER_MARK = Symbol.for('aws.lambda.runtime.handler.streaming.highWaterMark');

function setUpStreaming() {
  const streamifyResponse = (handler, options) => {
    handler[STREAMING] = 'response';
    if (typeof options?.highWaterMark === 'number') handler[HIGH_WATER_MARK] = Math.trunc(options.highWaterMark);
    return handler;
  };
  class HttpResponseStream {
    // The status and headers of an HTTP answer come before its body, and eight zeros between.
    static from(stream, prelude) {
      stream.setContentType('application/vnd.awslambda.http-integration-response');
      stream._onBeforeFirstWrite = (write) => {
        write(JSON.stringify(prelude));
        write(new Uint8Array(8));
      };
      return stream;
    }
  }
  globalThis.awslambda = { streamifyResponse, HttpResponseStream };
}

// A streamed answer: the function writes to `stream`; `answered` is when the Runtime API has taken it.
function answerStream(requestId) {
  const headers = {
    'Lambda-Runtime-Function-Response-Mode': 'streaming',
    Trailer: 'Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body',
    'Content-Type': 'application/octet-stream',
    'Transfer-Encoding': 'chunked',
  };
  let stream;
  const answered = new Promise((resolve, reject) => {
    stream = request('POST', `/invocation/${requestId}/response`, headers, (response) => {
      response.on('end', resolve).on('error', reject).resume();
    });
    stream.on('error', reject);
  });
  // Waited for only when the handler has come to its end.
  answered.catch(() => {});
  let begun = false;
  const write = stream.write.bind(stream);
  stream.setContentType = (type) => {
    if (begun) throw new RuntimeFault('InvalidStreamingOperation', 'Cannot set content-type, too late.');
    stream.setHeader('Content-Type', type);
  };
  stream.write = (chunk, ...more) => {
    const plain = typeof chunk === 'string' || chunk instanceof Uint8Array;
    if (!begun) {
      begun = true;
      stream._onBeforeFirstWrite?.((part) => write(part));
    }
    return write(plain ? chunk : JSON.stringify(chunk), ...more);
  };
  const end = stream.end.bind(stream);
  stream.end = (chunk, ...more) => {
    if (typeof chunk === 'function') return end(chunk);
    if (chunk !== undefined && chunk !== null) stream.write(chunk, typeof more[0] === 'string' ? more[0] : undefined);
    else if (!begun && stream._onBeforeFirstWrite) stream._onBeforeFirstWrite((part) => write(part));
    return end(more.find((it) => typeof it === 'function'));
  };
  const fail = (error) => {
    logError('Invoke Error', error);
    const described = errorObject(error);
    stream.addTrailers({
      'Lambda-Runtime-Function-Error-Type': String(described.errorType).replace(/[^\x20-\x7e]/g, '?'),
      'Lambda-Runtime-Function-Error-Body': Buffer.from(JSON.stringify(described)).toString('base64'),
    });
    if (!stream.writableEnded) end();
  };
  return { stream, answered, fail };
}

// The function

// Loads a file of the function as Node.js takes it: as a module where its ending or the nearest package.json says so.
async function loadFile(base) {
  const there = (ending) => fs.existsSync(base + ending);
  if (there('')) return require(base);
  if (there('.js')) return isModule(path.dirname(base)) ? import(`${base}.js`) : require(`${base}.js`);
  if (there('.mjs')) return import(`${base}.mjs`);
  return there('.cjs') ? require(`${base}.cjs`) : undefined;
}

function isModule(folder) {
  if (folder.endsWith('/node_modules')) return false;
  const file = path.join(folder, 'package.json');
  if (fs.existsSync(file)) {
    try {
      return JSON.parse(fs.readFileSync(file, 'utf8'))?.type === 'module';
    } catch (error) {
      console.warn(`${file} cannot be read, it will be ignored for ES module detection purposes.`, error);
      return false;
    }
  }
  return folder === '/' ? false : isModule(path.dirname(folder));
}

async function loadHandler(name) {
  if (name.includes('..')) {
    const advice = 'Use absolute paths when specifying root directories in handler names.';
    throw new RuntimeFault('MalformedHandlerName', `'${name}' is not a valid handler name. ${advice}`);
  }
  const last = path.basename(name);
  const folder = name.slice(0, name.indexOf(last));
  const dot = last.indexOf('.');
  if (dot < 0) throw new RuntimeFault('MalformedHandlerName', 'Bad handler');
  const root = process.env.LAMBDA_TASK_ROOT ?? '/var/task';
  const [moduleName, keys] = [last.slice(0, dot), last.slice(dot + 1).split('.')];
  let found;
  try {
    found = await loadFile(path.resolve(root, folder, moduleName))
      ?? require(require.resolve(moduleName, { paths: [root, folder] }));
  } catch (error) {
    if (error instanceof SyntaxError) throw new RuntimeFault('UserCodeSyntaxError', String(error));
    if (error?.code === 'MODULE_NOT_FOUND') throw new RuntimeFault('ImportModuleError', String(error));
    throw error;
  }
  const handler = keys.reduce((within, key) => within && within[key], found);
  if (!handler) throw new RuntimeFault('HandlerNotFound', `${name} is undefined or not exported`);
  if (typeof handler !== 'function') throw new RuntimeFault('HandlerNotFound', `${name} is not a function`);
  return handler;
}

function contextFields(headers) {
  const ofJson = (header, name) => {
    const text = headers[header];
    if (text === undefined) return undefined;
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new Error(`Cannot parse ${name} as json: ${error}`);
    }
  };
  const deadline = Number(headers['lambda-runtime-deadline-ms']);
  return {
    functionVersion: process.env.AWS_LAMBDA_FUNCTION_VERSION,
    functionName: process.env.AWS_LAMBDA_FUNCTION_NAME,
    memoryLimitInMB: process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: process.env.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: process.env.AWS_LAMBDA_LOG_STREAM_NAME,
    clientContext: ofJson('lambda-runtime-client-context', 'ClientContext'),
    identity: ofJson('lambda-runtime-cognito-identity', 'CognitoIdentity'),
    invokedFunctionArn: headers['lambda-runtime-invoked-function-arn'],
    awsRequestId: headers['lambda-runtime-aws-request-id'],
    tenantId: headers['lambda-runtime-aws-tenant-id'],
    getRemainingTimeInMillis: () => deadline - Date.now(),
  };
}

// What happens when nothing is left to do.
let whenIdle = () => {};
// What a thrown error that nobody caught is posted as.
let suffixOfErrors = '/init/error';

// Tells how an invocation ends: the first word counts.
function ending(requestId, goOn) {
  let waits = true;
  let told = false;
  const fail = (error) => {
    logError('Invoke Error', error);
    postError(`/invocation/${requestId}/error`, errorObject(error)).then(goOn);
  };
  const answer = (result) => postAnswer(requestId, answerText(result)).then(goOn);
  const once = (tell) => (...words) => {
    if (told) return;
    told = true;
    whenIdle = () => {};
    tell(...words);
  };
  const done = (error, result) => (error == null ? answer(result) : fail(error));
  const context = {
    get callbackWaitsForEmptyEventLoop() {
      return waits;
    },
    set callbackWaitsForEmptyEventLoop(value) {
      waits = value;
    },
    succeed: once((result) => done(null, result)),
    fail: once((error) => done(error ?? 'handled')),
    done: once(done),
  };
  const callback = once((error, result) => {
    if (error != null || !waits) done(error, result);
    else whenIdle = () => setImmediate(() => answer(result));
  });
  return { context, callback, idle: once(() => answer(null)) };
}

function invokeOnce(handler, { headers, body }, goOn) {
  const { context, callback, idle } = ending(current.requestId, goOn);
  whenIdle = idle;
  try {
    const event = JSON.parse(body);
    const result = handler(event, Object.assign(context, contextFields(headers)), callback);
    if (typeof result?.then === 'function') {
      result.then((value) => context.succeed(value), context.fail).catch((error) => {
        // The value has no JSON: `succeed` was the first word, and is taken back.
        logError('Invoke Error', error);
        postError(`/invocation/${current.requestId}/error`, errorObject(error)).then(goOn);
      });
    }
  } catch (error) {
    callback(error);
  }
}

async function invokeStreaming(handler, { headers, body }, goOn) {
  whenIdle = goOn;
  const { stream, answered, fail } = answerStream(current.requestId);
  let waits = true;
  const context = {
    get callbackWaitsForEmptyEventLoop() {
      return waits;
    },
    set callbackWaitsForEmptyEventLoop(value) {
      waits = value;
    },
  };
  try {
    Object.assign(context, contextFields(headers));
    const result = handler(JSON.parse(body), stream, context);
    if (typeof result?.then !== 'function') throw 'Streaming does not support non-async handlers.';
    if ((await result) !== undefined) console.warn('Streaming handlers ignore return values.');
    if (!stream.writableEnded) throw 'Response stream is not finished.';
    await answered;
  } catch (error) {
    fail(error);
    await answered.catch(() => {});
  }
  whenIdle = () => {};
  if (waits) whenIdle = () => setImmediate(goOn);
  else goOn();
}

async function next(handler) {
  const invocation = await call('GET', '/invocation/next');
  if (invocation.status !== 200) throw new Error(`runtime API: next: HTTP ${invocation.status}`);
  const { headers } = invocation;
  current.requestId = headers['lambda-runtime-aws-request-id'];
  current.tenantId = headers['lambda-runtime-aws-tenant-id'];
  suffixOfErrors = `/invocation/${current.requestId}/error`;
  const traceId = headers['lambda-runtime-trace-id'];
  if (traceId) process.env._X_AMZN_TRACE_ID = traceId;
  else delete process.env._X_AMZN_TRACE_ID;
  const goOn = () => setImmediate(() => next(handler));
  const invoke = handler[STREAMING] ? invokeStreaming : invokeOnce;
  invoke(handler, invocation, goOn);
}

function setUpEnds() {
  const end = (what, error, status) => {
    logError(what, error);
    const leave = () => process.exit(status);
    postError(suffixOfErrors, errorObject(error)).then(leave, leave);
  };
  process.on('uncaughtException', (error) => end('Uncaught Exception', error, 129));
  process.on('unhandledRejection', (reason, promise) => {
    const error = new RuntimeFault('UnhandledPromiseRejection', String(reason));
    end('Unhandled Promise Rejection', Object.assign(error, { reason, promise }), 128);
  });
  process.on('beforeExit', () => whenIdle());
}

setUpConsole();
setUpEnds();
const shown = process.env.AWS_LAMBDA_NODEJS_NO_GLOBAL_AWSLAMBDA;
if (shown !== '1' && shown !== 'true') setUpStreaming();
const handler = await loadHandler(process.env._HANDLER ?? '');
const mode = handler[STREAMING];
if (mode && mode !== 'response') {
  throw new RuntimeFault('MalformedStreamingHandler', 'Only response streaming is supported.');
}
next(handler);
