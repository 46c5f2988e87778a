-- Those that keep failing stand in a line of their own.
CREATE INDEX lanes_turn ON lanes ((failures > 1), due_at);
