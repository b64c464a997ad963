"""The HTTP API and the admin pages: translate, authorise, show. Decisions live in the domain."""
