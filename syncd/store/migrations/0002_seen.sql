-- What the vendor's answers to deliveries since have shown of the keys that they set: JSON, by key.
ALTER TABLE suspects ADD COLUMN seen TEXT;
