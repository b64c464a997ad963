"""The bodies of the API, with examples: OpenAPI follows from these."""
