"""What each kind of proxy sends and expects, one module each. Nothing above `proxy/` knows which it is."""
