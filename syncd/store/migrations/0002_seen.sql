-- What the vendor's answers to deliveries since have shown of the keys that they set: JSON, by key.
ALTER TABLE suspects ADD COLUMN seen TEXT;

-- Those that keep failing stand in a line of their own.
CREATE INDEX lanes_turn ON lanes ((failures > 1), due_at);
