"""The ledger's tables, as numbered migrations: released ones are never edited, new ones go at the end."""

from __future__ import annotations

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE runs (
            run_id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            project TEXT NOT NULL,
            owner TEXT,
            labels TEXT NOT NULL,
            infra TEXT NOT NULL,
            plan_hash TEXT NOT NULL,
            candidate_id TEXT NOT NULL,
            candidate_json TEXT NOT NULL,
            job_json TEXT NOT NULL,
            checkpoint_uri TEXT NOT NULL,
            cap_micro_usd INTEGER CHECK (cap_micro_usd > 0),
            max_duration_s REAL CHECK (max_duration_s > 0),
            env TEXT NOT NULL,
            secrets TEXT NOT NULL,
            created_at TEXT NOT NULL,
            state TEXT NOT NULL,
            state_reason TEXT NOT NULL,
            state_since_at TEXT NOT NULL,
            next_try_at TEXT,
            revision INTEGER NOT NULL DEFAULT 1
        ) STRICT
        """,
        """
        CREATE TABLE attempts (
            run_id TEXT NOT NULL REFERENCES runs (run_id),
            attempt INTEGER NOT NULL CHECK (attempt >= 1),
            offer_json TEXT NOT NULL,
            micro_usd_per_hour INTEGER CHECK (micro_usd_per_hour >= 0),
            intent_at TEXT NOT NULL,
            backend_id TEXT,
            started_at TEXT,
            ended_at TEXT,
            outcome TEXT NOT NULL DEFAULT 'running',
            first_step INTEGER,
            last_step INTEGER,
            exit_code INTEGER,
            cost_micro_usd INTEGER CHECK (cost_micro_usd >= 0),
            PRIMARY KEY (run_id, attempt)
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE observations (
            run_id TEXT PRIMARY KEY REFERENCES runs (run_id),
            observed_at TEXT NOT NULL,
            progress_json TEXT
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE events (
            event INTEGER PRIMARY KEY AUTOINCREMENT,
            run_id TEXT NOT NULL REFERENCES runs (run_id),
            at TEXT NOT NULL,
            kind TEXT NOT NULL,
            state TEXT NOT NULL,
            reason TEXT NOT NULL,
            attempt INTEGER NOT NULL
        ) STRICT
        """,
        "CREATE INDEX events_of_run ON events (run_id, event)",
        "CREATE INDEX runs_by_state ON runs (state)",
        "CREATE INDEX runs_by_plan ON runs (plan_hash)",
        """
        CREATE TRIGGER events_stay BEFORE UPDATE ON events
        BEGIN SELECT RAISE(ABORT, 'events are append-only'); END
        """,
        """
        CREATE TRIGGER events_are_kept BEFORE DELETE ON events
        BEGIN SELECT RAISE(ABORT, 'events are append-only'); END
        """,
        """
        CREATE TRIGGER prices_stay BEFORE UPDATE OF micro_usd_per_hour ON attempts
        WHEN OLD.started_at IS NOT NULL AND NEW.micro_usd_per_hour IS NOT OLD.micro_usd_per_hour
        BEGIN SELECT RAISE(ABORT, 'the price of an attempt is fixed once it has started'); END
        """,
    ),
)
