"""Google's Gen AI SDK against an endpoint of ours on loopback: what is judged is the request that it would send."""

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from bridge import SERVER, ask, declared, reached
from google import genai
from google.genai import types
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client


class Endpoint(BaseHTTPRequestHandler):
    """A Gemini that calls what the steps say."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        parts = request["contents"][-1]["parts"]
        if "functionResponse" in parts[0]:
            answer = reached(*[text for part in parts for text in _parts(part)])
        else:
            functions = [function for tool in request["tools"] for function in tool["functionDeclarations"]]
            answer = declared("google-genai", functions)
        step = asyncio.run(ask(answer))
        part = {"functionCall": {"name": step.tool, "args": step.arguments}} if step else {"text": "done"}
        body = json.dumps({"candidates": [{"content": {"role": "model", "parts": [part]}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _parts(part) -> list[str | bytes]:
    response = part.get("functionResponse")
    if response is None:
        return [part["inlineData"]["data"].encode() if "inlineData" in part else json.dumps(part)]
    pictures = [nested["inlineData"]["data"].encode() for nested in response.get("parts", ()) if "inlineData" in nested]
    return [json.dumps(response["response"], ensure_ascii=False), *pictures]


async def main() -> None:
    endpoint = HTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=endpoint.serve_forever, daemon=True).start()
    options = types.HttpOptions(base_url=f"http://127.0.0.1:{endpoint.server_port}")
    gemini = genai.Client(api_key="none", http_options=options)
    async with stdio_client(StdioServerParameters(**SERVER)) as streams, ClientSession(*streams) as session:
        await session.initialize()
        # A dict: a config object is copied deeply, which a session of this SDK does not survive.
        config = {"tools": [session], "automatic_function_calling": {"maximum_remote_calls": 50}}
        await gemini.aio.models.generate_content(model="gemini-of-ours", contents="go", config=config)


asyncio.run(main())
