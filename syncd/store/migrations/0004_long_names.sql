-- Many lanes are read in one statement, whose row SQLite holds to 1 GB: everything in it has a bound.
CREATE TRIGGER outbox_long_name BEFORE INSERT ON outbox
WHEN length(NEW.name) > 2560 AND length(CAST(NEW.name AS BLOB)) > 10240
BEGIN
  SELECT RAISE(ABORT, 'name must be at most 10240 bytes');
END;
