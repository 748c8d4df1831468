// Calls of AWS's SDK for JavaScript. Arguments: the endpoint, a runtime of this machine, an archive with `app.handler`.
const assert = require("node:assert");
const fs = require("node:fs");
const sdk = require("@aws-sdk/client-lambda");

const [endpoint, Runtime, archive] = process.argv.slice(2);
const client = new sdk.LambdaClient({ endpoint, region: "us-east-1", maxAttempts: 1 });
const FunctionName = "javascript";
const wait = { client, maxWaitTime: 30, minDelay: 1, maxDelay: 1 };
const text = (bytes) => Buffer.from(bytes ?? []).toString();
const send = (Command, input) => client.send(new sdk[`${Command}Command`](input));

async function refused(name, call) {
  const error = await call.then(() => assert.fail(`${name} was expected`), (error) => error);
  assert.strictEqual(error.name, name, error);
  assert.ok(error instanceof sdk[name], `${error.name} is not typed`);
  return error;
}

async function main() {
  const ZipFile = fs.readFileSync(archive);
  const Role = "arn:aws:iam::123456789012:role/any";
  const made = await send("CreateFunction", {
    FunctionName, Runtime, Handler: "app.handler", Role, Code: { ZipFile }, Tags: { a: "1" },
  });
  assert.strictEqual(made.State, "Pending");
  await sdk.waitUntilFunctionActiveV2(wait, { FunctionName });
  await refused("ResourceConflictException", send("CreateFunction", {
    FunctionName, Runtime, Handler: "app.handler", Role, Code: { ZipFile },
  }));

  const answer = await send("Invoke", {
    FunctionName, Payload: Buffer.from('{"é":[1]}'), LogType: "Tail",
  });
  assert.deepStrictEqual(JSON.parse(text(answer.Payload)), { é: [1] });
  assert.ok(Buffer.from(answer.LogResult, "base64").toString().includes("REPORT RequestId"));
  const event = await send("Invoke", { FunctionName, InvocationType: "Event", Payload: "{}" });
  assert.strictEqual(event.StatusCode, 202);
  const stream = await send("InvokeWithResponseStream", { FunctionName, Payload: '{"a":"b"}' });
  let streamed = "", complete = false;
  for await (const part of stream.EventStream) {
    streamed += text(part.PayloadChunk?.Payload);
    complete ||= part.InvokeComplete !== undefined;
  }
  assert.ok(complete);
  assert.deepStrictEqual(JSON.parse(streamed), { a: "b" });

  await send("UpdateFunctionConfiguration", { FunctionName, MemorySize: 256 });
  await sdk.waitUntilFunctionUpdatedV2(wait, { FunctionName });
  for (const Description of ["one", "two", "three"]) {
    await send("UpdateFunctionConfiguration", { FunctionName, Description });
    await sdk.waitUntilFunctionUpdatedV2(wait, { FunctionName });
    await send("PublishVersion", { FunctionName });
  }
  await sdk.waitUntilPublishedVersionActive(wait, { FunctionName, Qualifier: "3" });
  const versions = [];
  const pages = sdk.paginateListVersionsByFunction({ client, pageSize: 2 }, { FunctionName });
  for await (const page of pages) versions.push(...page.Versions.map((it) => it.Version));
  assert.deepStrictEqual(versions, ["$LATEST", "1", "2", "3"]);
  await send("CreateAlias", { FunctionName, Name: "live", FunctionVersion: "3" });
  const byAlias = await send("Invoke", { FunctionName, Qualifier: "live", Payload: '{"a":"b"}' });
  assert.strictEqual(byAlias.ExecutedVersion, "3");

  await send("PutFunctionConcurrency", { FunctionName, ReservedConcurrentExecutions: 0 });
  const throttled = await refused("TooManyRequestsException", send("Invoke", { FunctionName }));
  assert.strictEqual(throttled.Reason, "ReservedFunctionConcurrentInvocationLimitExceeded");
  assert.strictEqual(throttled.$metadata.httpStatusCode, 429);
  assert.ok(Number(throttled.retryAfterSeconds) >= 1, throttled.retryAfterSeconds);

  const { Tags } = await send("ListTags", { Resource: made.FunctionArn });
  assert.deepStrictEqual(Tags, { a: "1" });
  await send("DeleteFunction", { FunctionName });
  await refused("ResourceNotFoundException", send("GetFunction", { FunctionName }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
