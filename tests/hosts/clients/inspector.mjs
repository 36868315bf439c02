// The Inspector's command line: a process, and a server of its own, for each step.
import { spawnSync } from "node:child_process";
import { play, reachedResult, server, version } from "./bridge.mjs";

const cli = "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js";

function inspect(...words) {
  const target = server.url ? [server.url, "--transport", "http"] : [server.command, ...server.args];
  const variables = Object.entries(server.env ?? {}).flatMap(([name, value]) => ["-e", `${name}=${value}`]);
  const done = spawnSync(process.execPath, [cli, "--cli", "--quiet", ...target, ...variables, ...words], {
    encoding: "utf8",
    maxBuffer: 1 << 26,
  });
  try {
    return [JSON.parse(done.stdout), done];
  } catch {
    throw new Error(`exit code ${done.status}: ${done.stdout}${done.stderr}`);
  }
}

const [{ tools }, { status, stderr }] = inspect("--method", "tools/list", "--strict");
const problems = [...stderr.matchAll(/Path: (.*)\n *Issue: (.{60})/g)].map(([, path, issue]) => `${path}: ${issue}...`);
const declared = {
  version: version("@modelcontextprotocol/inspector"),
  tools: tools.map((tool) => ({ ...tool, schema: tool.inputSchema })),
  problems: status === 0 ? problems : [`exit code ${status}`, ...problems],
};
await play(declared, (name, given) => {
  const [result] = inspect("--method", "tools/call", "--tool-name", name, "--tool-args-json", JSON.stringify(given));
  return reachedResult(result);
});
