-- Claude's figures of a daily run: what was spent before it began, to be told from what came after.

ALTER TABLE batch_run ADD COLUMN claude_before jsonb;

-- Look-ups that found a verdict. Each connection counts in a row of its own, since an evaluation
-- keeps its locks until it ends; rows of past days are brought together in claude_usage.
ALTER TABLE claude_usage ADD COLUMN hits bigint NOT NULL DEFAULT 0;
CREATE TABLE claude_hit (
    day     date NOT NULL,
    backend integer NOT NULL,
    hits    bigint NOT NULL,
    PRIMARY KEY (day, backend)
);
