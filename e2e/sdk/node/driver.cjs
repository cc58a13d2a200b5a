// Asks by OpenAI's Node SDK: one question a line in, as JSON, and one answer a line out. See ../sdk.py for both.
// The SDK lies in the folder that is given, so that no node_modules are made in the project.
"use strict";
const { createRequire } = require("node:module");
const { createInterface } = require("node:readline");
const path = require("node:path");

const modules = createRequire(path.join(process.argv[2], "package.json"));
const { OpenAI, APIError } = modules("openai");
const { zodResponseFormat } = modules("openai/helpers/zod");
const { z } = modules("zod");

const PREFIX = "x-modeltiers-";
const Answer = z.object({ answer: z.number().int() });

async function asked(client, asking, seen) {
  if (asking.endpoint === "models") {
    const data = [];
    for await (const one of client.models.list()) data.push(one);
    return { result: { data } };
  }
  const chat = client.chat.completions;
  if (asking.how === "helper") {
    const stream = chat.stream(asking.body);
    stream.on("chunk", (chunk) => seen.events.push(structuredClone(chunk)));
    return { result: await stream.finalChatCompletion(), events: seen.events };
  }
  if (asking.how === "parse") {
    const reply = await chat.parse({ ...asking.body, response_format: zodResponseFormat(Answer, "answer") });
    return { result: reply, parsed: reply.choices[0].message.parsed };
  }
  const places = { chat, completions: client.completions, embeddings: client.embeddings };
  const { data, response } = await places[asking.endpoint].create(asking.body).withResponse();
  for (const [name, value] of response.headers) {
    if (name.startsWith(PREFIX)) seen.headers[name.slice(PREFIX.length)] = value;
  }
  if (!asking.body.stream) return { result: data, headers: seen.headers };
  for await (const chunk of data) {
    seen.events.push(chunk);
    if (seen.events.length === asking.leave_after) break; // ends the request: the SDK aborts it
  }
  return seen;
}

async function answer(asking) {
  const client = new OpenAI({
    apiKey: asking.key,
    baseURL: asking.base,
    maxRetries: asking.retries,
    timeout: asking.seconds * 1000,
    defaultHeaders: asking.headers,
  });
  const seen = { events: [], headers: {} };
  try {
    return await asked(client, asking, seen);
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    const { status, message, code, param, type } = error;
    return { ...seen, fault: { kind: error.constructor.name, status, message, code, param, type } };
  }
}

async function main() {
  for await (const line of createInterface({ input: process.stdin })) {
    process.stdout.write(JSON.stringify(await answer(JSON.parse(line))) + "\n");
  }
}

main();
