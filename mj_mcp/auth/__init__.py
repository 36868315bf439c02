"""Who may log in: tokens of a file, and an issuer that signs them. No MCP, no HTTP server."""
