-- Records that could not be trusted or used, with what vouched for them, as they were found. Nothing is ever
-- deleted here by the program: what cannot be opened today may hold the only copy of a key.
CREATE TABLE aside (
    number INTEGER NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    at INTEGER NOT NULL,
    why TEXT NOT NULL,
    generation INTEGER,
    written INTEGER,
    key_id BLOB,
    sealed BLOB,
    head_generation INTEGER,
    present INTEGER,
    digest BLOB,
    mac BLOB
) STRICT;
