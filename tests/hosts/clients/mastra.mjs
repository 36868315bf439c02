// Mastra with a model of ours: what is judged is the prompt of that model.
import { Agent } from "@mastra/core/agent";
import { MCPClient } from "@mastra/mcp";
import { ask, reached, server, version } from "./bridge.mjs";

const prefix = "midjourney_";
let calls = 0;

function told({ prompt, tools }) {
  if (calls === 0) {
    const declared = tools.map(({ name, description, inputSchema }) => ({
      name: name.replace(prefix, ""),
      description,
      schema: inputSchema,
    }));
    return { version: version("@mastra/mcp"), tools: declared };
  }
  const { type, value } = prompt.at(-1).content.at(-1).output;
  return reached(type === "content" ? value.map(plain) : [{ type, text: type.endsWith("text") ? value : JSON.stringify(value) }]);
}

const plain = (part) => (["media", "image-data"].includes(part.type) ? { type: "image", data: part.data } : part);

async function doGenerate(options) {
  const step = await ask(told(options));
  calls += 1;
  const call = { type: "tool-call", toolCallId: `call-${calls}`, toolName: prefix + step?.tool };
  return {
    content: [step ? { ...call, input: JSON.stringify(step.arguments) } : { type: "text", text: "done" }],
    finishReason: step ? "tool-calls" : "stop",
    usage: { inputTokens: 1, outputTokens: 1, totalTokens: 2 },
    warnings: [],
  };
}

async function doStream(options) {
  const { content, finishReason, usage } = await doGenerate(options);
  const parts = content.flatMap((part) =>
    part.type === "text"
      ? [{ type: "text-start", id: "1" }, { type: "text-delta", id: "1", delta: part.text }, { type: "text-end", id: "1" }]
      : [part],
  );
  const chunks = [{ type: "stream-start", warnings: [] }, ...parts, { type: "finish", finishReason, usage }];
  return { stream: ReadableStream.from(chunks) };
}

const model = { specificationVersion: "v2", provider: "ours", modelId: "ours", supportedUrls: {}, doGenerate, doStream };
const mcp = new MCPClient({ servers: { midjourney: server } });
const agent = new Agent({ id: "painter", name: "painter", instructions: "", model, tools: await mcp.listTools() });
await agent.generate("go", { maxSteps: 50 });
process.exit(0);
