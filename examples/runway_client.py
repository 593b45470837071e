"""Runway's own client, unchanged, against `rushes serve`.

rushes serve                                  # prints the URL and, the first time, a key
RUNWAYML_API_SECRET=rsh_… python examples/runway_client.py
"""

import os
import urllib.request

from runwayml import RunwayML

client = RunwayML(base_url=os.environ.get("RUNWAYML_BASE_URL", "http://127.0.0.1:8000"))

created = client.text_to_video.create(
    model="embedded",  # a name or an alias of the catalog; "auto" lets the router choose
    prompt_text="a red circle moving left on a navy background",
    ratio="64:64",
    duration=2,
)
print("accepted", created.id)

# The client looks every six seconds or so; the task itself takes about one.
task = client.tasks.retrieve(created.id).wait_for_task_output()
print(task.status, task.output[0])
urllib.request.urlretrieve(task.output[0], "clip.mp4")
print("saved clip.mp4")

router = client.routers.create(
    slug=f"quick-{created.id[:8]}",
    name="quick",
    settings={"optimizeFor": "latency", "fallback": {"onCapacity": True}},
)
routed = client.generate.video.create(
    config_id=router.slug, input={"promptText": "a green square growing", "aspectRatio": "1:1", "duration": 2}
)
print("routed to", routed.routing.model)
for decision in client.routers.list_requests(router.id, limit=5):
    print("decision:", decision.status, decision.reason_code, [step.type for step in decision.pipeline])
