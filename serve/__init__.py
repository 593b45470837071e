"""The endpoint on Ray Serve: HTTP, admission, durable tasks, dispatcher, webhooks, web page."""
