"""What every benchmark stands on: servers, workers, a backlog, measuring, reporting."""
