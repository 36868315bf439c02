// A host page around the protocol's own `AppBridge`. What it may do and say is given by the test; tool calls go to
// the real server through `window.serverCall`, which the test provides. It records everything that the view sends.
import { AppBridge, PostMessageTransport } from "@modelcontextprotocol/ext-apps/app-bridge";

window.sent = { contexts: [], messages: [], links: [], downloads: [], sizes: [], calls: [], modes: [] };

window.mount = async ({ html, csp, sandbox, capabilities, context, input, result, width, height }) => {
  const frame = document.createElement("iframe");
  frame.title = "view";
  frame.src = sandbox;
  frame.setAttribute("sandbox", "allow-scripts allow-same-origin");
  frame.style.cssText = `border: 0; display: block; width: ${width}px; height: ${height || 40}px`;
  document.body.append(frame);

  const bridge = new AppBridge(null, { name: "test-host", version: "1" }, capabilities, { hostContext: context });
  window.bridge = bridge;
  const { sent } = window;
  if (capabilities.serverTools)
    bridge.oncalltool = async (params) => {
      sent.calls.push(params);
      const answer = await window.serverCall(params.name, params.arguments || {});
      if (answer.broken) throw new Error(answer.broken);
      return answer;
    };
  bridge.onupdatemodelcontext = async (params) => { sent.contexts.push(params); return {}; };
  bridge.onmessage = async (params) => { sent.messages.push(params); return {}; };
  bridge.onopenlink = async (params) => { sent.links.push(params); return {}; };
  bridge.ondownloadfile = async (params) => { sent.downloads.push(params); return {}; };
  bridge.onrequestdisplaymode = async (params) => { sent.modes.push(params); return { mode: params.mode }; };
  bridge.addEventListener("sizechange", (size) => {
    sent.sizes.push(size);
    if (!height) frame.style.height = `${size.height}px`;
  });
  bridge.addEventListener("sandboxready", () => bridge.sendSandboxResourceReady({ html, csp }));
  const ready = new Promise((resolve) => bridge.addEventListener("initialized", resolve));
  await bridge.connect(new PostMessageTransport(frame.contentWindow, frame.contentWindow));
  await ready;
  await bridge.sendToolInput({ arguments: input || {} });
  if (result) await bridge.sendToolResult(result);
};
