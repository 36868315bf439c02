"""Who may log in: a file of tokens, and an OAuth issuer. Knows nothing of MCP or of an HTTP server."""
