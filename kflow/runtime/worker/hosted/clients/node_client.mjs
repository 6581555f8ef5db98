// Runs a Node.js function where AWS's own client of the Runtime API (aws-lambda-ric) is not installed: as AWS's does it
// for what a function's author sees. Handlers may be async functions, functions with a callback, of CommonJS or of
// ES modules, or streaming ones, of which the caller gets the whole.
//
// Run as a program: node node_client.mjs HANDLER
//
// Source: documented: Lambda Developer Guide, nodejs-handler, nodejs-context, nodejs-logging, nodejs-exceptions.

import fs from "node:fs";
import http from "node:http";
import Module, { createRequire } from "node:module";
import path from "node:path";
import { PassThrough } from "node:stream";
import { pathToFileURL } from "node:url";
import util from "node:util";

const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(":");
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
const STREAMING = Symbol("streaming");
const isJson = (process.env.AWS_LAMBDA_LOG_FORMAT || "").toUpperCase() === "JSON";
const LEVELS = { TRACE: 0, DEBUG: 1, INFO: 2, WARN: 3, ERROR: 4, FATAL: 5 };
const least = LEVELS[(process.env.AWS_LAMBDA_LOG_LEVEL || "").toUpperCase()] ?? 0;
let requestId;

// ------------------------------------------------------------------ the conversation

function call(method, where, body, headers = {}) {
  return new Promise((resolve, reject) => {
    const options = { host, port, agent, method, path: `/2018-06-01/runtime/${where}`, headers };
    const request = http.request(options, (response) => {
      const parts = [];
      response.on("data", (part) => parts.push(part));
      response.on("end", () => resolve({ response, body: Buffer.concat(parts) }));
      response.on("error", reject);
    });
    request.setTimeout(0);
    request.on("socket", (socket) => socket.setNoDelay(true));
    request.on("error", reject);
    request.end(body);
  });
}

async function post(where, body, headers = {}) {
  const data = Buffer.isBuffer(body) ? body : Buffer.from(body);
  const said = await call("POST", where, data, { "Content-Length": data.length, ...headers });
  if (said.response.statusCode < 200 || said.response.statusCode >= 300) {
    throw new Error(`Failed to post to ${where}, status ${said.response.statusCode}: ${said.body}`);
  }
}

// ------------------------------------------------------------------ the log

function line(level, values) {
  if (LEVELS[level] < least) return;
  const now = new Date().toISOString();
  if (!isJson) {
    const text = util.format(...values).replace(/\n/g, "\r");
    process.stdout.write(`${now}\t${requestId ?? "undefined"}\t${level}\t${text}\n`);
    return;
  }
  const entry = { timestamp: now, level, requestId: requestId ?? "undefined" };
  const only = values.length === 1 ? values[0] : undefined;
  const error = values.find((value) => value instanceof Error);
  entry.message = only !== undefined && typeof only === "object" && !(only instanceof Error) ? only : util.format(...values);
  if (error) Object.assign(entry, { errorType: error.name, errorMessage: error.message, stackTrace: trace(error) });
  process.stdout.write(`${JSON.stringify(entry)}\n`);
}

for (const [name, level] of [["trace", "TRACE"], ["debug", "DEBUG"], ["info", "INFO"], ["log", "INFO"], ["warn", "WARN"], ["error", "ERROR"], ["fatal", "FATAL"]]) {
  console[name] = (...values) => line(level, values);
}

// ------------------------------------------------------------------ errors

const trace = (error) => (typeof error.stack === "string" ? error.stack.split("\n") : []);

function described(error, type) {
  if (error instanceof Error || util.types.isNativeError(error)) {
    return { errorType: type ?? error.name ?? "Error", errorMessage: error.message ?? "", trace: trace(error) };
  }
  return { errorType: type ?? typeof error, errorMessage: String(error), trace: [] };
}

function tell(what, error, about) {
  if (isJson) {
    const now = new Date().toISOString();
    const said = { timestamp: now, level: "ERROR", requestId, errorType: about.errorType, errorMessage: about.errorMessage };
    process.stdout.write(`${JSON.stringify({ ...said, stackTrace: about.trace })}\n`);
    return;
  }
  const now = new Date().toISOString();
  const fields = { ...(error instanceof Error ? error : {}), errorType: about.errorType, errorMessage: about.errorMessage, stack: about.trace };
  process.stdout.write(`${now}\t${requestId ?? "undefined"}\tERROR\t${what} \t${JSON.stringify(fields)}\n`);
}

async function failed(error, about, what) {
  tell(what, error, about);
  await post(`invocation/${requestId}/error`, JSON.stringify(about), {
    "Content-Type": "application/json",
    "Lambda-Runtime-Function-Error-Type": "Unhandled",
  });
}

async function brokenStart(error, type) {
  const about = described(error, type);
  tell("Uncaught Exception", error, about);
  await post("init/error", JSON.stringify(about), {
    "Content-Type": "application/json",
    "Lambda-Runtime-Function-Error-Type": about.errorType,
  });
  process.exit(1);
}

async function fatal(error, type, code) {
  const about = described(error, type);
  if (requestId === undefined) {
    await brokenStart(error, type);
  }
  tell(type === "Runtime.UnhandledPromiseRejection" ? "Unhandled Promise Rejection" : "Uncaught Exception", error, about);
  try {
    await post(`invocation/${requestId}/error`, JSON.stringify(about), { "Content-Type": "application/json" });
  } finally {
    process.exit(code);
  }
}

process.on("uncaughtException", (error) => void fatal(error, error?.name ?? "Runtime.UnhandledError", 129));
process.on("unhandledRejection", (reason) => {
  const said = new Error(reason instanceof Error ? reason.toString() : String(reason));
  said.name = "Runtime.UnhandledPromiseRejection";
  if (reason instanceof Error) said.stack = reason.stack;
  void fatal(said, "Runtime.UnhandledPromiseRejection", 128);
});

// ------------------------------------------------------------------ the handler

/** `import` finds packages of layers, as `require` does by NODE_PATH. Source: documented: nodejs18.x and later. */
function reachLayers() {
  const own = path.join(process.env.LAMBDA_TASK_ROOT, "node_modules"); // it is found without this
  const places = (process.env.NODE_PATH ?? "").split(path.delimiter).filter((each) => path.basename(each) === "node_modules");
  const parents = places.filter((each) => each !== own && fs.existsSync(each)).map((each) => pathToFileURL(path.join(path.dirname(each), "_")).href);
  if (parents.length === 0 || Module.register === undefined) return; // older than Node.js 18.19
  const hooks = `export async function resolve(specifier, context, next) {
    try {
      return await next(specifier, context);
    } catch (error) {
      if (error?.code === "ERR_MODULE_NOT_FOUND" && !/^(?:[./]|[a-z]+:)/.test(specifier)) {
        for (const parentURL of ${JSON.stringify(parents)}) {
          try {
            return await next(specifier, { ...context, parentURL });
          } catch {} // not there: the first error says what is missing
        }
      }
      throw error;
    }
  }`;
  Module.register(`data:text/javascript,${encodeURIComponent(hooks)}`);
}

class Named extends Error {
  constructor(name, message) {
    super(message);
    this.name = name;
  }
}

async function load(handler) {
  const root = process.env.LAMBDA_TASK_ROOT;
  const base = path.basename(handler);
  const match = base.match(/^([^.]*)\.(.*)$/);
  if (!match || handler.includes("..")) {
    throw new Named("Runtime.MalformedHandlerName", `Bad handler '${handler}'`);
  }
  const stem = path.resolve(root, handler.slice(0, handler.length - base.length), match[1]);
  const found = ["", ".js", ".mjs", ".cjs"].map((end) => stem + end).find((name) => fs.statSync(name, { throwIfNoEntry: false })?.isFile());
  let module;
  try {
    if (found === undefined) {
      const local = createRequire(path.join(root, "_"));
      module = local(local.resolve(stem)); // a folder with an index, or a module of a layer
    } else {
      reachLayers();
      module = await import(pathToFileURL(found).href);
    }
  } catch (error) {
    if (error instanceof SyntaxError) throw new Named("Runtime.UserCodeSyntaxError", error.toString());
    if (error?.code === "MODULE_NOT_FOUND" || error?.code === "ERR_MODULE_NOT_FOUND") {
      throw new Named("Runtime.ImportModuleError", `Error: ${found === undefined ? `Cannot find module '${match[1]}'` : error.message}`);
    }
    throw error;
  }
  const take = (from) => match[2].split(".").reduce((value, name) => value?.[name], from);
  const handle = take(module) ?? take(module.default);
  if (handle === undefined) throw new Named("Runtime.HandlerNotFound", `${handler} is undefined or not exported`);
  if (typeof handle !== "function") throw new Named("Runtime.HandlerNotFound", `${handler} is not a function`);
  return handle;
}

globalThis.awslambda = {
  streamifyResponse: (handle, options) => Object.assign(handle, { [STREAMING]: options ?? {} }),
  HttpResponseStream: {
    from(stream, prelude) {
      stream.write(JSON.stringify(prelude));
      stream.write(Buffer.alloc(8));
      return stream;
    },
  },
};

function contextOf(headers) {
  const deadline = Number(headers["lambda-runtime-deadline-ms"]);
  const parsed = (name) => (headers[name] ? JSON.parse(headers[name]) : undefined);
  return {
    callbackWaitsForEmptyEventLoop: true,
    functionVersion: process.env.AWS_LAMBDA_FUNCTION_VERSION,
    functionName: process.env.AWS_LAMBDA_FUNCTION_NAME,
    memoryLimitInMB: process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
    logGroupName: process.env.AWS_LAMBDA_LOG_GROUP_NAME,
    logStreamName: process.env.AWS_LAMBDA_LOG_STREAM_NAME,
    clientContext: parsed("lambda-runtime-client-context"),
    identity: parsed("lambda-runtime-cognito-identity"),
    invokedFunctionArn: headers["lambda-runtime-invoked-function-arn"],
    awsRequestId: headers["lambda-runtime-aws-request-id"],
    getRemainingTimeInMillis: () => deadline - Date.now(),
  };
}

/** Runs the handler; resolves with its result, however it hands it over. */
function run(handle, event, context) {
  if (handle[STREAMING] !== undefined) {
    const stream = new PassThrough();
    stream.setContentType = () => {};
    const parts = [];
    stream.on("data", (part) => parts.push(part));
    const ended = new Promise((resolve, reject) => {
      stream.on("end", resolve);
      stream.on("error", reject);
    });
    return Promise.all([handle(event, stream, context), ended]).then(() => Buffer.concat(parts));
  }
  return new Promise((resolve, reject) => {
    let hasCalled = false;
    const nothing = () => ((hasCalled = true), resolve(null));
    const done = (error, result) => {
      if (hasCalled) return;
      hasCalled = true;
      process.removeListener("beforeExit", nothing);
      const finish = () => (error === undefined || error === null ? resolve(result) : reject(error));
      if (error || !context.callbackWaitsForEmptyEventLoop) finish();
      else process.once("beforeExit", finish);
    };
    Object.assign(context, {
      done,
      succeed: (result) => ((context.callbackWaitsForEmptyEventLoop = false), done(null, result)),
      fail: (error) => ((context.callbackWaitsForEmptyEventLoop = false), done(error ?? "handled")),
    });
    const returned = handle(event, context, done);
    if (typeof returned?.then === "function") {
      hasCalled = true;
      returned.then(resolve, reject);
    } else if (!hasCalled) {
      // No promise, and no callback yet: if none comes it ends when nothing is left to do, and has no result.
      process.once("beforeExit", nothing);
    }
  });
}


async function serve(handle) {
  for (;;) {
    const { response, body } = await call("GET", "invocation/next");
    if (response.statusCode !== 200) throw new Error(`Failed to get next, status ${response.statusCode}: ${body}`);
    const { headers } = response;
    requestId = headers["lambda-runtime-aws-request-id"];
    if (headers["lambda-runtime-trace-id"] === undefined) delete process.env._X_AMZN_TRACE_ID;
    else process.env._X_AMZN_TRACE_ID = headers["lambda-runtime-trace-id"];
    let result;
    try {
      result = await run(handle, JSON.parse(body.toString()), contextOf(headers));
    } catch (error) {
      await failed(error, described(error), "Invoke Error");
      continue;
    }
    let text;
    try {
      text = Buffer.isBuffer(result) ? result : JSON.stringify(result === undefined ? null : result) ?? "null";
    } catch (error) {
      const about = { errorType: "Runtime.MarshalError", errorMessage: `Unable to stringify response body: ${error.message}`, trace: [] };
      await failed(error, about, "Invoke Error");
      continue;
    }
    await post(`invocation/${requestId}/response`, text, { "Content-Type": "application/json" });
  }
}

// No `await` here: a handler that leaves nothing to wait for must come to `beforeExit`.
load(process.argv[2]).then(serve, brokenStart);
