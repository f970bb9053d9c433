BEGIN TRANSACTION;
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
        ;
INSERT INTO "attempts" VALUES('old-1',1,'{"cloud": "local", "region": "local", "zone": null, "instance_type": null, "gpu": "CPU", "gpus_per_node": 1, "gpu_mem_gib": 16.0, "market": "local", "price_usd_per_h": "1", "price_usd_per_gpu_h": "1", "source": "test", "as_of_at": null, "flags": [], "vcpus": 2.0, "ram_gib": 16.0}',1000000,'2026-11-22T12:00:00.000Z','77','2026-11-22T12:00:00.000Z','2026-11-22T13:00:00.000Z','done',NULL,30,NULL,1000000);
CREATE TABLE events (
            event INTEGER PRIMARY KEY AUTOINCREMENT,
            run_id TEXT NOT NULL REFERENCES runs (run_id),
            at TEXT NOT NULL,
            kind TEXT NOT NULL,
            state TEXT NOT NULL,
            reason TEXT NOT NULL,
            attempt INTEGER NOT NULL
        ) STRICT
        ;
INSERT INTO "events" VALUES(1,'old-1','2026-11-22T12:00:00.000Z','launch','queued','launch is being asked for',1);
INSERT INTO "events" VALUES(2,'old-1','2026-11-22T12:00:00.000Z','observed','running','training',1);
INSERT INTO "events" VALUES(3,'old-1','2026-11-22T13:00:00.000Z','observed','succeeded','done',1);
CREATE TABLE observations (
            run_id TEXT PRIMARY KEY REFERENCES runs (run_id),
            observed_at TEXT NOT NULL,
            progress_json TEXT
        ) STRICT, WITHOUT ROWID
        ;
INSERT INTO "observations" VALUES('old-1','2026-11-22T13:00:00.000Z',NULL);
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
        ;
INSERT INTO "runs" VALUES('old-1','run','default',NULL,'{"team": "a"}','local','sha256:0000000000000000000000000000000000000000000000000000000000000000','c-1','{"id": "c-1", "rank": 1, "pareto": true, "offer": {"cloud": "local", "region": "local", "zone": null, "instance_type": null, "gpu": "CPU", "gpus_per_node": 1, "gpu_mem_gib": 16.0, "market": "local", "price_usd_per_h": "1", "price_usd_per_gpu_h": "1", "source": "test", "as_of_at": null, "flags": [], "vcpus": 2.0, "ram_gib": 16.0}, "nodes": 1, "gpus_total": 1, "parallelism": {"kind": "single", "data": 1, "tensor": 1, "pipeline": 1}, "micro_batch": 4, "grad_accum": 2, "gradient_checkpointing": false, "verdict": "fits", "memory_gib_per_gpu": {"allocated": 1.0, "reserved": 1.5, "nvml": 2.0, "upper": 3.0, "limit": 16.0, "components": {"weights": 1.0}}, "host_ram_gib": 4.0, "disk_gib": 1.0, "step_time_s": {"p10": 0.5, "p50": 1.0, "p90": 2.0}, "tokens_per_s_total": {"p10": 50.0, "p50": 100.0, "p90": 200.0}, "wall_clock_h": {"p10": 0.5, "p50": 1.0, "p90": 2.0}, "gpu_hours": {"p10": 0.5, "p50": 1.0, "p90": 2.0}, "cost_usd": {"p10": "0.5", "p50": "1", "p90": "2"}, "cost_tree_usd": {"compute": "1", "rework": "0", "reprovision": "0", "storage": "0", "requests": "0", "egress": "0", "controller": "0", "idle": "0"}, "finish_at": null, "p_finish_by_deadline": null, "basis": null}','{
 "run_id": "old-1",
 "name": "run",
 "model": {
  "id": "base",
  "path": null,
  "revision": null,
  "trust_remote_code": false
 },
 "data": {
  "train": "train.jsonl",
  "eval": null,
  "format": "auto",
  "labels": 2
 },
 "checkpoints": {
  "uri": "file:///tmp/none",
  "every_steps": null,
  "every_s": 60.0,
  "keep": 2
 },
 "method": {
  "kind": "lora",
  "rank": 16,
  "alpha": null,
  "dropout": 0.0,
  "targets": [
   "all-linear"
  ]
 },
 "quantization": "none",
 "task": "sft",
 "train": {
  "epochs": 1.0,
  "steps": null,
  "sequence_length": 2048,
  "packing": false,
  "micro_batch": 1,
  "grad_accum": 1,
  "learning_rate": 0.0002,
  "scheduler": "cosine",
  "warmup": 0.03,
  "weight_decay": 0.0,
  "max_grad_norm": 1.0,
  "optimizer": "adamw_fused",
  "precision": "bf16",
  "gradient_checkpointing": true,
  "attention": "auto",
  "seed": 0
 },
 "evaluate": {
  "metric": "auto",
  "samples": null,
  "every_steps": null,
  "every_s": null
 },
 "output": {
  "uri": null
 },
 "limits": {
  "max_duration_s": null,
  "cap_usd": null,
  "usd_per_hour": null,
  "spent_usd": 0.0
 },
 "schema": "tuneplan/job",
 "schema_version": 1
}
','file:///tmp/none',NULL,NULL,'{"A": "1"}','["TOKEN"]','2026-11-22T12:00:00.000Z','succeeded','done','2026-11-22T13:00:00.000Z',NULL,3);
CREATE INDEX events_of_run ON events (run_id, event);
CREATE INDEX runs_by_state ON runs (state);
CREATE INDEX runs_by_plan ON runs (plan_hash);
CREATE TRIGGER events_stay BEFORE UPDATE ON events
        BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER events_are_kept BEFORE DELETE ON events
        BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER prices_stay BEFORE UPDATE OF micro_usd_per_hour ON attempts
        WHEN OLD.started_at IS NOT NULL AND NEW.micro_usd_per_hour IS NOT OLD.micro_usd_per_hour
        BEGIN SELECT RAISE(ABORT, 'the price of an attempt is fixed once it has started'); END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('events',3);
COMMIT;
PRAGMA user_version = 1;
