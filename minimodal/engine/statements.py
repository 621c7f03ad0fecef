"""The statements on calls. No decisions.

The frequent changes are kinds (see batch.py): a view to insert into, whose trigger makes the change.
Each change names the owner and the attempt, and changes nothing that is finished: whoever changes no
row is late, or was taken for dead, and is told so.
"""

from __future__ import annotations

from .batch import Connection, Kind, Row
from .records import CALL_COLUMNS

ACCEPT = Kind("accept", 16)
START = Kind("start", 4)
FAIL = Kind("fail", 8)
FINISH = Kind("finish", 12)

_LATE = "INSERT INTO late SELECT NEW.n WHERE changes() = 0;"

_TRACE = """
    INSERT OR REPLACE INTO attempts (seq, attempt, lost, started, ended, place, failure)
    SELECT seq, attempt, NEW.lost, started, NEW.now, '', NEW.failure
    FROM calls WHERE id = NEW.id AND NOT EXISTS (SELECT 1 FROM late WHERE n = NEW.n)
"""

KINDS = f"""
CREATE TEMP TABLE late (n INTEGER PRIMARY KEY);

CREATE TEMP VIEW accept AS SELECT 0 AS n, id, function, app, method, user, priority, parent, depth,
    stream, durable, grp, idx, engine, created, blobs, input FROM calls;
CREATE TEMP TRIGGER accepting INSTEAD OF INSERT ON accept BEGIN
    INSERT OR IGNORE INTO calls (
        id, function, app, method, user, priority, parent, depth, stream, durable, grp, idx, engine,
        created, blobs, input, state, attempt, errors, losses
    ) VALUES (
        NEW.id, NEW.function, NEW.app, NEW.method, NEW.user, NEW.priority, NEW.parent, NEW.depth,
        NEW.stream, NEW.durable, NEW.grp, NEW.idx, NEW.engine, NEW.created, NEW.blobs, NEW.input,
        'queued', 0, 0, 0
    );
    {_LATE}
END;

CREATE TEMP VIEW start AS SELECT 0 AS n, '' AS id, '' AS engine, 0 AS attempt, 0 AS now;
CREATE TEMP TRIGGER starting INSTEAD OF INSERT ON start BEGIN
    UPDATE calls SET state = 'running', attempt = NEW.attempt, started = NEW.now, not_before = NULL
    WHERE id = NEW.id AND engine = NEW.engine AND attempt = NEW.attempt - 1 AND state = 'queued';
    {_LATE}
END;

CREATE TEMP VIEW fail AS SELECT 0 AS n, '' AS id, '' AS engine, 0 AS attempt, 0 AS now,
    0 AS error, 0 AS lost, 0 AS not_before, '' AS failure;
CREATE TEMP TRIGGER failing INSTEAD OF INSERT ON fail BEGIN
    UPDATE calls SET state = 'queued', errors = errors + NEW.error, losses = losses + NEW.lost,
        not_before = NEW.not_before
    WHERE id = NEW.id AND engine = NEW.engine AND attempt = NEW.attempt AND state = 'running';
    {_LATE}
    {_TRACE};
END;

CREATE TEMP VIEW finish AS SELECT 0 AS n, '' AS id, '' AS engine, 0 AS attempt, 0 AS now,
    0 AS error, 0 AS lost, 0 AS dead, '' AS state, '' AS failure, '' AS blobs,
    '' AS result, 0 AS any;
CREATE TEMP TRIGGER finishing INSTEAD OF INSERT ON finish BEGIN
    UPDATE calls SET state = NEW.state, finished = NEW.now, dead = NEW.dead, not_before = NULL,
        errors = errors + NEW.error, losses = losses + NEW.lost,
        failure = NEW.failure, result = NEW.result,
        input = CASE WHEN NEW.dead THEN input END,
        blobs = nullif(trim(CASE WHEN NEW.dead THEN coalesce(blobs, '') ELSE '' END
            || ' ' || coalesce(NEW.blobs, '')), '')
    WHERE id = NEW.id AND finished IS NULL
        AND (NEW.any OR (engine = NEW.engine AND attempt = NEW.attempt));
    {_LATE}
    {_TRACE} AND NEW.dead AND attempt > 0;
END;
"""

FORGET = "DELETE FROM calls WHERE id = ? AND attempt = 0 AND finished IS NULL"

NOTE = """
    UPDATE calls SET state = ?, attempt = ?, started = ?, finished = ?, failure = ?
    WHERE id = ? AND finished IS NULL
"""

OUTCOME = "SELECT state, attempt, expired, failure, result FROM calls WHERE id = ?"

INPUT = "SELECT input FROM calls WHERE id = ?"

SMALL_VALUES = "SELECT input, result FROM calls WHERE id = ?"

HAND_BACK = """
    UPDATE calls SET engine = '', state = 'queued' WHERE id = ? AND engine = ? AND finished IS NULL
"""

UNFINISHED = "SELECT seq FROM calls WHERE engine = ? AND finished IS NULL ORDER BY seq LIMIT ?"

TRACE_LOST = """
    INSERT OR REPLACE INTO attempts (seq, attempt, lost, started, ended, place, failure)
    SELECT seq, attempt, 1, started, ?, '', ? FROM calls WHERE seq = ? AND state = 'running'
"""

TAKE = """
    UPDATE calls SET engine = ?, losses = losses + (state = 'running'), state = 'queued'
    WHERE seq = ?
"""

CALL = f"SELECT {CALL_COLUMNS} FROM calls WHERE seq = ?"

_INSERT = f"INSERT INTO accept VALUES ({', '.join('?' * (ACCEPT.columns + 1))})"


def insert_call(connection: Connection, row: Row) -> bool:
    """One row of kind ACCEPT inside another operation. False if a call of that id is there."""
    connection.execute(_INSERT, (0, *row))
    return connection.execute("DELETE FROM late").rowcount == 0


def owners(connection: Connection) -> list[str]:
    """The engines that own unfinished calls. One index step for each, however many calls they own."""
    found: list[str] = []
    row = connection.execute("SELECT min(engine) FROM calls WHERE finished IS NULL").fetchone()
    while row[0] is not None:
        found.append(row[0])
        row = connection.execute(
            "SELECT min(engine) FROM calls WHERE finished IS NULL AND engine > ?", found[-1:]
        ).fetchone()
    return found
