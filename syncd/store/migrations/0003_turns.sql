-- Those that keep failing stand in a line of their own. For a while the second migration made this.
CREATE INDEX IF NOT EXISTS lanes_turn ON lanes ((failures > 1), due_at);
