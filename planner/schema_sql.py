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
    (
        """
        CREATE TABLE reservations (
            reservation_id TEXT PRIMARY KEY,
            provider TEXT NOT NULL,
            token TEXT NOT NULL UNIQUE,
            created_at TEXT NOT NULL,
            want_json TEXT NOT NULL,
            price_cap_micro_usd INTEGER NOT NULL CHECK (price_cap_micro_usd > 0),
            not_before_at TEXT NOT NULL,
            decide_by_at TEXT NOT NULL,
            launch_json TEXT,
            state TEXT NOT NULL,
            state_reason TEXT NOT NULL,
            state_since_at TEXT NOT NULL,
            revision INTEGER NOT NULL DEFAULT 1,
            tries INTEGER NOT NULL DEFAULT 0,
            sent_at TEXT,
            offer_json TEXT,
            upfront_micro_usd INTEGER CHECK (upfront_micro_usd >= 0),
            provider_ref TEXT,
            paid_micro_usd INTEGER CHECK (paid_micro_usd >= 0),
            run_id TEXT,
            warning TEXT
        ) STRICT
        """,
        "CREATE INDEX reservations_by_state ON reservations (state)",
        """
        CREATE TABLE reservation_events (
            event INTEGER PRIMARY KEY AUTOINCREMENT,
            reservation_id TEXT NOT NULL REFERENCES reservations (reservation_id),
            at TEXT NOT NULL,
            state TEXT NOT NULL,
            reason TEXT NOT NULL
        ) STRICT
        """,
        "CREATE INDEX events_of_reservation ON reservation_events (reservation_id, event)",
        """
        CREATE TRIGGER reservation_events_stay BEFORE UPDATE ON reservation_events
        BEGIN SELECT RAISE(ABORT, 'events are append-only'); END
        """,
        """
        CREATE TRIGGER reservation_events_are_kept BEFORE DELETE ON reservation_events
        BEGIN SELECT RAISE(ABORT, 'events are append-only'); END
        """,
        """
        CREATE TRIGGER reservation_terms_stay
        BEFORE UPDATE OF provider, token, price_cap_micro_usd, decide_by_at ON reservations
        BEGIN SELECT RAISE(ABORT, 'the terms of a reservation are fixed'); END
        """,
        """
        CREATE TRIGGER reservation_below_its_cap BEFORE UPDATE ON reservations
        WHEN NEW.state = 'intent' AND (NEW.upfront_micro_usd IS NULL
            OR NEW.upfront_micro_usd > NEW.price_cap_micro_usd)
        BEGIN SELECT RAISE(ABORT, 'a reservation is not bought above its cap'); END
        """,
        """
        CREATE TRIGGER reservation_bought_once BEFORE UPDATE OF provider_ref ON reservations
        WHEN OLD.provider_ref IS NOT NULL AND NEW.provider_ref IS NOT OLD.provider_ref
        BEGIN SELECT RAISE(ABORT, 'what was bought is fixed'); END
        """,
        """
        CREATE TRIGGER reservation_sent_once BEFORE UPDATE OF sent_at ON reservations
        WHEN NEW.sent_at IS NOT NULL AND OLD.sent_at IS NOT NULL AND NEW.sent_at IS NOT OLD.sent_at
        BEGIN SELECT RAISE(ABORT, 'a purchase is sent once'); END
        """,
        """
        CREATE TABLE notices (
            notice INTEGER PRIMARY KEY AUTOINCREMENT,
            at TEXT NOT NULL,
            subject TEXT NOT NULL,
            text TEXT NOT NULL,
            told_at TEXT
        ) STRICT
        """,
        """
        CREATE TABLE schedules (
            schedule_id TEXT PRIMARY KEY,
            created_at TEXT NOT NULL,
            spec TEXT NOT NULL,
            infra TEXT NOT NULL,
            timing_json TEXT NOT NULL,
            budget_micro_usd INTEGER CHECK (budget_micro_usd > 0),
            skip_if_met INTEGER NOT NULL DEFAULT 0,
            state TEXT NOT NULL,
            state_reason TEXT NOT NULL,
            state_since_at TEXT NOT NULL,
            next_at TEXT,
            revision INTEGER NOT NULL DEFAULT 1
        ) STRICT
        """,
        "CREATE INDEX schedules_by_next ON schedules (state, next_at)",
        """
        CREATE TABLE firings (
            schedule_id TEXT NOT NULL REFERENCES schedules (schedule_id),
            due_at TEXT NOT NULL,
            state TEXT NOT NULL,
            reason TEXT NOT NULL,
            at TEXT NOT NULL,
            run_id TEXT,
            tries INTEGER NOT NULL DEFAULT 0,
            PRIMARY KEY (schedule_id, due_at)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX firings_by_state ON firings (state)",
        """
        CREATE TABLE schedulers (
            scheduler TEXT PRIMARY KEY,
            pid INTEGER NOT NULL,
            host TEXT NOT NULL,
            started_at TEXT NOT NULL,
            beat_at TEXT NOT NULL,
            every_s REAL NOT NULL,
            ended_at TEXT
        ) STRICT, WITHOUT ROWID
        """,
    ),
    (
        "ALTER TABLE attempts ADD COLUMN recovery INTEGER NOT NULL DEFAULT 0 CHECK (recovery >= 0)",
        "ALTER TABLE runs ADD COLUMN stopping TEXT",
    ),
    (
        "ALTER TABLE runs ADD COLUMN monitor TEXT NOT NULL DEFAULT 'local'",
        """
        CREATE TABLE monitors (
            monitor TEXT PRIMARY KEY,
            pid INTEGER NOT NULL,
            host TEXT NOT NULL,
            started_at TEXT NOT NULL,
            beat_at TEXT NOT NULL,
            every_s REAL NOT NULL,
            ended_at TEXT
        ) STRICT, WITHOUT ROWID
        """,
    ),
    (
        "ALTER TABLE firings ADD COLUMN period_at TEXT",
        "ALTER TABLE schedules ADD COLUMN late_s REAL NOT NULL DEFAULT 21600",
    ),
    ("ALTER TABLE runs ADD COLUMN register_uri TEXT",),
    (
        """
        CREATE TABLE askings (
            run_id TEXT NOT NULL REFERENCES runs (run_id),
            launch INTEGER NOT NULL CHECK (launch >= 1),
            at TEXT NOT NULL,
            offers_json TEXT NOT NULL,
            PRIMARY KEY (run_id, launch)
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE tries (
            try_id TEXT PRIMARY KEY,
            project TEXT NOT NULL,
            offer_json TEXT NOT NULL,
            nodes INTEGER NOT NULL CHECK (nodes >= 1),
            micro_usd_per_hour INTEGER CHECK (micro_usd_per_hour >= 0),
            limit_s REAL NOT NULL CHECK (limit_s > 0),
            state TEXT NOT NULL,
            reason TEXT NOT NULL,
            asked_at TEXT NOT NULL,
            answered_at TEXT,
            ended_at TEXT,
            cost_micro_usd INTEGER CHECK (cost_micro_usd >= 0)
        ) STRICT, WITHOUT ROWID
        """,
    ),
    (
        "ALTER TABLE runs ADD COLUMN moving_json TEXT",
        """
        CREATE TABLE decisions (
            decision INTEGER PRIMARY KEY AUTOINCREMENT,
            run_id TEXT NOT NULL REFERENCES runs (run_id),
            at TEXT NOT NULL,
            tick INTEGER NOT NULL,
            attempt INTEGER NOT NULL,
            document_json TEXT NOT NULL,
            state_json TEXT NOT NULL
        ) STRICT
        """,
        "CREATE INDEX decisions_of_run ON decisions (run_id, decision)",
        """
        CREATE TRIGGER decisions_stay BEFORE UPDATE ON decisions
        BEGIN SELECT RAISE(ABORT, 'decisions are append-only'); END
        """,
        """
        CREATE TRIGGER decisions_are_kept BEFORE DELETE ON decisions
        BEGIN SELECT RAISE(ABORT, 'decisions are append-only'); END
        """,
    ),
    (
        "ALTER TABLE runs ADD COLUMN notify TEXT NOT NULL DEFAULT '[]'",
        """
        CREATE TABLE deliveries (
            source TEXT NOT NULL,
            recipient TEXT NOT NULL,
            run_id TEXT,
            kind TEXT NOT NULL,
            title TEXT NOT NULL,
            text TEXT NOT NULL,
            at TEXT NOT NULL,
            tries INTEGER NOT NULL DEFAULT 0,
            next_try_at TEXT,
            sent_at TEXT,
            error TEXT,
            PRIMARY KEY (source, recipient)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX deliveries_by_next ON deliveries (next_try_at)",
        "CREATE TABLE delivery_marks (source TEXT PRIMARY KEY, last INTEGER NOT NULL) STRICT, WITHOUT ROWID",
        # what happened before there were messages is no news
        "INSERT INTO delivery_marks SELECT 'events', coalesce(max(event), 0) FROM events",
        "INSERT INTO delivery_marks SELECT 'notices', coalesce(max(notice), 0) FROM notices",
    ),
    (
        """
        CREATE TABLE entries (
            run_id TEXT PRIMARY KEY,
            project TEXT NOT NULL,
            register_uri TEXT NOT NULL,
            at TEXT NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
    ),
    (
        "CREATE TABLE identity (only INTEGER PRIMARY KEY CHECK (only = 1), token TEXT NOT NULL) STRICT",
        "CREATE TABLE signed_by_place (run_id TEXT PRIMARY KEY, until TEXT NOT NULL) STRICT, WITHOUT ROWID",
        """
        INSERT INTO signed_by_place
        SELECT run_id, max(observed_at, state_since_at) FROM runs JOIN observations USING (run_id)
        """,
        """
        INSERT OR IGNORE INTO signed_by_place
        SELECT run_id, strftime('%Y-%m-%dT%H:%M:%fZ', 'now') FROM entries
        """,
    ),
    ("CREATE TABLE adoptions (uri TEXT PRIMARY KEY, at TEXT NOT NULL) STRICT, WITHOUT ROWID",),
)
