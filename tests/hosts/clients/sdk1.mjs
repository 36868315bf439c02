// The TypeScript SDK 1.x, as most hosts build on it.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { play, reachedResult, server, version } from "./bridge.mjs";

const client = new Client({ name: "typescript-sdk-1", version: "1.0.0" });
await client.connect(
  server.url ? new StreamableHTTPClientTransport(new URL(server.url)) : new StdioClientTransport(server),
);
const { tools } = await client.listTools();
const declared = tools.map((tool) => ({ ...tool, schema: tool.inputSchema }));
await play({ version: version("@modelcontextprotocol/sdk"), tools: declared }, async (name, given) => {
  const result = await client.callTool({ name, arguments: given });
  return reachedResult(result);
});
