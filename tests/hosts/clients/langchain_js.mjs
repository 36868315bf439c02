// LangChain in JavaScript: what is judged is the message of a tool, as an agent hands it to its model.
import { convertToOpenAITool } from "@langchain/core/utils/function_calling";
import { MultiServerMCPClient } from "@langchain/mcp-adapters";
import { play, reached, server, version } from "./bridge.mjs";

const tools = await new MultiServerMCPClient({ midjourney: { transport: "stdio", ...server } }).getTools();
const declared = tools.map((tool) => {
  const { name, description, parameters } = convertToOpenAITool(tool).function;
  return { name, description, schema: parameters };
});
await play({ version: version("@langchain/mcp-adapters"), tools: declared }, async (name, given) => {
  const tool = tools.find((other) => other.name === name);
  const { content } = await tool.invoke({ type: "tool_call", id: "1", name, args: given });
  return reached(typeof content === "string" ? [{ type: "text", text: content }] : content.map(plain));
});

function plain(block) {
  const url = block.image_url?.url ?? "";
  const data = url.startsWith("data:") ? url.split(",")[1] : block.data;
  return data ? { type: "image", data } : block;
}
