BEGIN TRANSACTION;
CREATE TABLE batches (
	id TEXT NOT NULL, 
	key_id TEXT NOT NULL, 
	created_at DOUBLE NOT NULL, 
	total INTEGER NOT NULL, 
	quote_usd DOUBLE NOT NULL, 
	status TEXT NOT NULL, 
	webhook_url TEXT, 
	manifest_uri TEXT, 
	run_uri TEXT, 
	counts TEXT NOT NULL, 
	billed_usd DOUBLE NOT NULL, 
	finished_at DOUBLE, 
	failure TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "batches" VALUES('b1','key-a',1700000000.0,1,0.5,'SUCCEEDED',NULL,NULL,NULL,'{"SUCCEEDED": 1}',0.04,1700000002.0,'');
CREATE TABLE deliveries (
	id TEXT NOT NULL, 
	url TEXT NOT NULL, 
	key_id TEXT NOT NULL, 
	payload TEXT NOT NULL, 
	created_at DOUBLE NOT NULL, 
	due_at DOUBLE NOT NULL, 
	attempts INTEGER NOT NULL, 
	last_error TEXT NOT NULL, 
	delivered_at DOUBLE, 
	given_up INTEGER NOT NULL, 
	PRIMARY KEY (id), 
	CHECK (given_up IN (0, 1))
);
INSERT INTO "deliveries" VALUES('msg_00000000-0000-4000-8000-000000000001','https://example.com/hook','key-a','{"type":"task.succeeded","timestamp":"2023-11-14T22:13:22.000Z","data":{"id":"00000000-0000-4000-8000-000000000001","status":"SUCCEEDED","kind":"text_to_video","model":"gen4_turbo","variant":"embedded","batchId":"b1"}}',1700000002.0,1700000002.0,0,'',NULL,0);
CREATE TABLE idempotency (
	key_id TEXT NOT NULL, 
	name TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	task_ids TEXT NOT NULL, 
	created_at DOUBLE NOT NULL, 
	PRIMARY KEY (key_id, name)
);
INSERT INTO "idempotency" VALUES('key-a','k1','digest','["00000000-0000-4000-8000-000000000001"]',1700000000.0);
CREATE TABLE keys (
	id TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	name TEXT NOT NULL, 
	created_at DOUBLE NOT NULL, 
	max_concurrent INTEGER, 
	max_daily INTEGER, 
	monthly_credits INTEGER, 
	revoked_at DOUBLE, 
	PRIMARY KEY (id), 
	UNIQUE (digest)
);
INSERT INTO "keys" VALUES('key-a','digest-a','Ann',1700000000.0,NULL,NULL,NULL,NULL);
CREATE TABLE notes (
	name TEXT NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "notes" VALUES('fleet','{"pools": []}');
CREATE TABLE router_decisions (
	id TEXT NOT NULL, 
	router_id TEXT NOT NULL, 
	created_at DOUBLE NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(router_id) REFERENCES routers (id) ON DELETE CASCADE
);
INSERT INTO "router_decisions" VALUES('d1','r1',1700000000.0,'{"chosen": "embedded"}');
CREATE TABLE routers (
	id TEXT NOT NULL, 
	key_id TEXT NOT NULL, 
	slug TEXT NOT NULL, 
	name TEXT NOT NULL, 
	description TEXT, 
	settings TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	created_at DOUBLE NOT NULL, 
	updated_at DOUBLE NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (key_id, slug)
);
INSERT INTO "routers" VALUES('r1','key-a','fast','Fast',NULL,'{"prefer": "latency"}',1,1700000000.0,1700000000.0);
CREATE TABLE rushes_schema (
	only INTEGER NOT NULL, 
	version INTEGER NOT NULL, 
	PRIMARY KEY (only)
);
INSERT INTO "rushes_schema" VALUES(1,1);
CREATE TABLE tasks (
	seq INTEGER NOT NULL, 
	id TEXT NOT NULL, 
	key_id TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	model TEXT NOT NULL, 
	status TEXT NOT NULL, 
	priority INTEGER NOT NULL, 
	seed BIGINT NOT NULL, 
	batch_id TEXT, 
	router_id TEXT, 
	webhook_url TEXT, 
	created_at DOUBLE NOT NULL, 
	day INTEGER NOT NULL, 
	started_at DOUBLE, 
	finished_at DOUBLE, 
	attempts INTEGER NOT NULL, 
	epoch INTEGER NOT NULL, 
	holder TEXT NOT NULL, 
	lease_until DOUBLE NOT NULL, 
	not_before DOUBLE NOT NULL, 
	progress DOUBLE NOT NULL, 
	stage TEXT NOT NULL, 
	cancelled_at DOUBLE, 
	deleted BOOLEAN NOT NULL, 
	variant TEXT NOT NULL, 
	fallback TEXT NOT NULL, 
	last_error TEXT NOT NULL, 
	dead BOOLEAN NOT NULL, 
	billed_usd DOUBLE NOT NULL, 
	body TEXT NOT NULL, 
	render_group TEXT NOT NULL, 
	story TEXT, 
	outcome TEXT, 
	PRIMARY KEY (seq), 
	UNIQUE (id), 
	FOREIGN KEY(batch_id) REFERENCES batches (id)
);
INSERT INTO "tasks" VALUES(1,'00000000-0000-4000-8000-000000000001','key-a','text_to_video','gen4_turbo','SUCCEEDED',0,4294967295,'b1',NULL,'https://example.com/hook',1700000000.0,19675,1700000001.0,1700000002.0,1,1,'replica-1',0.0,0.0,1.0,'',NULL,0,'embedded','','',0,0.04,'{"request":{"mode":null,"variant":"auto","width":null,"height":null,"ratio":null,"num_frames":null,"duration_s":null,"fps":null,"num_inference_steps":null,"guidance_scale":null,"scheduler":null,"strength":null,"id":null,"prompt":"a fox 🦊 in the snow","negative_prompt":"","seed":null,"image":null,"video":null,"priority":0,"metadata":{"shot":[1,null,"x"]}},"constraints":{"allow":null,"deny":[],"fall_back":true,"prefer":"latency","min_quality":0.0,"max_usd":Infinity,"deadline_at":Infinity,"skip_busy":false},"offer":{"variant":"embedded","pool":"embedded/cpu","usd":0.05,"gpu_s":2.0,"wait_s":1.0,"eta_at":1700000003.0,"eta_p90_at":1700000005.0,"position":0,"regime":0,"raw_s":0.0,"reason":"","sentence":"","story":[{"variant":"embedded","chosen":true}]}}','{"variant":"embedded","variant_digest":"d1","mode":"text_to_video","width":256,"height":144,"frames":17,"fps":8.0,"steps":4,"guidance":1.0,"scheduler":null,"strength":null,"clip_format":"mp4"}',NULL,'{"status":"SUCCEEDED","variant":"embedded","clip":{"uri":"s3://clips/a.mp4","poster_uri":null,"sha256":"0000000000000000000000000000000000000000000000000000000000000000","clip_bytes":10,"width":256,"height":144,"frames":17,"fps":8.0},"timings":{"queue_s":0.0,"load_s":0.0,"render_s":1.5,"encode_s":0.0,"store_s":0.0},"billed_usd":0.04,"billed_gpu_s":1.5,"failure":"","failure_code":"","dead":false}');
INSERT INTO "tasks" VALUES(2,'00000000-0000-4000-8000-000000000002','key-a','text_to_video','gen4_turbo','FAILED',0,4294967295,NULL,NULL,NULL,1700000000.0,19675,1700000001.0,1700000002.0,1,1,'replica-1',0.0,0.0,0.0,'',NULL,0,'embedded','','',1,0.0,'{"request":{"mode":null,"variant":"auto","width":null,"height":null,"ratio":null,"num_frames":null,"duration_s":null,"fps":null,"num_inference_steps":null,"guidance_scale":null,"scheduler":null,"strength":null,"id":null,"prompt":"a fox 🦊 in the snow","negative_prompt":"","seed":null,"image":null,"video":null,"priority":0,"metadata":{"shot":[1,null,"x"]}},"constraints":{"allow":null,"deny":[],"fall_back":true,"prefer":"latency","min_quality":0.0,"max_usd":Infinity,"deadline_at":Infinity,"skip_busy":false},"offer":{"variant":"embedded","pool":"embedded/cpu","usd":0.05,"gpu_s":2.0,"wait_s":1.0,"eta_at":1700000003.0,"eta_p90_at":1700000005.0,"position":0,"regime":0,"raw_s":0.0,"reason":"","sentence":"","story":[{"variant":"embedded","chosen":true}]}}','{"variant":"embedded","variant_digest":"d1","mode":"text_to_video","width":256,"height":144,"frames":17,"fps":8.0,"steps":4,"guidance":1.0,"scheduler":null,"strength":null,"clip_format":"mp4"}',NULL,'{"status":"FAILED","variant":"embedded","clip":null,"timings":{"queue_s":0.0,"load_s":0.0,"render_s":0.0,"encode_s":0.0,"store_s":0.0},"billed_usd":0.0,"billed_gpu_s":0.0,"failure":"The model failed.","failure_code":"INTERNAL","dead":true}');
INSERT INTO "tasks" VALUES(3,'00000000-0000-4000-8000-000000000003','key-a','text_to_video','gen4_turbo','SUCCEEDED',0,4294967295,NULL,NULL,NULL,1700000000.0,19675,1700000001.0,1700000002.0,1,1,'replica-1',0.0,0.0,1.0,'',NULL,1,'embedded','','',0,0.04,'{"request":{"mode":null,"variant":"auto","width":null,"height":null,"ratio":null,"num_frames":null,"duration_s":null,"fps":null,"num_inference_steps":null,"guidance_scale":null,"scheduler":null,"strength":null,"id":null,"prompt":"a fox 🦊 in the snow","negative_prompt":"","seed":null,"image":null,"video":null,"priority":0,"metadata":{"shot":[1,null,"x"]}},"constraints":{"allow":null,"deny":[],"fall_back":true,"prefer":"latency","min_quality":0.0,"max_usd":Infinity,"deadline_at":Infinity,"skip_busy":false},"offer":{"variant":"embedded","pool":"embedded/cpu","usd":0.05,"gpu_s":2.0,"wait_s":1.0,"eta_at":1700000003.0,"eta_p90_at":1700000005.0,"position":0,"regime":0,"raw_s":0.0,"reason":"","sentence":"","story":[{"variant":"embedded","chosen":true}]}}','{"variant":"embedded","variant_digest":"d1","mode":"text_to_video","width":256,"height":144,"frames":17,"fps":8.0,"steps":4,"guidance":1.0,"scheduler":null,"strength":null,"clip_format":"mp4"}',NULL,'{"status":"SUCCEEDED","variant":"embedded","clip":{"uri":"s3://clips/a.mp4","poster_uri":null,"sha256":"0000000000000000000000000000000000000000000000000000000000000000","clip_bytes":10,"width":256,"height":144,"frames":17,"fps":8.0},"timings":{"queue_s":0.0,"load_s":0.0,"render_s":1.5,"encode_s":0.0,"store_s":0.0},"billed_usd":0.04,"billed_gpu_s":1.5,"failure":"","failure_code":"","dead":false}');
INSERT INTO "tasks" VALUES(4,'00000000-0000-4000-8000-000000000004','key-a','text_to_video','gen4_turbo','RUNNING',0,4294967295,NULL,NULL,NULL,1700000000.0,19675,1700000001.0,NULL,1,1,'replica-1',1700000008.0,0.0,0.0,'',NULL,0,'embedded','','',0,0.0,'{"request":{"mode":null,"variant":"auto","width":null,"height":null,"ratio":null,"num_frames":null,"duration_s":null,"fps":null,"num_inference_steps":null,"guidance_scale":null,"scheduler":null,"strength":null,"id":null,"prompt":"a fox 🦊 in the snow","negative_prompt":"","seed":null,"image":null,"video":null,"priority":0,"metadata":{"shot":[1,null,"x"]}},"constraints":{"allow":null,"deny":[],"fall_back":true,"prefer":"latency","min_quality":0.0,"max_usd":Infinity,"deadline_at":Infinity,"skip_busy":false},"offer":{"variant":"embedded","pool":"embedded/cpu","usd":0.05,"gpu_s":2.0,"wait_s":1.0,"eta_at":1700000003.0,"eta_p90_at":1700000005.0,"position":0,"regime":0,"raw_s":0.0,"reason":"","sentence":"","story":[{"variant":"embedded","chosen":true}]}}','{"variant":"embedded","variant_digest":"d1","mode":"text_to_video","width":256,"height":144,"frames":17,"fps":8.0,"steps":4,"guidance":1.0,"scheduler":null,"strength":null,"clip_format":"mp4"}',NULL,NULL);
INSERT INTO "tasks" VALUES(5,'00000000-0000-4000-8000-000000000005','key-a','text_to_video','gen4_turbo','PENDING',0,4294967295,NULL,NULL,NULL,1700000000.0,19675,NULL,NULL,0,0,'',0.0,0.0,0.0,'',NULL,0,'','','',0,0.0,'{"request":{"mode":null,"variant":"auto","width":null,"height":null,"ratio":null,"num_frames":null,"duration_s":null,"fps":null,"num_inference_steps":null,"guidance_scale":null,"scheduler":null,"strength":null,"id":null,"prompt":"a fox 🦊 in the snow","negative_prompt":"","seed":null,"image":null,"video":null,"priority":0,"metadata":{"shot":[1,null,"x"]}},"constraints":{"allow":null,"deny":[],"fall_back":true,"prefer":"latency","min_quality":0.0,"max_usd":Infinity,"deadline_at":Infinity,"skip_busy":false},"offer":{"variant":"embedded","pool":"embedded/cpu","usd":0.05,"gpu_s":2.0,"wait_s":1.0,"eta_at":1700000003.0,"eta_p90_at":1700000005.0,"position":0,"regime":0,"raw_s":0.0,"reason":"","sentence":"","story":[{"variant":"embedded","chosen":true}]}}','{"variant":"embedded","variant_digest":"d1","mode":"text_to_video","width":256,"height":144,"frames":17,"fps":8.0,"steps":4,"guidance":1.0,"scheduler":null,"strength":null,"clip_format":"mp4"}',NULL,NULL);
CREATE TABLE uploads (
	id TEXT NOT NULL, 
	key_id TEXT NOT NULL, 
	filename TEXT NOT NULL, 
	object_key TEXT NOT NULL, 
	created_at DOUBLE NOT NULL, 
	expires_at DOUBLE NOT NULL, 
	content_type TEXT NOT NULL, 
	upload_bytes BIGINT, 
	PRIMARY KEY (id)
);
INSERT INTO "uploads" VALUES('u1','key-a','cat.png','uploads/u1',1700000000.0,1700000060.0,'',NULL);
CREATE INDEX routers_latest ON routers (key_id, created_at, id);
CREATE INDEX batches_open_runs ON batches (created_at) WHERE run_uri IS NOT NULL AND finished_at IS NULL;
CREATE INDEX ix_uploads_expires_at ON uploads (expires_at);
CREATE INDEX deliveries_due ON deliveries (due_at) WHERE delivered_at IS NULL AND given_up = 0;
CREATE INDEX tasks_dead ON tasks (key_id) WHERE dead IS 1;
CREATE INDEX tasks_throttled ON tasks (key_id, seq) WHERE status = 'THROTTLED';
CREATE INDEX tasks_by_day ON tasks (key_id, created_at);
CREATE INDEX tasks_again ON tasks (not_before) WHERE status = 'PENDING' AND attempts > 0;
CREATE INDEX tasks_by_status ON tasks (status, seq);
CREATE INDEX tasks_by_batch ON tasks (batch_id, status) WHERE batch_id IS NOT NULL;
CREATE INDEX tasks_by_key ON tasks (key_id, status, seq);
CREATE INDEX tasks_ahead ON tasks (priority, seq, status) WHERE status = 'PENDING';
CREATE INDEX tasks_latest ON tasks (key_id, seq);
CREATE INDEX decisions_latest ON router_decisions (router_id, created_at, id);
COMMIT;
