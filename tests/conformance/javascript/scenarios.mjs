// What `@aws-sdk/client-kinesis` does and sees, told in JSON; `test_javascript.py` says what it should see.
//
//     node scenarios.mjs SCENARIO URL SECURE_URL
//
// Every scenario is run over each transport, on streams of its own, and the answers are printed by transport. The SDK
// is found in `$CONFORMANCE_NPM/node_modules`, and what the environment says about AWS is what `kflow env` prints.

import { createRequire } from "node:module";
import { once } from "node:events";
import { join } from "node:path";

const require = createRequire(join(process.env.CONFORMANCE_NPM, "package.json"));
const sdk = require("@aws-sdk/client-kinesis");
const { NodeHttp2Handler, NodeHttpHandler } = require("@smithy/node-http-handler");

const [scenario, url, secureUrl] = process.argv.slice(2);
const TRANSPORTS = {
  // The SDK's own choice: HTTP/2 with prior knowledge, a connection for each request.
  http2: { endpoint: url },
  "http2-tls": { endpoint: secureUrl },
  // All requests share one connection.
  "http2-shared": { endpoint: url, requestHandler: new NodeHttp2Handler({ disableConcurrentStreams: false }) },
  http1: { endpoint: url, requestHandler: new NodeHttpHandler() },
  "http1-tls": { endpoint: secureUrl, requestHandler: new NodeHttpHandler() },
};
const SHARD = "shardId-000000000000";
const LARGE = ["http2", "http2-tls"]; // takes seconds
if (scenario === "size") for (const name of Object.keys(TRANSPORTS)) if (!LARGE.includes(name)) delete TRANSPORTS[name];

class Shop {
  constructor(transport, config) {
    this.transport = transport;
    this.stream = `js-${scenario}-${transport}`;
    this.client = new sdk.KinesisClient(config);
  }

  call(name, input) {
    return this.client.send(new sdk[`${name}Command`](input));
  }

  async create(shards = 1, more = {}) {
    await this.call("CreateStream", { StreamName: this.stream, ShardCount: shards, ...more });
    await this.exists();
  }

  async exists() {
    const found = await sdk.waitUntilStreamExists(
      { client: this.client, maxWaitTime: 30, minDelay: 0.02, maxDelay: 0.1 },
      { StreamName: this.stream },
    );
    return found.state;
  }

  put(data, key = "k", more = {}) {
    return this.call("PutRecord", { StreamName: this.stream, Data: bytes(data), PartitionKey: key, ...more });
  }

  async read(shard = SHARD, position = { ShardIteratorType: "TRIM_HORIZON" }) {
    const first = await this.call("GetShardIterator", { StreamName: this.stream, ShardId: shard, ...position });
    const records = [];
    for (let token = first.ShardIterator; token; ) {
      const page = await this.call("GetRecords", { ShardIterator: token });
      records.push(...page.Records);
      if (!page.Records.length && page.MillisBehindLatest === 0) break;
      token = page.NextShardIterator;
    }
    return records;
  }

  async consumer(name = "fast") {
    const { StreamDescriptionSummary: summary } = await this.call("DescribeStreamSummary", { StreamName: this.stream });
    const { Consumer: consumer } = await this.call("RegisterStreamConsumer", {
      StreamARN: summary.StreamARN,
      ConsumerName: name,
    });
    for (;;) {
      const { ConsumerDescription: now } = await this.call("DescribeStreamConsumer", consumer);
      if (now.ConsumerStatus === "ACTIVE") return consumer.ConsumerARN;
    }
  }

  async subscribe(consumer, position = { Type: "LATEST" }) {
    const input = { ConsumerARN: consumer, ShardId: SHARD, StartingPosition: position };
    const answer = await this.call("SubscribeToShard", input);
    return answer.EventStream;
  }
}

const bytes = (data) => (typeof data === "string" ? Buffer.from(data) : data);
const text = (data) => Buffer.from(data).toString();

/** The records of the next events, as many as are wanted at least. */
async function next(iterator, count) {
  const found = [];
  while (found.length < count) {
    const { value, done } = await iterator.next();
    if (done) break;
    found.push(...value.SubscribeToShardEvent.Records);
  }
  return found.map((record) => text(record.Data));
}

function failure(error) {
  return {
    name: error.name,
    message: error.message,
    class: error.constructor.name,
    status: error.$metadata?.httpStatusCode,
    fault: error.$fault,
    told: /^[0-9a-f-]{36}$/.test(error.$metadata?.requestId ?? "") && !!error.$metadata?.extendedRequestId,
  };
}

const SCENARIOS = {
  /** A stream from its creation to its end. */
  async life(shop) {
    const handler = shop.client.config.requestHandler;
    const began = Date.now();
    const state = await shop.create(2).then(() => shop.exists());
    const every = Buffer.from(Array.from({ length: 256 }, (_, n) => n));
    const one = await shop.put(every, "ключ-鍵-🔑", { ExplicitHashKey: "0" });
    const empty = await shop.put("", "k", { ExplicitHashKey: "0" });
    const batch = Array.from({ length: 500 }, (_, n) => ({ Data: bytes(`${n}`), PartitionKey: `key-${n}` }));
    const many = await shop.call("PutRecords", { StreamName: shop.stream, Records: batch });
    const rows = [await shop.read(SHARD), await shop.read("shardId-000000000001")];
    const [first, second] = rows[0];
    const after = await shop.read(SHARD, { ShardIteratorType: "AT_TIMESTAMP", Timestamp: new Date(began - 60_000) });
    await shop.call("AddTagsToStream", { StreamName: shop.stream, Tags: { "équipe": "π r²" } });
    const tags = await shop.call("ListTagsForStream", { StreamName: shop.stream });
    const { StreamDescription: description } = await shop.call("DescribeStream", { StreamName: shop.stream });
    const names = [];
    for await (const page of sdk.paginateListStreams({ client: shop.client }, { Limit: 1 })) {
      names.push(...page.StreamNames);
    }
    const deleted = await shop.call("DeleteStream", { StreamName: shop.stream });
    const gone = await sdk.waitUntilStreamNotExists(
      { client: shop.client, maxWaitTime: 30, minDelay: 0.02, maxDelay: 0.1 },
      { StreamName: shop.stream },
    );
    return {
      protocol: handler.metadata?.handlerProtocol ?? "http/1.1",
      state,
      placed: [one.ShardId, one.SequenceNumber.length, one.EncryptionType ?? null],
      everyByte: Buffer.compare(Buffer.from(first.Data), every) === 0,
      key: first.PartitionKey,
      number: first.SequenceNumber === one.SequenceNumber,
      empty: second.Data.length === 0 && second.SequenceNumber === empty.SequenceNumber,
      arrival: first.ApproximateArrivalTimestamp instanceof Date && first.ApproximateArrivalTimestamp >= began - 1000,
      failed: many.FailedRecordCount,
      many: rows.flat().length,
      right: many.Records.every((placed, n) =>
        rows[Number(placed.ShardId.slice(-1))].some(
          (row) => row.SequenceNumber === placed.SequenceNumber && text(row.Data) === `${n}`,
        ),
      ),
      since: after.length === rows[0].length,
      tags: tags.Tags,
      created: description.StreamCreationTimestamp instanceof Date,
      shards: description.Shards.map((shard) => shard.HashKeyRange),
      status: description.StreamStatus,
      listed: names.includes(shop.stream),
      deleted: Object.keys(deleted),
      gone: gone.state,
    };
  },

  /** Errors as the SDK makes them: a class for each that is modelled, with AWS's text. */
  async errors(shop) {
    await shop.create();
    const calls = {
      missing: ["DescribeStream", { StreamName: "nope" }],
      put: ["PutRecord", { StreamName: "nope", Data: bytes("x"), PartitionKey: "k" }],
      token: ["GetRecords", { ShardIterator: "AAAA" }],
      noKey: ["PutRecord", { StreamName: "nope", Data: bytes("x"), PartitionKey: "" }],
      noName: ["CreateStream", { ShardCount: 1 }],
      badName: ["CreateStream", { StreamName: "bad name", ShardCount: 0 }],
      noRecords: ["PutRecords", { StreamName: "nope", Records: [] }],
      sideways: ["GetShardIterator", { StreamName: "nope", ShardId: "0", ShardIteratorType: "SIDEWAYS" }],
      type: ["CreateStream", { StreamName: "nope", ShardCount: "many" }],
      dry: ["PutRecord", { StreamName: shop.stream, Data: bytes("x"), PartitionKey: "k", DryRun: true }],
      consumer: [
        "SubscribeToShard",
        {
          ConsumerARN: "arn:aws:kinesis:us-east-1:123456789012:stream/nope/consumer/fast:1700000000",
          ShardId: SHARD,
          StartingPosition: { Type: "LATEST" },
        },
      ],
    };
    const found = {};
    for (const [name, [operation, input]] of Object.entries(calls)) {
      found[name] = await shop.call(operation, input).then(() => "no error", failure);
    }
    found.nothingWasPut = (await shop.read()).length;
    return found;
  },

  /** Every command of the SDK is sent, without any input: whatever the answer is, the operation is known. */
  async commands(shop) {
    const commands = Object.keys(sdk).filter((name) => name.endsWith("Command") && name !== "$Command");
    const found = {};
    for (const name of commands) {
      found[name.slice(0, -"Command".length)] = await shop.client.send(new sdk[name]({})).then(
        () => "answered",
        (error) => `${error.$metadata?.httpStatusCode} ${error.name}`,
      );
    }
    return found;
  },

  /** Records that are put after subscribing: before anybody reads, and while somebody waits. */
  async subscription(shop) {
    await shop.create();
    await shop.put("before");
    const stream = await shop.subscribe(await shop.consumer());
    await shop.put("one");
    await shop.put("two");
    const iterator = stream[Symbol.asyncIterator]();
    const early = await next(iterator, 2);
    const waiting = next(iterator, 1);
    await shop.put("three");
    const late = await waiting;
    await iterator.return?.();
    const again = await shop.put("the client goes on");
    return { early, late, again: again.ShardId };
  },

  /** Far more than a window of HTTP/2 holds, before the client begins to read. */
  async backlog(shop) {
    await shop.create();
    const stream = await shop.subscribe(await shop.consumer());
    for (let first = 0; first < 600; first += 50) {
      const records = Array.from({ length: 50 }, (_, n) => ({
        Data: Buffer.alloc(10_000, `${first + n} `),
        PartitionKey: "k",
      }));
      await shop.call("PutRecords", { StreamName: shop.stream, Records: records });
    }
    const found = await next(stream[Symbol.asyncIterator](), 600);
    return {
      inOrder: found.every((data, n) => data.startsWith(`${n} `)),
      count: found.length,
    };
  },

  /** The shard is split: the last event names its children, and the answer ends. */
  async children(shop) {
    await shop.create();
    const stream = await shop.subscribe(await shop.consumer());
    await shop.put("last");
    await shop.call("SplitShard", { StreamName: shop.stream, ShardToSplit: SHARD, NewStartingHashKey: `${2n ** 127n}` });
    const events = [];
    for await (const event of stream) events.push(event.SubscribeToShardEvent);
    const last = events.pop();
    return {
      records: [...events, last].flatMap((event) => event.Records).map((record) => text(record.Data)),
      goOn: events.every((event) => /^\d{56}$/.test(event.ContinuationSequenceNumber) && !event.ChildShards?.length),
      end: last.ContinuationSequenceNumber ?? null,
      children: last.ChildShards.map((child) => [child.ShardId, child.ParentShards]),
    };
  },

  /** The stream is deleted: an error within the answer. */
  async deletion(shop) {
    await shop.create();
    const stream = await shop.subscribe(await shop.consumer());
    await shop.call("DeleteStream", { StreamName: shop.stream, EnforceConsumerDeletion: true });
    try {
      for await (const _ of stream);
      return "no error";
    } catch (error) {
      return { name: error.name, message: error.message, class: error.constructor.name };
    }
  },

  /** A hundred puts at once while a subscription is open. */
  async together(shop) {
    await shop.create(4);
    const stream = await shop.subscribe(await shop.consumer());
    const puts = Array.from({ length: 100 }, (_, n) => shop.put(`${n}`, "k", { ExplicitHashKey: "0" }));
    const answers = await Promise.all(puts);
    const found = await next(stream[Symbol.asyncIterator](), 100);
    return {
      numbers: new Set(answers.map((answer) => answer.SequenceNumber)).size,
      found: new Set(found).size,
    };
  },

  /** Calls and answers of ten mebibytes. */
  async size(shop) {
    await shop.create(1, { MaxRecordSizeInKiB: 10_240 });
    const [large, record] = [Buffer.alloc((1 << 20) - 1, "x"), Buffer.alloc((10 << 20) - 1, "y")];
    const records = Array.from({ length: 10 }, () => ({ Data: large, PartitionKey: "k" }));
    const many = await shop.call("PutRecords", { StreamName: shop.stream, Records: records });
    await shop.put(record);
    const tooLarge = await shop.put(Buffer.alloc(10 << 20)).then(() => "no error", failure);
    const beyond = await shop.put(Buffer.alloc(13 << 20)).then(() => "no error", (error) => error.$metadata.httpStatusCode);
    const found = await shop.read();
    return {
      failed: many.FailedRecordCount,
      sizes: found.map((row) => row.Data.length),
      same: found.every((row, n) => Buffer.compare(Buffer.from(row.Data), n < 10 ? large : record) === 0),
      tooLarge: [tooLarge.name, tooLarge.status],
      beyond,
    };
  },

  /** The endpoint ends meanwhile: the answer ends, and without an error. Whoever runs this waits for `ready`. */
  async stop(shop) {
    await shop.create();
    const stream = await shop.subscribe(await shop.consumer());
    await shop.put("one");
    const iterator = stream[Symbol.asyncIterator]();
    const found = await next(iterator, 1);
    await ready();
    for (;;) {
      const { done } = await iterator.next();
      if (done) return [...found, "end"];
    }
  },

  /** A token from before a restart is good for the endpoint after it, wherever that listens. */
  async restart(shop) {
    await shop.create();
    await shop.put("one");
    await shop.put("two");
    const first = await shop.call("GetShardIterator", {
      StreamName: shop.stream,
      ShardId: SHARD,
      ShardIteratorType: "TRIM_HORIZON",
    });
    const page = await shop.call("GetRecords", { ShardIterator: first.ShardIterator, Limit: 1 });
    const [plain, secure] = await ready();
    const endpoint = shop.transport.endsWith("-tls") ? secure : plain;
    const there = new Shop(shop.transport, { ...TRANSPORTS[shop.transport], endpoint });
    await there.put("three");
    const rest = await there.call("GetRecords", { ShardIterator: page.NextShardIterator });
    there.client.destroy();
    return [...page.Records, ...rest.Records].map((record) => text(record.Data));
  },
};

/** Say so once every transport has come this far, and wait for a line with new addresses. */
let waiting = 0;
const line = { resolve: undefined };
const told = new Promise((resolve) => (line.resolve = resolve));
async function ready() {
  waiting += 1;
  if (waiting === Object.keys(TRANSPORTS).length) {
    console.log("ready");
    const [data] = await once(process.stdin, "data");
    process.stdin.pause();
    line.resolve(`${data}`.trim().split(" "));
  }
  return told;
}

const found = await Promise.all(
  Object.entries(TRANSPORTS).map(async ([transport, config]) => {
    const shop = new Shop(transport, config);
    try {
      return [transport, await SCENARIOS[scenario](shop)];
    } finally {
      shop.client.destroy();
    }
  }),
);
console.log(JSON.stringify(Object.fromEntries(found)));
process.exit(0); // subscriptions that nobody reads any more would keep it
