"""What each kind of proxy is sent and answers, one module each. Nothing above `proxy/` knows which one is used."""
