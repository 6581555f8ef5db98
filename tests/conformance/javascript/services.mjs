// What the SDK's clients of Lambda, SQS, CloudWatch Logs and CloudWatch do and see, told in JSON;
// `test_javascript_services.py` says what it should see.
//
//     node services.mjs ZIP ROLE
//
// The SDK is found in `$CONFORMANCE_NPM/node_modules`, and what the environment says about AWS is what `kflow env` prints.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.env.CONFORMANCE_NPM, "package.json"));
const lambda = require("@aws-sdk/client-lambda");
const sqs = require("@aws-sdk/client-sqs");
const logs = require("@aws-sdk/client-cloudwatch-logs");
const cloudwatch = require("@aws-sdk/client-cloudwatch");
const { AwsQueryProtocol, AwsSmithyRpcV2CborProtocol } = require("@aws-sdk/core/protocols");
const [zip, role] = process.argv.slice(2);

const text = (data) => Buffer.from(data).toString();
const refusal = (promise) =>
  promise.then(
    () => "answered",
    (error) => [error.name, error.message, error.constructor.name, error.$metadata?.httpStatusCode, error.$fault],
  );

async function until(look) {
  for (const end = Date.now() + 30_000; Date.now() < end; ) {
    const found = await look();
    if (found) return found;
    await new Promise((resume) => setTimeout(resume, 50));
  }
  throw new Error(`never: ${look}`);
}

async function functions() {
  const client = new lambda.LambdaClient();
  const call = (name, input) => client.send(new lambda[`${name}Command`](input));
  const made = await call("CreateFunction", {
    FunctionName: "js",
    Runtime: "nodejs20.x",
    Role: role,
    Handler: "index.handler",
    Code: { ZipFile: readFileSync(zip) },
    Environment: { Variables: { GREETING: "grüß" } },
  });
  const active = await lambda.waitUntilFunctionActiveV2({ client, maxWaitTime: 30, minDelay: 0.05 }, { FunctionName: "js" });
  const one = await call("Invoke", { FunctionName: "js", Payload: JSON.stringify({ ключ: "☃" }), LogType: "Tail" });
  const failed = await call("Invoke", { FunctionName: "js", Payload: '{"fail":"nö"}' });
  const event = await call("Invoke", { FunctionName: "js", InvocationType: "Event", Payload: "{}" });
  const streamed = await call("InvokeWithResponseStream", { FunctionName: "js", Payload: '{"stream":1}' });
  let pieces = "";
  const kinds = new Set();
  for await (const each of streamed.EventStream) {
    for (const kind of Object.keys(each)) kinds.add(kind);
    if (each.PayloadChunk) pieces += text(each.PayloadChunk.Payload);
  }
  const names = [];
  for await (const page of lambda.paginateListFunctions({ client }, {})) names.push(...page.Functions.map((f) => f.FunctionName));
  return {
    made: [made.FunctionName, made.State, made.Environment.Variables.GREETING],
    active: active.state,
    one: [one.StatusCode, one.ExecutedVersion, JSON.parse(text(one.Payload)), text(Buffer.from(one.LogResult, "base64")).includes("héllo")],
    failed: [failed.FunctionError, JSON.parse(text(failed.Payload)).errorMessage],
    event: event.StatusCode,
    streamed: [pieces, [...kinds]],
    names,
    missing: await refusal(call("Invoke", { FunctionName: "nobody" })),
    wrong: await refusal(call("Invoke", { FunctionName: "js", Payload: "{" })),
  };
}

async function queues() {
  const client = new sqs.SQSClient();
  const call = (name, input) => client.send(new sqs[`${name}Command`](input));
  const { QueueUrl } = await call("CreateQueue", { QueueName: "jobs" });
  const attribute = { DataType: "Binary", BinaryValue: Buffer.from([0, 255]) };
  await call("SendMessage", { QueueUrl, MessageBody: "ключ ☃", MessageAttributes: { b: attribute } }); // the SDK checks its MD5
  const batch = await call("SendMessageBatch", {
    QueueUrl,
    Entries: [
      { Id: "a", MessageBody: "1" },
      { Id: "b", MessageBody: "" },
    ],
  });
  const received = await call("ReceiveMessage", { QueueUrl, MessageAttributeNames: ["All"], WaitTimeSeconds: 1, MaxNumberOfMessages: 10 });
  const first = received.Messages.find((each) => each.Body.startsWith("ключ"));
  await call("DeleteMessage", { QueueUrl, ReceiptHandle: first.ReceiptHandle });
  return {
    batch: [batch.Successful.map((each) => each.Id), (batch.Failed ?? []).map((each) => [each.Id, each.Code])],
    first: [first.Body, [...first.MessageAttributes.b.BinaryValue]],
    missing: (await refusal(call("GetQueueUrl", { QueueName: "nobody" }))).slice(0, 1),
  };
}

async function events() {
  const client = new logs.CloudWatchLogsClient();
  const call = (name, input) => client.send(new logs[`${name}Command`](input));
  const logGroupName = "/aws/lambda/js";
  const found = await until(async () => {
    const page = await call("FilterLogEvents", { logGroupName, filterPattern: '"héllo"' });
    return page.events.length ? page.events : null;
  });
  const streams = await call("DescribeLogStreams", { logGroupName });
  return {
    message: found[0].message.trim().split("\t").pop(),
    named: /^\d{4}\/\d\d\/\d\d\/\[\$LATEST\][0-9a-f]{32}$/.test(streams.logStreams[0].logStreamName),
    missing: await refusal(call("GetLogEvents", { logGroupName: "nobody", logStreamName: "s" })),
  };
}

async function metrics(name, protocol) {
  const client = new cloudwatch.CloudWatchClient(protocol && { protocol });
  const call = (name, input) => client.send(new cloudwatch[`${name}Command`](input));
  const now = new Date();
  await call("PutMetricData", {
    Namespace: name,
    MetricData: [{ MetricName: "orders", Value: 1.5, Timestamp: now, Dimensions: [{ Name: "où", Value: "là" }] }],
  });
  const window = { StartTime: new Date(now - 3_600_000), EndTime: new Date(+now + 3_600_000) };
  const Metric = { Namespace: name, MetricName: "orders", Dimensions: [{ Name: "où", Value: "là" }] };
  const data = await until(async () => {
    const answer = await call("GetMetricData", {
      ...window,
      MetricDataQueries: [
        { Id: "a", MetricStat: { Metric, Period: 60, Stat: "Sum" }, ReturnData: false },
        { Id: "b", Expression: "a * 2" },
      ],
    });
    return answer.MetricDataResults[0].Values.length ? answer.MetricDataResults[0] : null;
  });
  const listed = await call("ListMetrics", { Namespace: name });
  return {
    data: [data.Id, data.Values, data.Timestamps[0] instanceof Date],
    listed: listed.Metrics,
    wrong: (await refusal(call("GetMetricData", { ...window, MetricDataQueries: [{ Id: "b", Expression: "(" }] }))).slice(0, 1),
  };
}

const found = { functions: await functions() };
[found.queues, found.events, found.json, found.cbor, found.query] = await Promise.all([
  queues(),
  events(),
  metrics("json"), // the SDK's own choice
  metrics("cbor", AwsSmithyRpcV2CborProtocol), // the first one of the service's model
  metrics("query", AwsQueryProtocol), // that of older versions
]);
process.stdout.write(JSON.stringify(found));
