CREATE TABLE batches (
    id text NOT NULL,
    key_id text NOT NULL,
    created_at double precision NOT NULL,
    total integer NOT NULL,
    quote_usd double precision NOT NULL,
    status text NOT NULL,
    webhook_url text,
    manifest_uri text,
    run_uri text,
    counts text NOT NULL,
    billed_usd double precision NOT NULL,
    finished_at double precision,
    failure text NOT NULL
);
CREATE TABLE deliveries (
    id text NOT NULL,
    url text NOT NULL,
    key_id text NOT NULL,
    payload text NOT NULL,
    created_at double precision NOT NULL,
    due_at double precision NOT NULL,
    attempts integer NOT NULL,
    last_error text NOT NULL,
    delivered_at double precision,
    given_up integer NOT NULL,
    CONSTRAINT deliveries_given_up_check CHECK ((given_up = ANY (ARRAY[0, 1])))
);
CREATE TABLE idempotency (
    key_id text NOT NULL,
    name text NOT NULL,
    digest text NOT NULL,
    task_ids text NOT NULL,
    created_at double precision NOT NULL
);
CREATE TABLE keys (
    id text NOT NULL,
    digest text NOT NULL,
    name text NOT NULL,
    created_at double precision NOT NULL,
    max_concurrent integer,
    max_daily integer,
    monthly_credits integer,
    revoked_at double precision
);
CREATE TABLE notes (
    name text NOT NULL,
    value text NOT NULL
);
CREATE TABLE router_decisions (
    id text NOT NULL,
    router_id text NOT NULL,
    created_at double precision NOT NULL,
    body text NOT NULL
);
CREATE TABLE routers (
    id text NOT NULL,
    key_id text NOT NULL,
    slug text NOT NULL,
    name text NOT NULL,
    description text,
    settings text NOT NULL,
    version integer NOT NULL,
    created_at double precision NOT NULL,
    updated_at double precision NOT NULL
);
CREATE TABLE rushes_schema (
    "only" integer NOT NULL,
    version integer NOT NULL
);
CREATE SEQUENCE task_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
CREATE TABLE tasks (
    seq bigint NOT NULL,
    id text NOT NULL,
    key_id text NOT NULL,
    kind text NOT NULL,
    model text NOT NULL,
    status text NOT NULL,
    priority integer NOT NULL,
    seed bigint NOT NULL,
    batch_id text,
    router_id text,
    webhook_url text,
    created_at double precision NOT NULL,
    day integer NOT NULL,
    started_at double precision,
    finished_at double precision,
    attempts integer NOT NULL,
    epoch integer NOT NULL,
    holder text NOT NULL,
    lease_until double precision NOT NULL,
    not_before double precision NOT NULL,
    progress double precision NOT NULL,
    stage text NOT NULL,
    cancelled_at double precision,
    deleted boolean NOT NULL,
    variant text NOT NULL,
    fallback text NOT NULL,
    last_error text NOT NULL,
    dead boolean NOT NULL,
    billed_usd double precision NOT NULL,
    body text NOT NULL,
    render_group text NOT NULL,
    story text,
    outcome text
);
CREATE TABLE uploads (
    id text NOT NULL,
    key_id text NOT NULL,
    filename text NOT NULL,
    object_key text NOT NULL,
    created_at double precision NOT NULL,
    expires_at double precision NOT NULL,
    content_type text NOT NULL,
    upload_bytes bigint
);
INSERT INTO batches VALUES ('b1', 'key-a', 1700000000, 1, 0.5, 'SUCCEEDED', NULL, NULL, NULL, '{"SUCCEEDED": 1}', 0.04, 1700000002, '');
INSERT INTO deliveries VALUES ('msg_00000000-0000-4000-8000-000000000001', 'https://example.com/hook', 'key-a', '{"type":"task.succeeded","timestamp":"2023-11-14T22:13:22.000Z","data":{"id":"00000000-0000-4000-8000-000000000001","status":"SUCCEEDED","kind":"text_to_video","model":"gen4_turbo","variant":"embedded","batchId":"b1"}}', 1700000002, 1700000002, 0, '', NULL, 0);
INSERT INTO idempotency VALUES ('key-a', 'k1', 'digest', '["00000000-0000-4000-8000-000000000001"]', 1700000000);
INSERT INTO keys VALUES ('key-a', 'digest-a', 'Ann', 1700000000, NULL, NULL, NULL, NULL);
INSERT INTO notes VALUES ('fleet', '{"pools": []}');
INSERT INTO router_decisions VALUES ('d1', 'r1', 1700000000, '{"chosen": "embedded"}');
INSERT INTO routers VALUES ('r1', 'key-a', 'fast', 'Fast', NULL, '{"prefer": "latency"}', 1, 1700000000, 1700000000);
INSERT INTO rushes_schema VALUES (1, 1);
INSERT INTO tasks VALUES (1, '00000000-0000-4000-8000-000000000001', 'key-a', 'text_to_video', 'gen4_turbo', 'SUCCEEDED', 0, 4294967295, 'b1', NULL, 'https://example.com/hook', 1700000000, 19675, 1700000001, 1700000002, 1, 1, 'replica-1', 0, 0, 1, '', NULL, false, 'embedded', '', '', false, 0.04, '{"request":{"mode":null,"variant":"auto","width":null,"height":null,"ratio":null,"num_frames":null,"duration_s":null,"fps":null,"num_inference_steps":null,"guidance_scale":null,"scheduler":null,"strength":null,"id":null,"prompt":"a fox 🦊 in the snow","negative_prompt":"","seed":null,"image":null,"video":null,"priority":0,"metadata":{"shot":[1,null,"x"]}},"constraints":{"allow":null,"deny":[],"fall_back":true,"prefer":"latency","min_quality":0.0,"max_usd":Infinity,"deadline_at":Infinity,"skip_busy":false},"offer":{"variant":"embedded","pool":"embedded/cpu","usd":0.05,"gpu_s":2.0,"wait_s":1.0,"eta_at":1700000003.0,"eta_p90_at":1700000005.0,"position":0,"regime":0,"raw_s":0.0,"reason":"","sentence":"","story":[{"variant":"embedded","chosen":true}]}}', '{"variant":"embedded","variant_digest":"d1","mode":"text_to_video","width":256,"height":144,"frames":17,"fps":8.0,"steps":4,"guidance":1.0,"scheduler":null,"strength":null,"clip_format":"mp4"}', NULL, '{"status":"SUCCEEDED","variant":"embedded","clip":{"uri":"s3://clips/a.mp4","poster_uri":null,"sha256":"0000000000000000000000000000000000000000000000000000000000000000","clip_bytes":10,"width":256,"height":144,"frames":17,"fps":8.0},"timings":{"queue_s":0.0,"load_s":0.0,"render_s":1.5,"encode_s":0.0,"store_s":0.0},"billed_usd":0.04,"billed_gpu_s":1.5,"failure":"","failure_code":"","dead":false}');
INSERT INTO tasks VALUES (2, '00000000-0000-4000-8000-000000000002', 'key-a', 'text_to_video', 'gen4_turbo', 'FAILED', 0, 4294967295, NULL, NULL, NULL, 1700000000, 19675, 1700000001, 1700000002, 1, 1, 'replica-1', 0, 0, 0, '', NULL, false, 'embedded', '', '', true, 0, '{"request":{"mode":null,"variant":"auto","width":null,"height":null,"ratio":null,"num_frames":null,"duration_s":null,"fps":null,"num_inference_steps":null,"guidance_scale":null,"scheduler":null,"strength":null,"id":null,"prompt":"a fox 🦊 in the snow","negative_prompt":"","seed":null,"image":null,"video":null,"priority":0,"metadata":{"shot":[1,null,"x"]}},"constraints":{"allow":null,"deny":[],"fall_back":true,"prefer":"latency","min_quality":0.0,"max_usd":Infinity,"deadline_at":Infinity,"skip_busy":false},"offer":{"variant":"embedded","pool":"embedded/cpu","usd":0.05,"gpu_s":2.0,"wait_s":1.0,"eta_at":1700000003.0,"eta_p90_at":1700000005.0,"position":0,"regime":0,"raw_s":0.0,"reason":"","sentence":"","story":[{"variant":"embedded","chosen":true}]}}', '{"variant":"embedded","variant_digest":"d1","mode":"text_to_video","width":256,"height":144,"frames":17,"fps":8.0,"steps":4,"guidance":1.0,"scheduler":null,"strength":null,"clip_format":"mp4"}', NULL, '{"status":"FAILED","variant":"embedded","clip":null,"timings":{"queue_s":0.0,"load_s":0.0,"render_s":0.0,"encode_s":0.0,"store_s":0.0},"billed_usd":0.0,"billed_gpu_s":0.0,"failure":"The model failed.","failure_code":"INTERNAL","dead":true}');
INSERT INTO tasks VALUES (3, '00000000-0000-4000-8000-000000000003', 'key-a', 'text_to_video', 'gen4_turbo', 'SUCCEEDED', 0, 4294967295, NULL, NULL, NULL, 1700000000, 19675, 1700000001, 1700000002, 1, 1, 'replica-1', 0, 0, 1, '', NULL, true, 'embedded', '', '', false, 0.04, '{"request":{"mode":null,"variant":"auto","width":null,"height":null,"ratio":null,"num_frames":null,"duration_s":null,"fps":null,"num_inference_steps":null,"guidance_scale":null,"scheduler":null,"strength":null,"id":null,"prompt":"a fox 🦊 in the snow","negative_prompt":"","seed":null,"image":null,"video":null,"priority":0,"metadata":{"shot":[1,null,"x"]}},"constraints":{"allow":null,"deny":[],"fall_back":true,"prefer":"latency","min_quality":0.0,"max_usd":Infinity,"deadline_at":Infinity,"skip_busy":false},"offer":{"variant":"embedded","pool":"embedded/cpu","usd":0.05,"gpu_s":2.0,"wait_s":1.0,"eta_at":1700000003.0,"eta_p90_at":1700000005.0,"position":0,"regime":0,"raw_s":0.0,"reason":"","sentence":"","story":[{"variant":"embedded","chosen":true}]}}', '{"variant":"embedded","variant_digest":"d1","mode":"text_to_video","width":256,"height":144,"frames":17,"fps":8.0,"steps":4,"guidance":1.0,"scheduler":null,"strength":null,"clip_format":"mp4"}', NULL, '{"status":"SUCCEEDED","variant":"embedded","clip":{"uri":"s3://clips/a.mp4","poster_uri":null,"sha256":"0000000000000000000000000000000000000000000000000000000000000000","clip_bytes":10,"width":256,"height":144,"frames":17,"fps":8.0},"timings":{"queue_s":0.0,"load_s":0.0,"render_s":1.5,"encode_s":0.0,"store_s":0.0},"billed_usd":0.04,"billed_gpu_s":1.5,"failure":"","failure_code":"","dead":false}');
INSERT INTO tasks VALUES (5, '00000000-0000-4000-8000-000000000005', 'key-a', 'text_to_video', 'gen4_turbo', 'PENDING', 0, 4294967295, NULL, NULL, NULL, 1700000000, 19675, NULL, NULL, 0, 0, '', 0, 0, 0, '', NULL, false, '', '', '', false, 0, '{"request":{"mode":null,"variant":"auto","width":null,"height":null,"ratio":null,"num_frames":null,"duration_s":null,"fps":null,"num_inference_steps":null,"guidance_scale":null,"scheduler":null,"strength":null,"id":null,"prompt":"a fox 🦊 in the snow","negative_prompt":"","seed":null,"image":null,"video":null,"priority":0,"metadata":{"shot":[1,null,"x"]}},"constraints":{"allow":null,"deny":[],"fall_back":true,"prefer":"latency","min_quality":0.0,"max_usd":Infinity,"deadline_at":Infinity,"skip_busy":false},"offer":{"variant":"embedded","pool":"embedded/cpu","usd":0.05,"gpu_s":2.0,"wait_s":1.0,"eta_at":1700000003.0,"eta_p90_at":1700000005.0,"position":0,"regime":0,"raw_s":0.0,"reason":"","sentence":"","story":[{"variant":"embedded","chosen":true}]}}', '{"variant":"embedded","variant_digest":"d1","mode":"text_to_video","width":256,"height":144,"frames":17,"fps":8.0,"steps":4,"guidance":1.0,"scheduler":null,"strength":null,"clip_format":"mp4"}', NULL, NULL);
INSERT INTO tasks VALUES (4, '00000000-0000-4000-8000-000000000004', 'key-a', 'text_to_video', 'gen4_turbo', 'RUNNING', 0, 4294967295, NULL, NULL, NULL, 1700000000, 19675, 1700000001, NULL, 1, 1, 'replica-1', 1700000008, 0, 0, '', NULL, false, 'embedded', '', '', false, 0, '{"request":{"mode":null,"variant":"auto","width":null,"height":null,"ratio":null,"num_frames":null,"duration_s":null,"fps":null,"num_inference_steps":null,"guidance_scale":null,"scheduler":null,"strength":null,"id":null,"prompt":"a fox 🦊 in the snow","negative_prompt":"","seed":null,"image":null,"video":null,"priority":0,"metadata":{"shot":[1,null,"x"]}},"constraints":{"allow":null,"deny":[],"fall_back":true,"prefer":"latency","min_quality":0.0,"max_usd":Infinity,"deadline_at":Infinity,"skip_busy":false},"offer":{"variant":"embedded","pool":"embedded/cpu","usd":0.05,"gpu_s":2.0,"wait_s":1.0,"eta_at":1700000003.0,"eta_p90_at":1700000005.0,"position":0,"regime":0,"raw_s":0.0,"reason":"","sentence":"","story":[{"variant":"embedded","chosen":true}]}}', '{"variant":"embedded","variant_digest":"d1","mode":"text_to_video","width":256,"height":144,"frames":17,"fps":8.0,"steps":4,"guidance":1.0,"scheduler":null,"strength":null,"clip_format":"mp4"}', NULL, NULL);
INSERT INTO uploads VALUES ('u1', 'key-a', 'cat.png', 'uploads/u1', 1700000000, 1700000060, '', NULL);
SELECT pg_catalog.setval('task_seq', 5, true);
ALTER TABLE ONLY batches
    ADD CONSTRAINT batches_pkey PRIMARY KEY (id);
ALTER TABLE ONLY deliveries
    ADD CONSTRAINT deliveries_pkey PRIMARY KEY (id);
ALTER TABLE ONLY idempotency
    ADD CONSTRAINT idempotency_pkey PRIMARY KEY (key_id, name);
ALTER TABLE ONLY keys
    ADD CONSTRAINT keys_digest_key UNIQUE (digest);
ALTER TABLE ONLY keys
    ADD CONSTRAINT keys_pkey PRIMARY KEY (id);
ALTER TABLE ONLY notes
    ADD CONSTRAINT notes_pkey PRIMARY KEY (name);
ALTER TABLE ONLY router_decisions
    ADD CONSTRAINT router_decisions_pkey PRIMARY KEY (id);
ALTER TABLE ONLY routers
    ADD CONSTRAINT routers_key_id_slug_key UNIQUE (key_id, slug);
ALTER TABLE ONLY routers
    ADD CONSTRAINT routers_pkey PRIMARY KEY (id);
ALTER TABLE ONLY rushes_schema
    ADD CONSTRAINT rushes_schema_pkey PRIMARY KEY ("only");
ALTER TABLE ONLY tasks
    ADD CONSTRAINT tasks_id_key UNIQUE (id);
ALTER TABLE ONLY tasks
    ADD CONSTRAINT tasks_pkey PRIMARY KEY (seq);
ALTER TABLE ONLY uploads
    ADD CONSTRAINT uploads_pkey PRIMARY KEY (id);
CREATE INDEX batches_open_runs ON batches USING btree (created_at) WHERE ((run_uri IS NOT NULL) AND (finished_at IS NULL));
CREATE INDEX decisions_latest ON router_decisions USING btree (router_id, created_at, id);
CREATE INDEX deliveries_due ON deliveries USING btree (due_at) WHERE ((delivered_at IS NULL) AND (given_up = 0));
CREATE INDEX ix_uploads_expires_at ON uploads USING btree (expires_at);
CREATE INDEX routers_latest ON routers USING btree (key_id, created_at, id);
CREATE INDEX tasks_again ON tasks USING btree (not_before) WHERE ((status = 'PENDING'::text) AND (attempts > 0));
CREATE INDEX tasks_ahead ON tasks USING btree (priority, seq, status) WHERE (status = 'PENDING'::text);
CREATE INDEX tasks_by_batch ON tasks USING btree (batch_id, status) WHERE (batch_id IS NOT NULL);
CREATE INDEX tasks_by_day ON tasks USING btree (key_id, created_at);
CREATE INDEX tasks_by_key ON tasks USING btree (key_id, status, seq);
CREATE INDEX tasks_by_status ON tasks USING btree (status, seq);
CREATE INDEX tasks_dead ON tasks USING btree (key_id) WHERE (dead IS TRUE);
CREATE INDEX tasks_latest ON tasks USING btree (key_id, seq);
CREATE INDEX tasks_throttled ON tasks USING btree (key_id, seq) WHERE (status = 'THROTTLED'::text);
ALTER TABLE ONLY router_decisions
    ADD CONSTRAINT router_decisions_router_id_fkey FOREIGN KEY (router_id) REFERENCES routers(id) ON DELETE CASCADE;
ALTER TABLE ONLY tasks
    ADD CONSTRAINT tasks_batch_id_fkey FOREIGN KEY (batch_id) REFERENCES batches(id);
