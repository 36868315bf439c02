// The TypeScript SDK 2.x: it asks for the newest revision first.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { play, reachedResult, server, version } from "./bridge.mjs";

const client = new Client({ name: "typescript-sdk-2", version: "1.0.0" });
await client.connect(
  server.url ? new StreamableHTTPClientTransport(new URL(server.url)) : new StdioClientTransport(server),
);
const { tools } = await client.listTools();
const declared = tools.map((tool) => ({ ...tool, schema: tool.inputSchema }));
await play({ version: version("@modelcontextprotocol/client"), tools: declared }, async (name, given) => {
  const result = await client.callTool({ name, arguments: given });
  return reachedResult(result);
});
