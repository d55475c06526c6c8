-- The station's records as the first release with a station made them (form 1), with a row or two.
CREATE TABLE devices(
  name TEXT PRIMARY KEY, token BLOB NOT NULL UNIQUE, enrolled_s REAL NOT NULL, seen_s REAL,
  status TEXT, revision INTEGER NOT NULL DEFAULT 0, version TEXT NOT NULL, encoder_id TEXT);
CREATE TABLE enrolments(
  code BLOB PRIMARY KEY, device TEXT NOT NULL, made_by TEXT NOT NULL, expires_s REAL NOT NULL, used_s REAL);
CREATE TABLE messages(
  device TEXT NOT NULL, id TEXT NOT NULL, received_s REAL NOT NULL, PRIMARY KEY(device, id)) WITHOUT ROWID;
CREATE INDEX messages_age ON messages(received_s);
CREATE TABLE hits(
  place INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, device TEXT NOT NULL, query_id TEXT NOT NULL,
  revision INTEGER NOT NULL, best_s REAL NOT NULL, received_s REAL NOT NULL, document TEXT NOT NULL,
  review TEXT NOT NULL DEFAULT 'unreviewed', reviewed_by TEXT, reviewed_s REAL);
CREATE INDEX hits_query ON hits(query_id, place);
CREATE INDEX hits_device ON hits(device, place);
CREATE INDEX hits_age ON hits(received_s);
CREATE TABLE pictures(
  hit_id TEXT NOT NULL, device TEXT NOT NULL, revision INTEGER NOT NULL, received_s REAL NOT NULL,
  jpeg BLOB NOT NULL, PRIMARY KEY(hit_id, device));
CREATE INDEX pictures_age ON pictures(received_s);
CREATE TABLE quarantine(
  digest BLOB PRIMARY KEY, device TEXT NOT NULL, received_s REAL NOT NULL, reason TEXT NOT NULL, raw TEXT NOT NULL);
CREATE INDEX quarantine_age ON quarantine(received_s);
CREATE TABLE queries(
  id TEXT PRIMARY KEY, added_s REAL NOT NULL, added_by TEXT NOT NULL, expires_s REAL, document TEXT NOT NULL);
CREATE TABLE query_set(one INTEGER PRIMARY KEY CHECK(one = 1), revision INTEGER NOT NULL, document BLOB NOT NULL);
CREATE TABLE users(
  name TEXT PRIMARY KEY, password TEXT NOT NULL, role TEXT NOT NULL, disabled INTEGER NOT NULL DEFAULT 0,
  must_change INTEGER NOT NULL, made_s REAL NOT NULL);
CREATE TABLE sessions(
  token BLOB PRIMARY KEY, user TEXT NOT NULL REFERENCES users(name), csrf BLOB, expires_s REAL NOT NULL);
CREATE INDEX sessions_user ON sessions(user);
CREATE TABLE audit(row INTEGER PRIMARY KEY, hash BLOB NOT NULL, entry TEXT NOT NULL);
INSERT INTO devices(name, token, enrolled_s, version) VALUES('d1', x'01', 1000.0, '0.1');
INSERT INTO users(name, password, role, must_change, made_s) VALUES('ann', 'hash', 'admin', 0, 1000.0);
INSERT INTO sessions(token, user, expires_s) VALUES(x'02', 'ann', 2000.0);
PRAGMA user_version = 1;
