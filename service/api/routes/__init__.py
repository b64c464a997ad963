"""The endpoints of /v1 and the sessions of browsers."""
