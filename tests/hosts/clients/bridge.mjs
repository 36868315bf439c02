// What every client in JavaScript shares: steps come in as lines, what reached the caller goes out as lines.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

/** {command, args, env} of a server to spawn, or {url} of one that runs. */
export const server = JSON.parse(process.env.HOSTS_SERVER);

/** The version of a package as it is installed beside this file. */
export const version = (name) =>
  JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url))).version;

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Say what reached the caller; the step {tool, arguments} that it is to make next, or undefined at the end. */
export async function ask(answer) {
  process.stdout.write(`@@${JSON.stringify(answer)}\n`);
  const { value, done } = await lines.next();
  return done ? undefined : JSON.parse(value);
}

/** What a caller has of MCP's content blocks, or of any that look alike. */
export function reached(blocks, more = {}) {
  const pictures = blocks.filter((block) => block.type === "image").map((block) => block.data);
  const texts = blocks.filter((block) => block.type !== "image");
  return { text: texts.map((block) => block.text ?? JSON.stringify(block)).join("\n"), pictures, ...more };
}

/** What a caller has who is given the whole result. */
export const reachedResult = ({ content, structuredContent, isError, _meta }) =>
  reached(content, { structured: structuredContent, error: isError === true, meta: _meta ?? {} });

/** Make each step that comes with `call`; what it throws is what the caller has. */
export async function play(declared, call) {
  let step = await ask(declared);
  while (step) {
    let answer;
    try {
      answer = await call(step.tool, step.arguments);
    } catch (error) {
      answer = { text: String(error?.message ?? error), pictures: [], raised: error?.name ?? "Error" };
    }
    step = await ask(answer);
  }
  process.exit(0);
}
