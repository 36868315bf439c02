BEGIN TRANSACTION;
CREATE TABLE cuts (
            number        INTEGER PRIMARY KEY AUTOINCREMENT,
            account       TEXT NOT NULL,
            owner         TEXT NOT NULL,
            host          TEXT NOT NULL,
            seconds       REAL NOT NULL,
            at            REAL NOT NULL
        );
INSERT INTO "cuts" VALUES(1,'account','local','some-agent',10.0,1750075980.0);
CREATE TABLE migrations (name TEXT PRIMARY KEY);
INSERT INTO "migrations" VALUES('0001_tasks');
INSERT INTO "migrations" VALUES('0002_waiting');
INSERT INTO "migrations" VALUES('0003_cuts');
INSERT INTO "migrations" VALUES('0004_states');
CREATE TABLE tasks (
            number        INTEGER PRIMARY KEY AUTOINCREMENT,
            account       TEXT NOT NULL,
            owner         TEXT NOT NULL,
            submission_id TEXT NOT NULL UNIQUE,
            task_id       TEXT,
            kind          TEXT,
            status        TEXT NOT NULL,
            request_key   TEXT,
            claim         TEXT,
            submitted_at  REAL,
            finished_at   REAL,
            holder        TEXT,
            lease_until   REAL,
            seq           INTEGER NOT NULL,
            writer        TEXT NOT NULL,
            body          TEXT NOT NULL
        );
INSERT INTO "tasks" VALUES(1,'account','local','sub_succeeded','1001','imagine','succeeded','key of sub_succeeded',NULL,1750075260.0,1750075300.0,NULL,1750075268.0,4,'writer','{"submission_id":"sub_succeeded","status":"succeeded","updated_at":1750075300.0,"owner":"local","task_id":"1001","kind":"imagine","prompt":"a mug, succeeded","parent_id":null,"index":null,"upstream_status":null,"progress":100,"upstream_eta":null,"images":[{"index":1,"url":"https://cdn.example.com/1.png?ex=1","media_type":"image/png","width":1024,"height":1024,"path":"/data/images/1001-1.png"},{"index":2,"url":"https://cdn.example.com/2.png?ex=1","media_type":"image/png","width":1024,"height":1024,"path":"/data/images/1001-2.png"},{"index":3,"url":"https://cdn.example.com/3.png?ex=1","media_type":"image/png","width":1024,"height":1024,"path":"/data/images/1001-3.png"},{"index":4,"url":"https://cdn.example.com/4.png?ex=1","media_type":"image/png","width":1024,"height":1024,"path":"/data/images/1001-4.png"}],"failure":null,"warnings":["queued behind 3 other jobs"],"submitted_at":1750075260.0,"finished_at":1750075300.0,"looks":4,"given_up_at":null,"blind":2.5}');
INSERT INTO "tasks" VALUES(2,'account','local','sub_upscaled','1002','upscale','succeeded','key of sub_upscaled',NULL,1750075320.0,1750075340.0,NULL,1750075328.0,7,'writer','{"submission_id":"sub_upscaled","status":"succeeded","updated_at":1750075340.0,"owner":"local","task_id":"1002","kind":"upscale","prompt":"a mug, upscaled","parent_id":"1001","index":2,"upstream_status":null,"progress":100,"upstream_eta":null,"images":[{"index":1,"url":"https://cdn.example.com/1.png?ex=1","media_type":null,"width":null,"height":null,"path":null}],"failure":null,"warnings":[],"submitted_at":1750075320.0,"finished_at":1750075340.0,"looks":null,"given_up_at":null,"blind":null}');
INSERT INTO "tasks" VALUES(3,'account','local','sub_submitting',NULL,'imagine','submitting','key of sub_submitting','key of sub_submitting',1750075380.0,NULL,'holder',1750075388.0,8,'writer','{"submission_id":"sub_submitting","status":"submitting","updated_at":1750075380.0,"owner":"local","task_id":null,"kind":"imagine","prompt":"a mug, submitting","parent_id":null,"index":null,"upstream_status":null,"progress":null,"upstream_eta":null,"images":[],"failure":null,"warnings":[],"submitted_at":1750075380.0,"finished_at":null,"looks":null,"given_up_at":null,"blind":null}');
INSERT INTO "tasks" VALUES(4,'account','local','sub_unconfirmed',NULL,'variation','unconfirmed','key of sub_unconfirmed','key of sub_unconfirmed',1750075440.0,NULL,NULL,1750075448.0,10,'writer','{"submission_id":"sub_unconfirmed","status":"unconfirmed","updated_at":1750075445.0,"owner":"local","task_id":null,"kind":"variation","prompt":"a mug, unconfirmed","parent_id":"1001","index":1,"upstream_status":null,"progress":null,"upstream_eta":null,"images":[],"failure":{"code":"unconfirmed","message":"the connection was lost before the answer","retry_after_seconds":null},"warnings":[],"submitted_at":1750075440.0,"finished_at":null,"looks":null,"given_up_at":null,"blind":null}');
INSERT INTO "tasks" VALUES(5,'account','local','sub_queued','1003','reroll','queued','key of sub_queued','key of sub_queued',1750075500.0,NULL,'holder',1750075508.0,12,'writer','{"submission_id":"sub_queued","status":"queued","updated_at":1750075500.0,"owner":"local","task_id":"1003","kind":"reroll","prompt":"a mug, queued","parent_id":"1001","index":null,"upstream_status":null,"progress":null,"upstream_eta":null,"images":[],"failure":null,"warnings":["queued behind 3 other jobs"],"submitted_at":1750075500.0,"finished_at":null,"looks":null,"given_up_at":null,"blind":null}');
INSERT INTO "tasks" VALUES(6,'account','ann','sub_processing','1004','imagine','processing','key of sub_processing','key of sub_processing',1750075560.0,NULL,'holder',1750075568.0,15,'writer','{"submission_id":"sub_processing","status":"processing","updated_at":1750075570.0,"owner":"ann","task_id":"1004","kind":"imagine","prompt":"a mug, processing","parent_id":null,"index":null,"upstream_status":"IN_PROGRESS","progress":30,"upstream_eta":20.0,"images":[],"failure":null,"warnings":["Invisible characters were removed from the prompt.","the proxy does not know this task; it may have forgotten it 提"],"submitted_at":1750075560.0,"finished_at":null,"looks":null,"given_up_at":null,"blind":null}');
INSERT INTO "tasks" VALUES(7,'account','local','sub_stalled','1005','imagine','stalled','key of sub_stalled','key of sub_stalled',1750075620.0,NULL,'holder',1750075628.0,18,'writer','{"submission_id":"sub_stalled","status":"stalled","updated_at":1750077480.0,"owner":"local","task_id":"1005","kind":"imagine","prompt":"a mug, stalled","parent_id":null,"index":null,"upstream_status":null,"progress":null,"upstream_eta":null,"images":[],"failure":null,"warnings":["nothing has moved for 31 minutes"],"submitted_at":1750075620.0,"finished_at":null,"looks":null,"given_up_at":null,"blind":null}');
INSERT INTO "tasks" VALUES(8,'account','local','sub_given_up','1006','imagine','stalled','key of sub_given_up','key of sub_given_up',1750075680.0,NULL,NULL,1.0e+15,22,'writer','{"submission_id":"sub_given_up","status":"stalled","updated_at":1750077540.0,"owner":"local","task_id":"1006","kind":"imagine","prompt":"a mug, given_up","parent_id":null,"index":null,"upstream_status":null,"progress":null,"upstream_eta":null,"images":[],"failure":null,"warnings":["nothing has moved for 31 minutes","it is not looked at by itself any more; get_task looks again"],"submitted_at":1750075680.0,"finished_at":null,"looks":null,"given_up_at":1750162080.0,"blind":null}');
INSERT INTO "tasks" VALUES(9,'account','local','sub_failed','1007','imagine','failed','key of sub_failed',NULL,1750075740.0,1750075770.0,NULL,1750075748.0,25,'writer','{"submission_id":"sub_failed","status":"failed","updated_at":1750075770.0,"owner":"local","task_id":"1007","kind":"imagine","prompt":"a mug, failed","parent_id":null,"index":null,"upstream_status":null,"progress":null,"upstream_eta":null,"images":[],"failure":{"code":"generation_failed","message":"no 提 words","retry_after_seconds":null},"warnings":[],"submitted_at":1750075740.0,"finished_at":1750075770.0,"looks":null,"given_up_at":null,"blind":null}');
INSERT INTO "tasks" VALUES(10,'account','local','sub_abandoned',NULL,'imagine','abandoned','key of sub_abandoned',NULL,1750075800.0,NULL,NULL,1750075808.0,28,'writer','{"submission_id":"sub_abandoned","status":"abandoned","updated_at":1750076400.0,"owner":"local","task_id":null,"kind":"imagine","prompt":"a mug, abandoned","parent_id":null,"index":null,"upstream_status":null,"progress":null,"upstream_eta":null,"images":[],"failure":{"code":"unconfirmed","message":"the server stopped before the proxy''s answer was recorded","retry_after_seconds":null},"warnings":[],"submitted_at":1750075800.0,"finished_at":null,"looks":null,"given_up_at":null,"blind":null}');
INSERT INTO "tasks" VALUES(11,'account','local','sub_refused',NULL,'imagine','refused','key of sub_refused',NULL,1750075860.0,NULL,NULL,1750075868.0,30,'writer','{"submission_id":"sub_refused","status":"refused","updated_at":1750075861.0,"owner":"local","task_id":null,"kind":"imagine","prompt":"a mug, refused","parent_id":null,"index":null,"upstream_status":null,"progress":null,"upstream_eta":null,"images":[],"failure":{"code":"prompt_refused","message":"banned word","retry_after_seconds":null},"warnings":[],"submitted_at":1750075860.0,"finished_at":null,"looks":null,"given_up_at":null,"blind":null}');
INSERT INTO "tasks" VALUES(12,'account','local','sub_adopted','1008',NULL,'queued',NULL,NULL,NULL,NULL,NULL,NULL,31,'writer','{"submission_id":"sub_adopted","status":"queued","updated_at":1750075920.0,"owner":"local","task_id":"1008","kind":null,"prompt":null,"parent_id":null,"index":null,"upstream_status":null,"progress":null,"upstream_eta":null,"images":[],"failure":null,"warnings":[],"submitted_at":null,"finished_at":null,"looks":null,"given_up_at":null,"blind":null}');
CREATE TABLE waiting (
            number        INTEGER PRIMARY KEY AUTOINCREMENT,
            account       TEXT NOT NULL,
            owner         TEXT NOT NULL,
            submission_id TEXT NOT NULL UNIQUE,
            seen_at       REAL NOT NULL
        );
INSERT INTO "waiting" VALUES(1,'account','local','sub_waiting',1750075980.0);
CREATE INDEX tasks_task_id ON tasks (account, task_id) WHERE task_id IS NOT NULL;
CREATE UNIQUE INDEX tasks_claim ON tasks (account, claim) WHERE claim IS NOT NULL AND status IN ('processing', 'queued', 'stalled', 'submitting', 'unconfirmed');
CREATE INDEX tasks_open ON tasks (account, request_key) WHERE status IN ('processing', 'queued', 'stalled', 'submitting', 'unconfirmed');
CREATE INDEX tasks_owner ON tasks (account, owner, number);
CREATE INDEX tasks_status ON tasks (account, owner, status, number);
CREATE INDEX tasks_finished ON tasks (account, kind, finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX tasks_submitted ON tasks (account, submitted_at);
CREATE INDEX tasks_seq ON tasks (seq);
CREATE INDEX waiting_account ON waiting (account, number);
CREATE INDEX cuts_host ON cuts (account, owner, host, number);
CREATE INDEX tasks_state ON tasks (account, status);
COMMIT;
