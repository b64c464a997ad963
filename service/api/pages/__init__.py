"""The admin pages: rendered here, refreshed in parts by htmx, usable without it."""
