// Vercel's AI SDK: what is judged is the output that it hands to a model.
import { createMCPClient } from "@ai-sdk/mcp";
import { Experimental_StdioMCPTransport } from "@ai-sdk/mcp/mcp-stdio";
import { play, reached, server, version } from "./bridge.mjs";

const transport = server.url ? { type: "http", url: server.url } : new Experimental_StdioMCPTransport(server);
const client = await createMCPClient({ transport });
const tools = await client.tools();
const declared = Object.entries(tools).map(([name, { description, inputSchema }]) => ({
  name,
  description,
  schema: inputSchema.jsonSchema,
}));
await play({ version: version("@ai-sdk/mcp"), tools: declared }, async (name, given) => {
  const output = await tools[name].execute(given, { toolCallId: "1", messages: [] });
  const { value } = await tools[name].toModelOutput({ output });
  const blocks = value.map((part) => (part.type === "file" ? { type: "image", data: part.data.data } : part));
  return reached(blocks);
});
